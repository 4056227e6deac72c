"""The painted film: every frame at its time, the sound as it is, upright and in its proportions."""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from cluster.errors import ConfigError
from encoders.decoding import display, tracks
from jobs.captioning.captions import Caption
from jobs.captioning.panel import Painter

CLOCK_HZ = 90000
"""Ticks a second of the film that is written: the times of a film of any rate stay what they are."""

COPIED = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "alac"})
"""Codecs of sound that an MP4 holds as they are; others become AAC."""

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

    with (
        opened(source) as container,
        av.open(target, "w", options={"movflags": "faststart"}) as output,
    ):
        picture = tracks.default_track(container, "video")
        if picture is None:
            raise ConfigError(f"{source}: has no picture to draw into")
        film = output.add_stream("libx264", rate=picture.average_rate or 25)
        film.pix_fmt = "yuv420p"
        film.codec_context.time_base = Fraction(1, CLOCK_HZ)
        # The first packet that is written fixes the size; it may be one of sound.
        painted = _Painted(first_picture(source), picture, captions, font, mark)
        film.width, film.height = painted.painter.width, painted.painter.height
        sound = _Sound(output, tracks.default_track(container, "audio"))
        count, origin_s = 0, tracks.zero_s(container)
        streams = [s for s in (picture, sound.source) if s is not None]
        for packet in container.demux(streams):
            if packet.stream is not picture:
                sound.pass_on(packet)
                continue
            for frame in decoded(packet):
                time_s = 0.0 if frame.time is None else frame.time
                new = av.VideoFrame.from_ndarray(
                    painted.drawn(frame, time_s - origin_s), format="rgb24"
                )
                new.pts, new.time_base = round(time_s * CLOCK_HZ), Fraction(1, CLOCK_HZ)
                output.mux(film.encode(new))
                count += 1
        output.mux(film.encode(None))
        sound.end()
    return count


def length_s(source: str) -> float | None:
    """Length of a film [s]; None where it does not say.

    Raises:
        ConfigError: the file cannot be opened, or has no picture.
    """
    with opened(source) as container:
        if tracks.default_track(container, "video") is None:
            raise ConfigError(f"{source}: has no picture to draw into")
        return None if container.duration is None else container.duration / 1e6


def first_picture(source: str) -> Any:
    """The first frame that can be decoded.

    Raises:
        ConfigError: there is none.
    """
    with opened(source) as container:
        for packet in container.demux(tracks.default_track(container, "video")):
            for frame in decoded(packet):
                return frame
    raise ConfigError(f"{source}: not a single frame could be read")


def opened(source: str) -> Any:
    """A film, to be closed.

    Raises:
        ConfigError: it cannot be opened.
    """
    import av

    try:
        return av.open(source)
    except (av.FFmpegError, OSError) as error:
        raise ConfigError(f"{source}: not a film that can be opened: {error}") from error


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


class _Sound:
    """The sound track: its packets as they are where an MP4 holds such, else encoded anew."""

    def __init__(self, output: Any, source: Any | None) -> None:
        self.source, self._output = source, output
        self._copy = source is not None and source.codec_context.name in COPIED
        self._to: Any = None
        if source is not None and self._copy:
            self._to = output.add_stream_from_template(source)
        elif source is not None:
            self._to = output.add_stream("aac", rate=min(source.rate, 48000))

    def pass_on(self, packet: Any) -> None:
        """One packet of the source."""
        import av

        if not self._copy:
            for frame in decoded(packet):
                self._output.mux(self._to.encode(frame))
        elif packet.dts is not None:
            packet.stream = self._to
            try:
                self._output.mux(packet)
            except av.FFmpegError as error:
                raise ConfigError(f"the sound cannot be kept: {error}") from error

    def end(self) -> None:
        """What is still inside the encoder."""
        if self._to is not None and not self._copy:
            self._output.mux(self._to.encode(None))


def decoded(packet: Any) -> Iterator[Any]:
    """The frames of a packet; a damaged one has none."""
    import av

    try:
        yield from packet.decode()
    except av.error.InvalidDataError:
        return
