"""Where the bytes of a clip lie, and how they are opened.

A source is a whole file or a byte range of a tar or Parquet shard, local or at any URI that fsspec opens.
Remote bytes are staged once in a temporary file; local ones are read in place through a bounded view.
"""

import contextlib
import errno
import io
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import av.error

from cluster.errors import Fault, MediaError

COPY_BYTES = 1 << 22
"""Remote files are staged in pieces of this size."""


@dataclass(frozen=True)
class Source:
    """A media file, or a byte range of a shard (offset and size null: the whole file)."""

    uri: str
    offset: int | None = None
    size: int | None = None


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What `prepare` learns of a file without decoding it."""

    duration_s: float | None
    has_video: bool
    has_audio: bool
    fps: float | None = None
    width: int | None = None
    """As displayed, that is after rotation [px]."""

    height: int | None = None
    rotation: int = 0
    """Counter-clockwise turn that displays the stored picture upright [degrees]."""

    video_codec: str | None = None
    audio_codec: str | None = None
    rate_hz: int | None = None
    channels: int | None = None


class ByteRange(io.RawIOBase):
    """A read-only view of `size` bytes of a file from `offset` on."""

    def __init__(self, path: str, offset: int, size: int) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed by close)
        self._offset = offset
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Position inside the range."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move inside the range; past its end reads give nothing."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, "seek before the start of the range")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read up to the end of the range, never beyond it."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._position))
        self._file.seek(self._offset + self._position)
        read = self._file.readinto(view[:count])
        self._position += read
        return read

    def close(self) -> None:
        """Close the file below too."""
        if not self.closed:
            self._file.close()
        super().close()


@dataclass(frozen=True)
class Local:
    """A source whose bytes are on this machine; `offset` is null for a whole file."""

    path: str
    offset: int | None
    size: int

    def binary(self) -> io.RawIOBase:
        """The bytes as a seekable file."""
        return ByteRange(self.path, self.offset or 0, self.size)

    @contextlib.contextmanager
    def container(self) -> Iterator[Any]:
        """An open PyAV container.

        Raises:
            MediaError: not a media file, or one without its index.
        """
        with contextlib.ExitStack() as stack:
            # The `file:` prefix keeps a name such as `concat:x` from being read as a protocol, and
            # the whitelist keeps a playlist from fetching what it names.
            source: Any = f"file:{self.path}"
            if self.offset is not None:
                source = stack.enter_context(contextlib.closing(self.binary()))
            try:
                container = stack.enter_context(
                    av.open(
                        source,
                        options={"protocol_whitelist": "file"},
                        metadata_errors="replace",
                    )
                )
            except MemoryError:
                raise
            except (av.error.FFmpegError, ValueError, OSError) as error:
                raise self._unopened(error) from error
            yield container

    def head(self, count: int = 12) -> bytes:
        """The first bytes, to tell formats apart."""
        with contextlib.closing(self.binary()) as file:
            return file.read(count) or b""

    def _unopened(self, error: Exception) -> MediaError:
        with contextlib.closing(self.binary()) as file:
            cut = _mp4_is_cut(file, self.size)
        if cut:
            return MediaError(Fault.TRUNCATED, f"{self.path}: {cut}")
        return MediaError(Fault.UNREADABLE, f"{self.path}: {reason(error)}")


@dataclass(frozen=True)
class Remote(Local):
    """A whole remote file that is read where it lies, block by block: for its headers."""

    def binary(self) -> Any:
        """The bytes as a seekable file."""
        import fsspec

        fs, path = fsspec.core.url_to_fs(self.path)
        return fs.open(path, "rb", block_size=COPY_BYTES)


def reason(error: BaseException) -> str:
    """An exception in one short line."""
    text = str(getattr(error, "strerror", None) or error).strip().replace("\n", " ")
    return (text or type(error).__name__)[:200]


@contextlib.contextmanager
def staged(source: Source) -> Iterator[Local]:
    """Bring a source to this machine for the duration of one clip.

    Raises:
        MediaError: missing, empty, or a range that reaches beyond its file.
    """
    if not _is_remote(source):
        yield _local(source.uri.removeprefix("file://"), source)
        return
    with tempfile.NamedTemporaryFile(
        prefix="affuse-", suffix=os.path.splitext(source.uri)[1]
    ) as file:
        _fetch(source, file)
        file.flush()
        yield _local(file.name, Source(file.name))


@contextlib.contextmanager
def _for_headers(source: Source) -> Iterator[Local]:
    if not _is_remote(source) or source.offset is not None:
        with staged(source) as local:
            yield local
        return
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(source.uri)
        size = int(fs.info(path)["size"] or 0)
    except FileNotFoundError as error:
        raise MediaError(Fault.MISSING, f"{source.uri}: there is no such file") from error
    except (OSError, ValueError, ImportError) as error:
        raise MediaError(Fault.UNREADABLE, f"{source.uri}: {reason(error)}") from error
    if size == 0:
        raise MediaError(Fault.EMPTY, f"{source.uri}: holds no bytes")
    yield Remote(source.uri, 0, size)


def _is_remote(source: Source) -> bool:
    return "://" in source.uri and not source.uri.startswith("file://")


def _local(path: str, source: Source) -> Local:
    try:
        total = os.stat(path).st_size
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MediaError(Fault.MISSING, f"{source.uri}: there is no such file") from error
    except (OSError, ValueError) as error:
        raise MediaError(Fault.UNREADABLE, f"{source.uri}: {reason(error)}") from error
    if os.path.isdir(path):
        raise MediaError(Fault.UNREADABLE, f"{source.uri}: is a folder")
    size = total if source.size is None else source.size
    if size == 0:
        raise MediaError(Fault.EMPTY, f"{source.uri}: holds no bytes")
    if (source.offset or 0) + size > total:
        detail = f"bytes {source.offset}+{size} reach beyond its {total} bytes"
        raise MediaError(Fault.TRUNCATED, f"{source.uri}: {detail}")
    return Local(os.path.abspath(path), source.offset, size)


def _fetch(source: Source, file: Any) -> None:
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(source.uri)
        if source.offset is not None and source.size is not None:
            file.write(fs.cat_file(path, start=source.offset, end=source.offset + source.size))
            return
        with fs.open(path, "rb") as remote:
            while piece := remote.read(COPY_BYTES):
                file.write(piece)
    except FileNotFoundError as error:
        raise MediaError(Fault.MISSING, f"{source.uri}: there is no such file") from error
    except (OSError, ValueError, ImportError) as error:
        raise MediaError(Fault.UNREADABLE, f"{source.uri}: {reason(error)}") from error


def _mp4_is_cut(file: io.RawIOBase, size: int) -> str | None:
    """Why an MP4 ends too early, read off its top-level boxes; None if it does not."""
    position = 0
    seen: list[bytes] = []
    while position + 8 <= size and len(seen) < 64:
        file.seek(position)
        header = file.read(16) or b""
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if position == 0 and kind != b"ftyp":
            return None
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        seen.append(kind)
        if length < 8 or position + length > size:
            break
        position += length
    if seen and b"moov" not in seen:
        return f"an MP4 of {size} bytes that was cut before its index"
    return f"an MP4 cut inside its index, at byte {size}" if position < size else None


def inspect(source: Source) -> Probe:
    """Read the headers of a file, and one picture of it for its rotation.

    Raises:
        MediaError: missing, empty, truncated before its index, or no media.
    """
    with _for_headers(source) as local, local.container() as container:
        video = next((s for s in container.streams.video if not is_cover(s)), None)
        audio = next(iter(container.streams.audio), None)
        if video is None and audio is None:
            raise MediaError(Fault.UNSUPPORTED, f"{source.uri}: has neither pictures nor sound")
        duration_s = None if container.duration is None else container.duration / av.time_base
        facts: dict[str, Any] = {}
        if audio is not None:
            codec = audio.codec_context
            facts |= {"audio_codec": codec.name, "rate_hz": codec.sample_rate or None}
            facts |= {"channels": codec.channels or None}
        if video is not None:
            facts |= _picture_facts(container, video)
        if duration_s is None:
            duration_s = _last_packet_s(container)
    return Probe(
        duration_s=duration_s, has_video=video is not None, has_audio=audio is not None, **facts
    )


def is_cover(stream: Any) -> bool:
    """Whether a video stream is only the cover picture of a sound file."""
    return bool(int(stream.disposition) & int(type(stream.disposition).attached_pic))


def _picture_facts(container: Any, stream: Any) -> dict[str, Any]:
    codec = stream.codec_context
    rotation = 0
    with contextlib.suppress(av.error.FFmpegError, StopIteration):
        rotation = int(next(container.decode(stream)).rotation) % 360
    turned = rotation in (90, 270)
    return {
        "fps": None if stream.average_rate is None else float(stream.average_rate),
        "width": codec.height if turned else codec.width,
        "height": codec.width if turned else codec.height,
        "rotation": rotation,
        "video_codec": codec.name,
    }


def _last_packet_s(container: Any) -> float | None:
    """Length of a file whose header does not tell it (a recorder that was stopped)."""
    last = None
    with contextlib.suppress(av.error.FFmpegError):
        container.seek(0)
        for packet in container.demux():
            if packet.pts is not None:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                last = end if last is None else max(last, end)
    return last
