"""The painted film: every frame at its time, the sound as it is, upright and in its proportions."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from typing import Any

import numpy as np

from cluster.errors import ConfigError, Fault, MediaError
from encoders.decoding import display, tracks
from encoders.decoding.film import Film
from encoders.decoding.sources import Source, staged
from encoders.decoding.timeline import Timeline, read_timeline
from jobs.captioning.captions import Caption
from jobs.captioning.panel import Painter

CLOCK_HZ = 90000
"""Ticks a second of the film that is written: the times of a film of any rate stay what they are."""

COPIED = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "alac"})
"""Codecs of sound that an MP4 holds as they are; others become AAC."""

AAC_HZ = 48000
"""Rate at which sound is encoded: a block, of which the last one is filled up, is shorter than a frame."""

IN_ORDER = {"bf": "0"}
"""Frames are stored in the order in which they are shown, else an MP4 leaves out the length of the last."""

Draw = Callable[[np.ndarray, float], np.ndarray]
"""What is done to a picture (RGB, height x width x 3) at a time [s] before it gets its caption."""


def write_film(
    source: str,
    target: str,
    captions: Sequence[Caption],
    font: str | None,
    mark: Draw | None = None,
) -> int:
    """Copy a film with the captions drawn into it.

    Args:
        source: a local file.
        target: MP4 to write.
        captions: in order of time.
        font: file of letters.
        mark: draws into the pictures first.

    Returns:
        Number of frames.

    Raises:
        ConfigError: the file has no picture, or cannot be opened.
    """
    import av

    with opened(source) as film, av.open(target, "w", options={"movflags": "faststart"}) as output:
        clock = _Clock(read_timeline(film, None, None))
        film.packets()  # from the beginning again
        container, picture = film.container, film.stream
        written = output.add_stream(
            "libx264", rate=picture.average_rate or round(film.rate_hz), options=IN_ORDER
        )
        written.pix_fmt = "yuv420p"
        written.codec_context.time_base = Fraction(1, CLOCK_HZ)
        # The first packet that is written fixes the size; it may be one of sound.
        painted = _Painted(first_picture(source), picture, captions, font, mark)
        written.width, written.height = painted.painter.width, painted.painter.height
        heard = tracks.default_track(container, "audio")
        sound = _Sound(output, heard, tracks.zero_s(container))
        count = 0
        for packet in container.demux([picture, heard] if heard is not None else [picture]):
            if packet.stream is not picture:
                sound.pass_on(packet)
                continue
            for frame in decoded(packet):
                time_s = clock.time_s(frame)
                new = av.VideoFrame.from_ndarray(painted.drawn(frame, time_s), format="rgb24")
                new.pts, new.time_base = round(time_s * CLOCK_HZ), Fraction(1, CLOCK_HZ)
                output.mux(clock.lasting(written.encode(new)))
                count += 1
        output.mux(clock.lasting(written.encode(None)))
        sound.end()
    return count


def length_s(source: str) -> float | None:
    """Length of what is in a film [s]; None where nobody can tell.

    Raises:
        ConfigError: the file cannot be opened, or has no picture.
    """
    with opened(source) as film:
        return tracks.content_s(film.container, film.local)


def has_sound(source: str) -> bool:
    """Whether a film has a sound track.

    Raises:
        ConfigError: the file cannot be opened, or has no picture.
    """
    with opened(source) as film:
        return tracks.default_track(film.container, "audio") is not None


def first_picture(source: str) -> Any:
    """The first frame that can be decoded.

    Raises:
        ConfigError: there is none.
    """
    with opened(source) as film:
        for packet in film.container.demux(film.stream):
            for frame in decoded(packet):
                return frame
    raise ConfigError(f"{source}: not a single frame could be read")


@contextmanager
def opened(source: str) -> Iterator[Film]:
    """A film, opened as the encoders open it: what a playlist names is not opened.

    Raises:
        ConfigError: it cannot be opened, or has no picture.
    """
    with ExitStack() as stack:
        try:
            film = stack.enter_context(Film(stack.enter_context(staged(Source(source))), threads=0))
        except MediaError as error:
            if error.fault == Fault.NO_VIDEO:
                raise ConfigError(f"{source}: has no picture to draw into") from error
            raise ConfigError(f"{source}: not a film that can be opened: {error}") from error
        yield film


class _Painted:
    """Pictures as a player shows them, with what is drawn into them; the first one's size holds."""

    def __init__(
        self,
        first: Any,
        stream: Any,
        captions: Sequence[Caption],
        font: str | None,
        mark: Draw | None,
    ) -> None:
        self._aspect = display.pixel_aspect(stream)
        self._matrix = display.display_matrix(first)
        size = display.shown_size(first.width, first.height, self._aspect, self._matrix)
        self.painter = Painter(*size, captions, font)
        self._mark = mark

    def drawn(self, frame: Any, time_s: float) -> np.ndarray:
        """A frame with its caption."""
        image, _ = display.shown(frame, self._aspect, self._matrix)
        if self._mark is not None:
            image = self._mark(image, time_s)
        return self.painter.draw(image, time_s)


