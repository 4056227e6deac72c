"""Attention over the cell states of this step and the one before, with a hand-written gradient.

Shapes: time, state (1 + time), batch, attention, inner.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fusion.nets.kernels.blocks import blocks

# Gradients through a softmax and a ReLU from their outputs, one call each.
_softmax_slope = torch.ops.aten._softmax_backward_data.out
_relu_slope = torch.ops.aten.threshold_backward.grad_input


class _Attended(Function):
    @staticmethod
    def forward(ctx: Any, kept: Tensor | None, *tensors: Tensor) -> Tensor:
        weights, cells = tensors[:6], tensors[6:]
        w1, b1, w2, b2, w, b = weights
        time, batch = len(cells[0]) - 1, cells[0].shape[1]
        total = 2 * sum(c.shape[2] for c in cells)
        spans = blocks(time, batch)
        a = w.new_empty(time, batch, len(w1))
        shares = w.new_empty(time, batch, total)
        out = w.new_empty(time, batch, len(w))
        pairs, scores = w.new_empty(2, spans[0].stop * batch, total).unbind(0)
        for block in spans:
            rows = (block.stop - block.start) * batch
            pair, score = _pairs(cells, block, pairs[:rows]), scores[:rows]
            torch.addmm(b1, pair, w1.t(), out=a[block].view(rows, -1)).relu_()
            if kept is not None:
                a[block].mul_(kept[block])
            torch.addmm(b2, a[block].view(rows, -1), w2.t(), out=score)
            share = torch.softmax(score, -1, out=shares[block].view(rows, -1))
            seen = torch.mul(share, pair, out=score)
            torch.addmm(b, seen, w.t(), out=out[block].view(rows, -1))
        ctx.save_for_backward(kept, w1, w2, w, a, shares, *cells)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        kept, w1, w2, w, a, shares, *cells = ctx.saved_tensors
        time, batch, total = shares.shape
        spans = blocks(time, batch)
        d_cells = [torch.zeros_like(c) for c in cells]
        d_w1, d_w2, d_w = (torch.zeros_like(z) for z in (w1, w2, w))
        d_b1, d_b2, d_b = (z.new_zeros(len(z)) for z in (w1, w2, w))
        pairs, d_pairs, d_scores = w.new_empty(3, spans[0].stop * batch, total).unbind(0)
        d_as = w.new_empty(spans[0].stop * batch, len(w1))
        widths = [c.shape[2] for c in cells] * 2
        for block in reversed(spans):
            rows = (block.stop - block.start) * batch
            pair, d_pair, d_score = (
                _pairs(cells, block, pairs[:rows]),
                d_pairs[:rows],
                d_scores[:rows],
            )
            d_out, share = grad[block].reshape(rows, -1), shares[block].view(rows, -1)
            inner, d_a = a[block].view(rows, -1), d_as[:rows]
            d_w.addmm_(d_out.t(), torch.mul(share, pair, out=d_pair))
            d_b.add_(d_out.sum(0))
            torch.mm(d_out, w, out=d_score)
            torch.mul(d_score, share, out=d_pair)
            # Through the softmax: d = share o (d - sum(d o share)), d = d_score o pair.
            d_score.mul_(pair)
            _softmax_slope(d_score, share, -1, d_score.dtype, grad_input=d_score)
            d_w2.addmm_(d_score.t(), inner)
            d_b2.add_(d_score.sum(0))
            torch.mm(d_score, w2, out=d_a)
            _relu_slope(d_a, inner, 0.0, grad_input=d_a)
            if kept is not None:
                d_a.mul_(kept[block].view(rows, -1))
            d_w1.addmm_(d_a.t(), pair)
            d_b1.add_(d_a.sum(0))
            d_pair.addmm_(d_a, w1)
            both = torch.split(d_pair.view(-1, batch, total), widths, -1)
            for number, d_cell in enumerate(d_cells):
                d_cell[block].add_(both[number])
                d_cell[block.start + 1 : block.stop + 1].add_(both[number + len(cells)])
        return None, d_w1, d_b1, d_w2, d_b2, d_w, d_b, *d_cells


def _pairs(cells: Sequence[Tensor], block: slice, out: Tensor) -> Tensor:
    """Rows [c_{t-1}; c_t] of all modalities, of one block of steps."""
    after = slice(block.start + 1, block.stop + 1)
    sides = [c[steps].flatten(0, 1) for steps in (block, after) for c in cells]
    return torch.cat(sides, -1, out=out)


def attended(
    cells: Sequence[Float[Tensor, "state batch _"]],
    attention: Sequence[Tensor],
    kept: Float[Tensor, "time batch attention"] | None,
    reader: tuple[Tensor, Tensor],
) -> Float[Tensor, "time batch inner"]:
    """W s_t + b of all steps, s = softmax(A(c*)) o c*, c*_t = [c_{t-1}; c_t] of all modalities.

    Neither c* nor s is formed for more than a block of steps.

    Args:
        cells: states of each modality, with the one before the first step (state = 1 + time).
        attention: W1, b1, W2, b2 of A = W2 dropout(relu(W1 c* + b1)) + b2.
        kept: the dropout mask, already scaled.
        reader: W, b.
    """
    dtype = torch.promote_types(cells[0].dtype, torch.float32)
    tensors = [z.to(dtype) for z in (*attention, *reader, *cells)]
    mask = None if kept is None else kept.to(dtype)
    out: Tensor = _Attended.apply(mask, *tensors)  # type: ignore[no-untyped-call]
    return out.to(cells[0].dtype)
