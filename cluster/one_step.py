"""Files that appear in one step, under a temporary name until they are whole; equal ones may stay."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from typing import Any, BinaryIO

from cluster.errors import StorageError
from cluster.refusals import refusal


@contextlib.contextmanager
def in_one_step(path: str, *, first: bool = False) -> Iterator[str]:
    """A name to write a local file under; it gets its own when the file is whole and on the disk.

    Args:
        path: of the file.
        first: a file that is there stays: of several that write at once, the first one counts.
    """
    folder, name = os.path.split(path)
    try:
        os.makedirs(folder, exist_ok=True)
    except FileNotFoundError as error:
        raise StorageError(f"no folder can be made at {folder}") from error
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if not first or not _linked(temporary, path):
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    _sync_folder(folder)


def _linked(temporary: str, path: str) -> bool:
    """Give a file its name unless that is taken; False where the filesystem has no links."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return True
    except OSError:
        return False
    return True


def _sync_folder(folder: str) -> None:
    """Make the names in a folder last through a loss of power; some filesystems know no such thing."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


@contextlib.contextmanager
def unless_equal(fs: Any, path: str, content: BinaryIO) -> Iterator[None]:
    """A refused write is no fault where the file holds this very content: a finished job runs anywhere.

    Writing comes first: a file that is written again is seen to be in use (`verify --gc`).

    Args:
        fs: an fsspec filesystem.
        path: of the file inside it.
        content: what is written.
    """
    try:
        yield
    except Exception as error:
        if refusal(error) is None or not _holds(fs, path, content):
            raise


def _holds(fs: Any, path: str, content: BinaryIO) -> bool:
    content.seek(0)
    with contextlib.suppress(OSError), fs.open(path, "rb") as there:
        while block := content.read(1 << 20):
            if there.read(len(block)) != block:
                return False
        return not there.read(1)
    return False
