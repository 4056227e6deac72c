"""Focal loss: -alpha_y (1 - p_y)^gamma log p_y (Lin et al., ICCV 2017, https://arxiv.org/abs/1708.02002).

The factor belongs to each row. Modulating the mean of a batch, as some public code does, is another loss.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fusion.losses._rows import class_targets, row_weights


def focal(
    logits: Tensor,
    target: Tensor,
    *,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    gamma: float = 2.0,
    alpha: Tensor | Sequence[float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum over rows; alpha multiplies the loss of a row but not its weight, as in the paper.

    Raises:
        ValueError: shapes, number of alphas, or negative gamma.
    """
    if gamma < 0:
        raise ValueError(f"gamma is {gamma}, expected 0 or more")
    classes = class_targets(logits, target, mask)
    log_p = torch.log_softmax(logits, -1)
    hit = log_p.take_along_dim(classes.unsqueeze(-1), -1).squeeze(-1)
    # 1 - p can round to a hair under zero, and its power has an infinite slope there for gamma < 1.
    loss = -(-torch.expm1(hit)).clamp(min=1e-12).pow(gamma) * hit
    if alpha is not None:
        of_class = torch.as_tensor(alpha, dtype=loss.dtype, device=loss.device)
        if of_class.shape != logits.shape[-1:]:
            raise ValueError(f"{of_class.numel()} alphas for {logits.shape[-1]} classes")
        loss = loss * of_class[classes]
    weight = row_weights(target.shape, loss, mask, weights)
    return (loss * weight).sum(), weight.sum()
