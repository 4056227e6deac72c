"""The presentation times of a film's frames, read off its packets before anything is decoded.

Times are believed where the file gives every packet one and they only go forward. Where it does not (AVI
with B-frames, raw streams, a clock that stands still or starts again), the k-th frame that comes out of the
decoder has the k-th time: that of the decoding order if those are sound, else that of the frame rate.
"""

import bisect
import functools
import math
from dataclasses import dataclass, replace

import av.error
import numpy as np

from encoders.decoding import tracks
from encoders.decoding.film import Film
from encoders.decoding.sources import reason

BACKWARD_S = 1.0
"""Decoding times of a sound file never go back; smaller steps are rounding."""

FEWEST_TIMES = 0.9
"""With fewer different times than this share of the packets, a file's times mean nothing."""

STEPS_BACK_S = (0.0, 2.0, 10.0, 60.0)
"""How far before a segment its key frame is looked for, before the whole file is passed through."""

LATE_S = 2.0
"""Frames are stored at most this long before earlier ones, where the file tells no decoding times."""

UNTIMED = "frames without a time"

FRAME_S = 0.04
"""Length of a frame where the file does not state it."""


@dataclass
class Timeline:
    """Presentation times of the frames of a file or segment, in the stream's own ticks."""

    ticks: list[int]
    """Sorted, without duplicates."""

    keys: dict[int, int]
    """Those of key frames, in order -> where to seek for them (the decoding time)."""

    tick_s: float
    zero_s: float
    """Where the clip's time 0 lies on the stream's clock [s]."""

    limit_s: float = math.inf
    """End of the segment, from the start of the clip [s]."""

    damage: str | None = None
    counted_from: int | None = None
    """Where times count frames instead of being read off them: number of the first frame here. None: read."""

    @property
    def times_s(self) -> list[float]:
        """From the start of the clip [s]."""
        return [self.seconds(tick) for tick in self.ticks]

    def seconds(self, tick: int) -> float:
        """When a frame of that tick is shown, from the start of the clip [s]."""
        return tick * self.tick_s - self.zero_s

    @functools.cached_property
    def frame_ticks(self) -> float:
        """Length of a usual frame [ticks]."""
        gaps = np.diff(self.ticks)
        return float(np.median(gaps)) if len(gaps) else FRAME_S / self.tick_s

    @property
    def end_s(self) -> float:
        """End of the last frame, which lasts as long as the median one [s]."""
        return min((self.ticks[-1] + self.frame_ticks) * self.tick_s - self.zero_s, self.limit_s)


@dataclass
class _Seen:
    """Packets of the picture track in file order."""

    stamps: list[tuple[int | None, int | None]]
    """(presentation, decoding) ticks of every frame that is shown."""

    keys: dict[int, int]
    end_s: float | None
    finished: bool
    damage: str | None

    @property
    def ticks(self) -> list[int]:
        return [pts for pts, _ in self.stamps if pts is not None]

    def clock_fault(self, tick_s: float, decoding_times: bool) -> str | None:
        """Why these times are not plausible; None where they are."""
        ticks = self.ticks
        if len(ticks) < len(self.stamps):
            return UNTIMED
        if decoding_times:
            return UNTIMED
        if len(set(ticks)) < FEWEST_TIMES * len(ticks) and len(ticks) > 1:
            return "frames with the same time"
        order = [dts for _, dts in self.stamps if dts is not None]
        steps = np.diff(np.asarray(order, np.int64)) * tick_s
        if len(steps) and (steps.min() < -BACKWARD_S or steps.max() > tracks.LONGEST_HOLE_S):
            return "a clock that starts again"
        return None


def read_timeline(film: Film, start_s: float | None, end_s: float | None) -> Timeline:
    """Read packets, not pictures: of the whole file, or of the segment from the key frame before it."""
    tick_s = float(film.stream.time_base)
    file_zero = tracks.zero_s(film.container)
    zero = file_zero + (start_s or 0.0)
    stop = math.inf if end_s is None else (file_zero + end_s) / tick_s
    seen = _scanned(film, zero / tick_s if start_s else None, stop)
    fault = seen.clock_fault(tick_s, film.tells_decoding_times)
    if fault is not None:
        if start_s or end_s is not None:
            seen = _passed(film.packets(), math.inf)
        return _counted(film, seen, fault, start_s or 0.0, end_s)
    ordered = _without_lead(sorted(set(seen.ticks)), seen.keys)
    if start_s and seen.finished and seen.end_s is not None and start_s >= seen.end_s:
        ordered = []  # the segment lies behind the end
    elif start_s:
        # The frame that is on screen when the segment starts belongs to it.
        ordered = ordered[max(0, bisect.bisect_right(ordered, zero / tick_s + 1e-6) - 1) :]
    ordered = ordered[: bisect.bisect_left(ordered, stop - 1e-6)]
    limit_s = math.inf if end_s is None else end_s - (start_s or 0.0)
    damage = seen.damage or _cut_short(film, seen, end_s)
    return Timeline(ordered, dict(sorted(seen.keys.items())), tick_s, zero, limit_s, damage)


