"""Speaker-normalised runs, reported separately next to the run without normalisation.

Their statistics come from unlabelled clips of the held-out speakers: all of them (`speaker`), or K enrolment
clips (`speaker:K`). They are not comparable with other runs and are never ranked among them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fusion.statistics import Difference, Interval
from fusion.tasks import Task
from jobs.catalog.predictions import HeldOut, align, held_out
from jobs.evaluation.judging import Judging
from jobs.evaluation.results_table import member_lines, num_answered, with_answers
from jobs.evaluation.sibling_runs import Configs, run_configs, siblings
from jobs.interop.import_predictions import rows_of


@dataclass(frozen=True, kw_only=True)
class NormalisedRun:
    """One normalised run, or a fusion that has such members."""

    name: str
    how: str
    """speaker, or speaker:K."""

    n: int
    """Rows that it predicts itself; the prior answers the others."""

    figures: Mapping[str, Interval]
    raw: str | None = None
    """The run that differs from it in nothing else."""

    raw_figure: Interval | None = None
    gain: Difference | None = None
    """Gain over the raw run in the first figure."""


def normalised_runs(configs: Configs, runs: Sequence[str]) -> dict[str, str]:
    """Run -> how it was normalised, for those that were."""
    found = {run: str(configs.get(run, {}).get("normalise", "none")) for run in runs}
    return {run: how for run, how in found.items() if how != "none"}


def marked(run: str, how: str | None) -> str:
    """Name of a run in a table, with its normalisation.

    >>> marked("voice", "speaker:8")
    'voice (normalised by speaker:8)'
    """
    return run if how is None else f"{run} (normalised by {how})"


def say_normalised(root: str, runs: Sequence[str]) -> None:
    """Print which members of a table are not comparable with the others."""
    found = normalised_runs(run_configs(root), runs)
    if found:
        names = ", ".join(f"{run} ({how})" for run, how in found.items())
        print(f"normalised by speaker, not comparable with runs that are not: {names}")


def compare_normalised(
    root: str,
    configs: Configs,
    runs: Mapping[str, str],
    held: HeldOut,
    guess: Tensor,
    name: str,
    judging: Judging,
) -> list[NormalisedRun]:
    """Figures of normalised runs, each beside its raw sibling where that is there; all on the same rows.

    Args:
        root: of the dataset.
        configs: of all runs.
        runs: normalised run -> how.
        held: these runs and others, on the rows that are judged.
        guess: scores of the prior on these rows.
        name: of the task.
        judging: these rows.
    """
    task = judging.task
    raws = {run: siblings(root, configs, run, "normalise", "none").get("none") for run in runs}
    others = [raw for raw in dict.fromkeys(raws.values()) if raw and raw not in held.members.names]
    held = with_runs(held, held_out(root, others, name, task), task) if others else held
    said = {line.name: line for line in member_lines(held)}
    full = {line.name: line.scores for line in with_answers([*said.values()], guess)}
    return [
        NormalisedRun(
            name=run,
            how=how,
            n=num_answered(said[run].scores),
            figures=judging.figures(full[run]),
            raw=raw,
            raw_figure=None if raw is None else judging.figures(full[raw])[judging.main],
            gain=None if raw is None else judging.gain(full[run], full[raw]),
        )
        for (run, how), raw in zip(runs.items(), raws.values(), strict=True)
    ]


def with_runs(held: HeldOut, more: HeldOut, task: Task) -> HeldOut:
    """Further members on the rows of the first ones, no others."""
    both = align({**rows_of(held), **rows_of(more)}, task)
    return both.rows(np.isin(both.clip_id, held.clip_id))
