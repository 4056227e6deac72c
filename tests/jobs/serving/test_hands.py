"""Workers that die, hang or cannot start cost their own order and nothing else."""

import importlib
import os
import re
import signal
import threading
import time
from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from cluster.scratch import OWNER, PREFIX
from jobs.serving import desk
from jobs.serving.app import make_app
from jobs.serving.desk import Desk
from jobs.serving.facts import facts_of
from jobs.serving.guard import Rules
from jobs.serving.hands import TRIES, ProcessHand
from jobs.serving.judge import Order
from jobs.serving.refusal import RefusalError


def silent(share):
    pass


def wait_for(claim):
    deadline = time.monotonic() + 120
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.01)


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


class Fake:
    """A hand of this process that never loads anything."""

    def __init__(self):
        self.ready, self.warmed = False, 0

    def warm(self):
        self.warmed += 1
        raise RefusalError(503, "the models could not be loaded")

    def answer(self, order, report):
        return {"text": order.text}

    def close(self):
        pass


class TestAHandWithoutAnOrder:
    def test_whose_process_is_killed_is_missed_at_once_and_started_anew(
        self, toys, toy_bundle, tmp_path, capfd
    ):
        (tmp_path / "starts").mkdir()
        begin = importlib.import_module("toy_dying").start
        hand = ProcessHand(partial(begin, str(tmp_path / "starts"), 0), 120.0)
        there = Desk([hand], queue=1, keep_s=1, folder=str(tmp_path))
        app = make_app(there, Rules(), facts_of(toy_bundle, "", 1.0, 60.0, 1.0))
        with TestClient(app) as client:

            def seen():
                said = client.get("/health").json()
                return [said["status"], said["ready"]]

            wait_for(lambda: seen() == ["ok", 1])
            os.kill(first := hand.pid, signal.SIGKILL)
            wait_for(lambda: seen() == ["starting", 0])
            wait_for(lambda: seen() == ["ok", 1])
            assert hand.pid != first
        said = capfd.readouterr().err
        assert f"worker {first} was killed by signal 9 while it had nothing to do\n" in said

    def test_that_could_not_load_is_tried_again(self, tmp_path):
        hand = Fake()
        there = Desk([hand], queue=1, keep_s=1, folder=str(tmp_path))
        wait_for(lambda: hand.warmed >= 2)
        there.close()

    def test_is_started_at_ever_longer_intervals_where_it_ends_at_once(self, monkeypatch):
        now = [0.0]
        monkeypatch.setattr(desk, "time", SimpleNamespace(monotonic=lambda: now[0]))
        pauses, starts = desk.Pauses(), []
        while now[0] < 3600:
            if pauses.are_over():
                pauses.begin()
                starts.append(now[0])
            now[0] += 0.5
        apart = [later - earlier for earlier, later in pairwise(starts)]
        assert apart[:3] == [1.0, 2.0, 4.0]
        assert max(apart) == desk.LONGEST_PAUSE_S
        assert len(starts) < 25
        now[0] += 3 * desk.LONGEST_PAUSE_S  # it lived for long
        pauses.begin()
        now[0] += desk.FIRST_PAUSE_S
        assert pauses.are_over()

    def test_answers_an_order_in_between(self, tmp_path):
        there = Desk([Fake()], queue=1, keep_s=9, folder=str(tmp_path))
        ticket = there.take(there.room(), Order(text="well"))
        assert ticket.done.wait(10)
        assert ticket.answer == {"text": "well"}
        there.close()


class Slow(Fake):
    """A hand that loads once the gate is open, and does an order once the other one is."""

    def __init__(self):
        super().__init__()
        self.loads, self.works = threading.Event(), threading.Event()

    def warm(self):
        self.warmed += 1
        assert self.loads.wait(60)
        self.ready = True

    def answer(self, order, report):
        assert self.works.wait(60)
        return super().answer(order, report)


