"""Errors of a disk or bucket that is full, read-only or forbidden, in one line."""

import contextlib
import errno
from collections.abc import Iterator

from cluster.errors import StorageError

REFUSALS = {
    errno.EACCES: "no permission",
    errno.EDQUOT: "the disk is full",
    errno.EFBIG: "a file would be too large",
    errno.ENOSPC: "the disk is full",
    errno.EPERM: "no permission",
    errno.EROFS: "nothing can be written",
}
"""Errors that last until the user frees space or grants permission."""


def refusal(error: BaseException, uri: str | None = None) -> str | None:
    """In one line, that a disk or bucket is full or closed; None for any other error."""
    if not isinstance(error, OSError):
        return None
    number = errno.EACCES if isinstance(error, PermissionError) else error.errno
    if number not in REFUSALS:
        return None
    where = uri or error.filename
    return f"{REFUSALS[number]}{f' at {where}' if where else ''}: {error.strerror or error}"


@contextlib.contextmanager
def writing(uri: str) -> Iterator[None]:
    """Writing of a file or object.

    Raises:
        StorageError: it is refused, and would be again.
    """
    try:
        yield
    except OSError as error:
        if (said := refusal(error, uri)) is None:
            raise
        raise StorageError(said) from error
