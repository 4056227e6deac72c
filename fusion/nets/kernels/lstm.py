"""An LSTM that gives every state, with a hand-written gradient.

The loops hold one small matrix product and a few element-wise calls a step, write into buffers that are
allocated once, and record nothing for autograd. What does not depend on the step before (or, backward, on the
step behind) is computed for a block of steps at once, while the block is in the cache: projections of the
inputs, slopes of the gates, gradients of the weights. Where `_compiled.py` has the element-wise calls of a
step in one, that one is made.

Shapes: time, state (1 + time), batch, feature, hidden, gates (4 hidden: input, forget, cell, output).
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fusion.nets.kernels.blocks import blocks
from fusion.nets.kernels.compiled import arrays, steps_for

# Gradients through a sigmoid and a tanh from their outputs, one call each.
_sigmoid_slope = torch.ops.aten.sigmoid_backward.grad_input
_tanh_slope = torch.ops.aten.tanh_backward.grad_input


class _LSTMStates(Function):
    """The whole layer, projection of the inputs included: gates live in one buffer, written in place.

    tanh(a) = 2 sigmoid(2 a) - 1: the weights of the cell gate come in doubled, so that one sigmoid serves all
    four gates, and the buffer holds r = sigmoid(2 a) in the place of g = 2 r - 1.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_ih: Tensor, w_hh: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        (time, batch, width), hidden = x.shape, w_hh.shape[1]
        gates = x.new_empty(time, batch, 4 * hidden)
        h, c = (x.new_empty(time + 1, batch, hidden) for _ in range(2))
        tanh_c = x.new_empty(time, batch, hidden)
        h[0] = c[0] = 0.0
        twice = bias.new_ones(4 * hidden)
        twice[2 * hidden : 3 * hidden] = 2.0
        w_in, w_re = (w_ih * twice[:, None]).t(), (w_hh * twice[:, None]).t()
        bias = bias * twice
        compiled = steps_for(x)
        for block in blocks(time, batch):
            rows = x[block].reshape(-1, width)
            torch.addmm(bias, rows, w_in, out=gates[block].view(len(rows), -1))
            states = slice(block.start, block.stop + 1)
            parts = (gates[block], h[states], c[states], tanh_c[block], w_re)
            if compiled is None:
                _steps(*parts)
            else:
                _steps_compiled(compiled.lstm_step, *parts)
        ctx.save_for_backward(x, w_ih, w_hh, gates, h, c, tanh_c)
        ctx.set_materialize_grads(False)
        return h, c

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor | None, grad_c: Tensor | None) -> tuple[Any, ...]:
        x, w_ih, w_hh, gates, h, c, tanh_c = ctx.saved_tensors
        (time, batch, width), hidden = x.shape, w_hh.shape[1]
        spans = blocks(time, batch)
        most = spans[0].stop
        compiled = steps_for(x)
        d_x = x.new_empty(x.shape) if ctx.needs_input_grad[0] else None
        d_ih, d_hh = torch.zeros_like(w_ih), torch.zeros_like(w_hh)
        d_bias = w_ih.new_zeros(4 * hidden)
        # One step more than a block: the first step of the block behind it.
        d_gates = x.new_zeros(most + 1, batch, 4, hidden)
        dh, slope = x.new_empty(2, most, batch, hidden).unbind(0)
        dc = x.new_zeros(most + 1, batch, hidden)
        for block in reversed(spans):
            size = block.stop - block.start
            after = slice(block.start + 1, block.stop + 1)
            if block.stop < time:
                d_gates[size] = d_gates[0]
                torch.mul(dc[0], gates[block.stop, :, hidden : 2 * hidden], out=dc[size])
            _fill(dh[:size], grad_h, after)
            _fill(dc[:size], grad_c, after)
            parts = (dh[:size], dc[: size + 1], d_gates[: size + 1], w_hh)
            seen = (gates[block], c[block], tanh_c[block])
            if compiled is None:
                _slopes(*seen, d_gates[:size], slope[:size])
                _steps_back(*parts, slope, gates[after, :, hidden : 2 * hidden])
            else:
                _steps_back_compiled(compiled.lstm_step_back, *parts, *seen)
            rows = d_gates[:size].view(size * batch, 4 * hidden)
            d_ih.addmm_(rows.t(), x[block].reshape(-1, width))
            d_hh.addmm_(rows.t(), h[block].view(-1, hidden))
            d_bias.add_(rows.sum(0))
            if d_x is not None:
                torch.mm(rows, w_ih, out=d_x[block].view(size * batch, width))
        return d_x, d_ih, d_hh, d_bias


def _steps(gates: Tensor, h: Tensor, c: Tensor, tanh_c: Tensor, w_re: Tensor) -> None:
    """One block of steps: projected inputs become gates, states are filled from the first on."""
    # Views of every step are taken at once: indexing in the loop costs as much as the arithmetic.
    sides = [z.unbind(0) for z in (gates, h, c, tanh_c, h[1:], c[1:], *gates.chunk(4, -1))]
    for step, h0, c0, tanh, h1, c1, i, f, r, o in zip(*sides, strict=False):
        step.addmm_(h0, w_re).sigmoid_()
        torch.mul(f, c0, out=c1).addcmul_(i, r, value=2).sub_(i)
        torch.mul(o, torch.tanh(c1, out=tanh), out=h1)


def _steps_compiled(
    run: Callable[..., None], gates: Tensor, h: Tensor, c: Tensor, tanh_c: Tensor, w_re: Tensor
) -> None:
    """The same."""
    at, (rows, width) = arrays(gates, c, tanh_c, h), c.shape[1:]
    for t, (step, h0) in enumerate(zip(gates.unbind(0), h.unbind(0), strict=False)):
        step.addmm_(h0, w_re)
        run(at, rows, width, t)


