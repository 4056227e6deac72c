"""Where labels are decided for a metric, the accuracy to expect is that of these labels."""

import numpy as np
import pytest
import torch

from fusion.late.members import Members
from jobs.catalog.predictions import HeldOut
from jobs.evaluation.cross_fitting import Candidate, cross_fitted
from jobs.evaluation.decisions import decide
from jobs.evaluation.expectations import expectation

ROWS, FOLDS = 600, np.arange(600) % 5
GROUPS = np.arange(600) // 5 % 12
KINDS = {"classification": "uar", "multilabel": "multilabel_macro_f1"}


def held_of(kind):
    """One member whose probabilities are right, of classes or labels that are rare."""
    draws = np.random.default_rng(0)
    evidence = torch.tensor(draws.standard_normal((ROWS, 3)))
    if kind == "classification":
        scores = torch.log_softmax(1.2 * evidence + torch.tensor([3.0, 0.0, 0.0]), 1)
        target = torch.multinomial(scores.exp(), 1)[:, 0]
    else:
        scores = 1.5 * evidence - 1.5
        target = (torch.tensor(draws.random((ROWS, 3))) < scores.sigmoid()).double()
    members = Members(
        kind=kind, names=("m",), scores=scores[None], present=torch.ones(1, ROWS, dtype=torch.bool)
    )
    return HeldOut(clip_id=np.arange(ROWS), fold=FOLDS, target=target, members=members)


@pytest.mark.parametrize("kind", KINDS)
def test_the_expected_accuracy_is_that_of_decided_labels(kind):
    held = held_of(kind)
    verdict = cross_fitted(held, [Candidate(rule="mean")], FOLDS)
    decided = decide(kind, verdict.scores, held.target, FOLDS, KINDS[kind])
    assert decided.decision.metric  # labels are not the plain ones
    said = decided.labels(verdict.scores, FOLDS)
    truth = held.target if kind == "classification" else held.target > 0.5
    accuracy = (said == truth).double().mean().item()
    plainly = expectation(held, verdict, FOLDS, GROUPS, ("m",))
    found = expectation(held, verdict, FOLDS, GROUPS, ("m",), decided)
    assert plainly.accuracy > accuracy + 0.03
    assert found.accuracy == pytest.approx(accuracy, abs=0.01)


def test_labels_of_a_fold_owe_nothing_to_its_own_truth():
    held = held_of("classification")
    other = held.target.clone()
    at = torch.from_numpy(FOLDS == 0)
    other[at] = other[at].flip(0)
    scores = held.members.scores[0]
    first, second = (
        decide("classification", scores, target, FOLDS, "uar").labels(scores, FOLDS)[at]
        for target in (held.target, other)
    )
    assert torch.equal(first, second)


def test_labels_stay_as_they_are_where_no_decision_gains_anything():
    folds = np.arange(60) % 5
    target = torch.arange(60) % 3
    scores = torch.nn.functional.one_hot(target, 3).double().mul(9).log_softmax(1)
    decided = decide("classification", scores, target, folds, "uar")
    assert not decided.decision.metric
    assert torch.equal(decided.labels(scores, folds), target)
