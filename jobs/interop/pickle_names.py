"""The names in a pickle that are allowed: those of arrays and plain containers.

Nothing of NumPy is handed to the file. A dtype is read as its kind and width, an array's shape and size are
compared with the bytes that are there, and only then is an array made, by copying these bytes.
"""

import builtins
import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cluster.errors import AffuseError

MOST_DIMENSIONS = 32


class UnsafePickleError(AffuseError, ValueError):
    """A pickle asks for something that data does not need."""


@dataclass(frozen=True)
class Name:
    """A class or function that the file names; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass
class PickledDtype:
    """Kind, width and byte order of an array's values."""

    code: str
    order: str = "="

    def build(self, state: Any) -> None:
        """Take the byte order of a pickled dtype's state.

        Raises:
            UnsafePickleError: it has fields or a shape of its own.
            ValueError: it is no state of a dtype.
        """
        if not isinstance(state, tuple) or len(state) not in (8, 9):
            raise ValueError("expected the state of a dtype")
        _, order, *inside = state[:5]
        if inside != [None, None, None]:
            raise UnsafePickleError("it holds an array of records; only plain values are read")
        order = _text(order)
        if order not in ("<", ">", "|", "="):
            raise ValueError(f"{order!r} is no byte order")
        self.order = order

    @property
    def is_object(self) -> bool:
        """Whether the values are objects of the pickle itself."""
        return self.code[0] == "O"

    def dtype(self) -> np.dtype[Any]:
        """The dtype of plain values.

        Raises:
            ValueError: no dtype of NumPy.
        """
        try:
            found: np.dtype[Any] = np.dtype(f"{self.order}{self.code}")
        except (TypeError, OverflowError) as error:
            raise ValueError(f"{self.code!r} is no dtype") from error
        if found.hasobject or found.fields is not None or not found.itemsize:
            raise ValueError(f"{self.code!r} is no dtype of plain values")
        return found


@dataclass
class PickledArray:
    """An array whose state has not come yet, and where the memo keeps it."""

    memo: list[int] = field(default_factory=list)

    def build(self, state: Any) -> np.ndarray:
        """The array.

        Raises:
            UnsafePickleError: an array of anything but plain values.
            ValueError: shape, dtype and content do not fit together.
        """
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("expected the state of an array")
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, PickledDtype):
            raise ValueError("expected a dtype in the state of an array")
        order = "F" if fortran else "C"
        if dtype.is_object:
            return _of_objects(content, _shape(shape, 8), order)
        return _of_bytes(content, dtype.dtype(), shape, order)


def call(name: Name, arguments: Any) -> Any:
    """Call an allowed name with its arguments.

    Raises:
        UnsafePickleError: any other name.
        ValueError: other arguments than pickles of data have.
    """
    if name not in CALLS:
        raise refused(name)
    if not isinstance(arguments, tuple):
        raise ValueError(f"{name}: expected arguments")
    return CALLS[name](*arguments)


def known(module: str, name: str) -> Name:
    """The name that a pickle asks for, by its module of today.

    Raises:
        UnsafePickleError: not one that data needs.
    """
    module = {"__builtin__": "builtins"}.get(module, module)
    if module.startswith("numpy.core."):
        module = "numpy._core." + module.removeprefix("numpy.core.")
    asked = Name(module, name)
    if asked not in CALLS and asked not in NAMES:
        raise refused(asked)
    return asked


def refused(name: Name) -> UnsafePickleError:
    """The error about a name."""
    return UnsafePickleError(
        f"it asks for {str(name)[:200]}; only NumPy arrays and plain containers are read. "
        "Save the arrays as npz where you trust the file"
    )


# ---- arrays


def _reconstruct(kind: Any, _shape: Any, _code: Any) -> PickledArray:
    if kind != NDARRAY:
        raise ValueError("expected numpy.ndarray")
    return PickledArray()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray:
    if not isinstance(dtype, PickledDtype) or dtype.is_object or order not in ("C", "F", "K"):
        raise ValueError("expected a dtype of plain values and an order")
    array = _of_bytes(content, dtype.dtype(), shape, "C" if order == "K" else order)
    if axes is None:
        return array
    if not isinstance(axes, tuple | list) or sorted(map(_integer, axes)) != list(range(array.ndim)):
        raise ValueError("expected the order of the axes")
    return array.transpose(axes)


def _scalar(dtype: Any, content: Any = None) -> Any:
    if not isinstance(dtype, PickledDtype):
        raise ValueError("expected a dtype")
    return content if dtype.is_object else _of_bytes(content, dtype.dtype(), (1,), "C")[0]


def _dtype(code: Any, _align: Any = False, _copy: Any = False) -> PickledDtype:
    code = _text(code)
    if not re.fullmatch(r"[?bBiufcSUO]\d{0,10}", code, re.ASCII):
        raise UnsafePickleError(f"it holds an array of {code[:40]!r}; only plain values are read")
    return PickledDtype(code)


