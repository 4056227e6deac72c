"""The progress of a long job: clips done, rate, failures, time left.

On a terminal it is one line that is redrawn; elsewhere a plain line every few seconds.
"""

import sys
import time
from types import TracebackType

from cluster.errors import TooManyFailuresError

FIRST_COUNTED = 100
"""Clips that have to be done before the share of failures is judged."""


class Progress:
    """Counts clips; a context manager.

    Args:
        total: clips that will be done.
        label: what is being done, e.g. ``encode``.
        max_failed_share: above it, from `FIRST_COUNTED` clips on, the job is stopped.
        every_s: time between two plain lines [s].
    """

    def __init__(
        self, total: int, *, label: str, max_failed_share: float = 1.0, every_s: float = 5.0
    ) -> None:
        self.total, self.label = total, label
        self.max_failed_share, self.every_s = max_failed_share, every_s
        self.done = self.failed = 0
        self._begun = self._said = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._redraw = sys.stdout.isatty()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._say(last=True)

    def add(self, clips: int, failed: int) -> None:
        """Count finished clips.

        Raises:
            TooManyFailuresError: the share of failures is above the limit.
        """
        now = time.monotonic()
        self.done += clips
        self.failed += failed
        if self._first is None:
            self._first = (now, self.done)
        if self._redraw or now - self._said >= self.every_s:
            self._say()
            self._said = now
        if self.done >= FIRST_COUNTED and self.failed > self.max_failed_share * self.done:
            raise TooManyFailuresError(
                f"{self.failed} of {self.done} clips failed, more than --max-failed-share "
                f"{self.max_failed_share:g}; their reasons stand in the `error` column"
            )

    @property
    def elapsed_s(self) -> float:
        """Time since the start [s]."""
        return time.monotonic() - self._begun

    @property
    def rate(self) -> float:
        """Clips a second, start-up included."""
        return self.done / max(self.elapsed_s, 1e-9)

    @property
    def steady_rate(self) -> float:
        """Clips a second from the first finished unit on."""
        if self._first is None or self.done == self._first[1]:
            return self.rate
        since, before = self._first
        return (self.done - before) / max(time.monotonic() - since, 1e-9)

    def _say(self, *, last: bool = False) -> None:
        left = (self.total - self.done) / self.steady_rate if self.done else None
        line = (
            f"{self.label}: {self.done}/{self.total} clips, {self.rate:.1f} clips/s, "
            f"{self.failed} failed, "
            + (f"{clock(self.elapsed_s)} passed" if last else f"{clock(left)} left")
        )
        if self._redraw:
            print(f"\r\x1b[2K{line}", end="\n" if last else "", flush=True)
        else:
            print(line, flush=True)


def clock(seconds: float | None) -> str:
    """``h:mm:ss`` or ``m:ss``."""
    if seconds is None:
        return "?:??"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
