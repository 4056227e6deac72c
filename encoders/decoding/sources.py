"""Where the bytes of a clip lie, and how they are opened.

A source is a whole file or a byte range of a tar or Parquet shard, local or at any URI that fsspec opens.
Remote bytes are staged once in a temporary file; local ones are read in place through a bounded view.
"""

import contextlib
import errno
import io
import os
import random
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import av
import av.error

from cluster.errors import Fault, MediaError
from cluster.scratch import scratch_folder

T = TypeVar("T")

WAV_OPTIONS = {"max_size": "16384", "probesize": "16384"}
"""Longer packets, and fewer of them read only to guess: opening and reading takes a fifth of the time."""

OPENERS = frozenset(
    {
        "avisynth",
        "bluray",
        "concat",
        "dash",
        "dvdvideo",
        "hls",
        "image2",
        "imf",
        "lavfi",
        "rtp",
        "rtsp",
        "sap",
        "sdp",
        "vapoursynth",
        "vobsub",
        "webm_dash_manifest",
    }
)
"""Formats that open what a file names: playlists, scripts, patterns of names, descriptions of streams."""

CLOSED_FORMATS = ",".join(sorted(av.formats_available - OPENERS))
"""Formats whose bytes are all in the file that was given; FFmpeg compares before it reads a header."""

JPEG_SUFFIXES = (".jpg", ".jpeg")
"""By such a name FFmpeg takes a picture for the first of a series of files, by its bytes for what it is."""

COPY_BYTES = 1 << 22
"""Remote files are staged in pieces of this size."""

FETCHES = 4
"""Tries of a remote read before it counts as failed."""

FIRST_PAUSE_S = 0.5
"""Before the second try; every further pause is twice as long [s]."""

