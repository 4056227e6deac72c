"""What a report stands on: the runs' held-out predictions, their baselines, and what they were made of.

Rows of one person are not independent: intervals and paired differences resample groups. Seeds are averaged
first. Only rows that no member trained on are judged; test rows are never read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from torch import Tensor

from cluster import storage
from cluster.errors import ConfigError
from fusion.late.members import answered
from fusion.metrics import FIGURES, metric
from fusion.probe import LeakReport
from fusion.statistics import Difference, Groups, Interval
from fusion.tasks import Task
from jobs.catalog import bundles
from jobs.catalog.manifest import read_dataset, read_manifest
from jobs.catalog.predictions import (
    HeldOut,
    align,
    folds_and_seeds,
    held_out,
    seeds_averaged,
)
from jobs.catalog.tasks import pick_task
from jobs.evaluation import cross_fitting
from jobs.evaluation.leaks import known_leaks
from jobs.evaluation.learning_curve import Point, share_curves
from jobs.evaluation.metadata_baseline import Guess, metadata_out_of_fold
from jobs.evaluation.results_table import Line as Scored
from jobs.evaluation.results_table import (
    Results,
    Role,
    baselines,
    figures,
    gain,
    loss,
    member_lines,
    priors,
    told,
    with_answers,
)
from jobs.evaluation.sibling_runs import run_configs
from jobs.evaluation.speaker_normalised import Apart, judged_apart, marked, normalised_runs
from jobs.interop.import_predictions import add_members, rows_of
from jobs.reporting.run_history import Curve, Search, curves, evaluated, role_figures, searches


@dataclass(frozen=True, kw_only=True)
class Line:
    """One way to answer, judged on every row."""

    name: str
    role: Role
    scores: Tensor
    """[row outputs], NaN where it has nothing to say; judged with the prior there."""

    n: int
    """Rows that it answers of itself."""

    figures: Mapping[str, Interval]
    gain: Difference | None
    """Of the first figure over the best single member; positive is better."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that the sections of a report draw on."""

    dataset: str
    licence: str
    manifest: str
    task_name: str
    task: Task
    protocol: str
    """How the judged rows were held out, in words."""

    clips: Sequence[str]
    """Name of each row's clip."""

    groups: Groups
    group_of: Sequence[str]
    target: Tensor
    lines: Sequence[Line]
    apart: Sequence[Apart]
    """Runs normalised by their speaker, where raw ones stand among the lines."""

    transductive: bool
    """Whether all of the lines are of runs normalised by their speaker, or fuse some."""

    metadata: Sequence[str]
    """What the baseline that sees no content knows of a clip; empty where there is none."""

    made: Mapping[str, str]
    """Run -> its net and what it reads, in words."""

    curves: Mapping[str, Sequence[Curve]]
    roles: Mapping[str, Mapping[str, float]]
    """Run -> role -> the first figure, the mean over folds and seeds."""

    leaks: Mapping[str, Mapping[str, LeakReport]]
    """Split -> input -> what the leak test found when it was made."""

    shares: Mapping[str, Sequence[Point]]
    """Run -> the figure over the share of training groups, where runs of other shares are there."""

    searches: Mapping[str, Search]
    """Searches that runs of this report came from."""

    bundle: Mapping[str, Any] | None
    tested: Results | None
    """What `affuse evaluate` found on the test split."""

    looks: int
    """How often the test split has been looked at."""

    @property
    def focus(self) -> Line:
        """What the detailed sections look at: the ensemble, else the best single member."""
        fused = [line for line in self.lines if line.role == "ensemble"]
        return fused[-1] if fused else self.best_single

    @property
    def best_single(self) -> Line:
        """The best member in hindsight."""
        return _best(self.lines, self.main)

    @property
    def main(self) -> str:
        """The figure that gains are stated in."""
        return FIGURES[self.task.kind][0]

    @property
    def members(self) -> list[Line]:
        """The lines that are single nets."""
        return [line for line in self.lines if line.role == "member"]


