"""Pictures: the frames that the policies ask for, by true timestamps, upright and small.

The packets' timestamps are read first; the policies choose among them; only then is anything decoded. PyAV
jumps to the key frame before each wanted frame and leaves out the frames that no other builds on.
"""

import contextlib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import av
import numpy as np

from cluster.errors import Fault, MediaError
from encoders.decoding import display
from encoders.decoding.display import Pixels
from encoders.decoding.film import Film
from encoders.decoding.frame_times import Choice, choose, most_frames
from encoders.decoding.pictures import PictureReader
from encoders.decoding.sources import Local
from encoders.decoding.timeline import Timeline, read_timeline
from encoders.spec import FramePolicy, Frames


@dataclass
class ReadFrames:
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
) -> ReadFrames:
    """Decode the frames of one clip.

    Raises:
        MediaError: no pictures, or none of them can be decoded.
    """
    with Film(local, threads) as film:
        timeline = read_timeline(film, start_s, end_s)
        if not timeline.ticks:
            detail = timeline.damage or "has no frame in this segment"
            fault = Fault.UNREADABLE if timeline.damage else Fault.NO_VIDEO
            raise MediaError(fault, f"{local.path}: {detail}")
        codec = film.stream.codec_context
        share = max_bytes // max(1, len(policies))
        choices = {
            policy: choose(policy, timeline, most_frames(policy, codec.width, codec.height, share))
            for policy in policies
        }
        fetched = _fetch(film, timeline, choices)
    return _pictures(local, timeline, choices, fetched)


@dataclass(frozen=True)
class _Fetched:
    """What was decoded of the wanted frames."""

    pictures: Mapping[FramePolicy, Mapping[int, np.ndarray]]
    """Policy -> index in the timeline -> the picture that was on screen then, small."""

    shown: Mapping[int, int]
    """Index -> tick of that picture."""

    damage: str | None


def _fetch(film: Film, timeline: Timeline, choices: Mapping[FramePolicy, Choice]) -> _Fetched:
    """Decode every frame that a policy wants, once for all of them."""
    wanted = sorted({index for choice in choices.values() for index in choice.indices})
    aspect = display.pixel_aspect(film.stream)
    matrix: display.Matrix | None = None
    shown: dict[int, int] = {}
    kept: dict[FramePolicy, dict[int, np.ndarray]] = {policy: {} for policy in choices}
    with contextlib.closing(PictureReader(film, timeline, wanted)) as pictures:
        for index in wanted:
            found = pictures.at(index)
            if found is None:
                continue
            shown[index] = found[0]
            matrix = matrix or display.display_matrix(found[1])
            image, size = display.shown(found[1], aspect, matrix)
            small = functools.cache(functools.partial(_small, image, size))
            for policy, choice in choices.items():
                if index in choice.indices:
                    kept[policy][index] = small(policy.size)
        return _Fetched(kept, shown, pictures.damage)


def _small(image: Pixels, shown_px: tuple[int, int], size: int) -> np.ndarray:
    return np.ascontiguousarray(display.resized(image, size, shown_px))


def _pictures(
    local: Local,
    timeline: Timeline,
    choices: Mapping[FramePolicy, Choice],
    fetched: _Fetched,
) -> ReadFrames:
    frames = {}
    partial = fetched.damage
    for policy, choice in choices.items():
        kept = fetched.pictures[policy]
        if not kept:
            detail = fetched.damage or "no frame could be decoded"
            raise MediaError(Fault.UNREADABLE, f"{local.path}: {detail}")
        indices, lost = _present(policy, choice, kept)
        if lost:
            partial = partial or f"{lost} of {len(choice.indices)} frames could not be decoded"
        partial = partial or choice.partial
        pixels = np.stack([_same_shape(kept, index) for index in indices])
        times = [timeline.seconds(fetched.shown[index]) for index in indices]
        frames[policy] = Frames(pixels, np.maximum(np.asarray(times, np.float64), 0.0))
    return ReadFrames(frames, timeline.end_s, partial)


def _present(
    policy: FramePolicy, choice: Choice, kept: Mapping[int, np.ndarray]
) -> tuple[list[int], int]:
    """Lost frames are left out; where a count is promised the nearest one takes their place."""
    lost = sum(index not in kept for index in choice.indices)
    if policy.kind == "fps":
        return [index for index in choice.indices if index in kept], lost
    there = np.asarray(sorted(kept))
    return [int(there[np.abs(there - index).argmin()]) for index in choice.indices], lost


def _same_shape(kept: Mapping[int, np.ndarray], index: int) -> np.ndarray:
    """A stream may change its size on the way; the first frame's size holds."""
    image = kept[index]
    shape = next(iter(kept.values())).shape
    if image.shape == shape:
        return image
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    small = frame.reformat(width=shape[1], height=shape[0], interpolation="AREA", threads=1)
    return small.to_ndarray()  # type: ignore[no-any-return]
