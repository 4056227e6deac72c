"""A large model is fused only where it shows a gain over the members that are there."""

import math
import os

import numpy as np
import pytest
import torch

from fusion.late.members import Members
from fusion.tasks import Task
from jobs.catalog.predictions import HeldOut
from jobs.evaluation.asked_members import with_those_that_gain
from jobs.evaluation.judging import Judging

DRAWS = int(os.environ.get("AFFUSE_DRAWS", "12"))
PEOPLE, EACH, CLASSES = 12, 10, 3
TASK = Task(kind="classification", classes=("calm", "glad", "sad"))

ANSWERS = {
    "useful": lambda truth, draws: 2 * truth + draws.normal(size=truth.shape),
    "sure of anything": lambda truth, draws: 4 * draws.normal(size=truth.shape),
    "sure of nothing": lambda truth, draws: 0.3 * draws.normal(size=truth.shape),
    "always the same": lambda truth, draws: np.tile(
        draws.normal(size=(1, CLASSES)), (len(truth), 1)
    ),
}
USELESS = [kind for kind in ANSWERS if kind != "useful"]


def held_of(seed, kind):
    """A net, and a large model of a kind, on rows of twelve people in two folds."""
    draws = np.random.default_rng(seed)
    target = draws.integers(CLASSES, size=PEOPLE * EACH)
    truth = np.eye(CLASSES)[target]
    said = [1.5 * truth + draws.normal(size=truth.shape), ANSWERS[kind](truth, draws)]
    group = np.arange(PEOPLE * EACH) // EACH
    return HeldOut(
        clip_id=np.arange(len(target)),
        fold=group % 2,
        target=torch.from_numpy(target),
        group=group,
        members=Members(
            names=("net", "asked"),
            kind="classification",
            scores=torch.log_softmax(torch.tensor(np.stack(said)), -1),
            present=torch.ones(2, len(target), dtype=torch.bool),
        ),
    )


def kept(held, asked=("asked",)):
    judging = Judging(task=TASK, target=held.target, groups=held.group, resamples=200, seed=0)
    return with_those_that_gain(held, asked, held.fold, judging)


@pytest.mark.parametrize("kind", ANSWERS)
def test_it_stays_where_it_gains_and_goes_where_it_does_not(kind, capsys):
    names = kept(held_of(0, kind)).members.names
    assert ("asked" in names) == (kind == "useful")
    assert (
        "asked: gains +" if kind == "useful" else "asked: shows no gain"
    ) in capsys.readouterr().out


def test_rows_that_it_alone_answers_go_with_it():
    held = held_of(0, "sure of anything")
    held.members.present[0, :7] = False
    assert kept(held).clip_id.tolist() == list(range(7, PEOPLE * EACH))


def test_where_there_is_nobody_else_it_stays():
    held = held_of(0, "sure of anything").only(["asked"])
    assert kept(held).members.names == ("asked",)


@pytest.mark.slow
@pytest.mark.timeout(900)
class TestManyDraws:
    """Over many collections of twelve people; AFFUSE_DRAWS=100 are drawn in six minutes."""

    def test_a_useless_one_is_refused_in_95_of_100(self):
        refused = [
            kept(held_of(seed, USELESS[seed % len(USELESS)])).members.names == ("net",)
            for seed in range(DRAWS)
        ]
        assert sum(refused) >= math.ceil(0.95 * DRAWS)

    def test_a_useful_one_is_kept_in_9_of_10(self):
        assert (
            sum("asked" in kept(held_of(seed, "useful")).members.names for seed in range(10)) >= 9
        )
