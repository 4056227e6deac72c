"""Files of strangers as plain arrays: npz, npy, HDF5, pickles, CSV and Parquet.

Nothing is executed: npz is read without pickles, pickles through `jobs._pickles`.
"""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cluster import storage
from cluster.errors import AffuseError, ConfigError
from jobs import _pickles


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
    content = _pickles.loads(Path(path).read_bytes(), where=where)
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
