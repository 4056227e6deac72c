"""Metrics, one convention a function, the convention in the name.

Every metric is ``metric(prediction, target, weights=None) -> float`` with `weights` [row]:

- classification: prediction is probabilities [row class] or predicted class indices [row]; target is class
  indices [row]. nll, brier and ece need the probabilities.
- multilabel: prediction is probabilities [row label], decided at 0.5, or decisions [row label] of bool;
  target is 0, 1 or NaN (unknown, left out) [row label].
- classification against raters (`SOFT`): prediction and target are probabilities [row class].
- regression: prediction and target are values [row] (or [row 1]). Bins are compared in the type that came:
  published tables were made in float32, where 0.1 lies on the other side of a bin's edge than in float64.

A metric is written as its formula over sums of the rows (`fusion.metrics._metric`); `metric(name)` gives the
function above.

An undefined figure (the correlation with a constant, the F1 of no rows) is NaN; reports write null.
"""

import importlib
from collections.abc import Mapping

from fusion.metrics._metric import Metric
from fusion.tasks import Kind

__all__ = ["FIGURES", "METRICS", "SOFT", "Metric", "default_metric", "metric", "metrics_for"]

_CLASSIFICATION = "fusion.metrics.classification"
_MULTILABEL = "fusion.metrics.multilabel"
_REGRESSION = "fusion.metrics.regression"
_SENTIMENT = "fusion.metrics.sentiment"

METRICS: dict[str, str] = {
    "acc2_has_zero": f"{_SENTIMENT}:acc2_has_zero",
    "acc2_nonzero": f"{_SENTIMENT}:acc2_nonzero",
    "acc3": f"{_SENTIMENT}:acc3",
    "acc5": f"{_SENTIMENT}:acc5",
    "acc7": f"{_SENTIMENT}:acc7",
    "acc7_ceiling": f"{_SENTIMENT}:acc7_ceiling",
    "accuracy": f"{_CLASSIFICATION}:accuracy",
    "brier": f"{_CLASSIFICATION}:brier",
    "ccc": f"{_REGRESSION}:ccc",
    "cohen_kappa": f"{_CLASSIFICATION}:cohen_kappa",
    "ece": f"{_CLASSIFICATION}:ece",
    "f1_has_zero": f"{_SENTIMENT}:f1_has_zero",
    "f1_nonzero": f"{_SENTIMENT}:f1_nonzero",
    "macro_f1": f"{_CLASSIFICATION}:macro_f1",
    "mae": f"{_REGRESSION}:mae",
    "mcc": f"{_CLASSIFICATION}:mcc",
    "mse": f"{_REGRESSION}:mse",
    "multilabel_accuracy": f"{_MULTILABEL}:multilabel_accuracy",
    "multilabel_exact": f"{_MULTILABEL}:multilabel_exact",
    "multilabel_macro_f1": f"{_MULTILABEL}:multilabel_macro_f1",
    "multilabel_micro_f1": f"{_MULTILABEL}:multilabel_micro_f1",
    "multilabel_nll": f"{_MULTILABEL}:multilabel_nll",
    "multilabel_weighted_accuracy": f"{_MULTILABEL}:multilabel_weighted_accuracy",
    "multilabel_weighted_f1": f"{_MULTILABEL}:multilabel_weighted_f1",
    "nll": f"{_CLASSIFICATION}:nll",
    "pearson": f"{_REGRESSION}:pearson",
    "rmse": f"{_REGRESSION}:rmse",
    "sims_acc2": f"{_SENTIMENT}:sims_acc2",
    "sims_acc3": f"{_SENTIMENT}:sims_acc3",
    "sims_acc5": f"{_SENTIMENT}:sims_acc5",
    "sims_f1": f"{_SENTIMENT}:sims_f1",
    "sims_mae": f"{_SENTIMENT}:sims_mae",
    "sims_pearson": f"{_SENTIMENT}:sims_pearson",
    "uar": f"{_CLASSIFICATION}:uar",
    "weighted_f1": f"{_CLASSIFICATION}:weighted_f1",
}
"""Metric name -> `module:function`."""

SOFT: dict[str, str] = {
    "entropy_correlation": "fusion.metrics.soft:entropy_correlation",
    "js_divergence": "fusion.metrics.soft:js_divergence",
    "kl_divergence": "fusion.metrics.soft:kl_divergence",
}
"""The same of figures whose target is raters' distribution [row class]."""

FIGURES: Mapping[Kind, tuple[str, ...]] = {
    "classification": ("accuracy", "weighted_f1", "uar", "nll", "brier", "ece"),
    "multilabel": (
        "multilabel_macro_f1", "multilabel_micro_f1", "multilabel_weighted_accuracy",
        "multilabel_nll",
    ),
    "regression": ("mae", "pearson", "ccc"),
}  # fmt: skip
"""Metrics of a kind of task; the first one is what gains are stated in."""


def metric(name: str) -> Metric:
    """A metric with its facts (`kind`, `higher_is_better`); calling it gives the figure.

    Raises:
        ValueError: no such metric.

    >>> metric("mae").higher_is_better
    False
    """
    place = METRICS.get(name) or SOFT.get(name)
    if place is None:
        raise ValueError(f"there is no metric {name!r}; known: {', '.join(METRICS)}")
    module, _, function = place.partition(":")
    found = getattr(importlib.import_module(module), function)
    assert isinstance(found, Metric)
    return found


def default_metric(kind: Kind) -> str:
    """Default metric of a kind of task.

    >>> default_metric("regression")
    'mae'
    """
    return FIGURES[kind][0]


def metrics_for(kind: Kind, *, of_labels: bool = False) -> list[str]:
    """Names of the metrics that judge a kind of task.

    Args:
        kind: of the task.
        of_labels: those alone that can be computed from decided labels, without probabilities.

    >>> metrics_for("classification", of_labels=True)
    ['accuracy', 'cohen_kappa', 'macro_f1', 'mcc', 'uar', 'weighted_f1']
    """
    found = [name for name in METRICS if metric(name).kind == kind]
    return [name for name in found if not (of_labels and metric(name).needs_probabilities)]
