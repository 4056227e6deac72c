"""Metrics of single-label classification.

`present` convention of scikit-learn: means over classes run over those seen in targets or predictions; a
ratio without a denominator is 0. UAR runs over the classes that have targets.

Shapes: row, class, bin.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from fusion.metrics._metric import Finish, Metric, mean_of, share

BINS = 15
FLOOR = 1e-15
"""Smallest probability in a logarithm, as in scikit-learn's older releases and published tables."""


def accuracy(
    prediction: Shaped[Tensor, "row ..."],
    target: Int[Tensor, " row"],
    weights: Shaped[Tensor, " row"] | None = None,
) -> float:
    """Share of rows whose class is right ("WA" in IEMOCAP papers).

    >>> accuracy(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 2]))
    0.75
    """
    return TABLE["accuracy"](prediction, target, weights)


def weighted_f1(
    prediction: Shaped[Tensor, "row ..."],
    target: Int[Tensor, " row"],
    weights: Shaped[Tensor, " row"] | None = None,
) -> float:
    """Mean of the classes' F1, weighted by support (scikit-learn's average="weighted").

    >>> round(weighted_f1(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 1, 1, 2])), 4)
    0.65
    """
    return TABLE["weighted_f1"](prediction, target, weights)


def macro_f1(
    prediction: Shaped[Tensor, "row ..."],
    target: Int[Tensor, " row"],
    weights: Shaped[Tensor, " row"] | None = None,
) -> float:
    """Plain mean of the F1 of the classes that were seen in targets or predictions.

    >>> round(macro_f1(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 1, 1, 2])), 4)
    0.6
    """
    return TABLE["macro_f1"](prediction, target, weights)


def uar(
    prediction: Shaped[Tensor, "row ..."],
    target: Int[Tensor, " row"],
    weights: Shaped[Tensor, " row"] | None = None,
) -> float:
    """Unweighted average recall over the classes with targets ("UA" in IEMOCAP papers).

    >>> uar(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]))
    0.75
    """
    return TABLE["uar"](prediction, target, weights)


def cohen_kappa(
    prediction: Shaped[Tensor, "row ..."],
    target: Int[Tensor, " row"],
    weights: Shaped[Tensor, " row"] | None = None,
) -> float:
    """Agreement beyond chance; NaN where chance alone agrees fully.

    >>> cohen_kappa(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 0, 1]))
    0.0
    """
    return TABLE["cohen_kappa"](prediction, target, weights)


def mcc(
    prediction: Shaped[Tensor, "row ..."],
    target: Int[Tensor, " row"],
    weights: Shaped[Tensor, " row"] | None = None,
) -> float:
    """Matthews correlation (Gorodkin's for several classes); 0 where a margin has one class only.

    >>> mcc(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2]))
    1.0
    """
    return TABLE["mcc"](prediction, target, weights)


def nll(
    prediction: Float[Tensor, "row class"],
    target: Int[Tensor, " row"],
    weights: Shaped[Tensor, " row"] | None = None,
) -> float:
    """Mean negative log-probability of the true class, probabilities floored at 1e-15 [nats].

    >>> round(nll(torch.tensor([[0.5, 0.5], [0.25, 0.75]]), torch.tensor([0, 1])), 4)
    0.4904
    """
    return TABLE["nll"](prediction, target, weights)


def brier(
    prediction: Float[Tensor, "row class"],
    target: Int[Tensor, " row"],
    weights: Shaped[Tensor, " row"] | None = None,
) -> float:
    """Squared error summed over classes, mean over rows: 0 to 2, for two classes twice scikit-learn's.

    >>> brier(torch.tensor([[0.5, 0.5], [0.0, 1.0]]), torch.tensor([0, 1]))
    0.25
    """
    return TABLE["brier"](prediction, target, weights)


def ece(
    prediction: Float[Tensor, "row class"],
    target: Int[Tensor, " row"],
    weights: Shaped[Tensor, " row"] | None = None,
) -> float:
    """Expected calibration error of the largest probability over 15 equal bins (b/15, (b+1)/15].

    It is above zero for a perfectly calibrated model too: put `fusion.statistics.ece_bound` beside it.

    >>> round(ece(torch.tensor([[0.9, 0.1], [0.9, 0.1]]).double(), torch.tensor([0, 1])), 4)
    0.4
    """
    return TABLE["ece"](prediction, target, weights)


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


def _counted(of: Finish) -> Finish:
    def finish(sums: Tensor) -> Tensor:
        return of(sums.reshape(*sums.shape[:-1], 3, -1))

    return finish


def _accuracy(counts: Tensor) -> Tensor:
    return mean_of(counts[..., 0, :].sum(-1), counts[..., 2, :].sum(-1))


def _f1(counts: Tensor) -> Tensor:
    right, called, true = counts.unbind(-2)
    return share(2 * right, called + true)


def _weighted_f1(counts: Tensor) -> Tensor:
    true = counts[..., 2, :]
    return mean_of((_f1(counts) * true).sum(-1), true.sum(-1))


def _macro_f1(counts: Tensor) -> Tensor:
    seen = counts[..., 1:, :].sum(-2) > 0
    return mean_of((_f1(counts) * seen).sum(-1), seen.sum(-1).double())


def _uar(counts: Tensor) -> Tensor:
    right, _, true = counts.unbind(-2)
    return mean_of(share(right, true).sum(-1), (true > 0).sum(-1).double())


def _kappa(counts: Tensor) -> Tensor:
    right, called, true = counts.unbind(-2)
    total = true.sum(-1)
    chance = mean_of((called * true).sum(-1), total * total)
    return mean_of(mean_of(right.sum(-1), total) - chance, 1 - chance)


def _mcc(counts: Tensor) -> Tensor:
    right, called, true = counts.unbind(-2)
    total = true.sum(-1)
    covariance = right.sum(-1) * total - (called * true).sum(-1)
    margins = (total**2 - called.pow(2).sum(-1)) * (total**2 - true.pow(2).sum(-1))
    return share(covariance, margins.clamp(min=0).sqrt())


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


def _ece(sums: Tensor) -> Tensor:
    gap, count = sums.reshape(*sums.shape[:-1], 2, -1).unbind(-2)
    return mean_of(gap.abs().sum(-1), count.sum(-1))


def _mean(sums: Tensor) -> Tensor:
    return mean_of(sums[..., 0], sums[..., 1])


def _of_counts(name: str, of: Finish) -> Metric:
    return Metric(
        name=name,
        kind="classification",
        higher_is_better=True,
        rows=_count_rows,
        finish=_counted(of),
    )


TABLE: dict[str, Metric] = {
    "accuracy": _of_counts("accuracy", _accuracy),
    "brier": Metric(
        name="brier",
        kind="classification",
        higher_is_better=False,
        rows=_brier_rows,
        finish=_mean,
        needs_probabilities=True,
    ),
    "cohen_kappa": _of_counts("cohen_kappa", _kappa),
    "ece": Metric(
        name="ece",
        kind="classification",
        higher_is_better=False,
        rows=_ece_rows,
        finish=_ece,
        needs_probabilities=True,
    ),
    "macro_f1": _of_counts("macro_f1", _macro_f1),
    "mcc": _of_counts("mcc", _mcc),
    "nll": Metric(
        name="nll",
        kind="classification",
        higher_is_better=False,
        rows=_nll_rows,
        finish=_mean,
        needs_probabilities=True,
    ),
    "uar": _of_counts("uar", _uar),
    "weighted_f1": _of_counts("weighted_f1", _weighted_f1),
}
"""Name -> metric with its facts."""
