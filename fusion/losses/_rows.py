"""Masks and weights of all losses."""

import torch
from torch import Tensor


def row_weights(
    rows: tuple[int, ...] | torch.Size,
    like: Tensor,
    mask: Tensor | None,
    weights: Tensor | None,
) -> Tensor:
    """Weight of each row: zero where its target is unknown.

    Raises:
        ValueError: mask or weights of another shape.
    """
    weight = torch.ones(rows, device=like.device, dtype=like.dtype)
    for name, factor in (("mask", mask), ("weights", weights)):
        if factor is None:
            continue
        if tuple(factor.shape) != tuple(rows):
            raise ValueError(f"{name} is {tuple(factor.shape)}, expected {tuple(rows)}")
        weight = weight * factor.to(like.dtype)
    return weight


def values_of(logits: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """Prediction minus target of a regression task; zero where the target is unknown.

    Raises:
        ValueError: shapes that are not [*rows 1] and [*rows].
    """
    if logits.shape != (*target.shape, 1):
        raise ValueError(
            f"logits are {tuple(logits.shape)}, targets {tuple(target.shape)}; "
            "a regression loss takes [*rows 1] and [*rows]"
        )
    error = logits.squeeze(-1) - target.to(logits.dtype)
    return known(error, mask)


def class_targets(logits: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """Class indices with 0 where the target is unknown.

    Raises:
        ValueError: shapes that are not [*rows outputs] and [*rows].
    """
    if logits.shape[:-1] != target.shape:
        raise ValueError(
            f"logits are {tuple(logits.shape)}, targets {tuple(target.shape)}; "
            "expected [*rows outputs] and [*rows] class indices"
        )
    return known(target, mask).long()


def known(values: Tensor, mask: Tensor | None) -> Tensor:
    """Values with zero where the mask is False, whatever was there.

    Raises:
        ValueError: a mask of another shape.
    """
    if mask is None:
        return values
    if mask.shape != values.shape:
        raise ValueError(f"mask is {tuple(mask.shape)}, expected {tuple(values.shape)}")
    return values.masked_fill(~mask, 0)
