"""Losses of MISA on its codes.

Shapes: row, hidden.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function


def orthogonality(x: Float[Tensor, "row hidden"], y: Float[Tensor, "row hidden"]) -> Tensor:
    """Mean squared entry of X^T Y, both centred over rows and with rows of (fixed) length one."""
    if len(x) < 2:
        return x.sum() * 0.0
    x, y = (z - z.mean(0) for z in (x, y))
    x, y = (z / (z.detach().norm(dim=1, keepdim=True) + 1e-6) for z in (x, y))
    return (x.T @ y).square().mean()


def moment_distance(
    x: Float[Tensor, "row hidden"], y: Float[Tensor, "row hidden"], moments: int
) -> Tensor:
    """Central moment discrepancy: distance of the means plus of the central moments up to the highest."""
    if len(x) < 2:
        return x.sum() * 0.0 + y.sum() * 0.0
    cx, cy = x - x.mean(0), y - y.mean(0)
    pairs = [(x.mean(0), y.mean(0))]
    pairs += [(cx.pow(k).mean(0), cy.pow(k).mean(0)) for k in range(2, moments + 1)]
    return torch.stack([_length(a - b) for a, b in pairs]).sum()


def _length(x: Tensor) -> Tensor:
    # The slope of a norm at zero is not defined.
    square = x.square().sum()
    return torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0 * square)


class _Reverse(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * grad, None


def reversed_gradient(x: Tensor, weight: float) -> Tensor:
    """X itself; its gradient is multiplied by -weight."""
    same: Tensor = _Reverse.apply(x, weight)  # type: ignore[no-untyped-call]
    return same
