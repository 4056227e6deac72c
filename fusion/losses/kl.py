"""Cross-entropy to a distribution over exclusive classes: what raters chose in place of one class."""

import torch
from torch import Tensor

from fusion.losses._rows import known, row_weights


def kl(
    logits: Tensor, target: Tensor, *, mask: Tensor | None = None, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sum over rows of KL(q || p) = sum_c q_c log(q_c / p_c), q being the target.

    Its gradient is that of the cross-entropy to q; a target of a single class gives the cross-entropy itself.

    Raises:
        ValueError: shapes that are not [*rows outputs] twice.
    """
    if logits.shape != target.shape:
        raise ValueError(
            f"logits are {tuple(logits.shape)}, targets {tuple(target.shape)}; expected "
            "distributions [*rows outputs] like them"
        )
    q = known(target.to(logits.dtype), mask)
    loss = (torch.xlogy(q, q) - q * torch.log_softmax(logits, -1)).sum(-1)
    whole = None if mask is None else mask.all(-1)
    weight = row_weights(loss.shape, loss, whole, weights)
    return (loss * weight).sum(), weight.sum()
