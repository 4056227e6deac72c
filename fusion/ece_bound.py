"""The ECE of a model that is perfectly calibrated: what a measured one has to be held against.

Shapes: row, class.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fusion.metrics.classification import BINS, confidence_bins


@dataclass(frozen=True)
class EceBound:
    """The ECE that a perfectly calibrated model would show on as many rows."""

    mean: float
    high: float
    """Its 95 % point."""


def ece_bound(
    probabilities: Float[Tensor, "row class"], *, draws: int = 1000, seed: int = 0
) -> EceBound:
    """ECE when each row is right exactly as often as its confidence says.

    >>> p = torch.full((1440, 2), 0.5).double()
    >>> bound = ece_bound(p)
    >>> bool(0.005 < bound.mean < 0.015 < bound.high < 0.03)
    True
    """
    confidence = probabilities.double().amax(1)
    random = torch.Generator().manual_seed(seed)
    bins = torch.nn.functional.one_hot(confidence_bins(confidence), BINS).double()
    step = max(1, 4_000_000 // max(1, len(confidence)))
    found = []
    for start in range(0, draws, step):
        shape = (min(step, draws - start), len(confidence))
        right = torch.rand(shape, generator=random, dtype=torch.float64) < confidence
        found.append(((right.double() - confidence) @ bins).abs().sum(1) / len(confidence))
    each = torch.cat(found)
    return EceBound(float(each.mean()), float(torch.quantile(each, 0.95)))
