"""Pickles of strangers: arrays and plain containers come out, anything else is refused by name.

A pickle is a program. The unpickler of the standard library calls whatever the file names; this one knows
the few names that NumPy arrays and plain containers need, and calls nothing else.
"""

import builtins
import collections
import importlib
import io
import pickle
import zlib
from collections.abc import Mapping
from typing import Any

from cluster.errors import AffuseError, ConfigError


class UnsafePickleError(AffuseError, ValueError):
    """A pickle asks for something that data does not need."""


NUMPY = {
    ("multiarray", "_reconstruct"),
    ("multiarray", "scalar"),
    ("numeric", "_frombuffer"),
}
"""What arrays and scalars are rebuilt by; the modules lie in `numpy.core` or, since 2.0, `numpy._core`."""

ALLOWED: Mapping[tuple[str, str], Any] = {
    ("builtins", "bytearray"): bytearray,
    ("builtins", "complex"): complex,
    ("builtins", "dict"): dict,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "list"): list,
    ("builtins", "set"): set,
    ("builtins", "slice"): slice,
    ("builtins", "tuple"): tuple,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
}


def loads(content: bytes, *, where: str) -> Any:
    """Read a pickle of arrays and plain containers.

    Args:
        content: the file; zlib and gzip are seen through. Text of Python 2 is read as Latin-1.
        where: its name, for messages.

    Raises:
        UnsafePickleError: it names a class or function beyond arrays and containers.
        ConfigError: it is not a pickle, or a broken one.
    """
    try:
        return _Unpickler(io.BytesIO(_inflated(content)), encoding="latin1").load()
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{where}: {error}") from error
    except (
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        IndexError,
        KeyError,
        TypeError,
        ValueError,
        zlib.error,
    ) as error:
        raise ConfigError(f"{where}: not a readable pickle: {error}") from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module)
        if (module, name) in ALLOWED:
            return ALLOWED[module, name]
        package, _, last = module.rpartition(".")
        if package in ("numpy.core", "numpy._core") and (last, name) in NUMPY:
            return getattr(importlib.import_module(f"numpy._core.{last}"), name)
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(importlib.import_module("numpy"), name)
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise UnsafePickleError(
            f"it asks for {module}.{name}; only NumPy arrays and plain containers are read. "
            "Save the arrays as npz where you trust the file"
        )

    def persistent_load(self, pid: Any) -> Any:
        raise UnsafePickleError("it refers to objects outside the file")


def _encode(text: str, encoding: str) -> bytes:
    """Bytes as protocol 2 writes them: text and the name of its encoding."""
    if encoding not in ("latin1", "latin-1", "utf-8"):
        raise UnsafePickleError(f"it asks for the codec {encoding!r}")
    return builtins.bytes(text, encoding)


def _inflated(content: bytes) -> bytes:
    if content[:2] == b"\x1f\x8b":
        return zlib.decompress(content, wbits=31)
    if content[:1] == b"\x78" and content[:2] in (b"\x78\x01", b"\x78\x9c", b"\x78\xda"):
        return zlib.decompress(content)
    return content
