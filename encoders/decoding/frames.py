"""Pictures: the frames that the policies ask for, by true timestamps, upright and small.

The packets' timestamps are read first; the policies choose among them; only then is anything decoded. PyAV
jumps to the key frame before each wanted frame and leaves out the frames that no other builds on.
"""

import contextlib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import av
import numpy as np

from cluster.errors import Fault, MediaError
from encoders.decoding import display
from encoders.decoding.display import Pixels
from encoders.decoding.film import Film
from encoders.decoding.frame_times import Choice, choose, most_frames
from encoders.decoding.pictures import PictureReader
from encoders.decoding.sources import Local
from encoders.decoding.timeline import Timeline, part_of, read_timeline
from encoders.spec import FramePolicy, Frames


@dataclass
class ReadFrames:
    """What was read: frames by policy, and why there are fewer than asked if there are."""

    frames: Mapping[FramePolicy, Frames]
    end_s: float
    partial: str | None = None


@dataclass
class ReadPiece:
    """As `ReadFrames`, with pictures that other pieces may have too: by policy a list and their times."""

    frames: Mapping[FramePolicy, tuple[list[np.ndarray], np.ndarray]]
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
        choices = _chosen(film, timeline, policies, max_bytes)
        fetched = _fetch(film, timeline, choices)
    read = _pictures(local, timeline, choices, fetched)
    frames = {
        policy: Frames(np.stack(images), times) for policy, (images, times) in read.frames.items()
    }
    return ReadFrames(frames, read.end_s, read.partial)


Piece = tuple[float, float]
"""Start and end of a part of a file [s]."""


def read_pieces(
    local: Local,
    policies: Sequence[FramePolicy],
    pieces: Sequence[Piece],
    max_bytes: int,
    threads: int,
) -> list[ReadPiece | MediaError]:
    """Decode the frames of parts of a film that may overlap, each picture once.

    A part gets the pictures that it would get as a clip of its own.

    Args:
        local: the staged film.
        policies: which frames of each part.
        pieces: the parts, near each other.
        max_bytes: cap on the frames of one part.
        threads: of the codec.

    Raises:
        MediaError: no pictures at all.
    """
    first_s, last_s = min(start for start, _ in pieces), max(end for _, end in pieces)
    with Film(local, threads) as film:
        whole = read_timeline(film, first_s, last_s)
        parts = [part_of(whole, start - first_s, end - first_s) for start, end in pieces]
        chosen = [_moved(film, *part, policies, max_bytes) for part in parts]
        found = [each for each in chosen if not isinstance(each, MediaError)]
        wanted = {p: {i for choices in found for i in choices[p].indices} for p in policies}
        fetched = _fetch(film, whole, {p: Choice(sorted(wanted[p])) for p in policies})
    # What is damaged at the end of the block is no fault of the parts before it.
    new = fetched.damage if fetched.damage != whole.damage else None
    read: list[ReadPiece | MediaError] = []
    for (part, _), choices in zip(parts, chosen, strict=True):
        if isinstance(choices, MediaError):
            read.append(choices)
            continue
        try:
            own = replace(fetched, damage=part.damage or new)
            pictures = _pictures(local, part, choices, own)
        except MediaError as error:
            read.append(error)
        else:
            read.append(pictures)
    return read


def _moved(
    film: Film, part: Timeline, begin: int, policies: Sequence[FramePolicy], max_bytes: int
) -> dict[FramePolicy, Choice] | MediaError:
    """The frames that policies want of a part, counted in the whole; or why it has none."""
    try:
        choices = _chosen(film, part, policies, max_bytes)
    except MediaError as error:
        return error
    return {
        policy: Choice([index + begin for index in choice.indices], choice.partial)
        for policy, choice in choices.items()
    }


def _chosen(
    film: Film, timeline: Timeline, policies: Sequence[FramePolicy], max_bytes: int
) -> dict[FramePolicy, Choice]:
    """The frames that each policy wants.

    Raises:
        MediaError: there are none.
    """
    if not timeline.ticks:
        detail = timeline.damage or "has no frame in this segment"
        fault = Fault.UNREADABLE if timeline.damage else Fault.NO_VIDEO
        raise MediaError(fault, f"{film.local.path}: {detail}")
    codec = film.stream.codec_context
    share = max_bytes // max(1, len(policies))
    return {
        policy: choose(policy, timeline, most_frames(policy, codec.width, codec.height, share))
        for policy in policies
    }


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
) -> ReadPiece:
    frames = {}
    partial = fetched.damage
    for policy, choice in choices.items():
        there = fetched.pictures[policy]
        kept = {index: there[index] for index in sorted({*choice.indices}) if index in there}
        if not kept:
            detail = fetched.damage or "no frame could be decoded"
            raise MediaError(Fault.UNREADABLE, f"{local.path}: {detail}")
        indices, lost = _present(policy, choice, kept)
        if lost:
            partial = partial or f"{lost} of {len(choice.indices)} frames could not be decoded"
        partial = partial or choice.partial
        images = [_same_shape(kept, index) for index in indices]
        times = [timeline.seconds(fetched.shown[index]) for index in indices]
        frames[policy] = images, np.maximum(np.asarray(times, np.float64), 0.0)
    return ReadPiece(frames, timeline.end_s, partial)


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
