"""Errors of a disk or bucket that is full, read-only, forbidden or silent, in one line."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator

from cluster.errors import StorageError
from cluster.redaction import redacted

REFUSALS = {
    errno.EACCES: "no permission",
    errno.EDQUOT: "the disk is full",
    errno.EFBIG: "a file would be too large",
    errno.ENOSPC: "the disk is full",
    errno.EPERM: "no permission",
    errno.EROFS: "nothing can be written",
}
"""Errors that last until the user frees space or grants permission."""

ROOM = (errno.EDQUOT, errno.EFBIG, errno.ENOSPC)
"""Errors of the disk that is written to."""

IN_THE_WAY = {
    errno.EEXIST: "a file stands where a folder is expected",
    errno.EISDIR: "a folder stands where a file is expected",
    errno.ELOOP: "links lead in a circle",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOTDIR: "a file stands where a folder is expected",
}
"""Errors of places that were named wrongly; of a clip's file they are the clip's own fault."""

LOST = {
    "NodeDiedError": "a machine of the cluster was lost with its workers",
    "OutOfMemoryError": "memory ran out and Ray ended workers; other programs of the machine count too",
}
"""Errors of Ray by which workers that did nothing wrong end, by name: Ray is not loaded for their sake."""

_NUMBER = re.compile(r"\[Errno (\d+)\]")
_USED = re.compile(r"\bwas (\S+ used / \S+ limit)")

CLIENTS = ("aiobotocore", "aiohttp", "azure", "botocore", "gcsfs")
"""Packages that talk to object stores, whose own errors are no OSError; each has tried again by then."""


def refusal(error: BaseException, uri: str | None = None) -> str | None:
    """In one line, that a disk or bucket is full, closed or silent; None for any other error."""
    if type(error).__module__.partition(".")[0] in CLIENTS:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        return f"the storage does not answer{f' at {uri}' if uri else ''}: {said}"
    if not isinstance(error, OSError):
        return None
    number, named = _of_many(error) if isinstance(error, shutil.Error) else (error.errno, None)
    number = errno.EACCES if isinstance(error, PermissionError) else number
    if number is None or number not in REFUSALS:
        return None
    where = uri or named or place_of(error)
    return f"{REFUSALS[number]}{f' at {where}' if where else ''}: {error.strerror or os.strerror(number)}"


def place_of(error: OSError) -> str | None:
    """The file that an error is of: of a copy for which there is no room, what it was copied to."""
    if isinstance(error, shutil.Error):
        return _of_many(error)[1]
    copied = error.filename2 is not None and error.errno in ROOM
    named = error.filename2 if copied else error.filename
    return None if named is None else str(named)


def _of_many(error: shutil.Error) -> tuple[int | None, str | None]:
    """Number and destination of the first error of a folder's copy, which has only their texts."""
    listed = error.args[0] if error.args else None
    if not isinstance(listed, list) or not listed:
        return None, None
    _, to, why = listed[0]
    found = _NUMBER.match(str(why))
    return (int(found[1]) if found else None), str(to)


def in_the_way(error: BaseException) -> str | None:
    """In one line, that a place is not what its name has to lead to; None for any other error."""
    said = IN_THE_WAY.get(error.errno or 0) if isinstance(error, OSError) else None
    if said is None:
        return None
    assert isinstance(error, OSError)
    return f"{said}{f': {error.filename}' if error.filename else ''}"


def lost_worker(error: BaseException) -> str | None:
    """In one line, that workers ended with their machine or for want of memory; None for any other error."""
    if type(error).__module__ != "ray.exceptions" or type(error).__name__ not in LOST:
        return None
    used = _USED.search(str(error))
    return f"{LOST[type(error).__name__]}{f' ({used[1]})' if used else ''}"


@contextlib.contextmanager
def asking(uri: str) -> Iterator[None]:
    """Reading or writing of a file or object.

    Raises:
        StorageError: it is refused, or not answered, and would not be again.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, FileNotFoundError) or (said := refusal(error, uri)) is None:
            raise
        raise StorageError(redacted(said)) from error
