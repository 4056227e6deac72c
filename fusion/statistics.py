"""Uncertainty of figures: over groups (people, dialogues, videos), not over rows and not over seeds.

Rows of one group are not independent, so every resample draws whole groups. Seeds of one configuration are
averaged first: a prediction may be a list, one tensor a seed, and its figure is the mean of theirs. All
resamples of a metric are one matrix product (see `fusion.metrics._metric`).

Shapes: row, resample, group.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from fusion.metrics import metric as find_metric
from fusion.number_format import bounded_text, figure_text
from fusion.percentiles import around, percentile_interval

FEW_GROUPS = 10
"""Below this many groups an interval over groups says little."""

BIASED = ("ece",)
"""Metrics that resampling raises: chance between bins adds up, and rows that are drawn twice add to it."""

CHUNK = 2_000
EXACT_UP_TO = 12
"""Up to this many groups all sign patterns are enumerated."""

Prediction = Tensor | Sequence[Tensor]


@dataclass(frozen=True)
class Groups:
    """Who each row belongs to."""

    code: Int[Tensor, " row"]
    count: int

    @classmethod
    def of(cls, labels: Sequence[Hashable] | np.ndarray | Tensor) -> "Groups":
        """Groups from any labels, one a row.

        >>> Groups.of(["ann", "bob", "ann"]).code.tolist()
        [0, 1, 0]
        """
        values = labels.tolist() if isinstance(labels, np.ndarray | Tensor) else list(labels)
        places = {label: place for place, label in enumerate(dict.fromkeys(values))}
        return cls(torch.tensor([places[label] for label in values]).long(), len(places))

    @property
    def caution(self) -> str:
        """What to print beside intervals; empty where there are enough groups.

        >>> Groups.of([1, 2, 2]).caution
        'only 2 groups: the intervals say little'
        """
        if self.count == 1:
            return "only 1 group: nothing is known of others, and there are no intervals"
        return f"only {self.count} groups: the intervals say little" if self.few else ""

    @property
    def few(self) -> bool:
        """Whether there are fewer than 10."""
        return self.count < FEW_GROUPS


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure with its percentile interval over groups; NaN where there is none."""

    value: float
    low: float
    high: float
    level: float
    groups: int

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "Interval":
        """The one that was written as JSON, undefined numbers as null."""
        return cls(**_with_nan(facts))

    def __str__(self) -> str:
        """With its bounds, where they are known; a dash where it is not defined.

        >>> str(Interval(value=0.8, low=0.71, high=0.9, level=0.95, groups=9))
        '0.800 [0.710, 0.900]'
        """
        if math.isnan(self.value):
            return "-"
        if math.isnan(self.low):
            return figure_text(self.value)
        return bounded_text(self.value, self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much better the first of two predictions is (positive is better), paired by group."""

    value: float
    low: float
    high: float
    level: float
    groups: int
    p_value: float
    """Two-sided, by exchanging the two within groups."""

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "Difference":
        """The one that was written as JSON, undefined numbers as null."""
        return cls(**_with_nan(facts))

    def __str__(self) -> str:
        """With sign, and bounds where they are known; a dash where it is not defined.

        >>> str(Difference(value=0.1, low=-0.02, high=0.2, level=0.95, groups=9, p_value=0.08))
        '+0.100 [-0.020, +0.200]'
        """
        if math.isnan(self.value):
            return "-"
        if math.isnan(self.low):
            return figure_text(self.value, sign="+")
        return bounded_text(self.value, self.low, self.high, sign="+")

    @property
    def shown(self) -> bool:
        """Whether there is an interval, and all of it lies above zero."""
        return self.low > 0

    @property
    def error(self) -> float:
        """The standard error of a normal figure with an interval as wide; 0 where there is none.

        >>> round(Difference(value=0.1, low=-0.1, high=0.3, level=0.95, groups=9, p_value=0.3).error, 3)
        0.102
        """
        error = (self.high - self.low) / (2 * NormalDist().inv_cdf((1 + self.level) / 2))
        return 0.0 if math.isnan(error) else error

    @property
    def least_visible(self) -> float:
        """Half of the interval: with these groups a smaller gain is hardly ever shown."""
        return (self.high - self.low) / 2


def bootstrap(
    name: str,
    prediction: Prediction,
    target: Shaped[Tensor, "row ..."],
    groups: Groups,
    *,
    resamples: int = 5000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a metric, groups drawn with replacement; NaN bounds of a single group.

    That of the ECE is moved to lie around the figure (see `fusion.percentiles.around`).

    Args:
        name: key of METRICS.
        prediction: as the metric takes it, or a list of such, one a seed.
        target: as the metric takes it.
        groups: of the rows.
        resamples: how many.
        level: share of resamples inside the interval.
        seed: of the draws; equal seeds give paired draws.

    Raises:
        ValueError: no rows, or lengths that disagree.
    """
    each = _seeds(prediction)
    value = _mean([find_metric(name)(p, target) for p in each])
    drawn = resampled(name, each, target, groups, resamples=resamples, seed=seed)
    if name in BIASED:
        drawn = around(value, drawn)
    low, high = percentile_interval(drawn, level, groups.count)
    return Interval(value=value, low=low, high=high, level=level, groups=groups.count)


def resampled(
    name: str,
    prediction: Prediction,
    target: Shaped[Tensor, "row ..."],
    groups: Groups,
    *,
    resamples: int,
    seed: int = 0,
) -> Float[Tensor, " resample"]:
    """The metric of each resample of groups, averaged over seeds."""
    found = find_metric(name)
    sums = [_group_sums(found.rows(p, target), groups) for p in _seeds(prediction)]
    return torch.cat(
        [
            torch.stack([found.finish(counts @ total) for total in sums]).mean(0)
            for counts in _draws(groups.count, resamples, seed)
        ]
    )


def paired(
    name: str,
    sides: tuple[Prediction, Prediction],
    target: Shaped[Tensor, "row ..."],
    groups: Groups,
    *,
    resamples: int = 5000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """How much better the first side is than the second on the same rows: interval and sign-flip test.

    Raises:
        ValueError: no rows, or lengths that disagree.
    """
    found = find_metric(name)
    sign = 1.0 if found.higher_is_better else -1.0
    means = [_mean([found(p, target) for p in _seeds(side)]) for side in sides]
    drawn = [
        resampled(name, side, target, groups, resamples=resamples, seed=seed) for side in sides
    ]
    low, high = percentile_interval(sign * (drawn[0] - drawn[1]), level, groups.count)
    return Difference(
        value=sign * (means[0] - means[1]),
        low=low,
        high=high,
        level=level,
        groups=groups.count,
        p_value=sign_flip(name, *sides, target, groups, flips=resamples, seed=seed),
    )


def sign_flip(
    name: str,
    first: Prediction,
    second: Prediction,
    target: Shaped[Tensor, "row ..."],
    groups: Groups,
    *,
    flips: int = 5000,
    seed: int = 0,
) -> float:
    """Two-sided p-value of no difference: the two predictions are exchanged in random groups.

    For a mean over rows this flips the signs of the groups' differences; for F1 and the like the sums are
    exchanged before the figure is formed. Up to 12 groups all patterns are enumerated.
    """
    found = find_metric(name)
    sides = [
        torch.stack([_group_sums(found.rows(p, target), groups) for p in _seeds(side)]).mean(0)
        for side in (first, second)
    ]

    def differences(kept: Tensor) -> Tensor:
        one = kept @ sides[0] + (1 - kept) @ sides[1]
        other = kept @ sides[1] + (1 - kept) @ sides[0]
        return (found.finish(one) - found.finish(other)).abs()

    observed = differences(torch.ones(1, groups.count, dtype=torch.float64))[0]
    if bool(observed.isnan()):
        return float("nan")
    # As a share of the figures: those of values have their unit.
    size = max(abs(float(found.finish(side.sum(0)))) for side in sides)
    limit = observed - 1e-12 * size
    if groups.count <= EXACT_UP_TO:
        pattern = torch.arange(2**groups.count).unsqueeze(1)
        kept = (pattern >> torch.arange(groups.count)) & 1
        return float((differences(kept.double()) >= limit).double().mean())
    random = torch.Generator().manual_seed(seed)
    kept = torch.randint(2, (flips, groups.count), generator=random).double()
    more = torch.cat([differences(part) >= limit for part in torch.split(kept, CHUNK)]).sum()
    return float((more + 1) / (flips + 1))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction for several comparisons, in the order that came.

    A comparison without a p-value (NaN: the figure is not defined) is left out, and corrects no other.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    ranked = sorted((value, name) for name, value in p_values.items() if not math.isnan(value))
    adjusted: dict[str, float] = {}
    highest = 0.0
    for place, (value, name) in enumerate(ranked):
        highest = max(highest, min(1.0, (len(ranked) - place) * value))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values if name in adjusted}


def _with_nan(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in facts.items()}


def _seeds(prediction: Prediction) -> list[Tensor]:
    return [prediction] if isinstance(prediction, Tensor) else list(prediction)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _group_sums(rows: Tensor, groups: Groups) -> Tensor:
    """[group statistic]."""
    sums = torch.zeros(groups.count, rows.shape[1], dtype=torch.float64)
    return sums.index_add_(0, groups.code, rows)


def _draws(groups: int, resamples: int, seed: int) -> list[Tensor]:
    """How often each resample drew each group [chunk group], in chunks."""
    random = np.random.default_rng(seed)
    chances = np.full(groups, 1 / groups)
    return [
        torch.from_numpy(
            random.multinomial(groups, chances, size=min(CHUNK, resamples - start))
        ).double()
        for start in range(0, resamples, CHUNK)
    ]
