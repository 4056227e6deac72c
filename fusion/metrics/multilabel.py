"""Metrics of several yes-or-no labels a row.

Predictions are probabilities decided at 0.5 (>= counts as yes), or decisions of bool. A target of NaN is
unknown and left out.

Shapes: row, label.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from fusion.metrics._metric import mean_of, metric_of, ratio, share

FLOOR = 1e-15


def _known(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if prediction.shape != target.shape or prediction.ndim != 2:
        raise ValueError(
            f"expected prediction and target [row label] alike, came {tuple(prediction.shape)} "
            f"and {tuple(target.shape)}"
        )
    truth = target.double()
    return ~truth.isnan(), truth.nan_to_num()


def _count_rows(prediction: Tensor, target: Tensor) -> Tensor:
    """[row, 4 * label]: hits, called, true and known."""
    known, truth = _known(prediction, target)
    called = prediction if prediction.dtype == torch.bool else prediction >= 0.5
    yes = called.double() * known
    return torch.cat([yes * truth, yes, truth * known, known.double()], 1)


def _split(sums: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    hits, called, true, known = sums.reshape(*sums.shape[:-1], 4, -1).unbind(-2)
    return hits, called, true, known


def _exact_rows(prediction: Tensor, target: Tensor) -> Tensor:
    known, truth = _known(prediction, target)
    called = prediction if prediction.dtype == torch.bool else prediction >= 0.5
    right = ((called == (truth > 0.5)) | ~known).all(1) & known.any(1)
    return torch.stack([right, known.any(1)], 1).double()


def _nll_rows(prediction: Tensor, target: Tensor) -> Tensor:
    known, truth = _known(prediction, target)
    chosen = torch.where(truth > 0.5, prediction.double(), 1 - prediction.double())
    loss = -chosen.clamp(min=FLOOR).log() * known
    return torch.stack([loss.sum(1), known.sum(1).double()], 1)


@metric_of(kind="multilabel", higher_is_better=True, rows=_count_rows)
def multilabel_accuracy(sums: Tensor) -> Tensor:
    """Share of right decisions over all known (row, label) pairs (one less the Hamming loss).

    >>> metric("multilabel_accuracy")(torch.tensor([[0.9, 0.1]]), torch.tensor([[1.0, 1.0]]))
    0.5
    """
    hits, called, true, known = _split(sums)
    wrong = called + true - 2 * hits
    return mean_of((known - wrong).sum(-1), known.sum(-1))


@metric_of(kind="multilabel", higher_is_better=True, rows=_count_rows)
def multilabel_macro_f1(sums: Tensor) -> Tensor:
    """Plain mean of the labels' F1; 0 for a label never seen nor predicted.

    >>> prediction = torch.tensor([[0.9, 0.1], [0.9, 0.9]])
    >>> metric("multilabel_macro_f1")(prediction, torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    1.0
    """
    hits, called, true, _ = _split(sums)
    return share(2 * hits, called + true).mean(-1)


@metric_of(kind="multilabel", higher_is_better=True, rows=_count_rows)
def multilabel_micro_f1(sums: Tensor) -> Tensor:
    """F1 of all (row, label) pairs together.

    >>> metric("multilabel_micro_f1")(torch.tensor([[0.9, 0.9]]), torch.tensor([[1.0, 0.0]]))
    0.6666666666666666
    """
    hits, called, true, _ = _split(sums)
    return share(2 * hits.sum(-1), (called + true).sum(-1))


@metric_of(kind="multilabel", higher_is_better=True, rows=_count_rows)
def multilabel_weighted_f1(sums: Tensor) -> Tensor:
    """Mean of the labels' F1, weighted by how often each is true.

    >>> metric("multilabel_weighted_f1")(torch.tensor([[0.9, 0.9]]), torch.tensor([[1.0, 0.0]]))
    1.0
    """
    hits, called, true, _ = _split(sums)
    return share((share(2 * hits, called + true) * true).sum(-1), true.sum(-1))


def weighted_accuracies(sums: Tensor) -> Tensor:
    """(TP N / P + TN) / 2N of every label [..., label]; NaN of one that all known rows have, or none."""
    hits, called, true, known = _split(sums)
    false = known - true
    rejected = false - (called - hits)
    return (mean_of(hits, true) + mean_of(rejected, false)) / 2


@metric_of(kind="multilabel", higher_is_better=True, rows=_count_rows)
def multilabel_weighted_accuracy(sums: Tensor) -> Tensor:
    """Plain mean of the labels' (TP N / P + TN) / 2N, P rows having the label and N not: CMU-MOSEI's figure.

    A label that all known rows have, or none, is left out.

    >>> prediction = torch.tensor([[0.9], [0.9], [0.1], [0.1]])
    >>> metric("multilabel_weighted_accuracy")(prediction, torch.tensor([[1.0], [0.0], [0.0], [0.0]]))
    0.8333333333333333
    """
    each = weighted_accuracies(sums)
    known = ~each.isnan()
    return mean_of(each.nan_to_num().sum(-1), known.sum(-1))


@dataclass(frozen=True)
class PerLabel:
    """One line a label."""

    precision: Float[Tensor, " label"]
    recall: Float[Tensor, " label"]
    f1: Float[Tensor, " label"]
    weighted_accuracy: Float[Tensor, " label"]
    support: Float[Tensor, " label"]


def per_label(
    prediction: Shaped[Tensor, "row label"], target: Float[Tensor, "row label"]
) -> PerLabel:
    """Precision, recall, F1, weighted accuracy and support of every label over its known rows.

    Ratios without a denominator are 0, the weighted accuracy NaN.

    >>> per_label(torch.tensor([[0.9], [0.9]]), torch.tensor([[1.0], [0.0]])).precision.tolist()
    [0.5]
    """
    sums = _count_rows(prediction, target).sum(0)
    hits, called, true, _ = _split(sums)
    return PerLabel(
        precision=share(hits, called),
        recall=share(hits, true),
        f1=share(2 * hits, called + true),
        weighted_accuracy=weighted_accuracies(sums),
        support=true,
    )


@metric_of(kind="multilabel", higher_is_better=True, rows=_exact_rows)
def multilabel_exact(sums: Tensor) -> Tensor:
    """Share of rows whose known labels are all right (subset accuracy).

    >>> prediction = torch.tensor([[0.9, 0.1], [0.9, 0.9]])
    >>> metric("multilabel_exact")(prediction, torch.tensor([[1.0, 1.0], [1.0, 1.0]]))
    0.5
    """
    return ratio(sums)


@metric_of(kind="multilabel", higher_is_better=False, rows=_nll_rows, needs_probabilities=True)
def multilabel_nll(sums: Tensor) -> Tensor:
    """Mean binary cross-entropy over known pairs, probabilities kept 1e-15 away from 0 and 1 [nats].

    >>> round(metric("multilabel_nll")(torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, float("nan")]])), 4)
    0.6931
    """
    return ratio(sums)
