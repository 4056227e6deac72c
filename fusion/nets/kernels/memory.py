"""The gated memory's recurrences, with hand-written gradients (see `_lstm.py` for how their loops are made).

Shapes: time, batch, memory, inner, gate (inner widths of both gates).
"""

import ctypes
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fusion.nets.kernels.blocks import blocks
from fusion.nets.kernels.compiled import arrays, steps_for

# Gradients through a sigmoid, a tanh and a ReLU from their outputs, one call each.
_sigmoid_slope = torch.ops.aten.sigmoid_backward.grad_input
_tanh_slope = torch.ops.aten.tanh_backward.grad_input
_relu_slope = torch.ops.aten.threshold_backward.grad_input


class _Scan(Function):
    @staticmethod
    def forward(ctx: Any, keep: Tensor, add: Tensor) -> Tensor:
        keep, add = keep.contiguous(), add.contiguous()
        u = add.new_empty(len(add) + 1, *add.shape[1:])
        compiled = steps_for(add)
        if compiled is not None:
            compiled.scan(arrays(keep, add, u), len(add), u[0].numel())
        else:
            u[0] = 0.0
            for t in range(len(add)):
                torch.addcmul(add[t], keep[t], u[t], out=u[t + 1])
        ctx.save_for_backward(keep, u)
        return u[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        keep, u = ctx.saved_tensors
        du = grad.clone(memory_format=torch.contiguous_format)
        d_keep = torch.empty_like(du)
        compiled = steps_for(du)
        if compiled is not None:
            compiled.scan_back(arrays(keep, u, du, d_keep), len(du), u[0].numel())
        else:
            for t in reversed(range(len(du) - 1)):
                du[t].addcmul_(du[t + 1], keep[t + 1])
            torch.mul(du, u[:-1], out=d_keep)
        return d_keep, du


def scan(
    keep: Float[Tensor, "time batch memory"], add: Float[Tensor, "time batch memory"]
) -> Float[Tensor, "time batch memory"]:
    """u_t = keep_t u_{t-1} + add_t from u = 0."""
    dtype = torch.promote_types(add.dtype, torch.float32)
    u: Tensor = _Scan.apply(keep.to(dtype), add.to(dtype))  # type: ignore[no-untyped-call]
    return u.to(add.dtype)


class _GatedMemory(Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, kept: Tensor | None, inner: Tensor, *weights: Tensor
    ) -> Tensor:
        w_c, b_c, w1, b1, w2, b2 = weights
        time, batch, _ = inputs.shape
        memory, first = w_c.shape
        a = torch.empty_like(inputs)
        candidate = inputs.new_empty(time, batch, memory)
        gates = inputs.new_empty(time, batch, 2, memory)
        u = inputs.new_empty(time + 1, batch, memory)
        u[0] = 0.0
        compiled, widths = steps_for(inputs), [w1.shape[1], w2.shape[1]]
        bias, inner_t, w1_t, w2_t = torch.stack([b1, b2]), inner.t(), w1.t(), w2.t()
        for block in blocks(time, batch):
            seen, both = a[block][..., :first], a[block][..., first:]
            torch.clamp(inputs[block][..., :first], min=0.0, out=seen)
            both.copy_(inputs[block][..., first:])
            gates[block] = bias
            if kept is not None:
                seen.mul_(kept[block][..., :first])
            rows = candidate[block].flatten(0, 1)
            torch.addmm(b_c, seen.flatten(0, 1), w_c.t(), out=rows).tanh_()
            drop = None if kept is None else kept[block][..., first:].unbind(0)
            states = (candidate[block], u[block.start : block.stop + 1])
            end = _gates_end(compiled, gates[block], *states)
            sides = (states[1], both, *torch.split(both, widths, -1), *gates[block].unbind(2))
            for t, (u0, step, part1, part2, keep, add) in enumerate(_by_step(*sides)):
                step.addmm_(u0, inner_t).relu_()
                if drop is not None:
                    step.mul_(drop[t])
                keep.addmm_(part1, w1_t)
                add.addmm_(part2, w2_t)
                end(t)
        ctx.save_for_backward(kept, inner, w_c, w1, w2, u, a, gates, candidate)
        return u[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        kept, inner, w_c, w1, w2, u, a, gates, candidate = ctx.saved_tensors
        time, batch, _ = a.shape
        memory, first = w_c.shape
        spans = blocks(time, batch)
        most = spans[0].stop
        d_a = torch.empty_like(a)
        d_inner, d_c, d_1, d_2 = (torch.zeros_like(w) for w in (inner, w_c, w1, w2))
        d_bias = grad.new_zeros(3, memory)
        du = grad.new_zeros(most + 1, batch, memory)
        d_pairs = grad.new_empty(most, batch, 2, memory)
        d_new = grad.new_empty(most, batch, memory)
        widths = [first, w1.shape[1], w2.shape[1]]
        compiled = steps_for(grad)
        for block in reversed(spans):
            size = block.stop - block.start
            if block.stop < time:
                # Through the kept share, then through both gates of the step behind the block.
                torch.mul(du[0], gates[block.stop, :, 0], out=du[size])
                du[size].addmm_(d_a[block.stop, :, first:], inner)
            du[:size] = grad[block]
            pair, both, d_both = d_pairs[:size], a[block][..., first:], d_a[block][..., first:]
            drop = None if kept is None else kept[block][..., first:].unbind(0)
            begin = _gates_back(
                compiled, gates[block], candidate[block], u[block], du[: size + 1], pair
            )
            sides = (du, *pair.unbind(2), both, d_both, *torch.split(d_both, widths[1:], -1))
            later: Tensor | None = None
            for t, (after, d1, d2, step, d_step, part1, part2) in reversed(
                list(enumerate(_by_step(*sides)))
            ):
                if later is not None:
                    after.addmm_(later, inner)
                begin(t)
                torch.mm(d1, w1, out=part1)
                torch.mm(d2, w2, out=part2)
                _relu_slope(d_step, step, 0.0, grad_input=d_step)
                if drop is not None:
                    d_step.mul_(drop[t])
                later = d_step
            new = torch.mul(du[:size], gates[block][:, :, 1], out=d_new[:size])
            _tanh_slope(new, candidate[block], grad_input=new)
            new, pair = new.flatten(0, 1), pair.flatten(0, 1)
            part_c, part_1, part_2 = torch.split(a[block].flatten(0, 1), widths, -1)
            part = d_a[block].flatten(0, 1)
            torch.mm(new, w_c, out=part[:, :first])
            _relu_slope(part[:, :first], part_c, 0.0, grad_input=part[:, :first])
            if kept is not None:
                part[:, :first].mul_(kept[block].flatten(0, 1)[:, :first])
            d_inner.addmm_(part[:, first:].t(), u[block].flatten(0, 1))
            for out, left, right in (
                (d_c, new, part_c),
                (d_1, pair[:, 0], part_1),
                (d_2, pair[:, 1], part_2),
            ):
                out.addmm_(left.t(), right)
            d_bias[0].add_(new.sum(0))
            d_bias[1:].add_(pair.sum(0))
        return d_a, None, d_inner, d_c, d_bias[0], d_1, d_bias[1], d_2, d_bias[2]


def _by_step(*states: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of every step, taken at once: indexing in a loop costs as much as the arithmetic."""
    return zip(*(z.unbind(0) for z in states), strict=False)


def _gates_end(
    compiled: ctypes.CDLL | None, gates: Tensor, candidate: Tensor, u: Tensor
) -> Callable[[int], None]:
    """What ends step t of a block: sums become gates, and the memory goes on."""
    if compiled is not None:
        at, sizes = arrays(gates, candidate, u), candidate.shape[1:]
        return functools.partial(compiled.memory_step, at, *sizes)
    steps = list(_by_step(gates, *gates.unbind(2), candidate, u, u[1:]))

    def end(t: int) -> None:
        pair, keep, add, new, u0, u1 = steps[t]
        pair.sigmoid_()
        torch.mul(keep, u0, out=u1).addcmul_(add, new)

    return end


def _gates_back(
    compiled: ctypes.CDLL | None,
    gates: Tensor,
    candidate: Tensor,
    u: Tensor,
    du: Tensor,
    d_pairs: Tensor,
) -> Callable[[int], None]:
    """What begins step t of a block from behind: `du` is completed, `d_pairs` filled.

    What the steps behind the block add to its last `du` stands behind it.
    """
    if compiled is not None:
        at, sizes = arrays(gates, candidate, u, du, d_pairs, du[-1]), candidate.shape[1:]
        return functools.partial(compiled.memory_step_back, at, *sizes)
    _sigmoid_slope(u, gates[:, :, 0], grad_input=d_pairs[:, :, 0])
    _sigmoid_slope(candidate, gates[:, :, 1], grad_input=d_pairs[:, :, 1])
    steps = list(_by_step(du, d_pairs, gates[:, :, 0]))

    def begin(t: int) -> None:
        grad, pair, _ = steps[t]
        if t + 1 < len(steps):
            grad.addcmul_(steps[t + 1][0], steps[t + 1][2])
        else:
            grad.add_(du[-1])
        pair.mul_(grad.unsqueeze(1))

    return begin


def gated_memory(
    inputs: Float[Tensor, "time batch inner"],
    kept: Float[Tensor, "time batch inner"] | None,
    of_memory: Float[Tensor, "gate memory"],
    candidate: tuple[Tensor, Tensor],
    keep: tuple[Tensor, Tensor],
    add: tuple[Tensor, Tensor],
) -> Float[Tensor, "time batch memory"]:
    """u_t = g1 u_{t-1} + g2 tanh(D), where both gates read u_{t-1}.

    D = W dropout(relu(inputs_t)) + b;  g = sigmoid(W dropout(relu(inputs_t + of_memory u_{t-1})) + b), each a
    pair (W, b). The columns of `inputs` belong to `candidate` (D), `keep` (g1) and `add` (g2), in this order,
    the rows of `of_memory` to `keep` and `add`. `kept` is the dropout mask, already scaled.
    """
    dtype = torch.promote_types(inputs.dtype, torch.float32)
    mask = None if kept is None else kept.to(dtype)
    weights = [w.to(dtype) for w in (of_memory, *candidate, *keep, *add)]
    u: Tensor = _GatedMemory.apply(inputs.to(dtype), mask, *weights)  # type: ignore[no-untyped-call]
    return u.to(inputs.dtype)
