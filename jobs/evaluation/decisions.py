"""Labels decided for the sake of one metric, judged on rows they were not decided on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

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

    of_fold: Mapping[int, Decision]
    """Fold -> the decision that was fitted on the others; plain where `decision` is."""

    def labels(self, scores: Tensor, folds: np.ndarray) -> Tensor:
        """Labels of rows [row outputs] by decisions that were not fitted on them."""
        labels = torch.zeros_like(self.decision.decide(scores))
        for fold, decision in self.of_fold.items():
            at = torch.from_numpy(folds == fold)
            labels[at] = decision.decide(scores[at])
        return labels


def decide(kind: Kind, verdict: Tensor, target: Tensor, folds: np.ndarray, name: str) -> Decided:
    """Fit offsets or thresholds on cross-fitted scores [row outputs]; probabilities stay as they are.

    Raises:
        ValueError: a metric that does not judge labels of this kind.
    """
    known = ~verdict.isnan().any(1)
    scores, target, folds = verdict[known], target[known], folds[known.numpy()]
    decision = Decision.fit(kind, scores, target, metric=name)
    of_fold = {
        int(fold): Decision.fit(kind, scores[folds != fold], target[folds != fold], metric=name)
        for fold in np.unique(folds)
    }
    plain = Decision.plain(kind, scores.shape[1])
    figure = metric(name)
    before = figure(plain.decide(scores), target)
    decided = Decided(decision=decision, plain=before, cross_fitted=before, of_fold=of_fold)
    after = figure(decided.labels(scores, folds), target)
    if figure.loss(after) < figure.loss(before):
        return replace(decided, cross_fitted=after)
    of_fold = dict.fromkeys(of_fold, plain)
    return Decided(decision=plain, plain=before, cross_fitted=after, of_fold=of_fold)
