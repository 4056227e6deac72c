"""Workers that die, hang or cannot start cost their own order and nothing else."""

import importlib
import os
from functools import partial

import pytest

from cluster.scratch import OWNER, PREFIX
from jobs.serving.desk import Desk
from jobs.serving.hands import ProcessHand
from jobs.serving.judge import Order
from jobs.serving.refusal import RefusalError


def silent(share):
    pass


@pytest.fixture
def hand(toy_bundle):
    start = partial(importlib.import_module("toy_judge").start, toy_bundle)
    hand = ProcessHand(start, 120.0)
    yield hand
    hand.close()


@pytest.mark.slow
class TestAProcess:
    def test_is_started_anew_when_an_order_kills_it_and_answers_the_next(self, hand):
        first = hand.answer(Order(text="well"), silent)
        pid = hand.pid
        with pytest.raises(RefusalError, match="ended 2 workers"):
            hand.answer(Order(text="die"), silent)
        assert hand.answer(Order(text="well"), silent)["probabilities"] == first["probabilities"]
        assert hand.pid != pid

    def test_that_is_ended_says_nothing_and_leaves_nothing(self, hand):
        hand.warm()
        pid = hand.pid
        hand.close()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


class TestLeftovers:
    def test_of_a_killed_server_go_and_those_of_a_living_one_stay(self, tmp_path):
        left = tmp_path / f"{PREFIX}dead"
        (left / "room").mkdir(parents=True)
        (left / OWNER).touch()
        living = Desk([], queue=1, keep_s=1, folder=str(tmp_path))
        other = Desk([], queue=1, keep_s=1, folder=str(tmp_path))
        assert {*tmp_path.iterdir()} == {living.folder.parent, other.folder.parent}
        for desk in (living, other):
            desk.close()
        assert list(tmp_path.iterdir()) == []
