"""Pictures: the frames that the policies ask for, by true timestamps, upright and small.

The packets' timestamps are read first; the policies choose among them; only then is anything decoded.
decord fetches a sparse choice out of a whole file by its index. PyAV fetches what decord cannot (segments,
AV1, damaged files) and dense choices: decord converts every frame it passes to RGB, which costs twice the
time at 5 of 25 frames a second. Both give the same pixels.
"""

import bisect
import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import av
import av.error
import numpy as np
from jaxtyping import UInt8

from cluster.errors import Fault, MediaError
from encoders._choose_frames import Choice, Pixels, Timeline, choose, most_frames
from encoders._inspect import is_cover
from encoders._sources import Local, reason
from encoders.spec import FramePolicy, Frames

CHUNK_BYTES = 64 << 20
"""decord hands out at most this many bytes of full-size frames at a time."""

SPARSE = 8
"""decord is asked where at most one of this many frames is wanted."""

DECORD_CANNOT = frozenset({"av1", "libdav1d", "vvc", "prores_raw"})
"""Codecs that are younger than decord's libraries."""


@dataclass
class Pictures:
    """What was read: frames by policy, and why there are fewer than asked if there are."""

    frames: Mapping[FramePolicy, Frames]
    end_s: float
    partial: str | None = None


def read_frames(
    local: Local,
    policies: Sequence[FramePolicy],
    start_s: float | None,
    end_s: float | None,
    max_bytes: int,
    threads: int,
) -> Pictures:
    """Decode the frames of one clip.

    Raises:
        MediaError: no pictures, or none of them can be decoded.
    """
    with local.container() as container:
        stream = next((s for s in container.streams.video if not is_cover(s)), None)
        if stream is None:
            raise MediaError(Fault.NO_VIDEO, f"{local.path}: has no pictures")
        codec = stream.codec_context
        codec.thread_count = threads
        timeline = _timeline(container, stream, start_s, end_s)
        if not timeline.ticks:
            detail = timeline.damage or "has no frame in this segment"
            fault = Fault.UNREADABLE if timeline.damage else Fault.NO_VIDEO
            raise MediaError(fault, f"{local.path}: {detail}")
        share = max_bytes // max(1, len(policies))
        choices = {
            policy: choose(policy, timeline, most_frames(policy, codec.width, codec.height, share))
            for policy in policies
        }
        wanted = sorted({index for choice in choices.values() for index in choice.indices})
        whole = start_s is None and end_s is None and timeline.damage is None
        sparse = len(wanted) * SPARSE <= len(timeline.ticks)
        if not (whole and sparse and _by_decord(local, codec, timeline, wanted, choices)):
            _by_pyav(container, stream, timeline, wanted, choices)
    return _pictures(local, timeline, choices)


def resized(image: Pixels, size: int) -> UInt8[np.ndarray, "small_height small_width 3"]:
    """The shorter side brought down to `size`; a smaller picture stays as it is."""
    height, width = image.shape[:2]
    short = min(height, width)
    if short <= size:
        return image
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    small = frame.reformat(
        width=max(1, round(width * size / short)),
        height=max(1, round(height * size / short)),
        interpolation="AREA",
    )
    return small.to_ndarray()  # type: ignore[no-any-return]


def _timeline(container: Any, stream: Any, start_s: float | None, end_s: float | None) -> Timeline:
    """Read packets, not pictures: whole file, or the segment with the key frame before it."""
    tick_s = float(stream.time_base)
    file_zero = (container.start_time or 0) / av.time_base
    zero = file_zero + (start_s or 0.0)
    if start_s is not None:
        _seek(container, stream, int(zero / tick_s))
    ticks: set[int] = set()
    keys: dict[int, int] = {}
    damage = None
    stop = None if end_s is None else (file_zero + end_s) / tick_s
    try:
        for packet in container.demux(stream):
            tick = packet.pts if packet.pts is not None else packet.dts
            if tick is None or packet.is_discard:
                continue
            ticks.add(tick)
            if packet.is_keyframe:
                keys[tick] = tick if packet.dts is None else packet.dts
            # Decoding order: a picture can come after ones that are shown later.
            if stop is not None and (packet.dts if packet.dts is not None else tick) >= stop:
                break
    except MemoryError:
        raise
    except av.error.FFmpegError as error:
        damage = f"damaged after frame {len(ticks)}: {reason(error)}"
    if start_s is None and end_s is None and damage is None and len(ticks) < stream.frames * 0.98:
        damage = f"ends after {len(ticks)} of {stream.frames} frames"
    ordered = sorted(ticks)
    if start_s is not None:
        # The frame that is on screen when the segment starts belongs to it.
        ordered = ordered[max(0, bisect.bisect_right(ordered, zero / tick_s + 1e-6) - 1) :]
    if stop is not None:
        ordered = ordered[: bisect.bisect_left(ordered, stop - 1e-6)]
    limit_s = math.inf if end_s is None else end_s - (start_s or 0.0)
    return Timeline(ordered, dict(sorted(keys.items())), tick_s, zero, limit_s, damage)


