"""Deadlines in a worker, and threads that may be abandoned when a call hangs.

Each call of a model has a deadline that grows with its clips (`jobs.stream.pace`). `Hands` does a unit's work
in a thread of its own, so that the worker can still answer, and end itself, when that thread never returns.
Native code that keeps the interpreter to itself leaves no thread a turn: a timer of the C runtime ends the
process then.
"""

import contextlib
import faulthandler
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from jobs.stream.faults import Kind, WorkerFaultError

T = TypeVar("T")

LOOK_S = 1.0
"""How often deadlines are looked at [s]."""


def last_resort_s(limit_s: float) -> float:
    """How long after a deadline the timer ends the process [s]."""
    return 5 * LOOK_S + limit_s / 4


class Watch:
    """The deadlines of a process; safe for threads.

    Args:
        last_resort: end the process by a timer where no thread gets a turn.
    """

    def __init__(self, *, last_resort: bool = False) -> None:
        self._last_resort = last_resort
        self._lock = threading.Lock()
        self._ends: dict[int, tuple[float, float]] = {}
        self._numbers = itertools.count()

    @contextlib.contextmanager
    def within(self, limit_s: float) -> Iterator[None]:
        """Something that has so long to end [s]."""
        number = next(self._numbers)
        with self._lock:
            self._ends[number] = (time.monotonic() + limit_s, limit_s)
            self._arm()
        try:
            yield
        finally:
            with self._lock:
                del self._ends[number]
                self._arm()

    def overdue_s(self) -> float | None:
        """The limit that something has passed [s]."""
        now = time.monotonic()
        with self._lock:
            return next((limit_s for end, limit_s in self._ends.values() if now > end), None)

    def _arm(self) -> None:
        if not self._last_resort:
            return
        if not self._ends:
            faulthandler.cancel_dump_traceback_later()
            return
        end_s = min(end + last_resort_s(limit_s) for end, limit_s in self._ends.values())
        left_s = max(LOOK_S, end_s - time.monotonic())
        faulthandler.dump_traceback_later(left_s, exit=True, file=2)


class Hands:
    """Does work in threads that may be left behind; as many as there are calls at once."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self._idle: list[_Hand] = []

    def run(self, work: Callable[[], T]) -> T:
        """What the work returns or raises.

        Raises:
            WorkerFaultError: something in the process is past its deadline.
        """
        try:
            hand = self._idle.pop()
        except IndexError:
            hand = _Hand()
        future = hand.give(work)
        while True:
            try:
                future.exception(timeout=LOOK_S)
            except TimeoutError:
                limit_s = self.watch.overdue_s()
                if limit_s is not None:
                    detail = f"encoding took longer than {limit_s:.0f} s"
                    raise WorkerFaultError(Kind.HUNG, detail) from None
            else:
                self._idle.append(hand)
                return future.result()  # type: ignore[no-any-return]


class _Hand:
    """One thread; a daemon, so that a process ends though it hangs."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._serve, daemon=True, name="encoding").start()

    def give(self, work: Callable[[], Any]) -> "Future[Any]":
        future: Future[Any] = Future()
        self._tasks.put((work, future))
        return future

    def _serve(self) -> None:
        while True:
            work, future = self._tasks.get()
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 (raised again where it is waited for)
                future.set_exception(error)
            del work, future
