"""Figures that may be printed: every result beside its baselines, with intervals over people.

Rows of one person are not independent, so intervals and paired differences resample groups, not rows. Every
line of a table is judged on the same rows: where one has nothing to say (a member whose input is missing) the
prior answers for it, and `n` says how many rows it answers of itself. The baselines are the majority (class
priors of the other folds), what the manifest gives away without a look at the clip, a linear model of the
same features, each single member, the mean of probabilities, plain and calibrated, and the pool that looked
at no row. What ships has a line of its own below the ensemble: the ensemble itself, or the simplest answer
where nothing was gained over it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from cluster import console
from cluster.console import Table
from fusion.late import rule_class
from fusion.late.members import answered
from fusion.metrics import FIGURES
from fusion.number_format import figure_text
from fusion.statistics import Difference, Groups, Interval
from fusion.tasks import Kind, Task
from jobs.catalog.predictions import HeldOut
from jobs.evaluation import cross_fitting
from jobs.evaluation.cross_fitting import priors
from jobs.evaluation.judging import Judging
from jobs.evaluation.shipping import Gate, Shipping

Role = Literal["majority", "metadata", "linear", "member", "mean", "pool", "ensemble", "shipped"]

TITLES: Mapping[Role, str] = {"metadata": "metadata only", "linear": "linear on the same features"}
"""Names of the lines of baselines."""

SILENT = "every line is judged on all of them: beyond its own n the prior answers for it"
"""What the caption of a table says where a line does not answer every row."""


@dataclass(frozen=True, kw_only=True)
class ResultsRow:
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
    rows: tuple[ResultsRow, ...]
    best_single: str
    """The best member by the first metric, in hindsight."""

    gain_over_single: Difference | None
    """Of the ensemble over that member in the first metric; positive is better. None: no ensemble."""

    gain_over_plain: Difference | None
    """The same over the pool that looked at no row."""

    gate: Gate | None = None
    """What the ensemble gained over the simplest answer, and which of them ships."""

    @property
    def verdict(self) -> str:
        """What may be claimed, in one sentence."""
        gain = self.gain_over_single
        if gain is None:
            return f"best single: {self.best_single}"
        said = f"{gain} over {self.best_single}"
        if gain.shown:
            return f"gain shown: {said}"
        seen = f"with {gain.groups} groups one under {figure_text(gain.least_visible)} is hardly ever seen"
        return f"no gain shown: {said}" + (f"; {seen}" if gain.least_visible > 0 else "")

    @property
    def claims(self) -> list[str]:
        """Of the ensemble, and of what ships."""
        return [self.verdict, *([] if self.gate is None else [self.gate.said])]

    @property
    def strong(self) -> tuple[ResultsRow, ...]:
        """The line that a table stresses: what ships, or the fusion of what was shipped before."""
        found = [row for row in self.rows if row.role in ("ensemble", "shipped")]
        return tuple(found[-1:])

    def facts(self) -> dict[str, Any]:
        """As JSON; an undefined figure is null."""
        gate = None if self.gate is None else self.gate.facts()
        return dict(without_nan({**asdict(self), "verdict": self.verdict, "gate": gate}))


def judge(
    held: HeldOut,
    fused: cross_fitting.Verdict,
    shipping: Shipping,
    folds: np.ndarray,
    judging: Judging,
    *,
    others: Sequence["NamedScores"] = (),
) -> Results:
    """Compare a cross-fitted fusion, and what ships, with their baselines.

    Args:
        held: members on the rows.
        fused: fused scores of the same rows.
        shipping: what ships, cross-fitted on the same folds.
        folds: fold of each row.
        judging: the rows.
        others: out-of-fold scores of further baselines (`other_baselines`).
    """
    guess = priors(held, folds)
    lines = [
        *baselines(guess, others),
        *member_lines(held),
        *plain_fusions(held, folds),
        NamedScores("ensemble", "ensemble", fused.scores),
        NamedScores("shipped", "shipped", shipping.verdict.scores),
    ]
    return tabulate(lines, guess, judging, shipping.gate)


def judge_test(
    held: HeldOut,
    guess: Tensor,
    verdict: Tensor | None,
    judging: Judging,
    *,
    others: Sequence["NamedScores"] = (),
) -> Results:
    """Compare members, and their fusion if there is one, on test rows.

    Args:
        held: members on the test rows.
        guess: scores [outputs] of the majority, from the other splits.
        verdict: scores of the bundle, which are those of what ships.
        judging: the test rows.
        others: scores of further baselines.
    """
    guess = guess.expand(len(held.clip_id), -1)
    lines = [*baselines(guess, others), *member_lines(held)]
    if verdict is not None:
        # Neither rule looks at a target: "fitting" them here uses no test label.
        mean, pool = rule_class("mean"), rule_class("log_pool")
        plain = mean.fit(mean.Config(), held.members, held.target)
        unfitted = pool.fit(pool.Config(fitted=False), held.members, held.target)
        lines.append(NamedScores("plain mean", "mean", plain.combine(held.members)))
        lines.append(NamedScores("unfitted log pool", "pool", unfitted.combine(held.members)))
        lines.append(NamedScores("shipped", "ensemble", verdict))
    return tabulate(lines, guess, judging)


class NamedScores(NamedTuple):
    """One candidate for the table: scores [row outputs], NaN where it says nothing."""

    name: str
    role: Role
    scores: Tensor


def baselines(guess: Tensor, others: Sequence[NamedScores]) -> list[NamedScores]:
    """What knows the labels of the training part alone, then the further ones that there are."""
    return [NamedScores("majority", "majority", guess), *others]


def other_baselines(
    metadata: Tensor | None, linear: Tensor | None, linear_title: str
) -> list[NamedScores]:
    """A model that sees no content, and a linear one, where they are there: scores [row outputs]."""
    lines: list[tuple[str, Role, Tensor | None]] = [
        (TITLES["metadata"], "metadata", metadata),
        (linear_title, "linear", linear),
    ]
    return [NamedScores(*line[:2], line[2]) for line in lines if line[2] is not None]


def member_lines(held: HeldOut) -> list[NamedScores]:
    """Each member by itself; it says nothing of rows where it is not present."""
    names = held.members.names
    return [
        NamedScores(name, "member", held.members.alone(index)) for index, name in enumerate(names)
    ]


def plain_fusions(held: HeldOut, folds: np.ndarray) -> list[NamedScores]:
    """The simplest answers made of all members, cross-fitted on folds [row]."""
    rules = {
        "plain mean": cross_fitting.PLAIN_MEAN,
        "calibrated mean": cross_fitting.Candidate(rule="mean"),
        "unfitted log pool": cross_fitting.PLAIN,
    }
    if held.members.kind == "regression":  # values have no temperature
        del rules["calibrated mean"]
    return [
        NamedScores(
            name,
            "pool" if "pool" in name else "mean",
            cross_fitting.cross_fitted(held, [rule], folds).scores,
        )
        for name, rule in rules.items()
    ]


def num_answered(scores: Tensor) -> int:
    """How many rows of scores [row outputs] hold an answer."""
    return int((~scores.isnan().any(1)).sum())


def with_answers(lines: Sequence[NamedScores], guess: Tensor) -> list[NamedScores]:
    """The lines with an answer in every row: where one says nothing, the prior [row outputs]."""
    return [line._replace(scores=answered(line.scores, guess)) for line in lines]


def tabulate(
    lines: Sequence[NamedScores], guess: Tensor, judging: Judging, gate: Gate | None = None
) -> Results:
    """Figures of every line on all rows, and the gains of the ensemble if there is one."""
    own = [num_answered(line.scores) for line in lines]
    lines = with_answers(lines, guess)
    rows = tuple(
        ResultsRow(name=line.name, role=line.role, n=n, figures=judging.figures(line.scores))
        for line, n in zip(lines, own, strict=True)
    )
    of_role = {line.role: line.scores for line in lines}
    best = best_member(lines, judging)
    fused = of_role.get("ensemble")
    return Results(
        kind=judging.task.kind,
        num_rows=len(judging.target),
        num_groups=len(np.unique(judging.groups)),
        rows=rows,
        best_single=best.name,
        gain_over_single=None if fused is None else judging.gain(fused, best.scores),
        gain_over_plain=None if fused is None else judging.gain(fused, of_role["pool"]),
        gate=gate,
    )


def best_member(lines: Sequence[NamedScores], judging: Judging) -> NamedScores:
    """The best single member in hindsight, by the main figure."""
    return min(
        (line for line in lines if line.role == "member"),
        key=lambda line: judging.loss(line.scores),
    )


def from_facts(facts: Mapping[str, Any]) -> Results:
    """The results that `Results.facts` wrote; a figure that was not known then is undefined."""
    nan = float("nan")
    unknown = Interval(value=nan, low=nan, high=nan, level=0.95, groups=facts["num_groups"])

    rows = [
        ResultsRow(
            name=row["name"],
            role=row["role"],
            n=row.get("n", facts["num_rows"]),
            figures=dict.fromkeys(FIGURES[facts["kind"]], unknown)
            | {name: Interval.from_facts(v) for name, v in row["figures"].items()},
        )
        for row in facts["rows"]
    ]
    return Results(
        kind=facts["kind"],
        num_rows=facts["num_rows"],
        num_groups=facts["num_groups"],
        rows=tuple(rows),
        best_single=facts["best_single"],
        gain_over_single=Difference.from_facts(over)
        if (over := facts["gain_over_single"])
        else None,
        gain_over_plain=Difference.from_facts(over) if (over := facts["gain_over_plain"]) else None,
        gate=Gate.from_facts(facts["gate"]) if facts.get("gate") else None,
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
        cells = [str(row.figures[name]) for name in names]
        table.add_row(row.name, str(row.n), *cells, style="bold" if row in results.strong else None)
    console.show(table)
    if caution := Groups.of(range(results.num_groups)).caution:
        console.show(caution)
    for said in results.claims:
        console.show(said)


def caption(results: Results) -> str:
    """What the rows of a table are, and who answers for whom."""
    rows = f"{results.num_rows} clips, {results.num_groups} groups, 95 % intervals"
    return rows if all(row.n == results.num_rows for row in results.rows) else f"{rows}; {SILENT}"


def without_nan(value: Any) -> Any:
    """Facts for JSON, which has no NaN: null in its place."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