def _seek(container: Any, stream: Any, tick: int) -> None:
    with contextlib.suppress(av.error.FFmpegError):
        container.seek(tick, stream=stream, backward=True)


def _by_decord(
    local: Local,
    codec: Any,
    timeline: Timeline,
    wanted: list[int],
    choices: Mapping[FramePolicy, Choice],
) -> bool:
    """Fetch through decord; False where it cannot, and nothing has been kept."""
    frame_bytes = max(1, codec.width * codec.height * 3)
    if codec.name in DECORD_CANNOT:
        return False
    try:
        import decord
    except (ImportError, OSError):
        return False  # no wheel for this platform
    decord.logging.set_level(decord.logging.QUIET)
    with contextlib.ExitStack() as stack:
        source: Any = local.path
        if local.offset is not None:
            source = stack.enter_context(contextlib.closing(local.binary()))
        try:
            reader = decord.VideoReader(source, ctx=decord.cpu(0), num_threads=1)
            if len(reader) != len(timeline.ticks):
                return False
            chunk = max(1, CHUNK_BYTES // frame_bytes)
            for first in range(0, len(wanted), chunk):
                indices = wanted[first : first + chunk]
                for index, image in zip(indices, reader.get_batch(indices).asnumpy(), strict=True):
                    _keep(index, image, choices)
        except (decord.DECORDError, RuntimeError, IndexError):
            for choice in choices.values():
                choice.kept.clear()
            return False
    return True


def _by_pyav(
    container: Any,
    stream: Any,
    timeline: Timeline,
    wanted: list[int],
    choices: Mapping[FramePolicy, Choice],
) -> None:
    """Fetch by decoding forward, with a jump wherever a key frame lies between two wanted frames."""
    frames: Iterator[tuple[int, Any]] = iter(())
    keys = list(timeline.keys)
    at: int | None = None
    frame: Any = None
    for index in wanted:
        tick = timeline.ticks[index]
        key = bisect.bisect_right(keys, tick) - 1
        if at is None or (key >= 0 and keys[key] > at):
            _seek(container, stream, timeline.keys[keys[key]] if key >= 0 else tick)
            frames = _decoded(container, stream, timeline)
            at = None
        while at is None or at < tick:
            following = next(frames, None)
            if following is None:
                break
            at, frame = following
        if at is None or at < tick:
            break
        image = np.rot90(frame.to_ndarray(format="rgb24"), k=frame.rotation // 90)
        _keep(index, image, choices)


def _decoded(container: Any, stream: Any, timeline: Timeline) -> Iterator[tuple[int, Any]]:
    last = -1
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except MemoryError:
                raise
            except av.error.FFmpegError as error:
                timeline.damage = f"a damaged frame: {reason(error)}"
                continue
            for frame in frames:
                tick = frame.pts if frame.pts is not None else frame.dts
                last = last + 1 if tick is None else tick
                yield last, frame
    except MemoryError:
        raise
    except av.error.FFmpegError as error:
        timeline.damage = f"damaged: {reason(error)}"


def _keep(index: int, image: Pixels, choices: Mapping[FramePolicy, Choice]) -> None:
    by_size: dict[int, Pixels] = {}
    for policy, choice in choices.items():
        if index in choice.indices:
            if policy.size not in by_size:
                by_size[policy.size] = np.ascontiguousarray(resized(image, policy.size))
            choice.kept[index] = by_size[policy.size]


def _pictures(local: Local, timeline: Timeline, choices: Mapping[FramePolicy, Choice]) -> Pictures:
    times = np.maximum(timeline.times_s, 0.0)
    frames = {}
    partial = timeline.damage
    for policy, choice in choices.items():
        if not choice.kept:
            detail = timeline.damage or "no frame could be decoded"
            raise MediaError(Fault.UNREADABLE, f"{local.path}: {detail}")
        indices, lost = _present(policy, choice)
        if lost:
            partial = partial or f"{lost} of {len(choice.indices)} frames could not be decoded"
        partial = partial or choice.partial
        pixels = np.stack([_same_shape(choice, index) for index in indices])
        frames[policy] = Frames(pixels, times[np.asarray(indices)].astype(np.float64))
    return Pictures(frames, timeline.end_s, partial)


def _present(policy: FramePolicy, choice: Choice) -> tuple[list[int], int]:
    """Lost frames are left out; where a count is promised the nearest one takes their place."""
    lost = sum(index not in choice.kept for index in choice.indices)
    if policy.kind == "fps":
        return [index for index in choice.indices if index in choice.kept], lost
    kept = np.asarray(sorted(choice.kept))
    return [int(kept[np.abs(kept - index).argmin()]) for index in choice.indices], lost


def _same_shape(choice: Choice, index: int) -> Pixels:
    """A stream may change its size on the way; the first frame's size holds."""
    image = choice.kept[index]
    shape = next(iter(choice.kept.values())).shape
    if image.shape == shape:
        return image
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    small = frame.reformat(width=shape[1], height=shape[0], interpolation="AREA")
    return small.to_ndarray()  # type: ignore[no-any-return]
