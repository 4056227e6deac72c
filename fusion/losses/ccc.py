"""One minus the concordance correlation coefficient (Lin 1989, https://doi.org/10.2307/2532051).

    ccc = 2 cov(p, y) / (var p + var y + (mean p - mean y)^2)

It belongs to a set of rows, not to a row: the sum is (1 - ccc) times the total weight of this call, so a run
over several processes averages the coefficients of its parts. Variances are the biased ones.
"""

from torch import Tensor

from fusion.losses._rows import known, row_weights, values_of


def ccc(
    logits: Tensor,
    target: Tensor,
    *,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    eps: float = 1e-8,
) -> tuple[Tensor, Tensor]:
    """(1 - ccc) x total weight; with a single row, or without any spread and error, the loss is 1 - 0."""
    error = values_of(logits, target, mask)
    y = known(target.to(logits.dtype), mask)
    p = error + y
    weight = row_weights(target.shape, error, mask, weights)
    total = weight.sum()
    share = weight / total.clamp(min=eps)
    mean_p, mean_y = (share * p).sum(), (share * y).sum()
    covariance = (share * (p - mean_p) * (y - mean_y)).sum()
    spread = (share * ((p - mean_p).square() + (y - mean_y).square())).sum()
    coefficient = 2 * covariance / (spread + (mean_p - mean_y).square() + eps)
    return (1 - coefficient) * total, total
