"""What a bundle has to know to say how right it will be elsewhere; for classes and labels.

It is fitted on cross-fitted scores of what ships, on rows as they are and on the same rows with members taken
away, so that a collection without a modality is foreseen though nobody in training lacked it.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fusion.late.calibration import Decision
from fusion.late.members import Members
from fusion.late.presence import Names, combinations_of
from fusion.shift import Expectation, KnownRows, Signals
from jobs.catalog.predictions import HeldOut
from jobs.evaluation.cross_fitting import Verdict
from jobs.evaluation.decisions import Decided
from jobs.evaluation.promises import fused_without

FEWEST_GROUPS = 4
"""With fewer people nothing can be said of others."""


def expectation(
    held: HeldOut,
    verdict: Verdict,
    folds: np.ndarray,
    groups: np.ndarray,
    members: Names,
    decided: Decided | None = None,
) -> Expectation | None:
    """Fit from members on rows that they did not train on; None for values, and for too few people.

    Args:
        held: members on rows they did not train on.
        verdict: cross-fitted scores of what ships.
        folds: fold of each row.
        groups: code of each row's group.
        members: those that ship.
        decided: how scores become labels, which are what is right or wrong; None: plainly.
    """
    kept = held.members.only(members)
    if kept.kind == "regression":
        return None

    def known(scores: Tensor, members: Members) -> KnownRows:
        if decided is None:
            labels = Decision.plain(kept.kind, scores.shape[1]).decide(scores)
        else:
            labels = decided.labels(scores, folds)
        return _rows(scores, labels, members, held.target, groups)

    real = known(verdict.scores, kept)
    if len(np.unique(real.groups)) < FEWEST_GROUPS:
        return None
    made = []
    without = fused_without(held, verdict, folds, combinations_of(members, kept.present))
    for names, scores in without.items():
        left = torch.tensor([name in names for name in members])
        taken = replace(kept, present=kept.present & left[:, None])
        same = bool((taken.present == kept.present).all())
        rows = known(scores, taken)
        if not same and len(rows.right):
            made.append(rows)
    return Expectation.fit(members, real, made)


def _rows(
    scores: Tensor, labels: Tensor, members: Members, target: Tensor, groups: np.ndarray
) -> KnownRows:
    """Signals of the rows that have an answer and a truth."""
    if members.kind == "classification":
        known = torch.ones(len(target), dtype=torch.bool)
        right = (labels == target).double()
    else:
        known = ~target.isnan().all(1)
        hits = (labels == (target > 0.5)).double()
        right = hits.masked_fill(target.isnan(), torch.nan).nanmean(1)
    at = known & ~scores.isnan().any(1) & members.present.any(0)
    signals = Signals.of(scores[at], members.rows(at))
    return KnownRows(signals=signals, right=right[at], groups=groups[at.numpy()])
