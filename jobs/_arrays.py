"""Files of strangers as plain arrays: npz, npy, HDF5, pickles, CSV and Parquet; and finding them inside.

Nothing is executed: npz is read without pickles, pickles through `jobs.interop.pickles`.
"""

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cluster import storage
from cluster.errors import AffuseError, ConfigError
from cluster.settings import nearest
from jobs.interop import pickles

NAME_KEYS = ("name", "names", "id", "ids", "utt_id", "clip", "filename", "file", "video_id")
"""Where the clips' names are looked for, in this order, when nothing is said."""

SPLIT_KEYS = {"train": "train", "valid": "valid", "dev": "valid", "val": "valid", "test": "test"}
"""What files call their splits -> what they are."""


def read_mapping(file: str) -> dict[str, Any]:
    """Every array of a file under its path, levels joined by slashes.

    Raises:
        ConfigError: not a kind of file that is read here, or a broken one.
        UnsafePickleError: a pickle asks for more than arrays and containers.
    """
    suffix = Path(file).suffix.lower()
    if suffix not in READERS:
        raise ConfigError(
            f"{file}: expected npz, npy, h5, hdf5, csd, csv, tsv, parquet, pkl or a folder"
        )
    with storage.local_copy(file) as path:
        try:
            return READERS[suffix](path, file)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            if isinstance(error, AffuseError):
                raise
            raise ConfigError(f"{file}: not a readable {suffix} file: {error}") from error


def _read_npz(path: str, _: str) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def _read_npy(path: str, _: str) -> dict[str, Any]:
    return {"values": np.load(path, allow_pickle=False)}


def _read_pickle(path: str, where: str) -> dict[str, Any]:
    content = pickles.load(path, where=where)
    return _flat(content) if isinstance(content, Mapping) else {"values": content}


def _read_hdf5(path: str, _: str) -> dict[str, Any]:
    import h5py

    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            value = item[()]
            if h5py.check_string_dtype(item.dtype) is not None:
                value = item.asstr()[()]
            found[name] = value

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found


def _flat(content: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in content.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= _flat(value, f"{path}/")
        else:
            found[path] = value
    return found


READERS: Mapping[str, Callable[[str, str], dict[str, Any]]] = {
    ".csd": _read_hdf5,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".p": _read_pickle,
    ".pickle": _read_pickle,
    ".pkl": _read_pickle,
}


def read_columns(file: str) -> dict[str, list[Any]]:
    """The columns of a CSV, TSV or Parquet file; spaces around the names are dropped."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    if file.lower().endswith(".parquet"):
        table = storage.read_table(file)
    else:
        options = pa_csv.ParseOptions(
            delimiter="\t" if file.lower().endswith(".tsv") else ",", newlines_in_values=True
        )
        with storage.local_copy(file) as path:
            try:
                table = pa_csv.read_csv(path, parse_options=options)
            except pa.ArrowInvalid as error:
                raise ConfigError(f"{file}: not a readable table: {error}") from error
    return {name.strip(): table[name].to_pylist() for name in table.column_names}


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
        ConfigError: no such key, or another number of names than rows.
    """
    wanted = wanted or next(
        ((name,) for name in NAME_KEYS if beside(content, name, key, split) is not None), ()
    )
    if not wanted:
        return [positional_name(split, index) for index in range(count)]
    columns = []
    for name in wanted:
        found = beside(content, name, key, split)
        if found is None:
            raise ConfigError(f"{where}: no array {name!r}; {near(name, content)}")
        column = [as_text(item) for item in content[found]]
        if len(column) != count:
            raise ConfigError(f"{where}: {len(column)} names in {found!r}, {count} rows in {key!r}")
        columns.append(column)
    return [formatted(parts, name_format) for parts in zip(*columns, strict=True)]


def positional_name(split: str | None, index: int) -> str:
    """What a row without a name is called: ``train_00007``, or ``00007`` without splits."""
    return f"{index:05d}" if split is None else f"{split}_{index:05d}"


def formatted(parts: Sequence[str], pattern: str) -> str:
    """Several parts of a name put together."""
    if not pattern:
        return "_".join(parts)
    for part in parts:
        pattern = pattern.replace("{}", part, 1)
    return pattern


def as_text(item: Any) -> str:
    """A name as text; MMSA writes lists of one, older files bytes."""
    if isinstance(item, np.ndarray | list | tuple) and len(item) == 1:
        item = item[0]
    if isinstance(item, bytes):
        return item.decode("utf-8", "replace")
    if isinstance(item, float | np.floating) and float(item).is_integer():
        return str(int(item))
    return str(item)


def near(name: str, known: Mapping[str, Any]) -> str:
    """What to say about a key that is not there."""
    return nearest(name, sorted(known)[:40])