class Broken(Fake):
    """A hand that never loads, and refuses what it is given."""

    def answer(self, order, report):
        raise RefusalError(503, "the models could not be loaded")


class TestAHandThatCouldNotLoad:
    @pytest.fixture
    def hands(self, tmp_path, monkeypatch):
        """A broken hand that was tried, a slow one that loads, and their desk."""
        monkeypatch.setattr(desk, "LOOK_S", 0.01)
        broken, slow = Broken(), Slow()
        there = Desk([broken, slow], queue=64, keep_s=99, folder=str(tmp_path))
        wait_for(lambda: broken.warmed and slow.warmed)
        yield broken, slow, there
        for gate in (slow.loads, slow.works):
            gate.set()
        there.close()

    @staticmethod
    def orders(there, count=12):
        return [there.take(there.room(), Order(text=str(number))) for number in range(count)]

    @staticmethod
    def are_answered(tickets):
        assert all(ticket.done.wait(30) for ticket in tickets)
        return [ticket.refusal for ticket in tickets] == [None] * len(tickets)

    def test_leaves_orders_to_one_that_is_loading_and_to_one_that_is_busy(self, hands):
        broken, slow, there = hands
        early = self.orders(there)
        wait_for(lambda: broken.warmed >= 2)  # it has come by its queue meanwhile
        assert there.waiting == len(early)
        slow.loads.set()
        wait_for(lambda: there.waiting == len(early) - 1)  # one is in hand
        late = self.orders(there)
        before = broken.warmed
        wait_for(lambda: broken.warmed > before)
        assert (there.ready, there.waiting) == (1, len(early + late) - 1)
        slow.works.set()
        assert self.are_answered(early + late)

    def test_takes_them_again_once_it_has_loaded(self, hands):
        broken, slow, there = hands
        slow.loads.set()
        wait_for(lambda: there.ready == 1)
        (stuck,) = self.orders(there, 1)
        wait_for(lambda: stuck.state == "working")
        broken.warm = broken.answer = lambda *_: {"text": "well"}
        broken.ready = True
        assert self.are_answered(self.orders(there))

    def test_refuses_them_where_no_other_could_load_either(self, tmp_path):
        there = Desk([Broken(), Broken()], queue=64, keep_s=99, folder=str(tmp_path))
        tickets = self.orders(there)
        assert all(ticket.done.wait(30) for ticket in tickets)
        assert {ticket.refusal.status for ticket in tickets} == {503}
        there.close()

    @pytest.mark.parametrize("count", [1, 3])
    def test_leaves_them_to_the_one_that_is_ready_where_it_has_lost_its_process_too(
        self, tmp_path, monkeypatch, count
    ):
        monkeypatch.setattr(desk, "FIRST_PAUSE_S", 600.0)  # started once, and not again by itself
        lost, well = [Slow() for _ in range(count)], Slow()
        for each in (*lost, well):
            each.loads.set()
        there = Desk([*lost, well], queue=64, keep_s=99, folder=str(tmp_path))
        wait_for(lambda: there.ready == count + 1)
        for each in lost:
            each.ready = False
            each.answer = Broken().answer
        time.sleep(2 * desk.LOOK_S)  # what was looked at before may be taken yet
        well.works.set()
        assert self.are_answered(self.orders(there))
        there.close()


class TestLeftovers:
    def test_of_a_killed_server_go_and_those_of_a_living_one_stay(self, tmp_path):
        left = tmp_path / f"{PREFIX}dead"
        (left / "room").mkdir(parents=True)
        (left / OWNER).touch()
        living = Desk([], queue=1, keep_s=1, folder=str(tmp_path))
        other = Desk([], queue=1, keep_s=1, folder=str(tmp_path))
        assert {*tmp_path.iterdir()} == {living.folder.parent, other.folder.parent}
        for each in (living, other):
            each.close()
        assert list(tmp_path.iterdir()) == []
