"""Absolute error."""

from torch import Tensor

from fusion.losses._rows import row_weights, values_of


def l1(
    logits: Tensor, target: Tensor, *, mask: Tensor | None = None, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sum of |prediction - target|."""
    error = values_of(logits, target, mask).abs()
    weight = row_weights(target.shape, error, mask, weights)
    return (error * weight).sum(), weight.sum()
