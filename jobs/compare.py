"""Compare runs and bundles by paired differences: is one better, or is it chance?

Every figure stands on the rows that all of them have and none trained on. Seeds are averaged first;
intervals and paired differences resample groups, a sign-flip test gives p-values, and Holm's correction
counts how many comparisons were made. The first run is what the others are compared with.

Reads:  <root>/runs/<run>/, <root>/bundles/<bundle>/predictions.parquet  (roles oof or valid, never test)
Writes: <root>/comparisons/<name>/  results.json, table.csv, table.tex

Laptop:   affuse compare --root data/ravdess --runs lstm lmf mult
Bundle:   affuse compare --root data/ravdess --runs lmf --bundles ensemble --metrics accuracy nll
Cluster:  affuse submit --address URL -- compare --root s3://bucket/ravdess --runs lstm lmf
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from cluster import console, settings, storage
from cluster.console import Table
from cluster.errors import ConfigError
from cluster.settings import Place
from fusion.metrics import FIGURES, METRICS, metric, metrics_for
from fusion.number_format import figure_text
from fusion.statistics import Difference, Groups, Interval, bootstrap, holm, paired
from fusion.tasks import Task
from jobs.catalog import layout
from jobs.catalog.groups import groups_of
from jobs.catalog.names import check_bundle_names, check_names, check_once, joined_name
from jobs.catalog.outputs import publish_config
from jobs.evaluation.comparison import ComparedSide, bundles_of, common, runs_of
from jobs.evaluation.former_labels import warn_of_former_labels
from jobs.evaluation.judging import check_resamples
from jobs.evaluation.results_table import without_nan
from jobs.evaluation.sibling_runs import chosen_task
from jobs.reporting.grid import Grid
from jobs.scoring.opening import name_under


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which runs and bundles are compared, and by which metrics."""

    root: Place
    """Folder or URI of the dataset."""

    runs: tuple[str, ...] = ()
    """Runs of `affuse train` or `affuse tune`; the first one is the reference."""

    bundles: tuple[str, ...] = ()
    """Bundles to compare, by their cross-fitted predictions: names under --root, or models:/NAME@ALIAS."""

    task: str | None = None
    """Task to compare on; may be left out where runs and bundles have one in common."""

    metrics: tuple[str, ...] = ()
    """Metrics to compare by; the first one decides. By default those of the task's kind."""

    name: str | None = None
    """Name of the comparison; by default the compared names."""

    resamples: int = 5000
    """Number of bootstrap resamples and of sign flips."""

    level: float = 0.95
    """Coverage of the intervals [0..1]."""

    seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self) -> None:
        check_names(runs=self.runs, name=self.name)
        check_bundle_names(bundles=self.bundles)
        check_once(runs=self.runs, bundles=self.bundles)
        check_resamples(self.resamples)
        if len(self.runs) + len(self.bundles) < 2:
            raise ConfigError("name at least two of --runs and --bundles to compare")
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown:
            raise ConfigError(f"--metrics {settings.nearest(unknown[0], list(METRICS))}")
        if not 0 < self.level < 1:
            raise ConfigError(f"--level {self.level}: expected between 0 and 1")

    @property
    def title(self) -> str:
        """Name of the comparison's folder."""
        return self.name or joined_name([*self.runs, *self.bundles], "-against-")


@dataclass(frozen=True, kw_only=True)
class ComparedRow:
    """One line of the comparison."""

    name: str
    protocol: str
    n: int
    """Held-out clips that it has; the figures are of those that all have."""

    num_seeds: int
    figures: Mapping[str, Interval]
    spread: float
    """Standard deviation of the first figure over seeds; 0 for one seed."""

    gain: Difference | None
    """Over the reference in the first figure, positive is better; None for the reference itself."""

    p_holm: float | None
    """The gain's p-value, corrected for the number of comparisons."""


def main(config: Config) -> None:
    """Compare on the clips that all sides have, show the table and write it."""
    config = replace(config, bundles=tuple(name_under(config.root, b) for b in config.bundles))
    name, task = chosen_task(config.root, config.task, config.runs, config.bundles)
    names = metrics_of(config, task)
    runs = runs_of(config.root, config.runs, name, task)
    sides = common([*runs, *bundles_of(config.root, config.bundles, name, task)])
    warn_of_former_labels(config.root, name, task, sides[0].clip_id, sides[0].target)
    groups = Groups.of(groups_of(config.root, sides[0].clip_id))
    rows = compared(config, sides, names, groups)
    grid = grid_of(config, rows, names, sides[0], groups, name)
    show(rows, names, grid.caption, groups)
    publish(config, rows, grid, sides[0], groups)
    print(f"wrote {comparison_uri(config)}")


