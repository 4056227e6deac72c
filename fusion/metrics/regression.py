"""Metrics of one real value.

Correlations come from centred moments in float64; they are NaN where either side is constant.

Shapes: row, statistic.
"""

import torch
from jaxtyping import Shaped
from torch import Tensor

from fusion.metrics._metric import mean_of, metric_of, ratio

CONSTANT = 1e-14
"""A variance below this share of the mean square counts as none."""


def flat(values: Shaped[Tensor, "row ..."]) -> Shaped[Tensor, " row"]:
    """[row] from [row] or [row 1].

    Raises:
        ValueError: more than one value a row.
    """
    if values.numel() != len(values):
        raise ValueError(f"expected one value a row, came {tuple(values.shape)}")
    return values.reshape(-1)


def absolute_rows(prediction: Tensor, target: Tensor) -> Tensor:
    """[row, 2]: absolute error and one."""
    error = (flat(prediction) - flat(target)).double().abs()
    return torch.stack([error, torch.ones_like(error)], 1)


def _squared_rows(prediction: Tensor, target: Tensor) -> Tensor:
    error = (flat(prediction) - flat(target)).double().square()
    return torch.stack([error, torch.ones_like(error)], 1)


def moment_rows(prediction: Tensor, target: Tensor) -> Tensor:
    """[row, 7]: one, x, y, xx, yy, xy, offset, with x and y less a value of their own middle.

    A constant side becomes exactly zero that way, and large offsets cost no digits.
    """
    x, y = flat(prediction).double(), flat(target).double()
    middle_x, middle_y = x.median(), y.median()
    offset = (middle_x - middle_y).expand_as(x)
    x, y = x - middle_x, y - middle_y
    return torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y, offset], 1)


def _moments(sums: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Variances, covariance and difference of the means."""
    count = sums[..., 0]
    x, y, xx, yy, xy, offset = (mean_of(sums[..., i], count) for i in range(1, 7))
    var_x, var_y = xx - x * x, yy - y * y
    var_x = torch.where(var_x <= CONSTANT * xx, 0.0, var_x)
    var_y = torch.where(var_y <= CONSTANT * yy, 0.0, var_y)
    return var_x, var_y, xy - x * y, x - y + offset


@metric_of(kind="regression", higher_is_better=False, rows=absolute_rows)
def mae(sums: Tensor) -> Tensor:
    """Mean absolute error, nothing clipped.

    >>> metric("mae")(torch.tensor([1.0, -4.0]), torch.tensor([0.0, -2.0]))
    1.5
    """
    return ratio(sums)


@metric_of(kind="regression", higher_is_better=False, rows=_squared_rows)
def mse(sums: Tensor) -> Tensor:
    """Mean squared error.

    >>> metric("mse")(torch.tensor([1.0, -4.0]), torch.tensor([0.0, -2.0]))
    2.5
    """
    return ratio(sums)


@metric_of(kind="regression", higher_is_better=False, rows=_squared_rows)
def rmse(sums: Tensor) -> Tensor:
    """Root of the mean squared error.

    >>> metric("rmse")(torch.tensor([3.0, -5.0]), torch.tensor([0.0, -2.0]))
    3.0
    """
    return ratio(sums).sqrt()


@metric_of(kind="regression", higher_is_better=True, rows=moment_rows)
def pearson(sums: Tensor) -> Tensor:
    """Pearson's correlation; NaN where prediction or target is constant.

    >>> round(metric("pearson")(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2.0, 4.0, 8.0])), 12)
    1.0
    >>> metric("pearson")(torch.tensor([0.1, 0.1, 0.1]), torch.tensor([1.0, 2.0, 3.0]))
    nan
    """
    var_x, var_y, cov, _ = _moments(sums)
    return mean_of(cov, (var_x * var_y).sqrt()).clamp(-1, 1)


@metric_of(kind="regression", higher_is_better=True, rows=moment_rows)
def ccc(sums: Tensor) -> Tensor:
    """Lin's concordance (1989, https://doi.org/10.2307/2532051), with population (N) moments.

        2 cov_xy / (var_x + var_y + (mean_x - mean_y)^2)

    The N - 1 convention differs by a factor inside: at n = 10 it moves the second decimal. NaN where both
    sides are the same constant.

    >>> round(metric("ccc")(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 3.0, 4.0])), 12)
    0.571428571429
    """
    var_x, var_y, cov, shift = _moments(sums)
    return mean_of(2 * cov, var_x + var_y + shift**2)
