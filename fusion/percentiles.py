"""Intervals from the figures of resamples of groups.

Resampling few groups shows too little spread, so intervals over fewer than 20 are expanded (Hesterberg 2015,
https://arxiv.org/abs/1411.5279, section 5.3): of 8 groups they hold the truth in 93 % of simulated cases
instead of 88, of 4 in 86 instead of 79. BCa intervals gained nothing there. Every resample of a single group
is that group: it has no interval.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fusion.students_t import student_t

EXPANDED_BELOW = 20
"""Below this many groups the percentiles are moved outwards."""


def percentile_interval(
    drawn: Float[Tensor, " resample"], level: float, groups: int
) -> tuple[float, float]:
    """The middle share of the resamples where the figure is defined; NaN where it never is.

    Args:
        drawn: the figure of each resample.
        level: how often the interval is to hold the truth.
        groups: number that were drawn from; of few a larger share of the resamples is taken, and of one
            nothing is known (NaN).

    >>> [round(end, 3) for end in percentile_interval(torch.arange(101.0), 0.9, 1000)]
    [5.0, 95.0]
    >>> percentile_interval(torch.ones(100), 0.9, 1)
    (nan, nan)
    """
    defined = drawn[~drawn.isnan()].double()
    if len(defined) == 0 or groups < 2:
        return float("nan"), float("nan")
    tail = _tail(level, groups)
    low, high = torch.quantile(defined, torch.tensor([tail, 1 - tail]).double()).tolist()
    return float(low), float(high)


def around(value: float, drawn: Float[Tensor, " resample"]) -> Float[Tensor, " resample"]:
    """The figures of resamples, moved by their bias: their median is the figure; none is below 0.

    A figure that chance raises (an ECE) is raised once more in every resample, by about as much: the plain
    percentiles hold that bias twice, and may leave out the figure itself. What is left is the spread of the
    figure as so many rows show it: that of perfectly calibrated probabilities isn't 0 (`fusion.ece_bound`).

    >>> around(0.1, torch.tensor([0.1, 0.3, 0.6]).double()).round(decimals=6).tolist()
    [0.0, 0.1, 0.4]
    """
    return (drawn - drawn.nanmedian() + value).clamp(min=0.0)


def _tail(level: float, groups: int) -> float:
    """The share of the resamples on either side: Student's t in place of the normal, and n - 1 of n."""
    if groups >= EXPANDED_BELOW:
        return (1 - level) / 2
    reach = (groups / (groups - 1)) ** 0.5 * student_t(level, groups - 1)
    return math.erfc(reach / 2**0.5) / 2
