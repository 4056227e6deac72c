"""Metrics of single-label classification.

`present` convention of scikit-learn: means over classes run over those seen in targets or predictions; a
ratio without a denominator is 0. UAR runs over the classes that have targets.

In formulas n_k rows have class k as target, m_k rows were called k, r_k rows are both; n = sum_k n_k.

Shapes: row, class, bin.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from fusion.metrics._metric import mean_of, metric_of, ratio, share

BINS = 15
FLOOR = 1e-15
"""Smallest probability in a logarithm, as in scikit-learn's older releases and published tables."""


def confusion(
    prediction: Shaped[Tensor, "row ..."],
    target: Int[Tensor, " row"],
    *,
    num_classes: int,
    weights: Shaped[Tensor, " row"] | None = None,
) -> Float[Tensor, "truth predicted"]:
    """How often each class (row) was called each class (column).

    >>> confusion(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), num_classes=2).tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    cell = target.long() * num_classes + labels_of(prediction)
    counted = torch.bincount(cell, weights, num_classes**2).double()
    return counted.reshape(num_classes, num_classes)


@dataclass(frozen=True)
class PerClass:
    """One line a class: precision, recall, F1 and support."""

    precision: Float[Tensor, " class"]
    recall: Float[Tensor, " class"]
    f1: Float[Tensor, " class"]
    support: Float[Tensor, " class"]


def per_class(
    prediction: Shaped[Tensor, "row ..."],
    target: Int[Tensor, " row"],
    *,
    num_classes: int,
    weights: Shaped[Tensor, " row"] | None = None,
) -> PerClass:
    """Precision, recall, F1 and support of every class; 0 where there is nothing to divide by.

    >>> per_class(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), num_classes=2).recall.tolist()
    [0.5, 1.0]
    """
    cells = confusion(prediction, target, num_classes=num_classes, weights=weights)
    right, called, support = cells.diagonal(), cells.sum(0), cells.sum(1)
    return PerClass(
        precision=share(right, called),
        recall=share(right, support),
        f1=share(2 * right, called + support),
        support=support,
    )


def labels_of(prediction: Shaped[Tensor, "row ..."]) -> Int[Tensor, " row"]:
    """The most probable class (the lowest index on a tie), or the labels that came.

    >>> labels_of(torch.tensor([[0.2, 0.8], [0.5, 0.5]])).tolist()
    [1, 0]
    """
    if prediction.ndim == 2:
        return prediction.argmax(-1)
    if prediction.is_floating_point():
        raise ValueError(
            f"class predictions are probabilities [row class] or integer labels [row]; "
            f"came {tuple(prediction.shape)} of {prediction.dtype}"
        )
    return prediction.long()


def _count_rows(prediction: Tensor, target: Tensor) -> Tensor:
    """[row, 3 * class]: right, called and true, each one-hot."""
    labels = labels_of(prediction)
    width = (
        prediction.shape[1] if prediction.ndim == 2 else int(max(labels.max(), target.max())) + 1
    )
    called = torch.nn.functional.one_hot(labels, width)
    true = torch.nn.functional.one_hot(target.long(), width)
    return torch.cat([called * true, called, true], 1).double()


def _split(sums: Tensor) -> Tensor:
    """[..., 3, class]: right, called and true."""
    return sums.reshape(*sums.shape[:-1], 3, -1)


def _f1(counts: Tensor) -> Tensor:
    right, called, true = counts.unbind(-2)
    return share(2 * right, called + true)


def _need_probabilities(prediction: Tensor) -> Tensor:
    if prediction.ndim != 2:
        raise ValueError(f"needs probabilities [row class]; came {tuple(prediction.shape)}")
    return prediction.double()


def _nll_rows(prediction: Tensor, target: Tensor) -> Tensor:
    truth = _need_probabilities(prediction).gather(1, target.long().unsqueeze(1)).squeeze(1)
    return torch.stack([-truth.clamp(min=FLOOR).log(), torch.ones_like(truth)], 1)


def _brier_rows(prediction: Tensor, target: Tensor) -> Tensor:
    probabilities = _need_probabilities(prediction)
    truth = torch.nn.functional.one_hot(target.long(), probabilities.shape[1])
    error = (probabilities - truth).pow(2).sum(1)
    return torch.stack([error, torch.ones_like(error)], 1)


def confidence_bins(confidence: Float[Tensor, " row"], bins: int = BINS) -> Int[Tensor, " row"]:
    """Which of the equal bins (b/n, (b+1)/n] holds each confidence; the first also holds 0."""
    return (torch.ceil(confidence * bins) - 1).clamp(0, bins - 1).long()


def _ece_rows(prediction: Tensor, target: Tensor) -> Tensor:
    """[row, 2 * bin]: the gap between being right and confidence, and the count, in the row's bin."""
    confidence, labels = _need_probabilities(prediction).max(1)
    bins = torch.nn.functional.one_hot(confidence_bins(confidence), BINS).double()
    gap = (labels == target).double() - confidence
    return torch.cat([bins * gap.unsqueeze(1), bins], 1)


