"""Cross-entropy over exclusive classes, with class weights and label smoothing."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fusion.losses._rows import class_targets, row_weights


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    class_weights: Tensor | Sequence[float] | None = None,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Sum of -w_y sum_c q_c log p_c with q = (1 - s) one-hot(y) + s / outputs.

    The class weight of the true class multiplies the whole row and counts into the total weight, so that
    smoothing does not blur what a weight means (PyTorch weighs the smoothed part by the other classes).

    Raises:
        ValueError: shapes, number of class weights, or smoothing outside [0, 1).
    """
    outputs = logits.shape[-1]
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing is {label_smoothing}, expected [0, 1)")
    classes = class_targets(logits, target, mask)
    log_p = torch.log_softmax(logits, -1)
    hit = log_p.take_along_dim(classes.unsqueeze(-1), -1).squeeze(-1)
    loss = -(1 - label_smoothing) * hit - label_smoothing * log_p.mean(-1)
    weight = row_weights(target.shape, loss, mask, weights)
    if class_weights is not None:
        of_class = torch.as_tensor(class_weights, dtype=loss.dtype, device=loss.device)
        if of_class.shape != (outputs,):
            raise ValueError(f"{of_class.numel()} class weights for {outputs} classes")
        weight = weight * of_class[classes]
    return (loss * weight).sum(), weight.sum()
