"""Files made elsewhere as plain arrays: npz, npy, HDF5 and pickles; and finding arrays inside.

Nothing is executed: npz is read without pickles, pickles through `jobs.interop.pickles`. An array is read
when it is asked for, and only after what it declares has been compared with what is there.
"""

import math
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, Any

import numpy as np

from cluster import storage
from cluster.errors import AffuseError, ConfigError, TableError
from cluster.settings import nearest
from jobs.interop import pickles
from jobs.interop.bounds import check_size
from jobs.interop.cells import composed, text_of

NAME_KEYS = ("name", "names", "id", "ids", "utt_id", "clip", "filename", "file", "video_id")
"""Where the clips' names are looked for, in this order, when nothing is said."""

SPLIT_KEYS = {
    "train": "train",
    "valid": "valid",
    "dev": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
}
"""What files call their splits -> what they are."""

BROKEN = (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError)
"""What the libraries raise of files that are cut short or are not what they say."""


class Arrays(Mapping[str, Any]):
    """Every array of a file under its path, levels joined by slashes; read when it is asked for."""

    def __init__(
        self,
        where: str,
        keys: Iterable[str],
        read: Callable[[str], Any],
        shape: Callable[[str], tuple[int, ...] | None],
    ) -> None:
        self._where, self._keys, self._read, self._shape = where, dict.fromkeys(keys), read, shape

    def __getitem__(self, key: str) -> Any:
        if key not in self._keys:
            raise KeyError(key)
        return self._guarded(self._read, key)

    def shape(self, key: str) -> tuple[int, ...] | None:
        """The shape that an array declares, without reading it."""
        shape: tuple[int, ...] | None = self._guarded(self._shape, key)
        return shape

    def _guarded(self, read: Callable[[str], Any], key: str) -> Any:
        try:
            return read(key)
        except AffuseError:
            raise
        except BROKEN as error:
            raise TableError(f"{self._where}: {key!r} is not readable: {error}") from error

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


@contextmanager
def open_arrays(file: str) -> Iterator[Mapping[str, Any]]:
    """The arrays of a file, for as long as it is open.

    Raises:
        ConfigError: not a kind of file that is read here.
        TableError: a broken one, or an array that declares more than there is.
        UnsafePickleError: a pickle asks for more than arrays and containers.
    """
    suffix = PurePosixPath(file).suffix.lower()
    if suffix not in OPENERS:
        raise ConfigError(
            f"{file}: expected npz, npy, h5, hdf5, csd, csv, tsv, jsonl, parquet, pkl or a folder"
        )
    with storage.local_copy(file) as path:
        opened = OPENERS[suffix](path, file)
        try:
            content = next(opened)
        except ConfigError as error:
            raise TableError(str(error)) from error
        except AffuseError:
            raise
        except BROKEN as error:
            raise TableError(f"{file}: not a readable {suffix} file: {error}") from error
        try:
            yield content
        finally:
            opened.close()


def _open_npz(path: str, where: str) -> Iterator[Arrays]:
    if not zipfile.is_zipfile(path):
        raise TableError(f"{where}: not a readable .npz file: it is no zip")
    with zipfile.ZipFile(path) as members, np.load(path, allow_pickle=False) as arrays:
        names = [name for name in members.namelist() if name.endswith(".npy")]
        if len(set(names)) < len(names):
            raise TableError(f"{where}: several of its arrays have one name")

        def shape(key: str) -> tuple[int, ...]:
            info = members.getinfo(f"{key}.npy")
            with members.open(info) as member:
                return _check_declared(member, info.file_size, f"{where}: {key!r}")

        def read(key: str) -> Any:
            shape(key)
            return arrays[key]

        yield Arrays(where, (name.removesuffix(".npy") for name in names), read, shape)


def _open_npy(path: str, where: str) -> Iterator[Arrays]:
    def shape(_: str) -> tuple[int, ...]:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            return _check_declared(file, size, where)

    def read(key: str) -> Any:
        shape(key)
        return np.load(path, allow_pickle=False)

    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
    yield Arrays(where, ["values"], read, shape)


def _check_declared(file: IO[bytes], size: int, where: str) -> tuple[int, ...]:
    """The shape in the header of an npy, compared with the bytes that follow it.

    Raises:
        TableError: it declares more than it holds, or more than fits into memory, or holds objects.
    """
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        header = np.lib.format.read_array_header_2_0
    shape, _, dtype = header(file)
    if dtype.hasobject:
        raise TableError(
            f"{where}: holds objects of Python, which are not read; save names as text, "
            "array.astype('U'), and features as numbers, array.astype('f4')"
        )
    declared = math.prod(shape) * dtype.itemsize
    if declared > size:
        raise TableError(f"{where}: declares {declared:,} bytes and holds {size:,}")
    check_size(declared, where)
    return tuple(shape)


def _open_pickle(path: str, where: str) -> Iterator[Mapping[str, Any]]:
    content = pickles.load(path, where=where)
    yield _flat(content) if isinstance(content, Mapping) else {"values": content}


