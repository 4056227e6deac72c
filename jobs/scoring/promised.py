"""What cannot be excluded of a clip: its set of classes or labels, or its interval."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fusion.late.calibration import Decision
from fusion.late.presence import ByPresence
from fusion.tasks import Task

NOTHING: dict[str, Any] = dict.fromkeys(("possible", "certain", "low", "high"))
"""Columns of SCORES where no coverage was asked for."""


def promised_rows(
    conformal: ByPresence,
    coverage: float,
    scores: Float[Tensor, "row outputs"],
    present: Bool[Tensor, "member row"],
    task: Task,
    decision: Decision,
) -> list[dict[str, Any]]:
    """Columns of SCORES that keep a promise.

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
        pairs = (_within(low, high, task.range) for low, high in ends.tolist())
        return [{**NOTHING, "low": low, "high": high} for low, high in pairs]
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
    return [
        {**NOTHING, "possible": _named(task, some), "certain": _named(task, only)}
        for some, only in zip(there.tolist(), sure.tolist(), strict=True)
    ]


def _named(task: Task, chosen: Sequence[bool]) -> list[str]:
    return [name for name, so in zip(task.classes, chosen, strict=True) if so]


def _within(
    low: float, high: float, bounds: tuple[float, float] | None
) -> tuple[float | None, float | None]:
    """An interval within the bounds of its task; an open end is None."""
    least, most = bounds or (-math.inf, math.inf)
    ends = (min(max(low, least), most), max(min(high, most), least))
    low, high = ends
    return (None if math.isinf(low) else low), (None if math.isinf(high) else high)
