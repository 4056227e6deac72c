"""Workers that die, hang or cannot start cost their own order and nothing else."""

import importlib
import os
import re
from functools import partial

import pytest

from cluster.scratch import OWNER, PREFIX
from jobs.serving.desk import Desk
from jobs.serving.hands import TRIES, ProcessHand
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


class TestAWorkerThatDiesWhileItsModelsLoad:
    @pytest.fixture
    def dying(self, toys, tmp_path):
        """Makes a hand of which so many processes die while they load, and the folder of their starts."""
        made = []

        def make(deaths):
            start = partial(importlib.import_module("toy_dying").start, str(tmp_path), deaths)
            made.append(ProcessHand(start, 120.0))
            return made[-1]

        yield make
        for each in made:
            each.close()

    def test_costs_no_order_and_stands_in_the_log(self, dying, tmp_path, capfd):
        assert dying(1).answer(Order(text="well"), silent) == {"text": "well"}
        assert len(list(tmp_path.iterdir())) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert re.fullmatch(
            r"affuse serve: worker \d+ was killed by signal 9 while it loaded its models", line
        )

    def test_is_not_started_for_ever(self, dying, tmp_path, capfd):
        with pytest.raises(RefusalError, match="could not be loaded; see the log"):
            dying(99).answer(Order(text="well"), silent)
        assert len(list(tmp_path.iterdir())) == TRIES
        assert capfd.readouterr().err.count("while it loaded its models") == TRIES


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
