"""Whether a bundle may take the place of another: paired, on the held-out clips that both answer.

Not worse: in no primary figure does the whole interval of the difference lie below zero. Better: in at least
one of them it lies above. Intervals are over groups, and wider the more figures are looked at (Bonferroni).
"""

from dataclasses import dataclass

from cluster.errors import ConfigError
from fusion.statistics import Difference, Groups, paired
from fusion.tasks import Kind, Task
from jobs.catalog.groups import groups_of
from jobs.evaluation.comparison import bundles_of, common

PRIMARY: dict[Kind, tuple[str, ...]] = {
    "classification": ("accuracy", "nll"),
    "multilabel": ("multilabel_macro_f1", "multilabel_nll"),
    "regression": ("mae", "ccc"),
}
"""What is answered, and how sure."""

CHANCE = 0.05
"""Of passing, or of being called worse, where there is no difference at all; over all figures."""


@dataclass(frozen=True, kw_only=True)
class PromotionVerdict:
    """How a bundle does beside the one it would replace."""

    num_clips: int
    num_groups: int
    gains: dict[str, Difference]
    """Figure -> how much better the new one is; positive is better."""

    better: tuple[str, ...]
    worse: tuple[str, ...]

    @property
    def passes(self) -> bool:
        """Whether it may take the place."""
        return bool(self.better) and not self.worse

    @property
    def said(self) -> str:
        """In a line."""
        figures = ", ".join(f"{name} {gain}" for name, gain in self.gains.items())
        return f"{figures} on {self.num_clips} clips of {self.num_groups} groups"


def compared(
    root: str, new: str, old: str, name: str, task: Task, *, resamples: int, seed: int
) -> PromotionVerdict:
    """Compare two bundles of a root by their cross-fitted predictions.

    Raises:
        NotPreparedError: one has none.
        ConfigError: they are of different tasks, or have no clip in common.
    """
    sides = common(bundles_of(root, (new, old), name, task))
    groups = Groups.of(groups_of(root, sides[0].clip_id))
    if groups.count < 2:
        raise ConfigError(f"{new} and {old} share clips of one group: nothing can be told")
    level = 1 - CHANCE / len(PRIMARY[task.kind])
    gains = {
        figure: paired(
            figure, (sides[0].seeds, sides[1].seeds), sides[0].target, groups,
            resamples=resamples, level=level, seed=seed,
        )
        for figure in PRIMARY[task.kind]
    }  # fmt: skip
    return PromotionVerdict(
        num_clips=len(sides[0].clip_id),
        num_groups=groups.count,
        gains=gains,
        better=tuple(figure for figure, gain in gains.items() if gain.low > 0),
        worse=tuple(figure for figure, gain in gains.items() if gain.high < 0),
    )