def part_of(whole: Timeline, start_s: float, end_s: float) -> tuple[Timeline, int]:
    """A part of a segment as the timeline of its own, and which frame of the segment is its first.

    Args:
        whole: of the segment.
        start_s: where the part starts, from the start of the segment [s].
        end_s: where it ends [s].
    """
    zero = (whole.zero_s + start_s) / whole.tick_s
    stop = (whole.zero_s + end_s) / whole.tick_s
    # The frame that is on screen when the part starts belongs to it.
    low = max(0, bisect.bisect_right(whole.ticks, zero + 1e-6) - 1)
    high = bisect.bisect_left(whole.ticks, stop - 1e-6)
    lasting = whole.ticks[-1] + whole.frame_ticks if whole.ticks else zero
    if zero >= lasting:
        low = high = len(whole.ticks)  # it lies behind the end
    known = whole.counted_from is None and stop <= lasting
    part = replace(
        whole,
        ticks=whole.ticks[low:high],
        zero_s=whole.zero_s + start_s,
        limit_s=end_s - start_s,
        damage=None if known else whole.damage,
        counted_from=None if whole.counted_from is None else whole.counted_from + low,
    )
    return part, low


def _scanned(film: Film, start: float | None, stop: float) -> _Seen:
    """Packets up to `stop`; a jump is believed only if a key frame lies at or before `start` behind it."""
    for back_s in STEPS_BACK_S if start is not None else ():
        assert start is not None
        target = start - back_s / float(film.stream.time_base)
        if target <= film.first_tick or not film.jumps:
            break
        seen = _passed(film.packets(int(target)), stop, start)
        if seen.keys and min(seen.keys) <= start:
            return seen
    return _passed(film.packets(), stop)


def _passed(packets: tracks.Packets, stop: float, start: float = math.inf) -> _Seen:
    """All packets before `stop`, or up to the first key frame where that lies behind `start`."""
    stamps: list[tuple[int | None, int | None]] = []
    keys: dict[int, int] = {}
    damage = None
    late = stop + LATE_S / float(packets.stream.time_base)
    try:
        for packet in packets:
            if packet.size == 0:
                continue
            tick, order = packet.pts, packet.dts
            if tick is not None and packet.is_keyframe:
                keys[tick] = tick if order is None else order
                if min(keys) > start:
                    break
            if not packet.is_discard:
                stamps.append((tick, order))
            # Decoding order: a picture can come after ones that are shown later.
            if (order is not None and order >= stop) or (tick is not None and tick >= late):
                break
    except MemoryError:
        raise
    except av.error.FFmpegError as error:
        damage = f"damaged after frame {len(stamps)}: {reason(error)}"
    return _Seen(stamps, keys, packets.end_s, packets.finished, damage)


def _without_lead(ordered: list[int], keys: dict[int, int]) -> list[int]:
    """Frames before the first key frame cannot be decoded: a recording that begins in the middle."""
    return ordered[bisect.bisect_left(ordered, min(keys)) :] if keys else ordered


def _cut_short(film: Film, seen: _Seen, end_s: float | None) -> str | None:
    """Why less is there than was asked for, where the end of the file was reached."""
    if not seen.finished or (end_s is not None and (seen.end_s or 0.0) >= end_s):
        return None
    return tracks.cut_short(film.container, film.stream, film.local, seen.end_s)


def _counted(film: Film, seen: _Seen, fault: str, start_s: float, end_s: float | None) -> Timeline:
    """Times by the order of the frames, from the first of the file on."""
    tick_s = float(film.stream.time_base)
    zero = tracks.zero_s(film.container)
    order = sorted(dts for _, dts in seen.stamps if dts is not None)
    sound = len(order) == len(seen.stamps) and len(set(order)) == len(order)
    note = None
    if not sound or fault != UNTIMED:
        gap = max(1, round(1 / (film.rate_hz * tick_s)))
        order = [round(zero / tick_s) + k * gap for k in range(len(seen.stamps))]
        note = f"{fault}: taken at {1 / (gap * tick_s):.4g} frames a second"
    elif order:
        zero = order[0] * tick_s  # decoding starts ahead of what is shown
    low = max(0, bisect.bisect_right(order, (zero + start_s) / tick_s + 1e-6) - 1)
    high = len(order)
    if end_s is not None:
        high = bisect.bisect_left(order, (zero + end_s) / tick_s - 1e-6)
    limit_s = math.inf if end_s is None else end_s - start_s
    damage = seen.damage or _cut_short(film, seen, end_s) or note
    return Timeline(order[low:high], {}, tick_s, zero + start_s, limit_s, damage, low)