@metric_of(kind="classification", higher_is_better=True, rows=_count_rows)
def accuracy(sums: Tensor) -> Tensor:
    """Share of rows whose class is right ("WA" in IEMOCAP papers): sum_k r_k / n.

    >>> metric("accuracy")(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 2]))
    0.75
    """
    counts = _split(sums)
    return mean_of(counts[..., 0, :].sum(-1), counts[..., 2, :].sum(-1))


@metric_of(kind="classification", higher_is_better=True, rows=_count_rows)
def weighted_f1(sums: Tensor) -> Tensor:
    """Mean of the classes' F1, weighted by support (scikit-learn's average="weighted").

        sum_k (n_k / n) F1_k,  F1_k = 2 r_k / (n_k + m_k)

    >>> round(metric("weighted_f1")(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 1, 1, 2])), 4)
    0.65
    """
    counts = _split(sums)
    true = counts[..., 2, :]
    return mean_of((_f1(counts) * true).sum(-1), true.sum(-1))


@metric_of(kind="classification", higher_is_better=True, rows=_count_rows)
def macro_f1(sums: Tensor) -> Tensor:
    """Plain mean of F1_k = 2 r_k / (n_k + m_k) over the classes with n_k + m_k > 0.

    >>> round(metric("macro_f1")(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 1, 1, 2])), 4)
    0.6
    """
    counts = _split(sums)
    seen = counts[..., 1:, :].sum(-2) > 0
    return mean_of((_f1(counts) * seen).sum(-1), seen.sum(-1).double())


@metric_of(kind="classification", higher_is_better=True, rows=_count_rows)
def uar(sums: Tensor) -> Tensor:
    """Unweighted average recall ("UA" in IEMOCAP papers): mean of r_k / n_k over the classes with targets.

    >>> metric("uar")(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]))
    0.75
    """
    counts = _split(sums)
    right, _, true = counts.unbind(-2)
    return mean_of(share(right, true).sum(-1), (true > 0).sum(-1).double())


@metric_of(kind="classification", higher_is_better=True, rows=_count_rows)
def cohen_kappa(sums: Tensor) -> Tensor:
    """Agreement beyond chance (Cohen 1960, https://doi.org/10.1177/001316446002000104).

        (a - e) / (1 - e),  a = sum_k r_k / n,  e = sum_k n_k m_k / n^2

    NaN where chance alone agrees fully.

    >>> metric("cohen_kappa")(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 0, 1]))
    0.0
    """
    counts = _split(sums)
    right, called, true = counts.unbind(-2)
    total = true.sum(-1)
    chance = mean_of((called * true).sum(-1), total * total)
    return mean_of(mean_of(right.sum(-1), total) - chance, 1 - chance)


@metric_of(kind="classification", higher_is_better=True, rows=_count_rows)
def mcc(sums: Tensor) -> Tensor:
    """Matthews correlation, for several classes (Gorodkin 2004, https://doi.org/10.1016/j.compbiolchem.2004.09.006).

        (n sum_k r_k - sum_k n_k m_k) / sqrt((n^2 - sum_k m_k^2) (n^2 - sum_k n_k^2))

    0 where all targets, or all predictions, are of one class.

    >>> metric("mcc")(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2]))
    1.0
    """
    counts = _split(sums)
    right, called, true = counts.unbind(-2)
    total = true.sum(-1)
    covariance = right.sum(-1) * total - (called * true).sum(-1)
    margins = (total**2 - called.pow(2).sum(-1)) * (total**2 - true.pow(2).sum(-1))
    return share(covariance, margins.clamp(min=0).sqrt())


@metric_of(kind="classification", higher_is_better=False, rows=_nll_rows, needs_probabilities=True)
def nll(sums: Tensor) -> Tensor:
    """Mean negative log-probability of the true class, probabilities floored at 1e-15 [nats].

    >>> round(metric("nll")(torch.tensor([[0.5, 0.5], [0.25, 0.75]]), torch.tensor([0, 1])), 4)
    0.4904
    """
    return ratio(sums)


@metric_of(
    kind="classification", higher_is_better=False, rows=_brier_rows, needs_probabilities=True
)
def brier(sums: Tensor) -> Tensor:
    """Squared error summed over classes, mean over rows: 0 to 2, for two classes twice scikit-learn's.

    >>> metric("brier")(torch.tensor([[0.5, 0.5], [0.0, 1.0]]), torch.tensor([0, 1]))
    0.25
    """
    return ratio(sums)


@metric_of(kind="classification", higher_is_better=False, rows=_ece_rows, needs_probabilities=True)
def ece(sums: Tensor) -> Tensor:
    """Expected calibration error of the largest probability over 15 equal bins (b/15, (b+1)/15].

        sum_b |right_b - confidence_b| / n,  both summed over the rows of the bin

    It is above zero for a perfectly calibrated model too: put `fusion.ece_bound.ece_bound` beside it.

    >>> round(metric("ece")(torch.tensor([[0.9, 0.1], [0.9, 0.1]]).double(), torch.tensor([0, 1])), 4)
    0.4
    """
    gap, count = sums.reshape(*sums.shape[:-1], 2, -1).unbind(-2)
    return mean_of(gap.abs().sum(-1), count.sum(-1))
