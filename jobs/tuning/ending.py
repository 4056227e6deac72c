"""When a search ends before its last trial: the time is up, or nothing was gained for long."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ray.tune import Stopper
from torch import Tensor

from fusion.late.members import answered, probabilities
from fusion.statistics import Difference, Groups, paired
from fusion.tasks import Task
from jobs.catalog.groups import groups_of
from jobs.evaluation import cross_fitting
from jobs.evaluation.cross_fitting import SELECTION_METRICS, Candidate
from jobs.training.run import TrainConfig
from jobs.tuning.member_selection import held_trials, members_of
from jobs.tuning.trial_records import Record, trial_uri

LEVEL = 0.68
"""Of the interval that a gain has to lie above zero with: one standard error over people."""

RESAMPLES = 500

EVERY, SHARE = 5, 0.1
"""Trials between two looks: at least so many, and this share of those that there are."""

PARTS = 5
"""For cross-fitting, where the search has no folds."""

QUICK = Candidate(rule="log_pool", options={"shrinkage": 10.0})
"""What fuses the members at each look: a few milliseconds a fold; shrunk, lest a perfect one runs away."""


class Patience:
    """Says whether the last so many trials gave the fused members anything.

    The members that all trials give are fused and compared with those that the trials before the last
    `patience` ones gave, on the same held-out rows, each fold by a fusion that did not see it. A gain counts
    if it is larger than its standard error over groups: the best of many trials always looks a little better
    than the best of fewer.

    Args:
        config: of the search.
        task: the first task of it, by name.
        keep: members that are chosen.
        patience: trials; 0: never says so.
        first: number of trials that are the baselines, which every search begins with.
    """

    def __init__(
        self, config: TrainConfig, task: tuple[str, Task], *, keep: int, patience: int, first: int
    ) -> None:
        self.config, (self.name, self.task) = config, task
        self.keep, self.patience, self.first = keep, patience, first
        self.ledger: list[Record] = []
        self.looked = 0
        self.is_over = False
        self.groups: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def said(self) -> str:
        """Why it is over."""
        return f"the last {self.patience} trials gained nothing"

    def go_on(self, ledger: Sequence[Record]) -> None:
        """Take in the trials of an earlier start."""
        self.ledger.extend(ledger)
        self._look()

    def see(self, record: Record) -> None:
        """A trial ended."""
        self.ledger.append(record)
        if len(self.ledger) >= self.looked + max(EVERY, SHARE * self.looked):
            self._look()

    def _look(self) -> None:
        """Compare the members of now with those of before."""
        self.looked = len(self.ledger)
        earlier = len(self.ledger) - self.patience
        if not self.patience or earlier < self.first:
            return
        order = sorted(self.ledger, key=lambda record: record.number)
        now, before = self._members(order), self._members(order[:earlier])
        if before:
            self.is_over = now == before or not self._gain(now, before).shown

    def _members(self, ledger: Sequence[Record]) -> list[int]:
        finished = [record for record in ledger if record.state == "finished"]
        return members_of(finished, {r.number: r.score for r in finished}, self.keep)

    def _gain(self, now: list[int], before: list[int]) -> Difference:
        numbers = sorted({*now, *before})
        files = {number: trial_uri(self.config, number, ".parquet") for number in numbers}
        held = held_trials(files, self.name, self.task)
        groups = self._groups_of(held.clip_id)
        held = dataclasses.replace(held, group=groups)
        # The groups of one fixed split take turns as folds.
        folds = held.fold if len(np.unique(held.fold)) > 1 else groups % PARTS
        kind, guess = self.task.kind, cross_fitting.priors(held, folds)

        def fused(members: Sequence[int]) -> Tensor:
            some = held.only([str(number) for number in members])
            scores = cross_fitting.cross_fitted(some, [QUICK], folds).scores
            return probabilities(kind, answered(scores, guess))

        return paired(
            SELECTION_METRICS[kind], (fused(now), fused(before)), held.target, Groups.of(groups),
            resamples=RESAMPLES, level=LEVEL,
        )  # fmt: skip

    def _groups_of(self, clip_id: np.ndarray) -> np.ndarray:
        """Groups of the held-out rows, which are the same ones at nearly every look."""
        if self.groups is None or not np.array_equal(self.groups[0], clip_id):
            self.groups = clip_id, groups_of(self.config.root, clip_id)
        return self.groups[1]


class Ending(Stopper):  # type: ignore[misc]
    """Ends the trials under way when the time is up or the patience at its end.

    Args:
        left_s: gives the time that is left for trials [s].
        patience: follows what was gained.
    """

    def __init__(self, left_s: Callable[[], float], patience: Patience) -> None:
        self.left_s, self.patience = left_s, patience

    def __call__(self, _trial_id: str, _result: Mapping[str, Any]) -> bool:
        """A trial goes on as long as all do."""
        return False

    def stop_all(self) -> bool:
        """Whether no trial goes on."""
        return self.reason is not None

    @property
    def reason(self) -> str | None:
        """Why the search ends now; None: it goes on."""
        if self.patience.is_over:
            return self.patience.said
        return "the time is up" if self.left_s() <= 0 else None

    def __deepcopy__(self, _memo: dict[int, Any]) -> "Ending":
        # Tune copies its settings; there is one clock and one ledger.
        return self
