"""Figures that may be printed: every result beside its baselines, with intervals over people.

Rows of one person are not independent, so intervals and paired differences resample groups, not rows. Every
line of a table is judged on the same rows: where one has nothing to say (a member whose input is missing) the
prior answers for it, and `n` says how many rows it answers of itself. The baselines are the majority (class
priors of the other folds), what the manifest gives away without a look at the clip, each single member, the
plain mean of probabilities and the pool that looked at no row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cluster import console
from cluster.console import Table
from fusion.late import rule_class
from fusion.late.members import answered, prior, probabilities
from fusion.metrics import FIGURES, metric
from fusion.statistics import Difference, Groups, Interval, bootstrap, paired
from fusion.tasks import Kind, Task
from jobs.catalog.predictions import HeldOut
from jobs.evaluation import cross_fitting

Role = Literal["majority", "metadata", "member", "mean", "pool", "ensemble"]

SILENT = "every line is judged on all of them: beyond its own n the prior answers for it"
"""What the caption of a table says where a line does not answer every row."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the results table."""

    name: str
    role: Role
    n: int
    """Rows that it answers of itself; the prior answers the others."""

    figures: Mapping[str, Interval]


@dataclass(frozen=True, kw_only=True)
class Results:
    """The results table of one fusion, and what it gained."""

    kind: Kind
    num_rows: int
    """Rows that every line is judged on."""

    num_groups: int
    rows: tuple[Row, ...]
    best_single: str
    """The best member by the first metric, in hindsight."""

    gain_over_single: Difference | None
    """Of the ensemble over that member in the first metric; positive is better. None: no ensemble."""

    gain_over_plain: Difference | None
    """The same over the pool that looked at no row."""

    @property
    def gain_over_pool(self) -> bool:
        """Whether fitting the rule beat not fitting it by more than the interval."""
        return self.gain_over_plain is not None and self.gain_over_plain.shown

    @property
    def verdict(self) -> str:
        """What may be claimed, in one sentence."""
        gain = self.gain_over_single
        if gain is None:
            return f"best single: {self.best_single}"
        said = f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] over {self.best_single}"
        return f"gain shown: {said}" if gain.shown else f"no gain shown: {said}"

    def facts(self) -> dict[str, Any]:
        """As JSON; an undefined figure is null."""
        return dict(_without_nan({**asdict(self), "verdict": self.verdict}))


def judge(
    held: HeldOut,
    verdict: cross_fitting.Verdict,
    folds: np.ndarray,
    groups: np.ndarray,
    resamples: int,
    seed: int,
    *,
    metadata: Tensor | None = None,
) -> Results:
    """Compare a cross-fitted verdict with its baselines.

    Args:
        held: members on the rows.
        verdict: fused scores of the same rows.
        folds: fold of each row.
        groups: code of each row's group.
        resamples: bootstrap resamples.
        seed: of the bootstrap.
        metadata: out-of-fold scores of the model that sees no content, where there is one.
    """
    mean = cross_fitting.cross_fitted(
        held, [cross_fitting.Candidate(rule="mean", calibration="none")], folds
    )
    plain = cross_fitting.cross_fitted(held, [cross_fitting.PLAIN], folds)
    guess = priors(held, folds)
    lines = [
        *baselines(guess, metadata),
        *member_lines(held),
        Line("plain mean", "mean", mean.scores),
        Line("unfitted log pool", "pool", plain.scores),
        Line("ensemble", "ensemble", verdict.scores),
    ]
    return tabulate(lines, held, guess, groups, resamples, seed)


def judge_test(
    held: HeldOut,
    guess: Tensor,
    verdict: Tensor | None,
    groups: np.ndarray,
    resamples: int,
    seed: int,
    *,
    metadata: Tensor | None = None,
) -> Results:
    """Compare members, and their fusion if there is one, on test rows.

    Args:
        held: members on the test rows.
        guess: scores [outputs] of the majority, from the other splits.
        verdict: fused scores.
        groups: code of each row's group.
        resamples: bootstrap resamples.
        seed: of the bootstrap.
        metadata: scores of the model that sees no content, where there is one.
    """
    guess = guess.expand(len(held.clip_id), -1)
    lines = [*baselines(guess, metadata), *member_lines(held)]
    if verdict is not None:
        # Neither rule looks at a target: "fitting" them here uses no test label.
        mean, pool = rule_class("mean"), rule_class("log_pool")
        plain = mean.fit(mean.Config(), held.members, held.target)
        unfitted = pool.fit(pool.Config(fitted=False), held.members, held.target)
        lines.append(Line("plain mean", "mean", plain.combine(held.members)))
        lines.append(Line("unfitted log pool", "pool", unfitted.combine(held.members)))
        lines.append(Line("ensemble", "ensemble", verdict))
    return tabulate(lines, held, guess, groups, resamples, seed)


class Line(NamedTuple):
    """One candidate for the table: scores [row outputs], NaN where it says nothing."""

    name: str
    role: Role
    scores: Tensor


def baselines(guess: Tensor, metadata: Tensor | None) -> list[Line]:
    """What knows the labels of the training part alone, and what knows the manifest beside content too."""
    known = [] if metadata is None else [Line("metadata only", "metadata", metadata)]
    return [Line("majority", "majority", guess), *known]


def member_lines(held: HeldOut) -> list[Line]:
    """Each member by itself; it says nothing of rows where it is not present."""
    names = held.members.names
    return [Line(name, "member", held.members.alone(index)) for index, name in enumerate(names)]


