"""Against what the lines of a table are judged, and how their intervals are drawn."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cluster.errors import ConfigError
from fusion.late.members import probabilities
from fusion.metrics import FIGURES, metric
from fusion.statistics import Difference, Groups, Interval, bootstrap, paired
from fusion.tasks import Kind, Task

FEWEST_RESAMPLES = 100
"""With fewer draws an interval of 95 % has no ends."""


def check_resamples(count: int) -> None:
    """Refuse a number of bootstrap resamples that no interval can be made of.

    Raises:
        ConfigError: fewer than 100.
    """
    if count < FEWEST_RESAMPLES:
        raise ConfigError(f"--resamples {count}: expected {FEWEST_RESAMPLES} or more")


def folds_by_group(fold: np.ndarray, groups: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """Fold of each row: that of the runs; rows of one fixed split are cut by group.

    Args:
        fold: of each row by the runs.
        groups: code of each row's group.
        num_folds: at most so many where they are cut.
        seed: of the cut.

    Raises:
        ConfigError: rows of one fixed split are all of one group.
    """
    if len(np.unique(fold)) > 1:
        return fold
    count = len(np.unique(groups))
    if count < 2:
        raise ConfigError("the held-out rows are all of one group: nothing can be cross-fitted")
    order = np.random.default_rng(seed).permutation(count)
    return np.asarray(order[groups] % min(num_folds, count))


@dataclass(frozen=True, kw_only=True)
class Judging:
    """The rows that all lines of a table are judged on; scores [row outputs] answer every one of them."""

    task: Task
    target: Tensor
    groups: np.ndarray
    """Code of each row's group: what the bootstrap draws."""

    resamples: int
    seed: int
    """Of the bootstrap."""

    @property
    def main(self) -> str:
        """The figure that gains are stated in."""
        return FIGURES[self.task.kind][0]

    def figures(self, scores: Tensor) -> dict[str, Interval]:
        """Every figure of the kind of task."""
        prediction, people = probabilities(self.task.kind, scores), Groups.of(self.groups)
        draws = {"resamples": self.resamples, "seed": self.seed}
        return {
            name: bootstrap(name, prediction, self.target, people, **draws)
            for name in FIGURES[self.task.kind]
        }

    def gain(self, ours: Tensor, theirs: Tensor, name: str | None = None) -> Difference:
        """How much better (positive) the first scores are, in a metric or the main figure."""
        sides = (probabilities(self.task.kind, ours), probabilities(self.task.kind, theirs))
        return paired(
            name or self.main, sides, self.target, Groups.of(self.groups),
            resamples=self.resamples, seed=self.seed,
        )  # fmt: skip

    def loss(self, scores: Tensor) -> float:
        """The main figure, turned so that lower is better."""
        return loss(self.main, self.task.kind, scores, self.target)


def loss(name: str, kind: Kind, scores: Tensor, target: Tensor) -> float:
    """A figure, turned so that lower is better."""
    figure = metric(name)
    value = figure(probabilities(kind, scores), target)
    return float("inf") if np.isnan(value) else figure.loss(value)
