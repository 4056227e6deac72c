"""When the command that runs was typed: a budget of time counts from there, imports included."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_BEGAN: ContextVar[float | None] = ContextVar("command_began", default=None)


@contextmanager
def command(began: float) -> Iterator[None]:
    """Holds while a command runs that began at a time of `time.monotonic` [s]."""
    token = _BEGAN.set(began)
    try:
        yield
    finally:
        _BEGAN.reset(token)


def command_began() -> float:
    """Of `time.monotonic` [s]; now, where a job is called without a command line."""
    began = _BEGAN.get()
    return time.monotonic() if began is None else began
