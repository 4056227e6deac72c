"""Declared sizes of a file, checked against the free memory before anything is read."""

from cluster.errors import TableError
from cluster.session import memory_available_gb


def check_size(size: int, what: str) -> None:
    """Refuse what does not fit the memory that is free.

    Args:
        size: bytes that the file declares or holds.
        what: where they stand, for the message.

    Raises:
        TableError: more than there is.
    """
    free = memory_available_gb()
    if size > free * 1e9:
        raise TableError(
            f"{what}: declares {size / 1e9:,.1f} GB, and {free:,.1f} GB of memory are free here; "
            "cut the file into parts, or work where there is more"
        )