def _open_hdf5(path: str, where: str) -> Iterator[Arrays]:
    import h5py

    found: list[str] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found.append(name)

    with h5py.File(path, "r") as file:
        file.visititems(visit)

        def read(key: str) -> Any:
            dataset = file[key]
            if dataset.external or dataset.is_virtual:
                raise TableError(
                    f"{where}: {key!r} takes its values from other files, which is never followed; "
                    "copy it into a file that holds them"
                )
            if dataset.shape is None:
                raise TableError(f"{where}: {key!r} holds nothing")
            check_size(dataset.size * dataset.dtype.itemsize, f"{where}: {key!r}")
            if h5py.check_string_dtype(dataset.dtype) is not None:
                return dataset.asstr()[()]
            return dataset[()]

        yield Arrays(where, found, read, lambda key: file[key].shape)


def _flat(content: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in content.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= _flat(value, f"{path}/")
        else:
            found[path] = value
    return found


OPENERS: Mapping[str, Callable[[str, str], Any]] = {
    ".csd": _open_hdf5,
    ".h5": _open_hdf5,
    ".hdf5": _open_hdf5,
    ".npy": _open_npy,
    ".npz": _open_npz,
    ".p": _open_pickle,
    ".pickle": _open_pickle,
    ".pkl": _open_pickle,
}


def holds_one_each(content: Mapping[str, Any], key: str, count: int) -> bool:
    """Whether an array or list has one value for each of so many clips; a large one is not read for it."""
    if isinstance(content, Arrays):
        return content.shape(key) == (count,)
    value = content[key]
    if isinstance(value, np.ndarray):
        return bool(value.shape == (count,))
    single = isinstance(value, list | tuple) and len(value) == count
    return single and not any(isinstance(item, np.ndarray | list | tuple) for item in value)


def items_of(content: Mapping[str, Any], key: str, where: str) -> Sequence[Any]:
    """An array or list, one item a clip.

    Raises:
        TableError: a single value.
    """
    value = content[key]
    if isinstance(value, np.ndarray) and value.ndim:
        return value  # type: ignore[return-value]
    if isinstance(value, list | tuple):
        return value
    raise TableError(f"{where}: {key!r} is one value, expected one a clip")


# ---- finding arrays inside


def parts_of(content: Mapping[str, Any], array: str) -> Iterator[tuple[str | None, str]]:
    """(split, key) of every array that the wanted one consists of.

    An array is there as it is named, once a split (`{split}` in its name), or in a group a split.
    """
    if array in content:
        yield None, array
        return
    pattern = array if "{split}" in array else "{split}/" + array
    for split in SPLIT_KEYS:
        key = pattern.replace("{split}", split)
        if key in content:
            yield split, key


def beside(content: Mapping[str, Any], wanted: str, key: str, split: str | None) -> str | None:
    """The key of an array that belongs to another one: in the same group, or of the same split."""
    folder = key.rpartition("/")[0]
    choices = [wanted, f"{folder}/{wanted}" if folder else wanted]
    if split is not None:
        choices += [wanted.replace("{split}", split), f"{wanted}_{split}", f"{split}/{wanted}"]
    return next((choice for choice in reversed(choices) if choice in content), None)


def find_names(
    content: Mapping[str, Any], wanted: tuple[str, ...], key: str, split: str | None
) -> tuple[str, ...]:
    """The keys of the clips' names: those that are wanted, else the usual one; none where it lacks."""
    usual = (name for name in NAME_KEYS if beside(content, name, key, split) is not None)
    return wanted or next(((name,) for name in usual), ())


def names_of(
    content: Mapping[str, Any],
    wanted: tuple[str, ...],
    name_format: str,
    key: str,
    split: str | None,
    count: int,
    *,
    where: str,
) -> list[str]:
    """The clips' names beside an array of `count` rows; by position where there are none.

    Raises:
        ConfigError: no such key.
        TableError: another number of names than rows, or a row without a name.
    """
    wanted = find_names(content, wanted, key, split)
    if not wanted:
        return [positional_name(split, index) for index in range(count)]
    columns = []
    for name in wanted:
        found = beside(content, name, key, split)
        if found is None:
            raise ConfigError(f"{where}: no array {name!r}; {near(name, content)}")
        column = [as_text(item) for item in items_of(content, found, where)]
        if len(column) != count:
            raise TableError(f"{where}: {len(column)} names in {found!r}, {count} rows in {key!r}")
        nameless = [index for index, part in enumerate(column) if not part]
        if nameless:
            raise TableError(
                f"{where}: {len(nameless)} rows of {found!r} are no name, first {nameless[0]}"
            )
        columns.append(column)
    return [formatted(parts, name_format) for parts in zip(*columns, strict=True)]


def positional_name(split: str | None, index: int) -> str:
    """Name of a row without a name: ``train_00007``, or ``00007`` without splits."""
    return f"{index:05d}" if split is None else f"{split}_{index:05d}"


def formatted(parts: Sequence[str], pattern: str) -> str:
    """Several parts of a name put together."""
    if not pattern:
        return "_".join(parts)
    for part in parts:
        pattern = pattern.replace("{}", part, 1)
    return pattern


def as_text(item: Any) -> str:
    """A name or word as text, nothing as empty text; MMSA writes lists of one, older files bytes."""
    if isinstance(item, np.ndarray | list | tuple) and len(item) == 1:
        item = item[0]
    return composed(text_of(item) or "")


def near(name: str, known: Mapping[str, Any]) -> str:
    """Hint for a key that is not there: the nearest keys."""
    return nearest(name, sorted(known)[:40])
