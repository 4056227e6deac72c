"""Decoding the frames that are wanted, with jumps over the ones that are not."""

import bisect
import math
from collections.abc import Iterator, Sequence
from typing import Any

import av.error

from encoders.decoding.film import Film
from encoders.decoding.sources import reason
from encoders.decoding.timeline import Timeline

JUMP_FRAMES = 8
"""A key frame nearer than this is walked to."""

LOST_FRAMES = 3.0
"""A picture this many frames older than the wanted one is not what a player shows then."""

Stamped = tuple[int, Any]
"""A decoded frame and its tick."""


class PictureReader:
    """Hands out the pictures on screen at the ticks of a timeline, asked for in ascending order."""

    def __init__(self, film: Film, timeline: Timeline, wanted: Sequence[int]) -> None:
        self.damage = timeline.damage
        self._film = film
        self._timeline = timeline
        self._wanted = [timeline.ticks[index] for index in wanted]
        self._keys = list(timeline.keys)
        self._slack = max(0.0, timeline.frame_ticks / 4)
        self._frames: Iterator[Stamped] = iter(())
        self._now: Stamped | None = None
        self._next: Stamped | None = None
        self._started = False

    def close(self) -> None:
        """Let go of the frames at once: a waiting generator and its owner hold each other."""
        self._frames, self._now, self._next = iter(()), None, None

    def at(self, index: int) -> Stamped | None:
        """The frame of the timeline's `index`, or the one that is on screen in its place; None: lost."""
        tick = self._timeline.ticks[index]
        if not self._started or self._far(tick):
            self._started = True
            self._begin(tick)
        while not self._reached(tick):
            self._next = self._next or next(self._frames, None)
            if self._next is None or self._next[0] > tick + self._slack:
                break
            self._now, self._next = self._next, None
        if self._now is None:
            return None
        old = tick - self._now[0]
        return None if old > LOST_FRAMES * self._timeline.frame_ticks else self._now

    def _reached(self, tick: int) -> bool:
        return self._now is not None and abs(self._now[0] - tick) <= self._slack

    def _far(self, tick: int) -> bool:
        """Whether a key frame lies so far ahead that a jump saves decoding."""
        here = self._next or self._now
        key = bisect.bisect_right(self._keys, tick) - 1
        if here is None or key < 0 or self._keys[key] <= here[0]:
            return False
        ticks = self._timeline.ticks
        walk = bisect.bisect_left(ticks, self._keys[key]) - bisect.bisect_right(ticks, here[0])
        return walk >= JUMP_FRAMES

    def _begin(self, tick: int) -> None:
        """Start decoding so that the first frame that comes out is no later than the wanted one."""
        key = bisect.bisect_right(self._keys, tick) - 1
        if self._timeline.counted_from is None and self._film.jumps:
            damage = self.damage
            for back in (0, 1, 4, 16):
                if key - back < 0:
                    break
                landing = self._timeline.keys[self._keys[key - back]]
                self._frames = self._decoded(landing, tick)
                self._now, self._next = None, next(self._frames, None)
                if self._next is not None and self._next[0] <= tick + self._slack:
                    return
                self.damage = damage  # what a wrong landing broke is no fault of the file
        self._frames = self._decoded(None, tick)
        self._now, self._next = None, None

    def _decoded(self, seek: int | None, tick: int) -> Iterator[Stamped]:
        """Frames in the order of the screen; after a jump, from the first key frame on."""
        count = -1 if self._timeline.counted_from is None else 0
        waiting = seek is not None or bool(self._keys)
        skipped = None
        packets = self._film.packets(seek)
        codec = self._film.stream.codec_context
        try:
            for packet in packets:
                if waiting and packet.size:
                    if not packet.is_keyframe:
                        continue
                    if seek is not None and (packet.pts is None or packet.pts > tick + self._slack):
                        return  # the jump landed behind what is wanted
                    waiting = False
                if count < 0 and skipped != (skip := not self._is_wanted(packet.pts)):
                    skipped = skip
                    codec.skip_frame = "NONREF" if skip else "DEFAULT"
                try:
                    frames = packet.decode()
                except MemoryError:
                    raise
                except av.error.FFmpegError as error:
                    self.damage = f"a damaged frame: {reason(error)}"
                    continue
                for frame in frames:
                    if count >= 0:
                        yield self._by_count(count), frame
                        count += 1
                    elif (shown := frame.pts if frame.pts is not None else frame.dts) is not None:
                        yield shown, frame
        except MemoryError:
            raise
        except av.error.FFmpegError as error:
            self.damage = f"damaged: {reason(error)}"

    def _is_wanted(self, tick: int | None) -> bool:
        """Whether a frame may be one to hand out; the others need decoding only if others build on them."""
        if tick is None:
            return True
        after = bisect.bisect_left(self._wanted, tick - self._slack)
        return after < len(self._wanted) and self._wanted[after] <= tick + self._slack

    def _by_count(self, count: int) -> int:
        """The tick of the file's frame of that number; those before the segment count down from it."""
        number = count - (self._timeline.counted_from or 0)
        ticks = self._timeline.ticks
        nearest = min(max(number, 0), len(ticks) - 1)
        return ticks[nearest] + math.ceil((number - nearest) * self._timeline.frame_ticks)
