"""Computing for all steps at once, a block of steps at a time.

Shapes: time, state (1 + time), batch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

ROWS = 1024
"""Rows (steps x batch) of a block: what is made in between stays in a CPU's cache."""


def blocks(time: int, batch: int) -> list[slice]:
    """The steps in blocks of about `ROWS` rows."""
    size = max(1, ROWS // max(1, batch))
    return [slice(start, min(start + size, time)) for start in range(0, time, size)]


def in_blocks(
    function: Callable[[list[Tensor], list[Tensor]], Tensor], states: list[Tensor]
) -> Tensor:
    """`function` of all states and those before them, over blocks of steps.

    On a CPU what it makes in between stays in the cache that way.

    Args:
        function: of states before and now [time batch _].
        states: with one before the first step [1 + time batch _].
    """
    time, batch = len(states[0]) - 1, states[0].shape[1]
    spans = blocks(time, batch) if states[0].device.type == "cpu" else [slice(0, time)]
    windows = zip(*(overlapping(s, spans) for s in states), strict=True)
    return torch.cat([function([w[:-1] for w in ws], [w[1:] for w in ws]) for ws in windows])


class _Overlapping(Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, spans: list[slice]) -> tuple[Tensor, ...]:
        ctx.spans, ctx.shape = spans, states.shape
        return tuple(states[span.start : span.stop + 1] for span in spans)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        whole = grads[0].new_zeros(ctx.shape)
        for span, grad in zip(ctx.spans, grads, strict=True):
            whole[span.start : span.stop + 1].add_(grad)
        return whole, None


def overlapping(
    states: Float[Tensor, "state batch _"], spans: list[slice]
) -> tuple[Float[Tensor, "_ batch _"], ...]:
    """States of each block and the one before it. Gradients are added up in one tensor, not one a block."""
    windows: tuple[Tensor, ...] = _Overlapping.apply(states, spans)  # type: ignore[no-untyped-call]
    return windows


class _Scaled(Function):
    @staticmethod
    def forward(ctx: Any, factors: Tensor, *values: Tensor) -> Tensor:
        widths = [v.shape[-1] for v in values]
        out = factors.new_empty(*factors.shape[:-1], sum(widths))
        for factor, value, part in zip(
            torch.split(factors, 1, -1), values, torch.split(out, widths, -1), strict=True
        ):
            torch.mul(value, factor, out=part)
        ctx.save_for_backward(factors, *values)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        factors, *values = ctx.saved_tensors
        d_factors = torch.empty_like(factors)
        parts = torch.split(grad, [v.shape[-1] for v in values], -1)
        for d_factor, value, part in zip(d_factors.unbind(-1), values, parts, strict=True):
            torch.sum(part * value, -1, out=d_factor)
        d_values = (
            part * factor for part, factor in zip(parts, torch.split(factors, 1, -1), strict=True)
        )
        return d_factors, *d_values


def scaled(
    factors: Float[Tensor, "*rows number"], values: Sequence[Float[Tensor, "*rows _"]]
) -> Float[Tensor, "*rows width"]:
    """The concatenation of (factor x value), formed once."""
    values = [value.to(factors.dtype) for value in values]
    out: Tensor = _Scaled.apply(factors, *values)  # type: ignore[no-untyped-call]
    return out
