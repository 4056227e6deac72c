"""Class figures of a sentiment regression, named by convention.

MOSI and MOSEI, targets in [-3, 3]: `acc2_nonzero` drops rows with target 0 and compares signs strictly,
`acc2_has_zero` keeps them and counts zero as positive; `accN` clips both sides and rounds halves to even, as
NumPy and the published tables do; `acc7_ceiling` is the other habit, bins (0, 1], (1, 2], (2, 3] and their
mirror. CH-SIMS, targets in [-1, 1]: both sides are clipped first, for MAE and correlation too; bins are
right-closed, so that zero is negative there. Each F1 is the support-weighted one over the two classes.
"""

from collections.abc import Callable

import torch
from jaxtyping import Shaped
from torch import Tensor

from fusion.metrics import classification, regression
from fusion.metrics._metric import Metric

Value = Shaped[Tensor, "row ..."]
Weight = Shaped[Tensor, " row"] | None


def acc2_nonzero(prediction: Value, target: Value, weights: Weight = None) -> float:
    """Share of right signs among rows with target != 0; a prediction of 0 counts as negative.

    >>> acc2_nonzero(torch.tensor([1.0, -1.0, 9.0]), torch.tensor([2.0, 2.0, 0.0]))
    0.5
    """
    return TABLE["acc2_nonzero"](prediction, target, weights)


def acc2_has_zero(prediction: Value, target: Value, weights: Weight = None) -> float:
    """Share of rows where prediction >= 0 agrees with target >= 0.

    >>> acc2_has_zero(torch.tensor([1.0, -1.0, 0.0]), torch.tensor([2.0, 2.0, 0.0]))
    0.6666666666666666
    """
    return TABLE["acc2_has_zero"](prediction, target, weights)


def f1_nonzero(prediction: Value, target: Value, weights: Weight = None) -> float:
    """Weighted F1 of the two classes of `acc2_nonzero`.

    >>> f1_nonzero(torch.tensor([1.0, -1.0, 9.0]), torch.tensor([2.0, -2.0, 0.0]))
    1.0
    """
    return TABLE["f1_nonzero"](prediction, target, weights)


def f1_has_zero(prediction: Value, target: Value, weights: Weight = None) -> float:
    """Weighted F1 of the two classes of `acc2_has_zero`.

    >>> f1_has_zero(torch.tensor([1.0, -1.0]), torch.tensor([0.0, -2.0]))
    1.0
    """
    return TABLE["f1_has_zero"](prediction, target, weights)


def acc7(prediction: Value, target: Value, weights: Weight = None) -> float:
    """Agreement after clipping to +-3 and rounding halves to even.

    >>> acc7(torch.tensor([2.5, 0.5]), torch.tensor([2.0, 1.0]))
    0.5
    """
    return TABLE["acc7"](prediction, target, weights)


def acc5(prediction: Value, target: Value, weights: Weight = None) -> float:
    """Agreement after clipping to +-2 and rounding halves to even.

    >>> acc5(torch.tensor([2.9, 0.4]), torch.tensor([2.0, 1.0]))
    0.5
    """
    return TABLE["acc5"](prediction, target, weights)


def acc3(prediction: Value, target: Value, weights: Weight = None) -> float:
    """Agreement after clipping to +-1 and rounding halves to even.

    >>> acc3(torch.tensor([2.9, 0.4]), torch.tensor([0.6, 1.0]))
    0.5
    """
    return TABLE["acc3"](prediction, target, weights)


def acc7_ceiling(prediction: Value, target: Value, weights: Weight = None) -> float:
    """Agreement in bins (0, 1], (1, 2], (2, ...) and their mirror, zero by itself.

    >>> acc7_ceiling(torch.tensor([0.4, 0.4]), torch.tensor([0.9, 0.0]))
    0.5
    """
    return TABLE["acc7_ceiling"](prediction, target, weights)


def sims_acc2(prediction: Value, target: Value, weights: Weight = None) -> float:
    """Two classes, <= 0 and > 0, after clipping to +-1.

    >>> sims_acc2(torch.tensor([-0.2, 0.2]), torch.tensor([0.0, 0.0]))
    0.5
    """
    return TABLE["sims_acc2"](prediction, target, weights)