def metrics_of(config: Config, task: Task) -> tuple[str, ...]:
    """The figures that were asked for, or those of the kind."""
    names = config.metrics or FIGURES[task.kind]
    other = [name for name in names if metric(name).kind != task.kind]
    if other:
        hint = settings.nearest(other[0], metrics_for(task.kind))
        raise ConfigError(f"--metrics {' '.join(other)}: not for a task of {task.kind}; {hint}")
    return tuple(names)


def compared(
    config: Config, sides: Sequence[ComparedSide], names: Sequence[str], groups: Groups
) -> list[ComparedRow]:
    """Figures of every side, and its gain over the first one."""
    facts: dict[str, Any] = {
        "resamples": config.resamples,
        "level": config.level,
        "seed": config.seed,
    }
    reference, *others = sides
    gains = {
        side.name: paired(names[0], (side.seeds, reference.seeds), side.target, groups, **facts)
        for side in others
    }
    corrected = holm({name: gain.p_value for name, gain in gains.items()})
    rows = []
    for side in sides:
        each = [metric(names[0])(seed, side.target) for seed in side.seeds]
        rows.append(
            ComparedRow(
                name=side.name,
                protocol=side.protocol,
                n=side.n,
                num_seeds=len(each),
                figures={n: bootstrap(n, side.seeds, side.target, groups, **facts) for n in names},
                spread=float(np.std(each, ddof=1)) if len(each) > 1 else 0.0,
                gain=gains.get(side.name),
                p_holm=corrected.get(side.name),
            )
        )
    return rows


def grid_of(
    config: Config,
    rows: Sequence[ComparedRow],
    names: Sequence[str],
    side: ComparedSide,
    groups: Groups,
    task: str,
) -> Grid:
    """The table, its caption saying what a reader needs to trust it."""
    reference = rows[0].name
    lines = []
    for row in rows:
        gain = row.gain
        lines.append(
            [
                row.name,
                row.protocol,
                str(row.n),
                str(row.num_seeds),
                *[str(row.figures[name]) for name in names],
                figure_text(row.spread) if row.num_seeds > 1 else "",
                "" if gain is None else str(gain),
                "" if row.p_holm is None else f"{row.p_holm:.4f}",
            ]
        )
    best = max(range(len(rows)), key=lambda at: _better(names[0], rows[at]))
    return Grid(
        name="table",
        caption=(
            f"{task}: {len(side.clip_id)} clips of {groups.count} groups, those that every line has and no "
            "net trained on (n: clips that a line has); "
            f"mean over seeds, {config.level:.0%} intervals over groups, {config.resamples} resamples; "
            f"gain in {names[0]} over {reference} (positive is better), p by sign-flips over groups, "
            "Holm-corrected"
        ),
        header=["name", "protocol", "n", "seeds", *names, "sd over seeds", "gain", "p (Holm)"],
        rows=lines,
        strong=frozenset([best]),
    )


def publish(
    config: Config, rows: Sequence[ComparedRow], grid: Grid, side: ComparedSide, groups: Groups
) -> None:
    """The table twice, and all numbers."""
    base = comparison_uri(config)
    publish_config(config, base)
    storage.publish_bytes(grid.csv().encode(), storage.join(base, "table.csv"))
    storage.publish_bytes(grid.latex().encode(), storage.join(base, "table.tex"))
    facts = {
        "config": settings.resolved(config),
        "num_clips": len(side.clip_id),
        "num_groups": groups.count,
        "rows": [without_nan(asdict(row)) for row in rows],
    }
    storage.publish_json(facts, storage.join(base, layout.RESULTS))


def comparison_uri(config: Config) -> str:
    """Folder of the comparison."""
    return layout.comparison_uri(config.root, config.title)


def show(rows: Sequence[ComparedRow], names: Sequence[str], caption: str, groups: Groups) -> None:
    """Print what fits a terminal: intervals of the first figure and of the gain."""
    table = Table("name", "n", *names, "gain", "p (Holm)")
    for row in rows:
        first, *others = (row.figures[name] for name in names)
        gain = "" if row.gain is None else str(row.gain)
        p_value = "" if row.p_holm is None else f"{row.p_holm:.3f}"
        values = ["-" if np.isnan(other.value) else figure_text(other.value) for other in others]
        table.add_row(row.name, str(row.n), str(first), *values, gain, p_value)
    console.show(table)
    console.show(caption)
    if groups.caution:
        console.show(groups.caution)


def _better(name: str, row: ComparedRow) -> float:
    value = row.figures[name].value
    return -np.inf if np.isnan(value) else -metric(name).loss(value)
