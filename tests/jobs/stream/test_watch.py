"""Deadlines: what may take how long, and letting go of what does not come back."""

import subprocess
import sys
import threading

import pytest

from jobs.stream import watch
from jobs.stream.faults import Kind, WorkerFaultError
from jobs.stream.pace import Pace


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(watch, "LOOK_S", 0.05)


class TestPace:
    def test_a_call_may_take_the_stall_limit_whatever_its_clips(self):
        assert Pace(100.0, 0.05).limit_s([0.0]) == 100.0

    def test_a_long_film_may_take_longer_before_anything_is_measured(self):
        assert Pace(100.0, 0.5).limit_s([7200.0]) >= 100 + 7200

    def test_slow_clips_make_room_for_as_many_of_their_kind(self):
        pace = Pace(10.0, 0.01)
        pace.took([0.5], 8.0)
        assert pace.limit_s([0.5] * 64) > 64 * 8.0

    def test_a_first_call_that_sets_things_up_does_not_give_long_clips_hours(self):
        pace = Pace(600.0, 0.05)
        pace.took([0.1], 5.0)
        assert pace.limit_s([14.0] * 8) < 1200


class TestHands:
    def test_work_is_done_and_its_errors_are_raised(self):
        hands = watch.Hands(watch.Watch())
        assert hands.run(lambda: 3) == 3
        with pytest.raises(TimeoutError):
            hands.run(lambda: (_ for _ in ()).throw(TimeoutError("of the work")))

    def test_work_within_its_limit_is_waited_for(self):
        look = watch.Watch()

        def work():
            with look.within(60.0):
                threading.Event().wait(0.3)
            return "done"

        assert watch.Hands(look).run(work) == "done"

    def test_work_that_does_not_come_back_is_let_go_of(self):
        look, never = watch.Watch(), threading.Event()

        def work():
            with look.within(0.1):
                never.wait(60)

        with pytest.raises(WorkerFaultError) as raised:
            watch.Hands(look).run(work)
        assert raised.value.kind == Kind.HUNG
        never.set()

    def test_one_thread_serves_call_after_call(self):
        hands = watch.Hands(watch.Watch())
        assert len({hands.run(threading.get_ident) for _ in range(5)}) == 1


def test_a_process_whose_interpreter_is_held_is_ended_by_the_timer():
    code = (
        "import ctypes; from jobs.stream import watch; watch.LOOK_S = 0.1\n"
        "with watch.Watch(last_resort=True).within(0.2): ctypes.PyDLL(None).sleep(60)"
    )
    ended = subprocess.run([sys.executable, "-c", code], timeout=50, capture_output=True)
    assert ended.returncode == 1
