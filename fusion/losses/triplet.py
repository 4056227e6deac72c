"""M2FNet's loss for an extractor: adaptive-margin triplets with variance and covariance terms.

    20 relu(d(a,p) - (d(a,n) + d(p,n)) / 2 + m) + 5 covariance + 1 variance
    m = 2 + 2 / exp(4 d(a,p)) + 2 / exp(4 - 4 d(a,n))

d is Euclidean; variance (a hinge on the deviation of each dimension) and covariance (its off-diagonal
squares) keep the embedding from collapsing and are summed over anchors, positives and negatives. Chudasama
et al., CVPRW 2022, https://arxiv.org/abs/2206.02187; the two terms are VICReg's (Bardes et al., ICLR 2022,
https://arxiv.org/abs/2105.04906).

Shapes: row, width.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from fusion.losses._rows import row_weights

SHARES = (20.0, 5.0, 1.0)
"""Weights of triplet, covariance and variance in the loss."""


def triplet(
    logits: Tensor,
    target: Tensor,
    *,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The loss of embeddings [*rows width] with class targets [*rows].

    Each row is an anchor; its positive is the next row of its class (cyclic), its negative the nearest row of
    another class. Rows without either are left out. Fewer than two triplets give zero.
    """
    width = logits.shape[-1]
    weight = row_weights(target.shape, logits, mask, weights).flatten()
    rows = weight > 0
    x, y, weight = logits.reshape(-1, width)[rows], target.flatten()[rows], weight[rows]
    same = y[:, None] == y[None, :]
    other_row = ~torch.eye(len(y), dtype=torch.bool, device=y.device)
    usable = (same & other_row).any(1) & (~same).any(1) if len(y) else rows[:0]
    if int(usable.sum()) < 2:
        return logits.sum() * 0.0, weight.sum() * 0.0
    ahead = (
        torch.arange(len(y), device=y.device)[None, :]
        - torch.arange(len(y), device=y.device)[:, None]
    ) % len(y)
    positive = ahead.masked_fill(~(same & other_row), len(y)).argmin(1)[usable]
    distance = torch.cdist(x.detach().float(), x.detach().float())
    negative = distance.masked_fill(same, torch.inf).argmin(1)[usable]
    terms = adaptive_triplet(x[usable], x[positive], x[negative], weight=weight[usable])
    total = weight[usable].sum()
    return terms["total"] * total, total


def adaptive_triplet(
    anchor: Float[Tensor, "row width"],
    positive: Float[Tensor, "row width"],
    negative: Float[Tensor, "row width"],
    *,
    weight: Float[Tensor, " row"] | None = None,
    shares: tuple[float, float, float] = SHARES,
    deviation: float = 1.0,
    eps: float = 1e-6,
) -> Mapping[str, Tensor]:
    """`total` and its parts `triplet`, `covariance`, `variance`; `each` is the triplet loss of each row.

    Args:
        anchor: embeddings.
        positive: of the anchor's class.
        negative: of another class.
        weight: of each row; by default all count alike.
        shares: weights of triplet, covariance and variance in the total.
        deviation: standard deviation that no width should fall below.
        eps: added where something is divided by or rooted.
    """
    d_ap, d_an = _distance(anchor, positive), _distance(anchor, negative)
    d_pn = _distance(positive, negative)
    margin = 2 + 2 / (torch.exp(4 * d_ap) + eps) + 2 / (torch.exp(4 - 4 * d_an) + eps)
    each = torch.relu(d_ap - (d_an + d_pn) / 2 + margin)
    mean = each.mean() if weight is None else (each * weight).sum() / weight.sum()
    sets = (anchor, positive, negative)
    covariance = torch.stack([_covariance(x) for x in sets]).sum()
    variance = torch.stack([_variance(x, deviation, eps) for x in sets]).sum()
    total = shares[0] * mean + shares[1] * covariance + shares[2] * variance
    return {
        "total": total,
        "triplet": mean,
        "covariance": covariance,
        "variance": variance,
        "each": each,
    }


def _distance(x: Tensor, y: Tensor) -> Tensor:
    # The slope of a norm at zero is not defined: equal rows (an anchor that is its own copy) get zero.
    square = (x - y).square().sum(-1)
    safe = torch.where(square > 0, square, torch.ones_like(square))
    return torch.where(square > 0, safe.sqrt(), torch.zeros_like(square))


def _covariance(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    matrix = centred.T @ centred / (len(x) - 1)
    return (matrix.square().sum() - matrix.diagonal().square().sum()) / x.shape[1]


def _variance(x: Tensor, deviation: float, eps: float) -> Tensor:
    return torch.relu(deviation - (x.var(0) + eps).sqrt()).mean()
