"""The gated memory's recurrences, with hand-written gradients (see `_lstm.py` for how their loops are made).

Shapes: time, batch, memory, inner, gate (inner widths of both gates).
"""

from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fusion.nets._blocks import blocks

# Gradients through a sigmoid, a tanh and a ReLU from their outputs, one call each.
_sigmoid_slope = torch.ops.aten.sigmoid_backward.grad_input
_tanh_slope = torch.ops.aten.tanh_backward.grad_input
_relu_slope = torch.ops.aten.threshold_backward.grad_input


class _Scan(Function):
    @staticmethod
    def forward(ctx: Any, keep: Tensor, add: Tensor) -> Tensor:
        u = add.new_zeros(len(add) + 1, *add.shape[1:])
        for t in range(len(add)):
            torch.addcmul(add[t], keep[t], u[t], out=u[t + 1])
        ctx.save_for_backward(keep, u)
        return u[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        keep, u = ctx.saved_tensors
        du = grad.clone()
        for t in reversed(range(len(du) - 1)):
            du[t].addcmul_(du[t + 1], keep[t + 1])
        return du * u[:-1], du


def scan(
    keep: Float[Tensor, "time batch memory"], add: Float[Tensor, "time batch memory"]
) -> Float[Tensor, "time batch memory"]:
    """u_t = keep_t u_{t-1} + add_t from u = 0."""
    u: Tensor = _Scan.apply(keep, add)  # type: ignore[no-untyped-call]
    return u


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
        both, parts = a[..., first:], torch.split(a, [first, w1.shape[1], w2.shape[1]], -1)
        bias, inner_t, w1_t, w2_t = torch.stack([b1, b2]), inner.t(), w1.t(), w2.t()
        drop = None if kept is None else kept[..., first:].unbind(0)
        sides = [z.unbind(0) for z in (u, u[1:], both, *parts[1:], gates, candidate)]
        steps = enumerate(zip(*sides, *(g.unbind(0) for g in gates.unbind(2)), strict=False))
        for block in blocks(time, batch):
            torch.clamp(inputs[block][..., :first], min=0.0, out=parts[0][block])
            both[block] = inputs[block][..., first:]
            gates[block] = bias
            if kept is not None:
                parts[0][block].mul_(kept[block][..., :first])
            seen = parts[0][block].flatten(0, 1)
            torch.addmm(b_c, seen, w_c.t(), out=candidate[block].flatten(0, 1)).tanh_()
            for t, (u0, u1, step, part1, part2, pair, new, keep, add) in islice(
                steps, block.stop - block.start
            ):
                step.addmm_(u0, inner_t).relu_()
                if drop is not None:
                    step.mul_(drop[t])
                keep.addmm_(part1, w1_t)
                add.addmm_(part2, w2_t)
                pair.sigmoid_()
                torch.mul(keep, u0, out=u1).addcmul_(add, new)
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
        for block in reversed(spans):
            size = block.stop - block.start
            if block.stop < time:
                # Through the kept share, then through both gates of the step behind the block.
                torch.mul(du[0], gates[block.stop, :, 0], out=du[size])
                du[size].addmm_(d_a[block.stop, :, first:], inner)
            du[:size] = grad[block]
            pair = d_pairs[:size]
            _sigmoid_slope(u[block], gates[block][:, :, 0], grad_input=pair[:, :, 0])
            _sigmoid_slope(candidate[block], gates[block][:, :, 1], grad_input=pair[:, :, 1])
            _memory_steps_back(
                du[: size + 1], pair, gates[block], a[block], d_a[block], kept, block, inner, w1, w2
            )
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


def _memory_steps_back(
    du: Tensor,
    d_pairs: Tensor,
    gates: Tensor,
    a: Tensor,
    d_a: Tensor,
    kept: Tensor | None,
    block: slice,
    inner: Tensor,
    w1: Tensor,
    w2: Tensor,
) -> None:
    """One block from behind: the slopes in `d_pairs` become gradients; `du` collects, `d_a` is filled."""
    width = inner.shape[0]
    both, d_both = a[..., -width:], d_a[..., -width:]
    parts = torch.split(d_both, [w1.shape[1], w2.shape[1]], -1)
    sides = (du, d_pairs, *d_pairs.unbind(2), both, d_both, *parts, gates[:, :, 0])
    steps = list(zip(*(z.unbind(0) for z in sides), strict=False))
    drop = None if kept is None else kept[block][..., -width:].unbind(0)
    for t in reversed(range(len(steps))):
        grad, pair, d1, d2, step, d_step, part1, part2, _ = steps[t]
        if t + 1 < len(steps):
            grad.addcmul_(steps[t + 1][0], steps[t + 1][8]).addmm_(steps[t + 1][5], inner)
        else:
            grad.add_(du[-1])
        pair.mul_(grad.unsqueeze(1))
        torch.mm(d1, w1, out=part1)
        torch.mm(d2, w2, out=part2)
        _relu_slope(d_step, step, 0.0, grad_input=d_step)
        if drop is not None:
            d_step.mul_(drop[t])


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
