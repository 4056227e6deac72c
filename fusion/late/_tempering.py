"""A temperature with a prior at 1 that is worth a number of rows, for fits on few rows.

The inverse temperature b of least NLL is drawn back in its logarithm, b -> b^(I / (I + P)), where I is the
Fisher information of log b in the rows (b^2 times the sum over rows of the variance of the scores under the
model) and P the prior's worth. With many rows I is large and b stays; with the rows of four speakers it moves
a part of the way.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from fusion.late.calibration import temperature


def tempered_inverse(
    log_p: Float[Tensor, "row class"],
    target: Shaped[Tensor, " row"],
    weights: Float[Tensor, " row"],
    prior_rows: float,
) -> float:
    """The inverse temperature b; softmax(b * log_p) is calibrated.

    Args:
        log_p: log-probabilities of rows the scores' model did not train on.
        target: class indices.
        weights: how much each row counts.
        prior_rows: rows' worth of belief that b is 1.

    >>> sharp = torch.log(torch.tensor([[0.99, 0.01]] * 8)).double()
    >>> target, even = torch.tensor([0] * 6 + [1] * 2), torch.ones(8).double()
    >>> free, pulled = (tempered_inverse(sharp, target, even, rows) for rows in (0.0, 25.0))
    >>> round(free, 2), 0.9 < pulled < 1
    (0.24, True)
    """
    inverse = 1 / temperature(log_p, target, weights)
    z = inverse * log_p
    p = torch.softmax(z, 1)
    mean = (p * z).sum(1, keepdim=True)
    information = float((p * (z - mean).square()).sum(1) @ weights)
    if information + prior_rows == 0:
        return 1.0
    return float(inverse ** (information / (information + prior_rows)))
