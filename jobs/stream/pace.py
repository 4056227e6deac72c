"""Deadlines of model calls, from the pace of earlier calls with a wide margin."""

from collections.abc import Sequence

from encoders.spec import Clip

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

    def limit_s(self, clips: Sequence[Clip]) -> float:
        """Time for a call with these clips [s]."""
        per_second, per_clip = self._guess, 0.0
        if self._length_s >= ENOUGH_S:
            per_second = max(per_second, self._seconds / self._length_s)
        if self._clips:
            per_clip = self._seconds / self._clips
        by_length = per_second * sum(clip.duration_s for clip in clips)
        return self.stall_limit_s + SLACK * max(by_length, per_clip * len(clips))

    def took(self, clips: Sequence[Clip], seconds: float) -> None:
        """Record a call that returned."""
        self._seconds += seconds
        self._length_s += sum(clip.duration_s for clip in clips)
        self._clips += len(clips)
