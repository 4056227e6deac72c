"""The three recurrences that no library call covers, with hand-written gradients.

Everything that does not depend on the state of the step before comes in ready for all steps; the loops hold
one small matrix product and a few element-wise calls a step, write into buffers that are allocated once, and
record nothing for autograd. Backward, too, loops over the recurrence alone: gradients of the weights are
single products over all steps.

Shapes: time, batch, hidden, gates (4 hidden: input, forget, cell, output), memory, inner.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# Gradients through a sigmoid and a tanh from their outputs, one call each.
_sigmoid_slope = torch.ops.aten.sigmoid_backward.grad_input
_tanh_slope = torch.ops.aten.tanh_backward.grad_input


class _LSTMStates(Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        time, batch, width = inputs.shape
        hidden = width // 4
        gates = inputs.new_empty(time, batch, width)
        c = inputs.new_zeros(time + 1, batch, hidden)
        h = inputs.new_zeros(time + 1, batch, hidden)
        tanh_c = inputs.new_empty(time, batch, hidden)
        transposed = weight.t()
        # Views of every step are taken at once: indexing in the loop costs as much as the arithmetic.
        sides = (inputs, gates, h, c, tanh_c, h[1:], c[1:])
        ifs, gs, os = (
            gates[..., : 2 * hidden],
            gates[..., 2 * hidden : -hidden],
            gates[..., -hidden:],
        )
        parts = (ifs, gs, os, ifs[..., :hidden], ifs[..., hidden:])
        steps = zip(*(x.unbind(0) for x in (*sides, *parts)), strict=False)
        for x, step, h0, c0, tanh, h1, c1, both, g, o, i, f in steps:
            torch.addmm(x, h0, transposed, out=step)
            both.sigmoid_()
            g.tanh_()
            o.sigmoid_()
            torch.mul(f, c0, out=c1).addcmul_(i, g)
            torch.mul(o, torch.tanh(c1, out=tanh), out=h1)
        ctx.save_for_backward(weight, gates, c, h, tanh_c)
        return h[1:], c[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor, grad_c: Tensor) -> tuple[Tensor, Tensor]:
        weight, gates, c, h, tanh_c = ctx.saved_tensors
        time, batch, width = gates.shape
        hidden = width // 4
        d_gates = torch.empty_like(gates)
        dh, dc, part = (torch.empty_like(c[0]) for _ in range(3))
        carry = torch.zeros_like(c[0])
        sides = [gates[..., k * hidden : (k + 1) * hidden].unbind(0) for k in range(4)]
        sides += [d_gates[..., k * hidden : (k + 1) * hidden].unbind(0) for k in range(4)]
        sides += [x.unbind(0) for x in (grad_h, grad_c, tanh_c, c[:-1], d_gates)]
        later = None
        for i, f, g, o, di, df, dg, do, gh, gc, tanh, before, step in reversed(
            list(zip(*sides, strict=True))
        ):
            if later is None:
                dh.copy_(gh)
            else:
                torch.addmm(gh, later, weight, out=dh)
            _sigmoid_slope(torch.mul(dh, tanh, out=part), o, grad_input=do)
            _tanh_slope(torch.mul(dh, o, out=part), tanh, grad_input=dc)
            dc.add_(carry).add_(gc)
            _sigmoid_slope(torch.mul(dc, g, out=part), i, grad_input=di)
            _sigmoid_slope(torch.mul(dc, before, out=part), f, grad_input=df)
            _tanh_slope(torch.mul(dc, i, out=part), g, grad_input=dg)
            torch.mul(dc, f, out=carry)
            later = step
        rows = time * batch
        grad_weight = d_gates.view(rows, width).t() @ h[:-1].reshape(rows, hidden)
        return d_gates, grad_weight


def lstm_states(
    inputs: Float[Tensor, "time batch gates"], weight: Float[Tensor, "gates hidden"]
) -> tuple[Float[Tensor, "time batch hidden"], Float[Tensor, "time batch hidden"]]:
    """Hidden and cell states of every step; library LSTMs give only the last cell state.

    Args:
        inputs: W_ih x_t + b_ih + b_hh of all steps.
        weight: W_hh.
    """
    h, c = _LSTMStates.apply(inputs, weight.to(inputs.dtype))  # type: ignore[no-untyped-call]
    return h, c


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
        ctx: Any,
        inputs: Tensor,
        candidate: Tensor,
        kept: Tensor | None,
        inner: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
    ) -> Tensor:
        time, batch, width = inputs.shape
        memory, first = candidate.shape[2], w1.shape[1]
        u = candidate.new_zeros(time + 1, batch, memory)
        a = inputs.new_empty(time, batch, width)
        gates = candidate.new_empty(2, time, batch, memory)
        inner_t, w1_t, w2_t = inner.t(), w1.t(), w2.t()
        for t in range(time):
            step, keep, add = a[t], gates[0, t], gates[1, t]
            torch.addmm(inputs[t], u[t], inner_t, out=step)
            step.relu_()
            if kept is not None:
                step.mul_(kept[t])
            torch.addmm(b1, step[:, :first], w1_t, out=keep).sigmoid_()
            torch.addmm(b2, step[:, first:], w2_t, out=add).sigmoid_()
            torch.mul(keep, u[t], out=u[t + 1]).addcmul_(add, candidate[t])
        ctx.save_for_backward(candidate, kept, inner, w1, w2, u, a, gates)
        return u[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        candidate, kept, inner, w1, w2, u, a, gates = ctx.saved_tensors
        time, batch, width = a.shape
        memory, first = candidate.shape[2], w1.shape[1]
        d1, d2 = torch.empty_like(gates).unbind(0)
        keep, add = gates.unbind(0)
        da = torch.empty_like(a)
        du = grad.clone()
        part = torch.empty_like(du[0])
        for t in reversed(range(time)):
            if t < time - 1:
                # Through the kept share, then through both gates of the step after.
                du[t].addcmul_(du[t + 1], keep[t + 1])
                du[t].addmm_(da[t + 1], inner)
            _sigmoid_slope(torch.mul(du[t], u[t], out=part), keep[t], grad_input=d1[t])
            _sigmoid_slope(torch.mul(du[t], candidate[t], out=part), add[t], grad_input=d2[t])
            torch.mm(d1[t], w1, out=da[t, :, :first])
            torch.mm(d2[t], w2, out=da[t, :, first:])
            da[t].masked_fill_(a[t] <= 0, 0.0)
            if kept is not None:
                da[t].mul_(kept[t])
        rows = time * batch
        flat = a.view(rows, width)
        d1, d2 = d1.view(rows, memory), d2.view(rows, memory)
        return (
            da,
            du * add,
            None,
            da.view(rows, width).t() @ u[:-1].reshape(rows, memory),
            d1.t() @ flat[:, :first],
            d1.sum(0),
            d2.t() @ flat[:, first:],
            d2.sum(0),
        )


def gated_memory(
    inputs: Float[Tensor, "time batch inner"],
    candidate: Float[Tensor, "time batch memory"],
    kept: Float[Tensor, "time batch inner"] | None,
    inner: Float[Tensor, "inner memory"],
    keep: tuple[Tensor, Tensor],
    add: tuple[Tensor, Tensor],
) -> Float[Tensor, "time batch memory"]:
    """u_t = g1 u_{t-1} + g2 candidate_t, where both gates read u_{t-1}.

    g = sigmoid(W dropout(relu(inputs_t + inner u_{t-1})) + b); the first rows of `inner` belong to the gate
    `keep` (g1), the others to `add` (g2), each a pair (W, b). `kept` is the dropout mask, already scaled.
    """
    dtype = inputs.dtype
    weights = [w.to(dtype) for w in (inner, *keep, *add)]
    mask = None if kept is None else kept.to(dtype)
    arguments = (inputs, candidate.to(dtype), mask, *weights)
    u: Tensor = _GatedMemory.apply(*arguments)  # type: ignore[no-untyped-call]
    return u
