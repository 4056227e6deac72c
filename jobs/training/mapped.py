"""Arrays of steps in memory or, above a budget, in a memory-mapped file.

A mapped file may be larger than memory: its pages are given back as soon as a few tens of MB of them were
touched, so that no process is ever charged with all of it.
"""

import logging
import math
import mmap
import os
import tempfile
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cluster import storage
from cluster.errors import PlanError

log = logging.getLogger(__name__)

RESIDENT_BYTES = 32_000_000
"""Pages of a mapped file that may be in memory before they are given back."""

FAULT_BYTES = 2**21
"""What Linux maps around a page that is touched: 64 kB, or the large page that the file lies in by then."""


class StepArray(Protocol):
    """An array [step feature] that is written once and read by index."""

    array: np.ndarray
    is_mapped: bool

    def touched(self, size: int, runs: int) -> None:
        """So many bytes in so many runs were read or written."""


class InMemory:
    """An array in memory."""

    is_mapped = False

    def __init__(self, shape: tuple[int, int], kind: Any) -> None:
        self.array = np.empty(shape, kind)

    def touched(self, size: int, runs: int) -> None:
        """Nothing is given back."""


class Mapped:
    """An array in a file without a name: nothing is left behind, whatever happens to the process.

    Args:
        folder: on a disk with room for it.
        shape: of the array.
        kind: of the array.

    Raises:
        PlanError: there is no room.
    """

    is_mapped = True

    def __init__(self, folder: str, shape: tuple[int, int], kind: Any) -> None:
        size = math.prod(shape) * np.dtype(kind).itemsize
        home = Path(storage.absolute(folder))
        try:
            home.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=home) as file:
                _reserve(file.fileno(), size)
                self._map = mmap.mmap(file.fileno(), size)
        except OSError as error:
            raise PlanError(
                f"--cache {folder}: no room for {size / 1e9:.2f} GB of features ({error.strerror}); "
                "type --cache FOLDER on another disk, or more --memory-gb"
            ) from error
        self.array = np.frombuffer(self._map, kind).reshape(shape)
        self._pages = 0

    def touched(self, size: int, runs: int) -> None:
        """Give the pages back once there are many; what was written stays in the file."""
        self._pages += size + runs * FAULT_BYTES
        if self._pages >= RESIDENT_BYTES:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._pages = 0


class MemoryBudget:
    """Gives arrays in memory as long as there is room, mapped ones afterwards.

    Args:
        size: bytes of all arrays in memory together.
        folder: of the mapped ones.
    """

    def __init__(self, size: float, folder: str) -> None:
        self._left, self._folder = size, folder

    def __call__(self, shape: tuple[int, int], kind: Any) -> StepArray:
        """An array for one input."""
        size = math.prod(shape) * np.dtype(kind).itemsize
        if size <= self._left:
            self._left -= size
            return InMemory(shape, kind)
        log.info("%.2f GB of features are memory-mapped in %s", size / 1e9, self._folder)
        return Mapped(self._folder, shape, kind)


def in_memory(shape: tuple[int, int], kind: Any) -> StepArray:
    """An array in memory, whatever its size."""
    return InMemory(shape, kind)


def _reserve(descriptor: int, size: int) -> None:
    """Take the room now: a full disk behind a mapping would kill the process when it is written to."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.truncate(descriptor, size)