class _Clock:
    """When each frame is shown and for how long, as the timeline says; it only goes forward."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._frame_s = timeline.frame_ticks * timeline.tick_s
        self._count, self._last_s = 0, -math.inf
        self._lasts: dict[int, int] = {}

    def time_s(self, frame: Any) -> float:
        """Time of the next frame [s]; one without a time, or with one that is past, follows the last."""
        time_s, lasts_s = self._stated(frame)
        if time_s <= self._last_s or time_s < 0:
            time_s = max(0.0, self._last_s + self._frame_s)
        self._count, self._last_s = self._count + 1, time_s
        self._lasts[round(time_s * CLOCK_HZ)] = round(lasts_s * CLOCK_HZ)
        return time_s

    def _stated(self, frame: Any) -> tuple[float, float]:
        """Time of a frame and how long it stands [s]."""
        timeline = self._timeline
        if timeline.counted_from is not None:  # the times of this file mean nothing
            known = self._count < len(timeline.ticks)
            return timeline.times_s[self._count] if known else -math.inf, self._frame_s
        time_s = -math.inf if frame.time is None else frame.time - timeline.zero_s
        return time_s, float((frame.duration or 0) * (frame.time_base or 0)) or self._frame_s

    def lasting(self, packets: Sequence[Any]) -> Sequence[Any]:
        """Packets of frames, each as long as its frame stands: an encoder drops that of the last one."""
        for packet in packets:
            packet.duration = self._lasts.pop(packet.pts, packet.duration)
        return packets


class _Sound:
    """The sound track: its packets as they are where an MP4 holds such, else encoded anew.

    Args:
        output: the film that is written.
        source: the track; None: the film is silent.
        origin_s: the film's first moment on the clock of the file [s].
    """

    def __init__(self, output: Any, source: Any | None, origin_s: float) -> None:
        self.source, self._output, self._origin_s = source, output, origin_s
        self._copy = source is not None and source.codec_context.name in COPIED
        self._to: Any = None
        self._last: tuple[int, int] | None = None
        self._later = 0
        if source is not None and self._copy:
            self._to = output.add_stream_from_template(source)
        elif source is not None:
            self._to = output.add_stream("aac", rate=AAC_HZ)

    def pass_on(self, packet: Any) -> None:
        """One packet of the source."""
        if not self._copy:
            for frame in decoded(packet):
                if frame.pts is not None:
                    ticks = frame.samples / frame.sample_rate / frame.time_base
                    frame.pts = self._placed(frame.pts, round(ticks), frame.time_base)
                self._mux(self._to.encode(frame))
        elif packet.dts is not None:
            behind = 0 if packet.pts is None else packet.pts - packet.dts
            packet.dts = self._placed(packet.dts, packet.duration or 1, packet.time_base)
            packet.pts = packet.dts + behind
            packet.stream = self._to
            self._mux(packet)

    def _placed(self, tick: int, lasts: int, tick_s: Fraction) -> int:
        """A time from the film's first moment on; a clock that starts again goes on."""
        tick += self._later - round(self._origin_s / tick_s)
        if self._last is not None and tick <= self._last[0]:
            self._later += sum(self._last) - tick
            tick = sum(self._last)
        self._last = tick, lasts
        return tick

    def _mux(self, packets: Any) -> None:
        import av

        try:
            self._output.mux(packets)
        except av.FFmpegError as error:
            raise ConfigError(f"the sound cannot be kept: {error}") from error

    def end(self) -> None:
        """What is still inside the encoder."""
        if self._to is not None and not self._copy:
            self._mux(self._to.encode(None))


def decoded(packet: Any) -> Iterator[Any]:
    """The frames of a packet; a damaged one has none."""
    import av

    try:
        yield from packet.decode()
    except av.error.InvalidDataError:
        return
