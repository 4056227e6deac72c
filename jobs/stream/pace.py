"""Deadlines of model calls, from the pace of earlier calls with a wide margin."""

from collections.abc import Sequence

SLACK = 10.0
"""A call may take so many times what is to be expected of it."""

ENOUGH_S = 30.0
"""Media from which on seconds per second mean something; the first call of a model sets things up [s]."""


class Pace:
    """Pace of a model so far, for the deadline of its next call.

    Args:
        stall_limit_s: time for any call beyond what its clips are expected to take [s].
        seconds_per_clip_second: what to expect before anything is measured.
    """

    def __init__(self, stall_limit_s: float, seconds_per_clip_second: float) -> None:
        self.stall_limit_s = stall_limit_s
        self._guess = seconds_per_clip_second
        self._seconds = self._length_s = 0.0
        self._clips = 0

    @property
    def measured(self) -> bool:
        """Whether a call has been measured."""
        return self._clips > 0

    def limit_s(self, lengths_s: Sequence[float]) -> float:
        """Time for a call with clips of these lengths [s]."""
        per_second, per_clip = self._guess, 0.0
        if self._length_s >= ENOUGH_S:
            per_second = max(per_second, self._seconds / self._length_s)
        if self._clips:
            per_clip = self._seconds / self._clips
        by_length = per_second * sum(lengths_s)
        return self.stall_limit_s + SLACK * max(by_length, per_clip * len(lengths_s))

    def took(self, lengths_s: Sequence[float], seconds: float) -> None:
        """Record a call that returned."""
        self._seconds += seconds
        self._length_s += sum(lengths_s)
        self._clips += len(lengths_s)
