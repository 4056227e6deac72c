"""Learning curves: runs that differ only in `--share`, evaluated on the same held-out rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from fusion.metrics import FIGURES, metric
from fusion.statistics import Difference, Groups, Interval, bootstrap, paired
from fusion.tasks import Task
from jobs.catalog.groups import groups_of
from jobs.catalog.predictions import read_predictions
from jobs.evaluation.comparison import common, runs_of
from jobs.evaluation.sibling_runs import Configs, siblings


@dataclass(frozen=True, kw_only=True)
class Point:
    """One share of a learning curve."""

    run: str
    share: float
    groups: float
    """Groups that a net was trained on, the mean over folds and seeds."""

    figure: Interval
    """The mean over seeds, groups of the judged rows resampled."""

    seeds: Sequence[float]
    """The figure of each seed."""

    gain: Difference | None
    """Over the share before; positive is better."""


def share_curves(
    root: str,
    configs: Configs,
    runs: Sequence[str],
    name: str,
    task: Task,
    *,
    resamples: int,
    seed: int,
) -> dict[str, list[Point]]:
    """The learning curve of each run that has siblings of other shares, by the run of most data.

    Args:
        root: of the dataset.
        configs: of all its runs.
        runs: whose siblings are looked for.
        name: of the task.
        task: its kind; the first figure of the kind is drawn.
        resamples: bootstrap resamples.
        seed: of the bootstrap.
    """
    families: dict[str, Mapping[float, str]] = {}
    for run in runs:
        found = siblings(root, configs, run, "share", 1.0)
        if len(found) > 1:
            families[found[max(found)]] = dict(sorted(found.items()))
    return {
        run: _curve(root, family, name, task, {"resamples": resamples, "seed": seed})
        for run, family in families.items()
    }


def _curve(
    root: str, family: Mapping[float, str], name: str, task: Task, draws: Mapping[str, int]
) -> list[Point]:
    figure = FIGURES[task.kind][0]
    sides = common(runs_of(root, [*family.values()], name, task))
    people = Groups.of(groups_of(root, sides[0].clip_id))
    points = []
    for place, (share, side) in enumerate(zip(family, sides, strict=True)):
        gain = None
        if place:
            before = sides[place - 1].seeds
            gain = paired(figure, (side.seeds, before), side.target, people, **draws)
        points.append(
            Point(
                run=side.name,
                share=share,
                groups=_trained_groups(root, side.name),
                figure=bootstrap(figure, side.seeds, side.target, people, **draws),
                seeds=[metric(figure)(each, side.target) for each in side.seeds],
                gain=gain,
            )
        )
    return points


def _trained_groups(root: str, run: str) -> float:
    """How many groups a net of the run was trained on."""
    table = read_predictions(root, run, roles=("train",))
    clip_id = np.unique(table["clip_id"].to_numpy())
    group = dict(zip(clip_id.tolist(), groups_of(root, clip_id).tolist(), strict=True))
    counts = []
    for fold in table["fold"].unique().to_pylist():
        of_fold = table.filter(pc.equal(table["fold"], fold))
        for each in of_fold["seed"].unique().to_pylist():
            clips = of_fold.filter(pc.equal(of_fold["seed"], each))["clip_id"].unique().to_pylist()
            counts.append(len({group[clip] for clip in clips}))
    return float(np.mean(counts)) if counts else 0.0
