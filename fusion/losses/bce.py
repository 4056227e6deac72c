"""Binary cross-entropy over labels that do not exclude each other."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fusion.losses._rows import known, row_weights


def bce(
    logits: Tensor,
    target: Tensor,
    *,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    positive_weights: Tensor | Sequence[float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum over rows and known labels of -(w_l y log p + (1 - y) log(1 - p)).

    The total weight counts labels: a row whose labels are half unknown counts half. Positive weights scale
    the loss of a label's positives, not the total weight.

    Raises:
        ValueError: shapes that are not [*rows label] twice, or the number of positive weights.
    """
    if logits.shape != target.shape:
        raise ValueError(
            f"logits are {tuple(logits.shape)}, targets {tuple(target.shape)}; expected the same"
        )
    y = known(target.to(logits.dtype), mask)
    positive = None
    if positive_weights is not None:
        positive = torch.as_tensor(positive_weights, dtype=logits.dtype, device=logits.device)
        if positive.shape != logits.shape[-1:]:
            raise ValueError(f"{positive.numel()} positive weights for {logits.shape[-1]} labels")
    loss = F.binary_cross_entropy_with_logits(logits, y, reduction="none", pos_weight=positive)
    of_row = None if weights is None else weights.unsqueeze(-1).expand_as(loss)
    weight = row_weights(loss.shape, loss, mask, of_row)
    return (loss * weight).sum(), weight.sum()
