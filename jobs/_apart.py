"""Runs whose features were normalised by their speaker: judged apart, beside the same run without.

Their statistics come from unlabelled clips of the held-out people, all of them (`speaker`) or K of them
(`speaker:K`, what enrolment gives). They answer another question than raw runs and are never ranked
among them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fusion.statistics import Difference, Interval
from fusion.tasks import Task
from jobs._people import groups_of
from jobs._predictions import held_out
from jobs._results import FIGURES, figures, gain, member_lines
from jobs._siblings import Configs, run_configs, siblings


@dataclass(frozen=True, kw_only=True)
class Apart:
    """One normalised run, or a fusion that has such members."""

    name: str
    how: str
    """speaker, or speaker:K."""

    figures: Mapping[str, Interval]
    raw: str | None = None
    """The run that differs from it in nothing else."""

    raw_figure: Interval | None = None
    gain: Difference | None = None
    """Over the raw run in the first figure, on the rows that both have."""


def normalised_runs(configs: Configs, runs: Sequence[str]) -> dict[str, str]:
    """Run -> how it was normalised, for those that were."""
    found = {run: str(configs.get(run, {}).get("normalise", "none")) for run in runs}
    return {run: how for run, how in found.items() if how != "none"}


def marked(run: str, how: str | None) -> str:
    """A run's name where others stand beside it.

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


def judged_apart(
    root: str,
    configs: Configs,
    runs: Mapping[str, str],
    name: str,
    task: Task,
    *,
    resamples: int,
    seed: int,
) -> list[Apart]:
    """Figures of normalised runs, each beside its raw sibling where that is there.

    Args:
        root: of the dataset.
        configs: of all runs.
        runs: normalised run -> how.
        name: of the task.
        task: its kind.
        resamples: bootstrap resamples of the groups.
        seed: of the bootstrap.
    """
    kind, found = task.kind, []
    for run, how in runs.items():
        raw = siblings(root, configs, run, "normalise", "none").get("none")
        held = held_out(root, [run] if raw is None else [run, raw], name, task)
        codes: np.ndarray = groups_of(root, held.clip_id)
        each = [line.scores for line in member_lines(held)]
        shown = [figures(kind, one, held.target, codes, resamples, seed) for one in each]
        over = None
        if raw is not None:
            pair = (each[0], each[1])
            over = gain(FIGURES[kind][0], kind, pair, held.target, codes, resamples, seed)
        found.append(
            Apart(
                name=run,
                how=how,
                figures=shown[0],
                raw=raw,
                raw_figure=None if raw is None else shown[1][FIGURES[kind][0]],
                gain=over,
            )
        )
    return found
