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
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable


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
        for t in range(time):
            step = gates[t]
            torch.addmm(inputs[t], h[t], transposed, out=step)
            step[:, : 2 * hidden].sigmoid_()
            step[:, 2 * hidden : 3 * hidden].tanh_()
            step[:, 3 * hidden :].sigmoid_()
            i, f, g, o = torch.split(step, hidden, 1)
            now = c[t + 1]
            torch.mul(f, c[t], out=now)
            now.addcmul_(i, g)
            torch.tanh(now, out=tanh_c[t])
            torch.mul(o, tanh_c[t], out=h[t + 1])
        ctx.save_for_backward(weight, gates, c, h, tanh_c)
        return h[1:], c[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor, grad_c: Tensor) -> tuple[Tensor, Tensor]:
        weight, gates, c, h, tanh_c = ctx.saved_tensors
        time, batch, width = gates.shape
        hidden = width // 4
        i, f, g, o = torch.split(gates, hidden, 2)
        # Slope of each gate before its squashing, per unit of the gradient of c (i, f, g) or h (o).
        slope = torch.empty_like(gates)
        slope[..., :hidden] = g * i * (1 - i)
        slope[..., hidden : 2 * hidden] = c[:-1] * f * (1 - f)
        slope[..., 2 * hidden : 3 * hidden] = i * (1 - g * g)
        slope[..., 3 * hidden :] = tanh_c * o * (1 - o)
        through_h = o * (1 - tanh_c * tanh_c)
        carry = torch.zeros_like(c[0])
        dh, dc = torch.empty_like(carry), torch.empty_like(carry)
        for t in reversed(range(time)):
            if t == time - 1:
                dh.copy_(grad_h[t])
            else:
                torch.addmm(grad_h[t], slope[t + 1], weight, out=dh)
            torch.addcmul(carry, dh, through_h[t], out=dc)
            dc.add_(grad_c[t])
            step = slope[t]
            step[:, : 3 * hidden].view(batch, 3, hidden).mul_(dc.unsqueeze(1))
            step[:, 3 * hidden :].mul_(dh)
            torch.mul(dc, f[t], out=carry)
        rows = time * batch
        grad_weight = slope.view(rows, width).t() @ h[:-1].reshape(rows, hidden)
        return slope, grad_weight


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
            torch.addmm(inputs[t], u[t], inner_t, out=a[t])
            a[t].relu_()
            if kept is not None:
                a[t].mul_(kept[t])
            torch.addmm(b1, a[t, :, :first], w1_t, out=gates[0, t])
            torch.addmm(b2, a[t, :, first:], w2_t, out=gates[1, t])
            gates[:, t].sigmoid_()
            torch.mul(gates[0, t], u[t], out=u[t + 1])
            u[t + 1].addcmul_(gates[1, t], candidate[t])
        ctx.save_for_backward(candidate, kept, inner, w1, w2, u, a, gates)
        return u[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        candidate, kept, inner, w1, w2, u, a, gates = ctx.saved_tensors
        time, batch, width = a.shape
        memory, first = candidate.shape[2], w1.shape[1]
        # Slope of both gates before their sigmoid, per unit of the gradient of the memory.
        slope = gates * (1 - gates)
        slope[0] *= u[:-1]
        slope[1] *= candidate
        open_ = (a > 0).to(a.dtype) if kept is None else (a > 0) * kept
        da = torch.empty_like(a)
        du = grad.clone()
        for t in reversed(range(time)):
            if t < time - 1:
                # Through the kept share, then through both gates of the step after.
                du[t].addcmul_(du[t + 1], gates[0, t + 1])
                du[t].addmm_(da[t + 1], inner)
            slope[:, t].mul_(du[t])
            torch.mm(slope[0, t], w1, out=da[t, :, :first])
            torch.mm(slope[1, t], w2, out=da[t, :, first:])
            da[t].mul_(open_[t])
        rows = time * batch
        flat = a.view(rows, width)
        d1, d2 = slope.view(2, rows, memory).unbind(0)
        return (
            da,
            du * gates[1],
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


class GatedMemory(nn.Module):
    """A memory that two small networks keep and fill: u_t = g1 u_{t-1} + g2 tanh(D(seen_t)).

    `sees_memory`: the gates read [seen_t; u_{t-1}] instead of seen_t alone. Every network is Linear, ReLU,
    dropout, Linear.
    """

    def __init__(
        self,
        width: int,
        memory: int,
        *,
        candidate: tuple[int, float],
        keep: tuple[int, float],
        add: tuple[int, float],
        sees_memory: bool,
    ) -> None:
        super().__init__()
        self.width, self.sees_memory = width, sees_memory
        self.rates = tuple(rate for _, rate in (candidate, keep, add))
        seen = width + memory if sees_memory else width
        self.candidate = TwoLayers(width, candidate[0], memory)
        self.keep = TwoLayers(seen, keep[0], memory)
        self.add = TwoLayers(seen, add[0], memory)

    def forward(self, seen: Float[Tensor, "time batch width"]) -> Tensor:
        """The memory after each step [time batch memory]."""
        firsts = [net.first for net in (self.candidate, self.keep, self.add)]
        # One product for the three first layers: `seen` is by far the largest tensor here.
        weight = torch.cat([first.weight[:, : self.width] for first in firsts])
        bias = torch.cat([first.bias for first in firsts])
        sizes = [first.out_features for first in firsts]
        inner = nn.functional.linear(seen, weight, bias)
        dropout = [self._mask(inner, n, rate) for n, rate in zip(sizes, self.rates, strict=True)]
        a = inner[..., : sizes[0]].relu()
        a = a if dropout[0] is None else a * dropout[0]
        candidate = torch.tanh(self.candidate.second(a))
        kept = self._joined(dropout[1:], inner, sizes[1:])
        seconds = (self.keep.second, self.add.second)
        if self.sees_memory:
            of_memory = torch.cat([first.weight[:, self.width :] for first in firsts[1:]])
            pairs = [(second.weight, second.bias) for second in seconds]
            return gated_memory(inner[..., sizes[0] :], candidate, kept, of_memory, *pairs)
        b = inner[..., sizes[0] :].relu()
        b = b if kept is None else b * kept
        keep, add = (
            torch.sigmoid(second(part))
            for second, part in zip(seconds, torch.split(b, sizes[1:], -1), strict=True)
        )
        return scan(keep, add * candidate)

    def _mask(self, like: Tensor, size: int, rate: float) -> Tensor | None:
        if not self.training or rate == 0:
            return None
        return nn.functional.dropout(like.new_ones(*like.shape[:2], size), rate)

    @staticmethod
    def _joined(masks: list[Tensor | None], like: Tensor, sizes: list[int]) -> Tensor | None:
        if all(mask is None for mask in masks):
            return None
        ones = [like.new_ones(*like.shape[:2], size) for size in sizes]
        return torch.cat([o if m is None else m for m, o in zip(masks, ones, strict=True)], -1)


class TwoLayers(nn.Module):
    """Linear, (ReLU and dropout by the caller), Linear."""

    def __init__(self, width: int, inner: int, out: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, inner)
        self.second = nn.Linear(inner, out)
