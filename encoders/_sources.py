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
    if not is_remote(source):
        yield _local(source.uri.removeprefix("file://"), source)
        return
    with tempfile.NamedTemporaryFile(
        prefix="affuse-", suffix=os.path.splitext(source.uri)[1]
    ) as file:
        _fetch(source, file)
        file.flush()
        yield _local(file.name, Source(file.name))


def is_remote(source: Source) -> bool:
    """Whether a source has to be fetched first."""
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