def sims_acc3(prediction: Value, target: Value, weights: Weight = None) -> float:
    """Three classes with edges -0.1 and 0.1 (right-closed), after clipping to +-1.

    >>> sims_acc3(torch.tensor([-0.2, 0.05]), torch.tensor([-1.0, 0.1]))
    1.0
    """
    return TABLE["sims_acc3"](prediction, target, weights)


def sims_acc5(prediction: Value, target: Value, weights: Weight = None) -> float:
    """Five classes with edges -0.7, -0.1, 0.1, 0.7 (right-closed), after clipping to +-1.

    >>> sims_acc5(torch.tensor([-0.8, 0.8]), torch.tensor([-1.0, 0.6]))
    0.5
    """
    return TABLE["sims_acc5"](prediction, target, weights)


def sims_f1(prediction: Value, target: Value, weights: Weight = None) -> float:
    """Weighted F1 of the two classes of `sims_acc2`.

    >>> sims_f1(torch.tensor([-0.2, 0.2]), torch.tensor([0.0, 0.4]))
    1.0
    """
    return TABLE["sims_f1"](prediction, target, weights)


def sims_mae(prediction: Value, target: Value, weights: Weight = None) -> float:
    """Mean absolute error after clipping both sides to +-1.

    >>> sims_mae(torch.tensor([-3.0, 0.5]), torch.tensor([-1.0, 1.0]))
    0.25
    """
    return TABLE["sims_mae"](prediction, target, weights)


def sims_pearson(prediction: Value, target: Value, weights: Weight = None) -> float:
    """Correlation after clipping both sides to +-1; NaN where one is constant.

    >>> round(sims_pearson(torch.tensor([-3.0, 5.0]), torch.tensor([-1.0, 1.0])), 12)
    1.0
    """
    return TABLE["sims_pearson"](prediction, target, weights)


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


def _share_of_bins(name: str, into: Bin) -> Metric:
    return Metric(
        name=name,
        kind="regression",
        higher_is_better=True,
        rows=_binned_rows(into),
        finish=regression.finish_mean,
    )


def _of_signs(name: str, of: str, positive: Bin, *, drop_zero: bool) -> Metric:
    return Metric(
        name=name,
        kind="regression",
        higher_is_better=True,
        rows=_sign_rows(positive, drop_zero=drop_zero),
        finish=classification.TABLE[of].finish,
    )


def _above(values: Tensor) -> Tensor:
    return values > 0


def _not_below(values: Tensor) -> Tensor:
    return values >= 0


TABLE: dict[str, Metric] = {
    "acc2_has_zero": _of_signs("acc2_has_zero", "accuracy", _not_below, drop_zero=False),
    "acc2_nonzero": _of_signs("acc2_nonzero", "accuracy", _above, drop_zero=True),
    "acc3": _share_of_bins("acc3", _rounded(1.0)),
    "acc5": _share_of_bins("acc5", _rounded(2.0)),
    "acc7": _share_of_bins("acc7", _rounded(3.0)),
    "acc7_ceiling": _share_of_bins("acc7_ceiling", _ceiled),
    "f1_has_zero": _of_signs("f1_has_zero", "weighted_f1", _not_below, drop_zero=False),
    "f1_nonzero": _of_signs("f1_nonzero", "weighted_f1", _above, drop_zero=True),
    "sims_acc2": _share_of_bins("sims_acc2", _sims_bins(0.0)),
    "sims_acc3": _share_of_bins("sims_acc3", _sims_bins(-0.1, 0.1)),
    "sims_acc5": _share_of_bins("sims_acc5", _sims_bins(-0.7, -0.1, 0.1, 0.7)),
    "sims_f1": _of_signs("sims_f1", "weighted_f1", _above, drop_zero=False),
    "sims_mae": Metric(
        name="sims_mae",
        kind="regression",
        higher_is_better=False,
        rows=_clipped(regression.absolute_rows),
        finish=regression.finish_mean,
    ),
    "sims_pearson": Metric(
        name="sims_pearson",
        kind="regression",
        higher_is_better=True,
        rows=_clipped(regression.moment_rows),
        finish=regression.finish_pearson,
    ),
}
"""Name -> metric with its facts."""
