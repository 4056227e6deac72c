"""The frames that a policy selects, by timestamps, before anything is decoded."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from encoders.decoding.timeline import Timeline
from encoders.spec import FramePolicy


@dataclass(frozen=True)
class Choice:
    """Indices into the timeline that one policy wants, in order; repeats are allowed."""

    indices: list[int]
    partial: str | None = None


def choose(policy: FramePolicy, timeline: Timeline, most: int) -> Choice:
    """Select the frames of a policy: at each wanted time the frame that is on screen then."""
    times = timeline.times_s
    low, high = max(times[0], 0.0), timeline.end_s
    length = max(high - low, 1e-6)
    if policy.kind == "even":
        count = min(policy.count, most)
        wanted = [low + (k + 0.5) * length / count for k in range(count)]
        return Choice(_shown(times, wanted), _fewer(count, policy.count))
    count = max(1, int(np.ceil(length * policy.rate_hz - 1e-6)))
    if policy.kind == "fps":
        partial = None
        if count > most:
            partial = _fewer(most, count)
            wanted = [low + k * length / most for k in range(most)]
        else:
            wanted = [low + k / policy.rate_hz for k in range(count)]
        return Choice(sorted(set(_shown(times, wanted))), partial)
    if policy.kind == "windows":
        return _windows(policy, times, low, count, most)
    assert_never(policy.kind)


def _windows(policy: FramePolicy, times: list[float], low: float, count: int, most: int) -> Choice:
    """Successive runs of frames, `count` in all; runs are left out where those are more than `most`."""
    partial = None
    windows = -(-count // policy.count)
    starts = [low + k * policy.count / policy.rate_hz for k in range(windows)]
    if windows * policy.count > most:
        keep = max(1, most // policy.count)
        partial = _fewer(keep, windows, "windows")
        starts = [starts[int(k)] for k in np.linspace(0, windows - 1, keep).round()]
    last = low + (count - 1) / policy.rate_hz
    wanted = [min(s + k / policy.rate_hz, last) for s in starts for k in range(policy.count)]
    return Choice(_shown(times, wanted), partial)


def _fewer(kept: int, asked: int, what: str = "frames") -> str | None:
    return None if kept >= asked else f"{kept} of {asked} {what} were kept"


def _shown(times: list[float], wanted: Sequence[float]) -> list[int]:
    return [max(0, bisect.bisect_right(times, t + 1e-6) - 1) for t in wanted]


def most_frames(policy: FramePolicy, width: int, height: int, max_bytes: int) -> int:
    """The cap on frames: the policy's own, and what the decoded bytes allow."""
    short = max(1, min(width, height))
    scale = min(1.0, policy.size / short)
    each = max(1, int(width * scale) * int(height * scale) * 3)
    return max(1, min(policy.max_frames, max_bytes // each))
