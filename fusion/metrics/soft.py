"""Figures of predicted distributions against those of raters.

Prediction and target are probabilities [row class]. A model may well be unsure where people are: these say
whether it is unsure of the same clips and about the same classes.

Shapes: row, class.
"""

import math

import torch
from torch import Tensor

from fusion.metrics._metric import mean_of, metric_of, ratio

FLOOR = 1e-15


def _both(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if prediction.shape != target.shape or prediction.ndim != 2:
        raise ValueError(
            f"expected prediction and target [row class] alike, came {tuple(prediction.shape)} "
            f"and {tuple(target.shape)}"
        )
    return prediction.double(), target.double()


def _divergence(of: Tensor, around: Tensor) -> Tensor:
    """KL(of || around) of every row [nats]."""
    return torch.xlogy(of, of).sum(1) - torch.xlogy(of, around.clamp(min=FLOOR)).sum(1)


def _kl_rows(prediction: Tensor, target: Tensor) -> Tensor:
    p, q = _both(prediction, target)
    loss = _divergence(q, p)
    return torch.stack([loss, torch.ones_like(loss)], 1)


def _js_rows(prediction: Tensor, target: Tensor) -> Tensor:
    p, q = _both(prediction, target)
    middle = (p + q) / 2
    bits = (_divergence(p, middle) + _divergence(q, middle)) / (2 * math.log(2))
    return torch.stack([bits.clamp(min=0), torch.ones_like(bits)], 1)


def _entropy_rows(prediction: Tensor, target: Tensor) -> Tensor:
    """[row, 6]: moments of the two entropies and a count."""
    x, y = (-torch.xlogy(each, each).sum(1) for each in _both(prediction, target))
    return torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], 1)


@metric_of(kind="classification", higher_is_better=False, rows=_kl_rows, needs_probabilities=True)
def kl_divergence(sums: Tensor) -> Tensor:
    """Mean of KL(raters || prediction), predicted probabilities kept 1e-15 away from 0 [nats].

    >>> round(metric("kl_divergence")(torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]])), 4)
    0.6931
    """
    return ratio(sums)


@metric_of(kind="classification", higher_is_better=False, rows=_js_rows, needs_probabilities=True)
def js_divergence(sums: Tensor) -> Tensor:
    """Mean Jensen-Shannon divergence, base 2: 0 of equal distributions, 1 of those without a common class.

    >>> metric("js_divergence")(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]))
    1.0
    """
    return ratio(sums)


@metric_of(
    kind="classification", higher_is_better=True, rows=_entropy_rows, needs_probabilities=True
)
def entropy_correlation(sums: Tensor) -> Tensor:
    """Pearson correlation of the entropies of prediction and raters; NaN where either is constant.

    >>> prediction = torch.tensor([[0.5, 0.5], [0.9, 0.1]])
    >>> round(metric("entropy_correlation")(prediction, torch.tensor([[0.6, 0.4], [1.0, 0.0]])), 6)
    1.0
    """
    n, x, y, xx, yy, xy = sums.unbind(-1)
    mean_x, mean_y = mean_of(x, n), mean_of(y, n)
    var_x, var_y = mean_of(xx, n) - mean_x**2, mean_of(yy, n) - mean_y**2
    covariance = mean_of(xy, n) - mean_x * mean_y
    spread = (var_x.clamp(min=0) * var_y.clamp(min=0)).sqrt()
    constant = (var_x <= 1e-12) | (var_y <= 1e-12)
    return torch.where(constant, torch.nan, covariance / torch.where(constant, 1.0, spread))
