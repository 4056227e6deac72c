"""Which trials become members, and what that choice is worth.

A figure of members that were picked by their scores on all folds flatters itself. `procedure` does the whole
choice again for each fold from the other folds alone: members by their scores there, the default late
fusion fitted there, judged on the fold that had no say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from cluster import storage
from fusion.late.members import answered, prior, probabilities
from fusion.metrics import FIGURES, metric
from fusion.tasks import Task
from jobs.catalog.predictions import HeldOut, align, seeds_averaged
from jobs.evaluation import cross_fitting
from jobs.tuning.space import BASELINE


class Scored(Protocol):
    """A trial that was finished."""

    @property
    def number(self) -> int:
        """Its number in the ledger."""

    @property
    def score(self) -> float:
        """Lower is better."""

    @property
    def values(self) -> Mapping[str, Any]:
        """Path of the space -> value."""


@dataclass(frozen=True, kw_only=True)
class Procedure:
    """What choosing and fusing gives on rows that had no say in it."""

    scores: Tensor
    """[row outputs], in the order of the held-out rows."""

    figures: Mapping[str, float]
    members: Mapping[int, list[int]]
    """Fold -> numbers of the trials that the other folds chose for it."""


def members_of(trials: Sequence[Scored], scores: Mapping[int, float], keep: int) -> list[int]:
    """The best trial of each set of inputs, then the best of the rest: numbers, best first.

    The best baseline is among them where there is room for two: a fusion with it is not worse than it.

    Args:
        trials: finished ones.
        scores: number -> score, lower is better.
        keep: how many at most.
    """
    seen: set[str] = set()
    first: list[int] = []
    rest: list[int] = []
    for trial in sorted(trials, key=lambda trial: (scores[trial.number], trial.number)):
        inputs = str(trial.values.get("inputs"))
        (rest if inputs in seen else first).append(trial.number)
        seen.add(inputs)
    chosen = [*first, *rest][:keep]
    baselines = [trial.number for trial in trials if trial.values.get("net") == BASELINE]
    if baselines and keep > 1:
        best = min(baselines, key=lambda number: (scores[number], number))
        chosen = chosen if best in chosen else [*chosen[: keep - 1], best]
    return sorted(chosen, key=lambda number: scores[number])


def procedure(held: HeldOut, trials: Sequence[Scored], task: Task, keep: int) -> Procedure:
    """Choose and fuse for each fold from the other folds.

    Args:
        held: all finished trials as members, each named by its number; with the rows' groups.
        trials: the same trials.
        task: what they predict.
        keep: members to choose.
    """
    kind = task.kind
    scores = torch.full((len(held.clip_id), task.outputs), torch.nan, dtype=torch.float64)
    chosen = {}
    for fold in np.unique(held.fold):
        at = held.fold == fold
        others = held.rows(~at)
        guess = prior(kind, others.target, task.outputs)
        judged = {
            int(name): cross_fitting.judge(
                kind, answered(others.members.alone(index), guess), others.target
            )
            for index, name in enumerate(others.members.names)
        }
        numbers = members_of(trials, judged, keep)
        names = [str(number) for number in numbers]
        others = others.only(names)
        fitted = cross_fitting.fit(others, cross_fitting.DEFAULT)
        said = fitted.combine(held.only(names).rows(at).members)
        scores[torch.from_numpy(at)] = answered(said, guess)
        chosen[int(fold)] = numbers
    prediction = probabilities(kind, scores)
    figures = {name: metric(name)(prediction, held.target) for name in FIGURES[kind]}
    return Procedure(scores=scores, figures=figures, members=chosen)


def held_trials(files: Mapping[int, str], name: str, task: Task) -> HeldOut:
    """The predictions of finished trials as members named by their numbers.

    Args:
        files: number -> its predictions.
        name: of the task.
        task: the task.
    """
    rows = {}
    for number, uri in files.items():
        table = storage.read_table(uri)
        kept = [value == name for value in table["task"].to_pylist()]
        rows[str(number)] = seeds_averaged(table.filter(kept), task)
    return align(rows, task)
