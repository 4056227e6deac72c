"""The progress of a long job: clips done, rate, failures, time left.

On a terminal it is one line that is redrawn; elsewhere a plain line every few seconds.
"""

import sys
import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType

from cluster.errors import TooManyFailuresError

FIRST_COUNTED = 100
"""Clips that have to be done before the share of failures is judged."""


SHOWN_REASONS = 3
"""Reasons of failures that a line names."""


class Progress:
    """Counts clips; a context manager.

    Args:
        total: clips that will be done.
        label: what is being done, e.g. ``encode``.
        max_failed_share: above it, from `FIRST_COUNTED` clips on, the job is stopped.
        every_s: time between two plain lines [s].
        before: clips of the same tables that an earlier start has done, and how many of them failed.
        advice: what to type where too many failed.
    """

    def __init__(
        self,
        total: int,
        *,
        label: str,
        max_failed_share: float = 1.0,
        every_s: float = 5.0,
        before: tuple[int, int] = (0, 0),
        advice: str = "",
    ) -> None:
        self.total, self.label = total, label
        self.max_failed_share, self.every_s = max_failed_share, every_s
        self.before, self.advice = before, advice
        self.done = self.failed = 0
        self.reasons: Counter[str] = Counter()
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

    def add(self, clips: int, failed: int, reasons: Mapping[str, int] | None = None) -> None:
        """Count finished clips.

        Raises:
            TooManyFailuresError: the share of failures is above the limit.
        """
        now = time.monotonic()
        self.done += clips
        self.failed += failed
        self.reasons.update(reasons or {})
        if self._first is None:
            self._first = (now, self.done)
        if self._redraw or now - self._said >= self.every_s:
            self._say()
            self._said = now
        done, failed = self.done + self.before[0], self.failed + self.before[1]
        check_early(done, failed, self.max_failed_share, self.reasons, self.advice)

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

    def say(self, line: str) -> None:
        """A line between those of the progress."""
        print(f"\n{line}" if self._redraw else line, flush=True)

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


def check_early(
    clips: int,
    failed: int,
    max_failed_share: float,
    reasons: Mapping[str, int] | None = None,
    advice: str = "",
) -> None:
    """Refuse more failures than are allowed, once enough clips are done.

    Raises:
        TooManyFailuresError: with the count, the share and the commonest reasons.
    """
    if clips >= FIRST_COUNTED:
        check_share(failed, clips, max_failed_share, reasons or {}, advice)


def check_share(
    failed: int, clips: int, max_failed_share: float, reasons: Mapping[str, int], advice: str = ""
) -> None:
    """Refuse more failures than were allowed.

    Raises:
        TooManyFailuresError: with the count, the share and the commonest reasons.
    """
    if failed > max_failed_share * clips:
        raise TooManyFailuresError(
            f"{failures_line(failed, clips, reasons)}; that is more than --max-failed-share "
            f"{max_failed_share:g}; each has its reason in the `error` column{advice}"
        )


def conclude(
    reasons: Mapping[str, int], clips: int, max_failed_share: float, advice: str = ""
) -> None:
    """Print at the end of a job how many clips failed, and why.

    Args:
        reasons: why, and how many clips did; each clip once.
        clips: all.
        max_failed_share: most that may [0..1].
        advice: what to type next.

    Raises:
        TooManyFailuresError: more did.
    """
    failed = sum(reasons.values())
    check_share(failed, clips, max_failed_share, reasons, advice)
    if failed:
        print(f"{failures_line(failed, clips, reasons)}{advice}")


def failures_line(failed: int, clips: int, reasons: Mapping[str, int]) -> str:
    """How many of the clips failed, and why most of them did."""
    commonest = Counter(reasons).most_common(SHOWN_REASONS)
    why = "; ".join(f"{count} x {reason}" for reason, count in commonest)
    return f"{failed} of {clips} clips failed ({failed / clips:.0%})" + (f": {why}" if why else "")


def clock(seconds: float | None) -> str:
    """``h:mm:ss`` or ``m:ss``."""
    if seconds is None:
        return "?:??"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
