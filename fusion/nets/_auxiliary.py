"""Losses of a net's side outputs, by the kind of target that the batch holds."""

import torch
from torch import Tensor
from torch.nn import functional as F

from fusion.batch import Batch
from fusion.losses.bce import bce
from fusion.losses.cross_entropy import cross_entropy
from fusion.losses.l1 import l1


def side_loss(batch: Batch, task: str, logits: Tensor, rows: Tensor) -> Tensor:
    """Mean loss of a side output on the rows (or utterances) whose target is known.

    Class indices give cross-entropy, values as wide as the logits binary cross-entropy, other values the
    absolute error; zero where there is no target at all.
    """
    if task not in batch.targets:
        return logits.sum() * 0.0
    target = batch.targets[task]
    mask = rows if target.ndim == rows.ndim else rows.unsqueeze(-1).expand(target.shape)
    if task in batch.target_masks:
        mask = mask & batch.target_masks[task]
    if not target.is_floating_point() and target.ndim == rows.ndim:
        total, weight = cross_entropy(logits, target, mask=mask)
    elif target.ndim > rows.ndim:
        total, weight = bce(logits, target, mask=mask)
    else:
        total, weight = l1(logits, target, mask=mask)
    return total / weight.clamp(min=1)


def distance_to_teacher(
    student: Tensor, teacher: Tensor, exclusive: bool, rows: Tensor, temperature: float
) -> Tensor:
    """How far a student is from the (fixed) teacher: softened KL; squared for a single output."""
    teacher = teacher.detach()
    if student.shape[-1] == 1 and not exclusive:
        each = (student - teacher).square().squeeze(-1)
    elif exclusive:
        p = torch.softmax(teacher / temperature, -1)
        log_q = torch.log_softmax(student / temperature, -1)
        each = F.kl_div(log_q, p, reduction="none").sum(-1)
    else:
        p = torch.sigmoid(teacher / temperature)
        z = student / temperature
        entropy = -(p * p.clamp(min=1e-7).log() + (1 - p) * (1 - p).clamp(min=1e-7).log())
        each = (F.binary_cross_entropy_with_logits(z, p, reduction="none") - entropy).mean(-1)
    return (each * rows).sum() / rows.sum().clamp(min=1)
