"""Putting modalities on one time axis.

`area` resamples each row of a modality from its own extent to the extent of the row's timeline: target
step i covers the source interval [i r, (i + 1) r), r = source steps / target steps, and takes the mean of
the real steps in it, weighted by overlap. Equal extents are left as they are, bit for bit. `shared` says
that step t of every modality is the same moment already. `neighbour` and `strided` are the two ways in
which public implementations pool: the last step is repeated up to a multiple of the target, then means
are taken over neighbouring steps, or over steps i, i + target, i + 2 target.

Shapes: batch, time (of a modality), step (of the timeline), feature.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fusion.batch import Steps
from fusion.nets._layers import last_step
from fusion.nets.kernels.recurrent import without_holes

Align = Literal["area", "shared", "neighbour", "strided"]


def align(sequences: Mapping[str, Steps], how: Align, timeline: str) -> dict[str, Steps]:
    """The same modalities with one length; rows keep what they had, whatever their neighbours are.

    Args:
        sequences: one or more modalities.
        how: see above.
        timeline: the modality whose steps the others follow; where a row (or the net) lacks it, the
            shortest one that is present.
    """
    longest = max(s.mask.shape[1] for s in sequences.values())
    if how == "shared":
        return _compact({name: _padded(s, longest) for name, s in sequences.items()})
    extents = {name: extent(s.mask) for name, s in sequences.items()}
    present = torch.stack(list(extents.values()))
    shortest = present.masked_fill(present == 0, longest + 1).amin(0)
    target = shortest.masked_fill(shortest > longest, 1)
    if timeline in extents:
        target = torch.where(extents[timeline] > 0, extents[timeline], target)
    steps = int(target.max())
    aligned = {}
    for name, sequence in sequences.items():
        source = extents[name]
        if bool(((source == target) | (source == 0)).all()):
            aligned[name] = _padded(sequence, steps)
        else:
            aligned[name] = _resampled(sequence, source, target, steps, how)
    return _compact(aligned)


def any_real(sequences: Mapping[str, Steps]) -> Bool[Tensor, "batch time"]:
    """Steps at which at least one modality is real."""
    return torch.stack([sequence.mask for sequence in sequences.values()]).any(0)


def extent(mask: Bool[Tensor, "batch time"]) -> Int[Tensor, " batch"]:
    """Steps up to and with the last real one."""
    return (last_step(mask) + 1) * mask.any(1)


def pool_weights(
    source: Int[Tensor, " batch"], target: Int[Tensor, " batch"], time: int, steps: int, how: Align
) -> Float[Tensor, "batch step time"]:
    """How much of each source step goes into each target step; rows sum to one inside both extents."""
    device = source.device
    n, t = source.clamp(min=1)[:, None, None], target[:, None, None]
    i = torch.arange(steps, device=device)[None, :, None]
    j = torch.arange(time, device=device)[None, None, :]
    if how == "area":
        # Whole numbers until the last division, so that equal extents give exact ones and zeros.
        overlap = torch.minimum((i + 1) * n, (j + 1) * t) - torch.maximum(i * n, j * t)
        weights = overlap.clamp(min=0) / n.to(torch.float32)
    else:
        pool = (n + t - 1) // t
        # Padded position p reads source step min(p, n - 1): the last source step counts more than once.
        p = torch.arange(int(pool.max()) * steps, device=device)[None, :]
        bins = p // pool[:, 0] if how == "neighbour" else p % t[:, 0]
        kept = (p < (pool * t)[:, 0]).to(torch.float32)
        read = torch.minimum(p, n[:, 0] - 1)
        flat = torch.zeros(len(source), steps * time, device=device)
        flat.scatter_add_(1, bins.clamp(max=steps - 1) * time + read, kept)
        weights = flat.view(len(source), steps, time) / pool.to(torch.float32)
    return weights * (i < t) * (j < n)


def _resampled(sequence: Steps, source: Tensor, target: Tensor, steps: int, how: Align) -> Steps:
    weights = pool_weights(source, target, sequence.mask.shape[1], steps, how)
    weights = weights * sequence.mask.unsqueeze(1)
    total = weights.sum(-1, keepdim=True)
    weights = (weights / total.clamp(min=1e-9)).to(sequence.values.dtype)
    return Steps(weights @ sequence.values, total.squeeze(-1) > 0)


def _compact(sequences: dict[str, Steps]) -> dict[str, Steps]:
    """Cut out the steps at which no modality is real, and what is behind the last of the longest row."""
    real = any_real(sequences)
    longest = max(1, int(real.sum(1).max()))
    order = without_holes(real)
    if order is None and longest == real.shape[1]:
        return sequences
    compact = {}
    for name, sequence in sequences.items():
        values, mask = sequence.values, sequence.mask
        if order is not None:
            values = values.take_along_dim(order.unsqueeze(-1), 1)
            mask = mask.take_along_dim(order, 1)
        compact[name] = Steps(values[:, :longest], mask[:, :longest])
    return compact


def _padded(sequence: Steps, steps: int) -> Steps:
    values, mask = sequence.values[:, :steps], sequence.mask[:, :steps]
    more = steps - mask.shape[1]
    if more <= 0:
        return Steps(values, mask)
    pad = torch.nn.functional.pad
    return Steps(pad(values, (0, 0, 0, more)), pad(mask, (0, more)))