def told(scores: Tensor) -> int:
    """How many rows of scores [row outputs] hold an answer."""
    return int((~scores.isnan().any(1)).sum())


def with_answers(lines: Sequence[Line], guess: Tensor) -> list[Line]:
    """The lines with an answer in every row: where one says nothing, the prior [row outputs]."""
    return [line._replace(scores=answered(line.scores, guess)) for line in lines]


def tabulate(
    lines: Sequence[Line],
    held: HeldOut,
    guess: Tensor,
    groups: np.ndarray,
    resamples: int,
    seed: int,
) -> Results:
    """Figures of every line on all rows, and the gains of the ensemble if there is one."""
    kind, target = held.members.kind, held.target
    own = [told(line.scores) for line in lines]
    lines = with_answers(lines, guess)
    rows = tuple(
        Row(
            name=line.name,
            role=line.role,
            n=n,
            figures=figures(kind, line.scores, target, groups, resamples, seed),
        )
        for line, n in zip(lines, own, strict=True)
    )
    main = FIGURES[kind][0]
    of_role = {line.role: line for line in lines}
    singles = [line for line in lines if line.role == "member"]
    best = min(singles, key=lambda line: loss(main, kind, line.scores, target))
    gains: dict[str, Difference | None] = {"gain_over_single": None, "gain_over_plain": None}
    if "ensemble" in of_role:
        for name, other in (("gain_over_single", best), ("gain_over_plain", of_role["pool"])):
            pair = (of_role["ensemble"].scores, other.scores)
            gains[name] = gain(main, kind, pair, target, groups, resamples, seed)
    return Results(
        kind=kind,
        num_rows=len(held.clip_id),
        num_groups=len(np.unique(groups)),
        rows=rows,
        best_single=best.name,
        gain_over_single=gains["gain_over_single"],
        gain_over_plain=gains["gain_over_plain"],
    )


def priors(held: HeldOut, folds: np.ndarray) -> Tensor:
    """Scores of a member that knows only how often each class (label, value) occurs elsewhere."""
    kind, width = held.members.kind, held.members.scores.shape[2]
    scores = torch.zeros(len(folds), width, dtype=torch.float64)
    for fold in np.unique(folds):
        at = torch.from_numpy(folds == fold)
        scores[at] = prior(kind, held.target[~at], width)
    return scores


def figures(
    kind: Kind, scores: Tensor, target: Tensor, groups: np.ndarray, resamples: int, seed: int
) -> dict[str, Interval]:
    """Every figure of a kind of task, of scores that answer every row."""
    prediction = probabilities(kind, scores)
    people = Groups.of(groups)
    return {
        name: bootstrap(name, prediction, target, people, resamples=resamples, seed=seed)
        for name in FIGURES[kind]
    }


def gain(
    name: str,
    kind: Kind,
    pair: tuple[Tensor, Tensor],
    target: Tensor,
    groups: np.ndarray,
    resamples: int,
    seed: int,
) -> Difference:
    """How much better (positive) the first scores are than the second; both answer every row."""
    ours, theirs = (probabilities(kind, scores) for scores in pair)
    return paired(name, ours, theirs, target, Groups.of(groups), resamples=resamples, seed=seed)


def loss(name: str, kind: Kind, scores: Tensor, target: Tensor) -> float:
    """The figure, turned so that lower is better."""
    figure = metric(name)
    value = figure(probabilities(kind, scores), target)
    return float("inf") if np.isnan(value) else figure.loss(value)


def from_facts(facts: Mapping[str, Any]) -> Results:
    """The results that `Results.facts` wrote."""

    def numbers(value: Mapping[str, Any]) -> dict[str, Any]:
        return {key: float("nan") if x is None else x for key, x in value.items()}

    def difference(value: Mapping[str, Any] | None) -> Difference | None:
        return None if value is None else Difference(**numbers(value))

    rows = [
        Row(
            name=row["name"],
            role=row["role"],
            n=row.get("n", facts["num_rows"]),
            figures={name: Interval(**numbers(v)) for name, v in row["figures"].items()},
        )
        for row in facts["rows"]
    ]
    return Results(
        kind=facts["kind"],
        num_rows=facts["num_rows"],
        num_groups=facts["num_groups"],
        rows=tuple(rows),
        best_single=facts["best_single"],
        gain_over_single=difference(facts["gain_over_single"]),
        gain_over_plain=difference(facts["gain_over_plain"]),
    )


def show(results: Results, task: Task) -> None:
    """Print the table and what may be claimed."""
    names = FIGURES[task.kind]
    table = Table(title=caption(results))
    table.add_column("")
    table.add_column("n", justify="right")
    for name in names:
        table.add_column(name, justify="right")
    for row in results.rows:
        cells = [_cell(row.figures[name]) for name in names]
        table.add_row(
            row.name, str(row.n), *cells, style="bold" if row.role == "ensemble" else None
        )
    console.show(table)
    if caution := Groups.of(range(results.num_groups)).caution:
        console.show(caution)
    console.show(results.verdict)


def caption(results: Results) -> str:
    """What the rows of a table are, and who answers for whom."""
    rows = f"{results.num_rows} clips, {results.num_groups} groups, 95 % intervals"
    return rows if all(row.n == results.num_rows for row in results.rows) else f"{rows}; {SILENT}"


def _cell(figure: Interval) -> str:
    if np.isnan(figure.value):
        return "-"
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
