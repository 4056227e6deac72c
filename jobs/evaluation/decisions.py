"""Labels decided for the sake of one metric, judged on rows they were not decided on."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fusion.late.calibration import Decision
from fusion.metrics import metric
from fusion.tasks import Kind


@dataclass(frozen=True, kw_only=True)
class Decided:
    """Labels chosen for the sake of one metric, and what that gained on rows it was not chosen on."""

    decision: Decision
    """Fitted on all rows; plain where it gained nothing on rows it was not fitted on."""

    plain: float
    """The metric of plain decisions (largest probability, 0.5)."""

    cross_fitted: float
    """Of decisions whose offsets were fitted on the other folds."""


def decide(kind: Kind, verdict: Tensor, target: Tensor, folds: np.ndarray, name: str) -> Decided:
    """Fit offsets or thresholds on cross-fitted scores [row outputs]; probabilities stay as they are.

    Raises:
        ValueError: a metric that does not judge labels of this kind.
    """
    known = ~verdict.isnan().any(1)
    scores, target, folds = verdict[known], target[known], folds[known.numpy()]
    decision = Decision.fit(kind, scores, target, metric=name)
    labels = torch.zeros_like(decision.decide(scores))
    for fold in np.unique(folds):
        at = torch.from_numpy(folds == fold)
        other = Decision.fit(kind, scores[~at], target[~at], metric=name)
        labels[at] = other.decide(scores[at])
    plain = Decision.plain(kind, scores.shape[1])
    figure = metric(name)
    before, after = figure(plain.decide(scores), target), figure(labels, target)
    return Decided(
        decision=decision if figure.loss(after) < figure.loss(before) else plain,
        plain=before,
        cross_fitted=after,
    )
