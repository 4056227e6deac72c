"""One worker of the queue: a process that holds the models and does one order at a time."""

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from cluster.console import readable
from jobs.serving.judge import Answer, Judge, Order, Report
from jobs.serving.refusal import RefusalError

START_LIMIT_S = 600.0
"""How long loading the models may take [s]."""

TRIES = 2
"""An order whose worker dies, or cannot load its models, is done once more, by a fresh one."""

NOT_LOADED = "the models could not be loaded; see the log"

LAST_S = 1.0
"""How long a process may take to be gone after its last word [s]."""


class Hand(Protocol):
    """What does orders."""

    @property
    def ready(self) -> bool:
        """Whether its models are loaded and it lives; may be asked by any thread, at any moment."""

    def warm(self) -> None:
        """Load what is needed, so that the first order does not wait.

        Raises:
            RefusalError: it cannot be loaded.
        """

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
        self._loaded = self._closed = False

    @property
    def ready(self) -> bool:
        """Whether the models are loaded and the process lives."""
        running = self._running
        return self._loaded and running is not None and _lives(running[0])

    @property
    def pid(self) -> int | None:
        """Of the process, where there is one."""
        return None if self._running is None else self._running[0].pid

    def warm(self) -> None:
        """Start the process where there is none, and wait until its models are loaded.

        Raises:
            RefusalError: it died meanwhile, or took too long; the log says so.
        """
        try:
            self._load()
        except _GoneError as error:
            check_open(self._closed)
            raise RefusalError(503, NOT_LOADED) from error

    def answer(self, order: Order, report: Report) -> Answer:
        """Send the order to the process and wait for what it says."""
        said = NOT_LOADED
        for _ in range(TRIES):
            check_open(self._closed)
            try:
                self._load()
            except _GoneError:
                continue
            try:
                return self._listen(order, report)
            except (_GoneError, OSError):
                said = f"{order.name} ended {TRIES} workers, or took them too long"
                self._end("with an order in hand")
        check_open(self._closed)
        raise RefusalError(503, said)

    def close(self) -> None:
        """End the process, and start no other."""
        self._closed = True
        self._drop()

    def _load(self) -> None:
        if self._running is not None and not _lives(self._running[0]):
            self._end("while it had nothing to do")
        if self._running is not None:
            return
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(self._start, there), daemon=True)
        process.start()
        there.close()
        self._running = process, here
        try:
            self._receive(START_LIMIT_S)
        except _GoneError:
            self._end("while it loaded its models")
            raise
        self._loaded = True

    def _end(self, when: str) -> None:
        """End the process, and say in the log how it came to that, unless the server ends."""
        running = self._running
        if running is not None and not self._closed:
            process = running[0]
            process.join(LAST_S)  # its pipe may be closed before it is gone
            log(f"worker {process.pid} {_how(process.exitcode)} {when}")
        self._drop()

    def _drop(self) -> None:
        if self._running is not None:
            process, pipe = self._running
            self._running, self._loaded = None, False
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


def log(sentence: str) -> None:
    """Tell who runs the server."""
    print(f"affuse serve: {readable(sentence)}", file=sys.stderr, flush=True)


def _lives(process: multiprocessing.process.BaseProcess) -> bool:
    # `is_alive` collects the dead, for which two threads would be in each other's way.
    return not wait([process.sentinel], 0)


def _how(status: int | None) -> str:
    """How a process ended, by its exit status; None where it still runs."""
    if status is None:
        return "took too long and was ended"
    if status < 0:
        return f"was killed by signal {-status}"
    return f"ended with status {status}"


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
