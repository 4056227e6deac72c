"""One worker of the queue: a process that holds the models and does one order at a time."""

import multiprocessing
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Protocol

from jobs.serving.judge import Answer, Judge, Order, Report
from jobs.serving.refusal import RefusalError

START_LIMIT_S = 600.0
"""How long loading the models may take [s]."""

TRIES = 2
"""An order whose worker dies is done once more, by a fresh one."""


class Hand(Protocol):
    """What does orders."""

    def warm(self) -> None:
        """Load what is needed, so that the first order does not wait."""

    def answer(self, order: Order, report: Report) -> Answer:
        """Do an order.

        Raises:
            RefusalError: it cannot be done.
        """

    def close(self) -> None:
        """End for good; an order in hand is refused."""


class _GoneError(Exception):
    """The process died, or took too long."""


class ProcessHand:
    """A process of its own, started anew when an order kills it.

    Args:
        start: makes the judge, in the process; it travels by pickle.
        limit_s: longest time for an order [s].
    """

    def __init__(self, start: Callable[[], Judge], limit_s: float) -> None:
        self._start, self._limit_s = start, limit_s
        self._running: tuple[multiprocessing.process.BaseProcess, Connection] | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Of the process, where there is one."""
        return None if self._running is None else self._running[0].pid

    def warm(self) -> None:
        """Start the process and wait until its models are loaded."""
        if self._running is None:
            context = multiprocessing.get_context("spawn")
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(self._start, there), daemon=True)
            process.start()
            there.close()
            self._running = process, here
            try:
                self._receive(START_LIMIT_S)
            except _GoneError as error:
                self._drop()
                check_open(self._closed)
                raise RefusalError(503, "the models could not be loaded; see the log") from error

    def answer(self, order: Order, report: Report) -> Answer:
        """Send the order to the process and wait for what it says."""
        for _ in range(TRIES):
            check_open(self._closed)
            self.warm()
            try:
                return self._listen(order, report)
            except (_GoneError, OSError):
                self._drop()
        check_open(self._closed)
        raise RefusalError(503, f"{order.name} ended {TRIES} workers, or took them too long")

    def close(self) -> None:
        """End the process, and start no other."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        if self._running is not None:
            process, pipe = self._running
            self._running = None
            pipe.close()
            process.kill()
            process.join()

    def _listen(self, order: Order, report: Report) -> Answer:
        self._pipe().send(order)
        deadline = time.monotonic() + self._limit_s
        while True:
            kind, said = self._receive(deadline - time.monotonic())
            if kind == "answer":
                return dict(said)
            if kind == "refusal":
                raise RefusalError(*said)
            report(said)

    def _receive(self, limit_s: float) -> tuple[str, Any]:
        pipe = self._pipe()
        try:
            if not pipe.poll(max(limit_s, 0.0)):
                raise _GoneError
            kind, said = pipe.recv()
        except (EOFError, OSError) as error:
            raise _GoneError from error
        return kind, said

    def _pipe(self) -> Connection:
        if (running := self._running) is None:  # `close` of another thread
            raise _GoneError
        return running[1]


def check_open(closed: bool) -> None:
    """Refuse an order where the server ends: no worker is started for it.

    Raises:
        RefusalError: it does.
    """
    if closed:
        raise RefusalError(503, "the server is being ended; try again in a minute", retry_s=60)


def _work(start: Callable[[], Judge], pipe: Connection) -> None:
    """The loop of the process; it ends when the pipe does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    judge = start()
    with suppress(EOFError, OSError):
        pipe.send(("ready", None))
        while True:
            order = pipe.recv()
            try:
                said = judge.answer(order, lambda share: pipe.send(("progress", share)))
                pipe.send(("answer", said))
            except RefusalError as refusal:
                pipe.send(("refusal", refusal.args))
