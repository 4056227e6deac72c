"""Huber's loss: squared for small errors, absolute for large ones (Huber 1964)."""

from torch import Tensor

from fusion.losses._rows import row_weights, values_of


def huber(
    logits: Tensor,
    target: Tensor,
    *,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    delta: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Sum of e^2 / 2 where |e| <= delta, of delta (|e| - delta / 2) beyond.

    Raises:
        ValueError: delta is not positive.
    """
    if delta <= 0:
        raise ValueError(f"delta is {delta}, expected more than 0")
    size = values_of(logits, target, mask).abs()
    inside = size.clamp(max=delta)
    weight = row_weights(target.shape, size, mask, weights)
    return (inside * (size - inside / 2) * weight).sum(), weight.sum()
