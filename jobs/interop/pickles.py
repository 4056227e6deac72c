"""Pickles from untrusted sources: arrays and plain containers are read, anything else is refused by name.

A pickle is a program for a small machine that may call anything. `jobs.interop.pickle_machine` is another
for the same instructions: it knows those that data needs, calls only functions of
`jobs.interop.pickle_names`, and counts what it makes, so that a small file never fills the memory.
"""

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import ConfigError
from jobs.interop.pickle_instructions import run
from jobs.interop.pickle_names import UnsafePickleError

MEMORY_FACTOR = 32
"""Objects take at most so many bytes for a byte of the file; lists of short names take 10, of numbers 4."""

MEMORY_FLOOR = 16 << 20
"""What a file may take however short it is [bytes]."""

INFLATION = 100
"""A compressed file may grow to so many times its size, above `MEMORY_FLOOR`."""

DEEPEST = 64
"""Containers inside containers."""

PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray, slice})


def load(path: str, *, where: str) -> Any:
    """Read a pickle from a local file; see `loads`."""
    return loads(Path(path).read_bytes(), where=where)


def loads(content: bytes, *, where: str) -> Any:
    """Read a pickle of arrays and plain containers.

    Args:
        content: the file; zlib and gzip are seen through. Text of Python 2 is read as Latin-1.
        where: its name, for messages.

    Returns:
        Dicts (also for their ordered and default kinds), lists, tuples, sets, text, bytes, numbers, NumPy
        arrays (of booleans, numbers, text, bytes, or objects of these kinds) and their scalars.

    Raises:
        UnsafePickleError: it names a class or function beyond arrays and containers, or would take far
            more memory than its size lets expect.
        ConfigError: it is not a pickle, or a broken one.
    """
    try:
        inflated = _inflated(content)
        allowed = MEMORY_FLOOR + len(inflated) + MEMORY_FACTOR * len(content)
        value = run(inflated, allowed)
        _Scales(allowed).weigh(value)
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{where}: {error}") from error
    except MemoryError as error:
        raise ConfigError(
            f"{where}: a pickle of {len(content):,} bytes does not fit into memory"
        ) from error
    except (
        IndexError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        struct.error,
        zlib.error,
    ) as error:
        raise ConfigError(f"{where}: not a readable pickle: {error}") from error
    return value


class _Scales:
    """Looks through a finished value: plain data all the way down, and no larger than it may be."""

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed
        self.known: dict[int, tuple[int, int]] = {}

    def weigh(self, value: Any, depth: int = 1) -> tuple[int, int]:
        """How large a value is with shared parts counted each time [bytes], and how deep.

        Raises:
            UnsafePickleError: it is too large or too deep, or holds itself, which has no depth.
            ValueError: it is not finished.
        """
        parts = _parts(value)
        if parts is None:
            return _bytes_of(value), 0
        if depth > DEEPEST:
            raise _too_deep()
        if id(value) in self.known:
            size, height = self.known[id(value)]
        else:
            size, height = 64, 0
            for part in parts:
                if type(part) in PLAIN:
                    size += 8 if part is None else _bytes_of(part)
                else:
                    inside, below = self.weigh(part, depth + 1)
                    size, height = size + inside, max(height, below)
            height += 1
            self.known[id(value)] = size, height
        if depth + height - 1 > DEEPEST:
            raise _too_deep()
        if size > self.allowed:
            raise UnsafePickleError("its parts are shared so often that they would fill the memory")
        return size, height


def _too_deep() -> UnsafePickleError:
    return UnsafePickleError(f"it holds containers nested more than {DEEPEST} times")


def _parts(value: Any) -> Iterable[Any] | None:
    """What a container holds besides keys; None for anything else."""
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        return value.flat
    return None


def _bytes_of(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes + 64
    if isinstance(value, str | bytes | bytearray):
        return len(value) + 8
    if type(value) not in PLAIN and not isinstance(value, np.generic):
        raise ValueError(f"it holds a {type(value).__name__} that is not finished")
    return 8


def _inflated(content: bytes) -> bytes:
    """The pickle inside a compressed file.

    Raises:
        UnsafePickleError: it grows far more than data do.
        zlib.error, ValueError: it is broken, or ends early.
    """
    if content[:2] == b"\x1f\x8b":
        stream = zlib.decompressobj(wbits=31)
    elif content[:2] in (b"\x78\x01", b"\x78\x9c", b"\x78\xda"):
        stream = zlib.decompressobj()
    else:
        return content
    most = MEMORY_FLOOR + INFLATION * len(content)
    inflated = stream.decompress(content, most)
    if not stream.eof:
        if len(inflated) < most:
            raise ValueError("it ends in the middle")
        raise UnsafePickleError(
            f"it is compressed to less than a part in {INFLATION}; unpack it yourself if you trust it"
        )
    return inflated
