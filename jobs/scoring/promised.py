"""What cannot be excluded of a clip: its set of classes or labels, or its interval."""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fusion.late.calibration import Decision
from fusion.late.presence import ByPresence
from fusion.tasks import Task


def promised(
    conformal: ByPresence,
    coverage: float,
    scores: Float[Tensor, "row outputs"],
    present: Bool[Tensor, "member row"],
    task: Task,
    decision: Decision,
) -> dict[str, np.ndarray]:
    """Columns of SCORES that keep a promise: classes, bool [row class], or ends of intervals [row].

    Args:
        conformal: thresholds by the members that a row has.
        coverage: that was asked for.
        scores: fused.
        present: which members each row has, in the thresholds' order.
        task: of the bundle.
        decision: from scores to the labels that are answered.
    """
    if task.kind == "regression":
        ends = torch.full((len(scores), 2), math.inf, dtype=torch.float64)
        for rows, one in conformal.kinds(present):
            ends[rows] = torch.stack(one.interval(scores[rows], coverage), 1)
        low, high = _within(ends.numpy(), task.range)
        return {"low": low, "high": high}
    there = torch.ones(scores.shape, dtype=torch.bool)
    sure = torch.zeros(scores.shape, dtype=torch.bool)
    for rows, one in conformal.kinds(present):
        there[rows] = one.possible(scores[rows], coverage)
        sure[rows] = one.certain(scores[rows], coverage)
    decided = decision.decide(scores)
    if task.kind == "classification":
        # What is answered is possible, whatever it was decided for.
        there = there.scatter(1, decided.unsqueeze(1), True)
        sure = sure & (there.sum(1, keepdim=True) == 1)
    else:
        there, sure = there | decided, sure & decided
    return {"possible": there.numpy(), "certain": sure.numpy()}


def _within(ends: np.ndarray, bounds: tuple[float, float] | None) -> tuple[np.ndarray, np.ndarray]:
    """Intervals [row 2] within the bounds of their task: their lower and upper ends."""
    least, most = bounds or (-math.inf, math.inf)
    low, high = ends[:, 0], ends[:, 1]
    return np.minimum(np.maximum(low, least), most), np.maximum(np.minimum(high, most), least)