def _fill(out: Tensor, grad: Tensor | None, steps: slice) -> None:
    out.zero_() if grad is None else out.copy_(grad[steps])


def _slopes(gates: Tensor, c: Tensor, tanh_c: Tensor, out: Tensor, through: Tensor) -> None:
    """Local derivatives of the four gates at all steps.

    `out` [time batch 4 hidden]: of c by the input, forget and cell gates, of h by the output gate;
    `through` [time batch hidden]: of h by c.
    """
    i, f, r, o = gates.chunk(4, -1)
    d_i, d_f, d_g, d_o = out.unbind(2)
    _sigmoid_slope(torch.mul(r, 2, out=through).sub_(1), i, grad_input=d_i)
    _sigmoid_slope(c, f, grad_input=d_f)
    _sigmoid_slope(torch.mul(i, 4, out=through), r, grad_input=d_g)
    _sigmoid_slope(tanh_c, o, grad_input=d_o)
    _tanh_slope(o, tanh_c, grad_input=through)


def _steps_back(
    dh: Tensor, dc: Tensor, d_gates: Tensor, w_hh: Tensor, slope: Tensor, forget: Tensor
) -> None:
    """One block from behind: the slopes in `d_gates` become gradients, `dh` and `dc` collect theirs."""
    sides = (dh, dc, slope, d_gates[..., :3, :], d_gates[..., 3, :], d_gates.flatten(2)[1:])
    steps = list(zip(*(z.unbind(0) for z in sides), strict=False))
    forgets = forget.unbind(0)
    for t in reversed(range(len(steps))):
        gh, gc, through, three, last, later = steps[t]
        gh.addmm_(later, w_hh)
        if t + 1 < len(steps):
            gc.addcmul_(steps[t + 1][1], forgets[t])
        else:
            gc.add_(dc[-1])
        gc.addcmul_(gh, through)
        three.mul_(gc.unsqueeze(1))
        last.mul_(gh)


def _steps_back_compiled(
    run: Callable[..., None],
    dh: Tensor,
    dc: Tensor,
    d_gates: Tensor,
    w_hh: Tensor,
    gates: Tensor,
    c: Tensor,
    tanh_c: Tensor,
) -> None:
    """The same without slopes; what goes from step to step is carried in the place behind `dc`."""
    at, (rows, width) = arrays(gates, c, tanh_c, dh, dc, d_gates, dc[-1]), c.shape[1:]
    steps = list(enumerate(zip(dh.unbind(0), d_gates.flatten(2)[1:].unbind(0), strict=True)))
    for t, (gh, later) in reversed(steps):
        gh.addmm_(later, w_hh)
        run(at, rows, width, t)


def lstm_states(
    x: Float[Tensor, "time batch feature"],
    w_ih: Float[Tensor, "gates feature"],
    w_hh: Float[Tensor, "gates hidden"],
    bias: Float[Tensor, " gates"],
) -> tuple[Float[Tensor, "state batch hidden"], Float[Tensor, "state batch hidden"]]:
    """Hidden and cell states from the zeros before the first step on (state = 1 + time).

    Library LSTMs give only the last cell state. Half precision is computed in single.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    arguments = [z.to(dtype) for z in (x, w_ih, w_hh, bias)]
    h, c = _LSTMStates.apply(*arguments)  # type: ignore[no-untyped-call]
    return h.to(x.dtype), c.to(x.dtype)


NARROW = 192
"""Inputs and states together up to which LSTMs beside each other run as one.

A step of a narrow LSTM costs the calls, not the arithmetic; the zeros between the blocks cost less. Of wide
ones, and of wide inputs, they would cost more.
"""


class Layer(NamedTuple):
    """An LSTM and what it reads: the arguments of `lstm_states`."""

    x: Tensor
    w_ih: Tensor
    w_hh: Tensor
    bias: Tensor


def states_of_all(layers: Sequence[Layer]) -> list[tuple[Tensor, Tensor]]:
    """`lstm_states` of LSTMs that read steps of one time axis: the narrow ones together, as one LSTM."""
    sizes = [layer.w_ih.shape[1] + layer.w_hh.shape[1] for layer in layers]
    order = sorted(range(len(layers)), key=lambda n: sizes[n])
    totals = accumulate(sizes[n] for n in order)
    narrow = sorted(n for n, total in zip(order, totals, strict=True) if total <= NARROW)
    if len(narrow) < 2:
        return [lstm_states(*layer) for layer in layers]
    found = {n: lstm_states(*layers[n]) for n in range(len(layers)) if n not in narrow}
    widths = [layers[n].w_hh.shape[1] for n in narrow]
    h, c = lstm_states(*_as_one([layers[n] for n in narrow]))
    found |= zip(
        narrow,
        zip(torch.split(h, widths, -1), torch.split(c, widths, -1), strict=True),
        strict=True,
    )
    return [found[n] for n in range(len(layers))]


def _as_one(layers: Sequence[Layer]) -> Layer:
    """Weights in blocks on the diagonal, gate by gate."""

    def gates(weights: list[Tensor]) -> Tensor:
        parts = zip(*(w.chunk(4) for w in weights), strict=True)
        return torch.cat([torch.block_diag(*part) for part in parts])  # type: ignore[no-untyped-call]

    return Layer(
        torch.cat([layer.x for layer in layers], -1),
        gates([layer.w_ih for layer in layers]),
        gates([layer.w_hh for layer in layers]),
        torch.cat([layer.bias.view(4, -1) for layer in layers], 1).flatten(),
    )
