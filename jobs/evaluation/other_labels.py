"""Labels of two datasets joined by name, and how much is lost from one to the other.

Shapes: row, outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cluster.errors import ConfigError
from fusion.metrics import metric
from fusion.percentiles import percentile_interval
from fusion.statistics import Groups, Interval, resampled
from fusion.tasks import Task


@dataclass(frozen=True, kw_only=True)
class JoinedLabels:
    """The classes that both datasets have, in our order."""

    classes: tuple[str, ...]
    columns: tuple[int, ...]
    """Their places among our classes."""

    of_theirs: Mapping[int, int]
    """Place of a class of theirs -> place of ours; those that mean nothing of ours are left out."""

    dropped_ours: tuple[str, ...]
    dropped_theirs: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether every class of ours is among theirs."""
        return not self.dropped_ours

    def narrowed(self, scores: Tensor) -> Tensor:
        """Log-probabilities [row class] of the common classes, renormalised, of those of all of ours."""
        return scores[:, list(self.columns)].log_softmax(1)

    def places(self, target: Tensor) -> Tensor:
        """Classes of ours [row] -> places among the common ones; -1: none."""
        place = torch.full((max(self.columns) + 1,), -1)
        place[list(self.columns)] = torch.arange(len(self.columns))
        known = target < len(place)
        return torch.where(known, place[target.clamp(max=len(place) - 1)], -1)


def join_labels(ours: Task, theirs: Task, aliases: Mapping[str, str]) -> JoinedLabels:
    """Join classes by name: as given, then exactly, then whatever the case of letters.

    Args:
        ours: of the model.
        theirs: of the other dataset.
        aliases: class of theirs -> class of ours.

    Raises:
        ConfigError: an alias names no class, or fewer than two classes are common.
    """
    for what, names, known in (
        ("the other dataset", aliases, theirs.classes),
        ("the model", aliases.values(), ours.classes),
    ):
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"--labels: {what} has no class {name!r}; it has {', '.join(known)}"
                )
    place = {name: index for index, name in enumerate(ours.classes)}
    folded = _unique({name.casefold(): index for name, index in place.items()}, ours.classes)
    found: dict[int, int] = {}
    for index, name in enumerate(theirs.classes):
        meant = place.get(aliases.get(name, name), folded.get(name.casefold()))
        if meant is not None:
            found[index] = meant
    columns = tuple(sorted(set(found.values())))
    if len(columns) < 2:
        raise ConfigError(
            f"the model's classes ({', '.join(ours.classes)}) and the other dataset's "
            f"({', '.join(theirs.classes)}) have {len(columns)} in common; join them by "
            f"--labels THEIRS=OURS, e.g. {theirs.classes[0]}={ours.classes[0]}"
        )
    return JoinedLabels(
        classes=tuple(ours.classes[column] for column in columns),
        columns=columns,
        of_theirs=found,
        dropped_ours=tuple(n for n in ours.classes if place[n] not in columns),
        dropped_theirs=tuple(n for k, n in enumerate(theirs.classes) if k not in found),
    )


def _unique(folded: Mapping[str, int], names: Sequence[str]) -> dict[str, int]:
    """Without the spellings that two classes share."""
    counts = [name.casefold() for name in names]
    return {name: index for name, index in folded.items() if counts.count(name) == 1}


@dataclass(frozen=True, kw_only=True)
class OneCorpus:
    """What was said in one dataset."""

    prediction: Tensor
    """As the metric takes it."""

    target: Tensor
    groups: np.ndarray


def drop(name: str, here: OneCorpus, there: OneCorpus, *, resamples: int, seed: int) -> Interval:
    """How much worse (positive) a figure is there, with its interval over the groups of both.

    The two datasets are drawn from independently: they share no group.

    Args:
        name: key of METRICS.
        here: in the model's own dataset, rows it did not train on.
        there: in the other one.
        resamples: of the groups.
        seed: of the draws.
    """
    sign = 1.0 if metric(name).higher_is_better else -1.0
    values, draws, counts = [], [], []
    for number, side in enumerate((here, there)):
        groups = Groups.of(side.groups)
        values.append(float(metric(name)(side.prediction, side.target)))
        draws.append(
            resampled(
                name, side.prediction, side.target, groups, resamples=resamples, seed=seed + number
            )
        )
        counts.append(groups.count)
    low, high = percentile_interval(sign * (draws[0] - draws[1]), 0.95, min(counts))
    return Interval(
        value=sign * (values[0] - values[1]), low=low, high=high, level=0.95, groups=min(counts)
    )
