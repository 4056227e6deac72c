"""Facts of a file from its headers, for `prepare`."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av.error

from cluster.errors import Fault, MediaError
from encoders.decoding import display, tracks
from encoders.decoding.sources import (
    COPY_BYTES,
    Local,
    Source,
    is_remote,
    patiently,
    remote_fault,
    staged,
)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Facts of a file that are known without decoding it."""

    duration_s: float | None
    """Length of the content, whatever the header states [s]."""

    has_video: bool
    has_audio: bool
    fps: float | None = None
    width: int | None = None
    """As displayed: after rotation, in its proportions [px]."""

    height: int | None = None
    rotation: int = 0
    """Counter-clockwise turn that displays the stored picture upright [degrees]."""

    video_codec: str | None = None
    audio_codec: str | None = None
    rate_hz: int | None = None
    channels: int | None = None


def inspect(source: Source) -> Probe:
    """Read the headers of a file, and one picture of it for its rotation.

    Raises:
        MediaError: missing, empty, truncated before its index, or no media.
    """
    with _for_headers(source) as local, local.container() as container:
        video = tracks.default_track(container, "video")
        audio = tracks.default_track(container, "audio")
        if video is None and audio is None:
            raise MediaError(Fault.UNSUPPORTED, f"{source.uri}: has neither pictures nor sound")
        facts: dict[str, Any] = {}
        if audio is not None:
            codec = audio.codec_context
            facts |= {
                "audio_codec": codec.codec.canonical_name,
                "rate_hz": codec.sample_rate or None,
            }
            facts |= {"channels": codec.channels or None}
        if video is not None:
            facts |= _picture_facts(container, video)
        duration_s = tracks.content_s(container, local)
    return Probe(
        duration_s=duration_s, has_video=video is not None, has_audio=audio is not None, **facts
    )


def _picture_facts(container: Any, stream: Any) -> dict[str, Any]:
    codec = stream.codec_context
    rotation, matrix = 0, display.AS_STORED
    with contextlib.suppress(av.error.FFmpegError, StopIteration):
        frame = next(container.decode(stream))
        rotation, matrix = int(frame.rotation) % 360, display.display_matrix(frame)
    aspect = display.pixel_aspect(stream)
    width, height = display.shown_size(codec.width, codec.height, aspect, matrix)
    return {
        "fps": None if stream.average_rate is None else float(stream.average_rate),
        "width": width,
        "height": height,
        "rotation": rotation,
        "video_codec": codec.codec.canonical_name,
    }


@contextlib.contextmanager
def _for_headers(source: Source) -> Iterator[Local]:
    if not is_remote(source) or source.offset is not None:
        with staged(source) as local:
            yield local
        return
    size = patiently(lambda: _remote_size(source))
    if size == 0:
        raise MediaError(Fault.EMPTY, f"{source.uri}: holds no bytes")
    yield Remote(source.uri, 0, size)


def _remote_size(source: Source) -> int:
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(source.uri)
        return int(fs.info(path)["size"] or 0)
    except Exception as error:
        raise remote_fault(source, error) from error


@dataclass(frozen=True)
class Remote(Local):
    """A whole remote file that is read where it lies, block by block: for its headers."""

    def binary(self) -> Any:
        """The bytes as a seekable file."""
        import fsspec

        fs, path = fsspec.core.url_to_fs(self.path)
        file = fs.open(path, "rb", block_size=COPY_BYTES)
        file.seek(0)  # some file systems hand out one object for all readers
        return file