def _of_bytes(content: Any, dtype: np.dtype[Any], shape: Any, order: Any) -> np.ndarray:
    content = content.encode("latin-1") if isinstance(content, str) else content
    if not isinstance(content, bytes | bytearray):
        raise ValueError("expected the bytes of an array")
    shape = _shape(shape, dtype.itemsize)
    if math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"{len(content)} bytes are no array {shape} of {dtype}")
    array = np.frombuffer(content, dtype).reshape(shape, order=order)
    if dtype.kind == "b":
        # Any byte but 0 and 1 would be a third truth value.
        return np.not_equal(array.view(np.uint8), 0)
    letters = np.frombuffer(content, f"{dtype.byteorder}u4") if dtype.kind == "U" else np.empty(0)
    if letters.size and letters.max() > sys.maxunicode:
        raise ValueError("text of letters that do not exist")
    return array.copy(order="K")


def _of_objects(content: Any, shape: tuple[int, ...], order: Any) -> np.ndarray:
    if not isinstance(content, list) or len(content) != math.prod(shape):
        raise ValueError(f"expected a list of {math.prod(shape)} values")
    array = np.empty(len(content), object)
    for place, value in enumerate(content):
        array[place] = value
    return array.reshape(shape, order=order)


def _shape(shape: Any, itemsize: int) -> tuple[int, ...]:
    shape = (shape,) if isinstance(shape, int) else shape
    if not isinstance(shape, tuple | list) or len(shape) > MOST_DIMENSIONS:
        raise ValueError("expected the shape of an array")
    sizes = tuple(map(_integer, shape))
    # An empty array may be endless along its other axes: what is made of it later would not be empty.
    if min(sizes, default=0) < 0 or math.prod(size or 1 for size in sizes) * itemsize > 2**62:
        raise ValueError(f"{sizes} is no shape of an array")
    return sizes


def _integer(value: Any) -> int:
    if not isinstance(value, int):
        raise ValueError(f"expected a whole number, came {type(value).__name__}")
    return value


# ---- text and containers


def _encode(text: Any, encoding: Any) -> bytes:
    """Bytes as protocol 2 writes them: text and the name of its encoding."""
    if encoding not in ("latin1", "latin-1", "utf-8"):
        raise UnsafePickleError(f"it asks for the codec {str(encoding)[:40]!r}")
    return builtins.bytes(_text(text), encoding)


def _bytes_of(kind: type[Any]) -> Callable[..., Any]:
    def make(content: Any = b"", encoding: Any = None) -> Any:
        # A number would ask for so many zeros.
        content = _encode(content, encoding) if encoding is not None else content
        if not isinstance(content, bytes | bytearray):
            raise ValueError(f"{kind.__name__} of {type(content).__name__}")
        return kind(content)

    return make


def _container(kind: type[Any]) -> Callable[..., Any]:
    def make(items: Any = ()) -> Any:
        if not isinstance(items, list | tuple):
            raise ValueError(f"{kind.__name__} of {type(items).__name__}")
        return kind(items)

    return make


def _mapping(items: Any = ()) -> dict[Any, Any]:
    if not isinstance(items, list | tuple) or any(
        not isinstance(pair, list | tuple) or len(pair) != 2 for pair in items
    ):
        raise ValueError("expected pairs")
    return {checked_key(key): value for key, value in items}


def _defaults(_factory: Any = None) -> dict[Any, Any]:
    return {}


def _complex(real: Any, imaginary: Any) -> complex:
    if not isinstance(real, float | int) or not isinstance(imaginary, float | int):
        raise ValueError("expected two numbers")
    return complex(real, imaginary)


def _slice(start: Any, stop: Any, step: Any) -> slice:
    ends = (None if end is None else _integer(end) for end in (start, stop, step))
    return slice(*ends)


def checked_key(value: Any) -> Any:
    """A value that may stand as the key of a mapping or in a set.

    Raises:
        ValueError: a container, or a tuple of more than plain values.
    """
    plain = (str, bytes, int, float, complex, bool, type(None), np.generic)
    if isinstance(value, plain) or (
        isinstance(value, tuple) and all(isinstance(part, plain) for part in value)
    ):
        return value
    raise ValueError(f"a {type(value).__name__} is no key")


def _set(items: Any = ()) -> set[Any]:
    if not isinstance(items, list | tuple):
        raise ValueError(f"set of {type(items).__name__}")
    return {checked_key(item) for item in items}


def _frozen(items: Any = ()) -> frozenset[Any]:
    return frozenset(_set(items))


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if not isinstance(value, str):
        raise ValueError(f"expected text, came {type(value).__name__}")
    return value


NDARRAY = Name("numpy", "ndarray")
NAMES = frozenset({NDARRAY})
"""Names that are arguments of others."""

CALLS: Mapping[Name, Callable[..., Any]] = {
    Name("_codecs", "encode"): _encode,
    Name("builtins", "bytearray"): _bytes_of(bytearray),
    Name("builtins", "bytes"): _bytes_of(bytes),
    Name("builtins", "complex"): _complex,
    Name("builtins", "dict"): _mapping,
    Name("builtins", "frozenset"): _frozen,
    Name("builtins", "list"): _container(list),
    Name("builtins", "set"): _set,
    Name("builtins", "slice"): _slice,
    Name("builtins", "tuple"): _container(tuple),
    Name("collections", "OrderedDict"): _mapping,
    Name("collections", "defaultdict"): _defaults,
    Name("numpy", "dtype"): _dtype,
    Name("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    Name("numpy._core.multiarray", "scalar"): _scalar,
    Name("numpy._core.numeric", "_frombuffer"): _from_buffer,
}
"""What may be called, each by a function of ours."""