MACHINE_ERRNOS = frozenset(
    {
        errno.EDQUOT,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.ENOTCONN,
        errno.EROFS,
        errno.ESTALE,
    }
)
"""Errors of a disk, a mount or a process that has no room left: no file is to blame for them."""


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
        head = self.head()
        is_wav = head[:4] == b"RIFF" and head[8:] == b"WAVE"
        options = {"protocol_whitelist": "file", "format_whitelist": CLOSED_FORMATS}
        options |= WAV_OPTIONS if is_wav else {}
        with contextlib.ExitStack() as stack:
            # The `file:` prefix keeps a name such as `concat:x` from being read as a protocol, and
            # the whitelists keep a playlist from opening what it names, near or far.
            source: Any = f"file:{self.path}"
            if self.offset is not None or self.path.lower().endswith(JPEG_SUFFIXES):
                source = stack.enter_context(contextlib.closing(self.binary()))
            try:
                container = stack.enter_context(
                    av.open(
                        source,
                        options=options,
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
        fault = Fault.MACHINE if is_machines(error) else Fault.UNREADABLE
        return MediaError(fault, f"{self.path}: {reason(error)}")


def reason(error: BaseException) -> str:
    """An exception in one short line."""
    text = str(getattr(error, "strerror", None) or error).strip().replace("\n", " ")
    return (text or type(error).__name__)[:200]


@contextlib.contextmanager
def staged(source: Source) -> Iterator[Local]:
    """Bring a source to this machine for the duration of one clip.

    Raises:
        MediaError: missing, empty, a range that reaches beyond its file; or, as a fault of the machine, a
            remote file that cannot be read after several tries, or no room for its copy.
    """
    if not is_remote(source):
        yield _local(source.uri.removeprefix("file://"), source)
        return
    suffix = os.path.splitext(source.uri)[1]
    with contextlib.ExitStack() as stack:
        try:
            copy = os.path.join(stack.enter_context(scratch_folder()), f"media{suffix}")
            with open(copy, "wb") as file:
                patiently(lambda: _fetch(source, file))
        except OSError as error:  # those of the source are MediaErrors by now
            raise MediaError(Fault.MACHINE, f"no copy of {source.uri}: {reason(error)}") from error
        yield _local(copy, Source(copy))


def is_remote(source: Source) -> bool:
    """Whether a source has to be fetched first."""
    return "://" in source.uri and not source.uri.startswith("file://")


def _local(path: str, source: Source) -> Local:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MediaError(Fault.MISSING, f"{source.uri}: there is no such file") from error
    except (OSError, ValueError) as error:
        fault = Fault.MACHINE if is_machines(error) else Fault.UNREADABLE
        raise MediaError(fault, f"{source.uri}: {reason(error)}") from error
    total = found.st_size
    if not stat.S_ISREG(found.st_mode):
        what = "folder" if stat.S_ISDIR(found.st_mode) else "pipe, a socket or a device"
        raise MediaError(Fault.UNREADABLE, f"{source.uri}: is a {what}")
    size = total if source.size is None else source.size
    if size == 0:
        raise MediaError(Fault.EMPTY, f"{source.uri}: holds no bytes")
    if (source.offset or 0) + size > total:
        detail = f"bytes {source.offset}+{size} reach beyond its {total} bytes"
        raise MediaError(Fault.TRUNCATED, f"{source.uri}: {detail}")
    return Local(os.path.abspath(path), source.offset, size)


def is_machines(error: BaseException) -> bool:
    """Whether an error is one of the disk, the mount or the process, whatever file was asked for."""
    return isinstance(error, OSError) and error.errno in MACHINE_ERRNOS


def patiently(call: Callable[[], T]) -> T:
    """Result of a call, which is repeated after a passing fault (a reset, a throttled or failing server)."""
    pause_s = FIRST_PAUSE_S
    for _ in range(FETCHES - 1):
        try:
            return call()
        except MediaError as error:
            if error.fault != Fault.MACHINE:
                raise
        time.sleep(pause_s * random.uniform(0.5, 1.5))
        pause_s *= 2
    return call()


def _fetch(source: Source, file: Any) -> None:
    """Copy remote bytes from their start."""
    file.seek(0)
    file.truncate()
    for piece in _remote_bytes(source):
        file.write(piece)


def _remote_bytes(source: Source) -> Iterator[bytes]:
    """The bytes of a remote source, in pieces.

    Raises:
        MediaError: there is no such file, it is not ours to read; or the machine's fault, if it may pass.
    """
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(source.uri)
        if source.offset is not None and source.size is not None:
            piece = fs.cat_file(path, start=source.offset, end=source.offset + source.size)
            remote: Any = io.BytesIO(piece)
        else:
            remote = fs.open(path, "rb")
    except Exception as error:
        raise remote_fault(source, error) from error
    with contextlib.closing(remote):
        while True:
            try:
                piece = remote.read(COPY_BYTES)
            except Exception as error:
                raise remote_fault(source, error) from error
            if not piece:
                return
            yield piece


def remote_fault(source: Source, error: Exception) -> MediaError:
    """Fault behind a client's error: the source is absent, not readable, or the machine is at fault.

    Raises:
        MemoryError: it was that.
    """
    if isinstance(error, MemoryError):
        raise error
    cause = error.__cause__
    status = getattr(cause, "status", getattr(error, "status", None))
    # The HTTP client says "not found" of whatever went wrong, with the reason as the cause.
    found_out = isinstance(error, FileNotFoundError) and (
        status is not None
        or (isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError))
    )
    if status in (404, 410) or (isinstance(error, FileNotFoundError) and not found_out):
        return MediaError(Fault.MISSING, f"{source.uri}: there is no such file")
    error = cause if found_out and isinstance(cause, Exception) else error
    refused = isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429)
    lasting = (ImportError, NotImplementedError, PermissionError, TypeError, ValueError)
    fault = Fault.UNREADABLE if refused or isinstance(error, lasting) else Fault.MACHINE
    return MediaError(fault, f"{source.uri}: {reason(error)}")


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
