"""Folders for temporary files that no end of a process leaves behind for good.

A folder goes with the block that has it, or with the process where Ctrl-C ends that in the middle. A process
that is killed cannot tidy up: each folder therefore holds a file that its owner keeps locked while it lives,
and the next process that makes one removes those beside it whose lock is free.
"""

import atexit
import contextlib
import errno
import fcntl
import functools
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.errors import StorageError
from cluster.refusals import REFUSALS, place_of, refusal

PREFIX = "affuse-"
OWNER = "owner"
INSIDE = "files"
"""The folder that is given away: of what lies there nothing is ours."""

OTHER_PLACE = "TMPDIR=FOLDER in the environment names another place"
"""What to type where temporary files find no room."""

LEAST_ROOM = 2**20
"""Below this a disk is full [bytes]: whoever writes fails before the last of it is used."""

_own: dict[Path, int] = {}
"""Folders of this process and their locks."""


@contextmanager
def scratch_folder(parent: str | None = None) -> Iterator[str]:
    """A folder that only this user may look into; gone at the end.

    Args:
        parent: where it lies; by default where temporary files are.

    Raises:
        StorageError: it cannot be made, or its disk is full.
    """
    folder = claim_scratch(parent)
    try:
        yield str(folder)
    except OSError as error:
        if (said := _full(folder, error)) is None:
            raise
        raise StorageError(said) from error
    finally:
        release_scratch(folder)


def claim_scratch(parent: str | None = None) -> Path:
    """A folder until `release_scratch`, or until the process ends; those of killed processes go.

    Args:
        parent: where it lies; by default where temporary files are.

    Raises:
        StorageError: it cannot be made.
    """
    beside = Path(parent or _for_temporary_files())
    _sweep(beside)
    try:
        folder, lock = claimed(beside, PREFIX)
        inside = folder / INSIDE
        inside.mkdir()
    except OSError as error:
        if (said := refusal(error, str(beside))) is None:
            raise
        raise StorageError(f"{said}; {OTHER_PLACE}") from error
    inside.chmod(0o700)
    _own[inside] = lock
    return inside


def release_scratch(folder: Path) -> None:
    """Remove a folder with all that is in it; nothing where that is done."""
    if (lock := _own.pop(folder, None)) is not None:
        _remove(folder.parent)
        os.close(lock)


def release_all() -> None:
    """Remove the folders of this process, which is about to end."""
    for folder in list(_own):
        release_scratch(folder)


atexit.register(release_all)
# What is forked off ends before its parent, whose folders these are.
os.register_at_fork(after_in_child=_own.clear)


def claimed(parent: Path, prefix: str) -> tuple[Path, int]:
    """A new folder of mode 0700, and its lock, which is to be closed when the folder is gone."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        folder.chmod(0o700)  # mkdtemp leaves out what the umask does
        lock = os.open(folder / OWNER, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # somebody who starts at this moment removes it
            os.close(lock)
            continue
        if os.fstat(lock).st_nlink:
            return folder, lock
        os.close(lock)


@contextmanager
def abandoned(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder that nobody holds.

    Raises:
        OSError: somebody does, or it is not a folder of ours.
    """
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
        raise PermissionError(f"{folder} is not of this user")
    lock = os.open(folder / OWNER, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


def anonymous_file() -> Any:
    """A file without a name that a child can inherit: in memory on Linux, on disk elsewhere."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("affuse"), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _for_temporary_files() -> str:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        tried = " or ".join(filter(None, [os.environ.get("TMPDIR"), "/tmp", "/var/tmp"]))
        raise StorageError(
            f"nothing can be written for the while at {tried}; {OTHER_PLACE}"
        ) from error


def _full(folder: Path, error: OSError) -> str | None:
    """That the disk of a temporary folder is full, if the error is of that: many name no file."""
    number = errno.ENOSPC if isinstance(error, shutil.Error) else error.errno  # it lists many
    if number not in (errno.ENOSPC, errno.EDQUOT):
        return None
    named = place_of(error)
    if isinstance(error, shutil.Error) and not os.path.isabs(named or ""):
        named = None
    inside = f"{named}".startswith(f"{folder}/")
    if not inside and (named is not None or shutil.disk_usage(folder).free > LEAST_ROOM):
        return None
    return f"{REFUSALS[number]} at {folder.parent.parent}, where temporary files are; {OTHER_PLACE}"


@functools.cache
def _sweep(parent: Path) -> None:
    """Remove what killed processes left; once in a process, which may make a folder for every remote clip."""
    for other in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), abandoned(other):
            _remove(other)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder / INSIDE, ignore_errors=True)
    if not (folder / INSIDE).exists():  # else it is found again by its owner's file
        shutil.rmtree(folder, ignore_errors=True)