def gather(
    root: str,
    *,
    runs: Sequence[str],
    bundle: str | None,
    task: str | None,
    resamples: int,
    seed: int,
) -> Evidence:
    """Read everything and judge it.

    Args:
        root: of the dataset.
        runs: members to show; empty: those of the bundle.
        bundle: an ensemble to show beside them.
        task: which task; may be None where there is one.
        resamples: bootstrap resamples of the groups.
        seed: of the bootstrap.

    Raises:
        ConfigError: neither runs nor a bundle, or no such task.
        NotPreparedError: a run or bundle is not there.
    """
    facts = None if bundle is None else bundles.read_bundle(root, bundle)
    names = list(runs) or [member["run"] for member in (facts or {}).get("members", ())]
    imported = (facts or {}).get("imported", ())
    if not names and not imported:
        raise ConfigError("nothing to report on: name --runs, or a --bundle made of some")
    dataset = read_dataset(root)
    first = next(iter(dataset.tasks), None)
    task_name, kind = pick_task(dataset, task or (facts or {}).get("task") or first)
    held = _members(root, names, imported, task_name, kind)
    held, fused = with_bundle(root, held, bundle, task_name, kind)
    configs = run_configs(root)
    own = normalised_runs(configs, names)
    raw = [member for member in held.members.names if member not in own]
    fused_own = normalised_runs(configs, (facts or {}).get("config", {}).get("runs", ()))
    clips, group_of = _names_and_groups(root, held.clip_id)
    groups = Groups.of(group_of)
    folds = held.fold if len(np.unique(held.fold)) > 1 else groups.code.numpy() % 5
    known = metadata_out_of_fold(root, held, folds, task_name, kind)
    draws = {"resamples": resamples, "seed": seed}
    lines = _judged(
        held.only(raw) if raw else held,
        known,
        {} if raw and fused_own else fused,
        folds,
        groups,
        **draws,
    )
    guess = priors(held, folds)
    apart = judged_apart(root, configs, own, held, guess, task_name, kind, **draws) if raw else []
    if raw and fused_own:
        apart += _fused_apart(held, guess, fused, fused_own, groups, **draws)
    return Evidence(
        dataset=dataset.name,
        licence=dataset.licence,
        manifest=dataset.manifest_hash,
        task_name=task_name,
        task=kind,
        protocol=_protocol(root, names, held, len(clips)) + ("" if raw else _own_words(own)),
        clips=clips,
        groups=groups,
        group_of=group_of,
        target=held.target,
        lines=lines,
        apart=apart,
        transductive=not raw,
        metadata=() if known is None else known.facts,
        made={run: net_in_words(configs[run]) for run in names if "net" in configs.get(run, {})},
        curves={marked(run, own.get(run)): curves(root, run) for run in names},
        roles={
            marked(run, own.get(run)): role_figures(root, run, task_name, kind) for run in names
        },
        leaks=known_leaks(root, names, task_name),
        shares=share_curves(root, configs, names, task_name, kind, **draws),
        searches=searches(root, names),
        bundle=facts,
        tested=evaluated(root, bundle or "+".join(names)),
        looks=len(storage.names(storage.join(root, "looks"))),
    )


def _members(
    root: str,
    runs: Sequence[str],
    imported: Sequence[str],
    name: str,
    task: Task,
) -> HeldOut:
    """Runs and imported predictions on rows that none of them trained on."""
    held = held_out(root, runs, name, task) if runs else None
    return add_members(root, held, imported, name, task)


def _fused_apart(
    held: HeldOut,
    guess: Tensor,
    fused: Mapping[str, Tensor],
    own: Mapping[str, str],
    groups: Groups,
    resamples: int,
    seed: int,
) -> list[Apart]:
    """Figures of an ensemble that some normalised run is part of."""
    hows, codes = "+".join(sorted(set(own.values()))), groups.code.numpy()
    kind = held.members.kind
    return [
        Apart(
            name=name,
            how=hows,
            n=told(scores),
            figures=figures(kind, answered(scores, guess), held.target, codes, resamples, seed),
        )
        for name, scores in fused.items()
    ]


