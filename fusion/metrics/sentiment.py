"""Class figures of a sentiment regression, named by convention.

MOSI and MOSEI, targets in [-3, 3]: `acc2_nonzero` drops rows with target 0 and compares signs strictly,
`acc2_has_zero` keeps them and counts zero as positive; `accN` clips both sides and rounds halves to even, as
NumPy and the published tables do; `acc7_ceiling` is the other habit, bins (0, 1], (1, 2], (2, 3] and their
mirror. CH-SIMS, targets in [-1, 1]: both sides are clipped first, for MAE and correlation too; bins are
right-closed, so that zero is negative there. Each F1 is the support-weighted one over the two classes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fusion.metrics import classification, regression
from fusion.metrics._metric import metric_of, ratio

Bin = Callable[[Tensor], Tensor]


def _binned_rows(into: Bin) -> Callable[[Tensor, Tensor], Tensor]:
    def rows(prediction: Tensor, target: Tensor) -> Tensor:
        labels, truth = into(regression.flat(prediction)), into(regression.flat(target))
        return torch.stack([(labels == truth).double(), torch.ones(len(truth)).double()], 1)

    return rows


def _sign_rows(positive: Bin, *, drop_zero: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """Counts [row, 6] of the two classes; a dropped row adds nothing."""

    def rows(prediction: Tensor, target: Tensor) -> Tensor:
        labels = positive(regression.flat(prediction)).long()
        truth = positive(regression.flat(target)).long()
        counts = torch.nn.functional.one_hot(torch.stack([labels, truth]), 2).double()
        kept = (regression.flat(target) != 0).double() if drop_zero else torch.ones(len(truth))
        return torch.cat([counts[0] * counts[1], counts[0], counts[1]], 1) * kept.unsqueeze(1)

    return rows


def _rounded(limit: float) -> Bin:
    return lambda values: torch.round(values.clamp(-limit, limit))


def _ceiled(values: Tensor) -> Tensor:
    return torch.sign(values) * torch.ceil(values.abs().clamp(max=3.0))


def _sims_bins(*edges: float) -> Bin:
    def into(values: Tensor) -> Tensor:
        clipped = values.clamp(-1.0, 1.0)
        above = [clipped > edge for edge in edges]
        return torch.stack(above).sum(0)

    return into


def _clipped(rows: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda prediction, target: rows(prediction.clamp(-1.0, 1.0), target.clamp(-1.0, 1.0))


def _above(values: Tensor) -> Tensor:
    return values > 0


def _not_below(values: Tensor) -> Tensor:
    return values >= 0


@metric_of(kind="regression", higher_is_better=True, rows=_sign_rows(_above, drop_zero=True))
def acc2_nonzero(sums: Tensor) -> Tensor:
    """Share of right signs among rows with target != 0; a prediction of 0 counts as negative.

    >>> metric("acc2_nonzero")(torch.tensor([1.0, -1.0, 9.0]), torch.tensor([2.0, 2.0, 0.0]))
    0.5
    """
    return classification.accuracy.finish(sums)


@metric_of(kind="regression", higher_is_better=True, rows=_sign_rows(_not_below, drop_zero=False))
def acc2_has_zero(sums: Tensor) -> Tensor:
    """Share of rows where prediction >= 0 agrees with target >= 0.

    >>> metric("acc2_has_zero")(torch.tensor([1.0, -1.0, 0.0]), torch.tensor([2.0, 2.0, 0.0]))
    0.6666666666666666
    """
    return classification.accuracy.finish(sums)


@metric_of(kind="regression", higher_is_better=True, rows=_sign_rows(_above, drop_zero=True))
def f1_nonzero(sums: Tensor) -> Tensor:
    """Weighted F1 of the two classes of `acc2_nonzero`.

    >>> metric("f1_nonzero")(torch.tensor([1.0, -1.0, 9.0]), torch.tensor([2.0, -2.0, 0.0]))
    1.0
    """
    return classification.weighted_f1.finish(sums)


@metric_of(kind="regression", higher_is_better=True, rows=_sign_rows(_not_below, drop_zero=False))
def f1_has_zero(sums: Tensor) -> Tensor:
    """Weighted F1 of the two classes of `acc2_has_zero`.

    >>> metric("f1_has_zero")(torch.tensor([1.0, -1.0]), torch.tensor([0.0, -2.0]))
    1.0
    """
    return classification.weighted_f1.finish(sums)


@metric_of(kind="regression", higher_is_better=True, rows=_binned_rows(_rounded(3.0)))
def acc7(sums: Tensor) -> Tensor:
    """Agreement after clipping to +-3 and rounding halves to even.

    >>> metric("acc7")(torch.tensor([2.5, 0.5]), torch.tensor([2.0, 1.0]))
    0.5
    """
    return ratio(sums)


@metric_of(kind="regression", higher_is_better=True, rows=_binned_rows(_rounded(2.0)))
def acc5(sums: Tensor) -> Tensor:
    """Agreement after clipping to +-2 and rounding halves to even.

    >>> metric("acc5")(torch.tensor([2.9, 0.4]), torch.tensor([2.0, 1.0]))
    0.5
    """
    return ratio(sums)


@metric_of(kind="regression", higher_is_better=True, rows=_binned_rows(_rounded(1.0)))
def acc3(sums: Tensor) -> Tensor:
    """Agreement after clipping to +-1 and rounding halves to even.

    >>> metric("acc3")(torch.tensor([2.9, 0.4]), torch.tensor([0.6, 1.0]))
    0.5
    """
    return ratio(sums)


@metric_of(kind="regression", higher_is_better=True, rows=_binned_rows(_ceiled))
def acc7_ceiling(sums: Tensor) -> Tensor:
    """Agreement in bins (0, 1], (1, 2], (2, ...) and their mirror, zero by itself.

    >>> metric("acc7_ceiling")(torch.tensor([0.4, 0.4]), torch.tensor([0.9, 0.0]))
    0.5
    """
    return ratio(sums)


@metric_of(kind="regression", higher_is_better=True, rows=_binned_rows(_sims_bins(0.0)))
def sims_acc2(sums: Tensor) -> Tensor:
    """Two classes, <= 0 and > 0, after clipping to +-1.

    >>> metric("sims_acc2")(torch.tensor([-0.2, 0.2]), torch.tensor([0.0, 0.0]))
    0.5
    """
    return ratio(sums)


@metric_of(kind="regression", higher_is_better=True, rows=_binned_rows(_sims_bins(-0.1, 0.1)))
def sims_acc3(sums: Tensor) -> Tensor:
    """Three classes with edges -0.1 and 0.1 (right-closed), after clipping to +-1.

    >>> metric("sims_acc3")(torch.tensor([-0.2, 0.05]), torch.tensor([-1.0, 0.1]))
    1.0
    """
    return ratio(sums)


@metric_of(
    kind="regression", higher_is_better=True, rows=_binned_rows(_sims_bins(-0.7, -0.1, 0.1, 0.7))
)
def sims_acc5(sums: Tensor) -> Tensor:
    """Five classes with edges -0.7, -0.1, 0.1, 0.7 (right-closed), after clipping to +-1.

    >>> metric("sims_acc5")(torch.tensor([-0.8, 0.8]), torch.tensor([-1.0, 0.6]))
    0.5
    """
    return ratio(sums)


@metric_of(kind="regression", higher_is_better=True, rows=_sign_rows(_above, drop_zero=False))
def sims_f1(sums: Tensor) -> Tensor:
    """Weighted F1 of the two classes of `sims_acc2`.

    >>> metric("sims_f1")(torch.tensor([-0.2, 0.2]), torch.tensor([0.0, 0.4]))
    1.0
    """
    return classification.weighted_f1.finish(sums)


@metric_of(kind="regression", higher_is_better=False, rows=_clipped(regression.absolute_rows))
def sims_mae(sums: Tensor) -> Tensor:
    """Mean absolute error after clipping both sides to +-1.

    >>> metric("sims_mae")(torch.tensor([-3.0, 0.5]), torch.tensor([-1.0, 1.0]))
    0.25
    """
    return ratio(sums)


@metric_of(kind="regression", higher_is_better=True, rows=_clipped(regression.moment_rows))
def sims_pearson(sums: Tensor) -> Tensor:
    """Correlation after clipping both sides to +-1; NaN where one is constant.

    >>> round(metric("sims_pearson")(torch.tensor([-3.0, 5.0]), torch.tensor([-1.0, 1.0])), 12)
    1.0
    """
    return regression.pearson.finish(sums)
