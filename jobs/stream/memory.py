"""Memory of a worker process: measure it, and return what is not needed."""

import ctypes
import functools
import resource
import sys
from pathlib import Path
from typing import Any


def private_mb() -> float:
    """Resident memory of this process less what it maps from files and shares [MB].

    Ray's object store is shared: every process that has read from it counts its pages as resident. Where the
    system does not tell, this is the peak of all.
    """
    try:
        resident, shared = map(int, Path("/proc/self/statm").read_text().split()[1:3])
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes, on macOS
    return (resident - shared) * resource.getpagesize() / 1e6


def release_memory() -> None:
    """Give freed memory back to the system.

    Activations of ever other lengths leave holes in glibc's heap, which grows by hundreds of MB.
    """
    if (trim := _malloc_trim()) is not None:
        trim(0)


@functools.lru_cache(maxsize=1)
def _malloc_trim() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