def with_bundle(
    root: str, held: HeldOut, bundle: str | None, name: str, task: Task
) -> tuple[HeldOut, dict[str, Tensor]]:
    """The members on the rows that the bundle was judged on, and the bundle's scores there."""
    if bundle is None:
        return held, {}
    table = storage.read_table(
        storage.join(bundles.bundle_uri(root, bundle), "predictions.parquet")
    )
    rows = seeds_averaged(table.filter(pc.equal(table["task"], name)), task)
    both = align({**rows_of(held), f"bundle {bundle}": rows}, task)
    return both.only(both.members.names[:-1]), {"ensemble": both.members.alone(-1)}


def _judged(
    held: HeldOut,
    known: Guess | None,
    fused: Mapping[str, Tensor],
    folds: np.ndarray,
    groups: Groups,
    resamples: int,
    seed: int,
) -> list[Line]:
    """Majority, metadata, each member, the plain mean of several, the ensemble; all on the same rows."""
    metadata, guess = None if known is None else known.scores, priors(held, folds)
    named = [*baselines(guess, metadata), *member_lines(held)]
    if len(held.members.names) > 1:
        mean = cross_fitting.cross_fitted(
            held, [cross_fitting.Candidate(rule="mean", calibration="none")], folds
        )
        named.append(Scored("plain mean", "mean", mean.scores))
    named += [Scored(name, "ensemble", scores) for name, scores in fused.items()]
    kind, codes, main = held.members.kind, groups.code.numpy(), FIGURES[held.members.kind][0]
    judged = with_answers(named, guess)
    singles = [line for line in judged if line.role == "member"]
    best = min(singles, key=lambda line: loss(main, kind, line.scores, held.target))
    lines = []
    for (name, role, own), line in zip(named, judged, strict=True):
        compared = None
        if role in ("mean", "ensemble"):
            pair = (line.scores, best.scores)
            compared = gain(main, kind, pair, held.target, codes, resamples, seed)
        shown = figures(kind, line.scores, held.target, codes, resamples, seed)
        lines.append(
            Line(name=name, role=role, scores=own, n=told(own), figures=shown, gain=compared)
        )
    return lines


def _best(lines: Sequence[Line], name: str) -> Line:
    singles = [line for line in lines if line.role == "member"]
    return min(singles, key=lambda line: metric(name).loss(line.figures[name].value))


def _names_and_groups(root: str, clip_id: np.ndarray) -> tuple[list[str], list[str]]:
    table = read_manifest(root, columns=["clip_id", "name", "group"])
    rows = {row["clip_id"]: row for row in table.to_pylist()}
    found = [rows[int(clip)] for clip in clip_id]
    return [row["name"] for row in found], [row["group"] or row["name"] for row in found]


def _protocol(root: str, runs: Sequence[str], held: HeldOut, num_rows: int) -> str:
    folds = len(np.unique(held.fold))
    how = f"{folds} folds, out of fold" if folds > 1 else "rows of the validation split"
    config = {}
    if runs and storage.exists(uri := storage.join(root, "runs", runs[0], "config.json")):
        config = storage.read_json(uri)
    if folds > 1 and config.get("folds"):
        how = f"{folds} folds ({config['folds']}), out of fold"
    seeds = {seed for run in runs for _, seed in folds_and_seeds(root, run)}
    seeded = f", seeds {', '.join(map(str, sorted(seeds)))}" if seeds else ""
    return f"{how}{seeded}, n = {num_rows}"


def _own_words(own: Mapping[str, str]) -> str:
    return f", normalised by {'+'.join(sorted(set(own.values())))} (transductive)"


def net_in_words(config: Mapping[str, Any]) -> str:
    """The net of a run's config and what it reads."""
    options = ", ".join(
        f"{k} {_short(v)}" for k, v in sorted(config.get("net_options", {}).items())
    )
    return f"{config['net']} of {' + '.join(config['inputs'])}" + (
        f" ({options})" if options else ""
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value) or "none"
