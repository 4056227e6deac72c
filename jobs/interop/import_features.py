"""Ready-made features, read from a file or folder of any supported format.

    npz, HDF5    arrays `clips x dim` or `clips x steps x dim`, or one array a clip under the clip's name
    npy          one array `clips x dim` or `clips x steps x dim`
    tables       CSV, TSV, JSON lines, Parquet: one row a step, or one row a clip with a list column
    pickle       the above in dicts, also a level of splits (the layout of MMSA)
    folder       one npy or table a clip, the file's name is the clip's

HDF5 groups of `features` and `intervals` (the layout of the CMU SDK) give the time of each step too.
"""

import collections
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import ConfigError, TableError
from jobs.interop.arrays import (
    as_text,
    beside,
    find_names,
    items_of,
    names_of,
    near,
    open_arrays,
    parts_of,
)
from jobs.interop.cells import composed, is_text
from jobs.interop.columns import meant
from jobs.interop.feature_tables import features_of, names_in, stacked
from jobs.interop.tables import SUFFIXES, Table, raise_faults, read_table


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where in a file the features and the clips' names stand."""

    array: str | None = None
    """Key of the features; ``{split}`` in it stands for train, valid and test."""

    names: tuple[str, ...] = ()
    """Keys of the clips' names; several are put together by `name_format`."""

    name_format: str = ""
    """E.g. ``dia{}_utt{}``; by default the parts are joined by underscores."""

    lengths: str | None = None
    """Key of the number of real steps a clip; by default ``<array>_lengths`` where it is there."""

    columns: tuple[str, ...] = ()
    """Columns of a table, wildcards allowed; by default all numbers."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """Features of named clips."""

    names: tuple[str, ...]
    values: tuple[np.ndarray, ...]
    """float32, steps x dim, one a name."""

    intervals: tuple[np.ndarray, ...] | None = None
    """float32, steps x 2: start and end of each step [s]."""

    columns: tuple[str, ...] = ()
    """Names of the dimensions, where the file has them."""

    splits: tuple[str | None, ...] = ()
    notes: tuple[str, ...] = field(default=())
    named: bool = True
    """Whether the file says whose the rows are; otherwise they are called by their places."""

    @property
    def dim(self) -> int:
        """Width of one step."""
        return int(self.values[0].shape[1])

    @property
    def content_hash(self) -> str:
        """Twelve hex digits over names, values and times; the order of clips does not matter."""
        digest = hashlib.sha256()
        order = sorted(range(len(self.names)), key=self.names.__getitem__)
        for index in order:
            array = np.ascontiguousarray(self.values[index], "<f4")
            digest.update(f"{self.names[index]}\n{array.shape}\n".encode())
            digest.update(array.tobytes())
            if self.intervals is not None:
                digest.update(np.ascontiguousarray(self.intervals[index], "<f4").tobytes())
        return digest.hexdigest()[:12]


def read_ready(file: str, layout: Layout) -> Ready:
    """Read named features from a file or folder.

    Raises:
        ConfigError: a key that is not there, naming the nearest.
        AbsentError: there is no such file.
        TableError: arrays that do not fit together, or a table with faults, all listed.
        UnsafePickleError: a pickle asks for more than arrays and containers.
    """
    if Path(file).is_dir():
        ready = _from_folder(Path(file), layout)
    elif Path(file).suffix.lower() in SUFFIXES:
        ready = _from_table(read_table(file), layout)
    else:
        with open_arrays(file) as content:
            ready = _from_mapping(content, layout, where=file)
    return _checked(ready, where=file)


# ---- mappings of arrays


def _from_mapping(content: Mapping[str, Any], layout: Layout, *, where: str) -> Ready:
    if layout.array is None and set(content) == {"values"}:
        layout = Layout(**{**vars(layout), "array": "values"})
    if layout.array is None:
        return _one_array_a_clip(content, "", where=where)
    parts = list(parts_of(content, layout.array))
    if not parts and any(key.startswith(f"{layout.array}/") for key in content):
        return _one_array_a_clip(content, f"{layout.array}/", where=where)
    if not parts:
        raise ConfigError(f"{where}: no array {layout.array!r}; {near(layout.array, content)}")
    names: list[str] = []
    values: list[np.ndarray] = []
    splits: list[str | None] = []
    notes: list[str] = []
    named = True
    for split, key in parts:
        named = named and bool(find_names(content, layout.names, key, split))
        lengths = _lengths(content, layout, key, split, notes, where=where)
        rows = _rows(content[key], lengths, notes, where=f"{where}: {key}")
        values += rows
        names += names_of(
            content, layout.names, layout.name_format, key, split, len(rows), where=where
        )
        splits += [split] * len(rows)
    return Ready(
        names=tuple(names),
        values=tuple(values),
        columns=_column_names(content, layout.array, values),
        splits=tuple(splits),
        notes=tuple(dict.fromkeys(notes)),
        named=named,
    )


def _lengths(
    content: Mapping[str, Any],
    layout: Layout,
    key: str,
    split: str | None,
    notes: list[str],
    *,
    where: str,
) -> np.ndarray | None:
    wanted = layout.lengths or f"{key.rpartition('/')[2]}_lengths"
    found = beside(content, wanted, key, split)
    if found is None:
        if layout.lengths is not None:
            raise ConfigError(f"{where}: no array {wanted!r}; {near(wanted, content)}")
        return None
    if layout.lengths is None:
        notes.append(f"number of real steps from {found!r}")
    numbers = np.asarray(items_of(content, found, where)).reshape(-1)
    if numbers.dtype.kind not in "fiu":
        raise TableError(f"{where}: lengths in {found!r} are {numbers.dtype}, expected numbers")
    if not np.isfinite(numbers).all() or (numbers < 0).any() or (numbers % 1 > 0).any():
        raise TableError(f"{where}: lengths in {found!r} are not all whole numbers from 0 on")
    return numbers.astype(np.int64)


def _rows(
    value: Any, lengths: np.ndarray | None, notes: list[str], *, where: str
) -> list[np.ndarray]:
    """One float32 array `steps x dim` a clip."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        if value.ndim not in (1, 2, 3) or value.dtype.kind not in "fiub" or not value.size:
            raise TableError(
                f"{where}: expected numbers, clips x dim or clips x steps x dim; "
                f"came {value.dtype} of shape {value.shape}"
            )
        if _are_token_ids(value):
            raise TableError(
                f"{where}: holds token ids, a mask and segments of a text model ({value.shape}), no "
                "features; take the array of its embeddings"
            )
        array = value.astype(np.float32)
        rows = list(array.reshape(len(array), -1, array.shape[-1] if array.ndim > 1 else 1))
    elif isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim):
        rows = [_two_dimensional(item, where=where) for item in value]
    else:
        raise TableError(f"{where}: expected numbers, came {type(value).__name__}")
    if lengths is not None:
        if len(lengths) != len(rows):
            raise TableError(f"{where}: {len(lengths)} lengths, {len(rows)} clips")
        longer = sum(length > len(row) for row, length in zip(rows, lengths, strict=True))
        if longer:
            notes.append(f"{longer} lengths are above the number of steps; all steps are taken")
        rows = [row[: int(length)] for row, length in zip(rows, lengths, strict=True)]
    return rows


def _are_token_ids(value: np.ndarray) -> bool:
    """Whether an array `clips x 3 x length` is what a text model reads: ids, mask, segments."""
    if value.ndim != 3 or value.shape[1] != 3:
        return False
    ids, mask, segments = (value[:, k] for k in range(3))
    flags = all(np.isin(part, (0, 1)).all() for part in (mask, segments))
    return bool(flags and (ids >= 0).all() and (ids % 1 == 0).all() and ids.max() > 1)


def _two_dimensional(item: Any, *, where: str) -> np.ndarray:
    try:
        array = np.asarray(item)
        words = array.dtype.kind == "O" and any(isinstance(v, str | bytes) for v in array.flat)
        if words or array.dtype.kind not in "fiubO":
            raise TypeError
        array = array.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise TableError(f"{where}: expected numbers, came {type(item).__name__}") from error
    if array.ndim not in (1, 2):
        raise TableError(f"{where}: expected steps x dim a clip, came shape {array.shape}")
    return array.reshape(-1, array.shape[-1]) if array.size else array.reshape(0, array.shape[-1])


def _one_array_a_clip(content: Mapping[str, Any], prefix: str, *, where: str) -> Ready:
    """Keys are clips: arrays, or groups of `features` and `intervals`."""
    inside = {key.removeprefix(prefix): key for key in content if key.startswith(prefix)}
    grouped = {key.removesuffix("/features"): key for key in inside if key.endswith("/features")}
    keys = grouped or {key: key for key in inside}
    values, intervals = [], []
    for name, key in keys.items():
        values.append(_two_dimensional(content[inside[key]], where=f"{where}: {key}"))
        times = inside.get(f"{name}/intervals") if grouped else None
        intervals.append(None if times is None else _intervals(content[times], values[-1], where))
    if len({array.shape[1] for array in values}) > 1:
        widths = [f"{name} {array.shape[1]}" for name, array in zip(keys, values, strict=True)]
        raise ConfigError(
            f"{where}: which array? type: --array KEY; or, where each is a clip, give them one width "
            f"(steps x dim); widths are: {', '.join(widths[:12])}"
        )
    complete = [times for times in intervals if times is not None]
    return Ready(
        names=tuple(keys),
        values=tuple(values),
        intervals=tuple(complete) if values and len(complete) == len(values) else None,
    )


def _intervals(value: Any, steps: np.ndarray, where: str) -> np.ndarray:
    times = _two_dimensional(value, where=where)
    if times.shape != (len(steps), 2):
        raise TableError(f"{where}: intervals of shape {times.shape}, expected ({len(steps)}, 2)")
    return times


def _column_names(
    content: Mapping[str, Any], array: str, values: Sequence[np.ndarray]
) -> tuple[str, ...]:
    """Names of the dimensions from ``<array>_names`` or ``<stem>_names``, where their number fits."""
    stems = [array, array.partition("_")[0]]
    for key in (f"{stem}_names" for stem in stems):
        if key in content and values and np.shape(content[key]) == (values[0].shape[1],):
            return tuple(as_text(item) for item in content[key])
    return ()


# ---- tables and folders


def _from_table(table: Table, layout: Layout) -> Ready:
    names, keys = names_in(table, layout.names, layout.name_format)
    if layout.array is not None:
        if layout.array not in table.columns:
            raise ConfigError(
                f"{table.where}: no column {layout.array!r}; {meant(layout.array, table.columns)}"
            )
        raise_faults(table.faults, table.where)
        column = table.columns[layout.array]
        cells = column if isinstance(column, list) else column.to_pylist()
        where = f"{table.where}: {layout.array}"
        lists = [None if cell is None else _two_dimensional(cell, where=where) for cell in cells]
        dim = next((steps.shape[1] for steps in lists if steps is not None), 0)
        nothing = np.zeros((0, dim), np.float32)
        values = tuple(nothing if steps is None else steps for steps in lists)
        return Ready(names=tuple(names), values=values)
    found = features_of(table, names, keys, layout.columns)
    return Ready(**vars(found))


def _from_folder(folder: Path, layout: Layout) -> Ready:
    """One file a clip: arrays, or tables that all have the same columns."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".npy", *SUFFIXES))
    arrays = [path for path in files if path.suffix.lower() == ".npy"]
    if not files:
        raise ConfigError(f"{folder}: expected files NAME.npy or NAME.csv, one a clip")
    if arrays and len(arrays) < len(files):
        raise TableError(f"{folder}: holds arrays and tables; expected files of one kind")
    if not arrays:
        table, names = stacked([read_table(str(path)) for path in files], folder)
        return Ready(**vars(features_of(table, names, (), layout.columns)))
    values = []
    for path in arrays:
        with open_arrays(str(path)) as content:
            values.append(_two_dimensional(content["values"], where=str(path)))
    return Ready(names=tuple(composed(path.stem) for path in arrays), values=tuple(values))


# ---- checks


def _checked(ready: Ready, *, where: str) -> Ready:
    if not ready.names:
        raise TableError(f"{where}: no clips inside")
    broken = [name for name in (*ready.names, *ready.columns) if not is_text(name)]
    if broken:
        raise TableError(
            f"{where}: some names ({len(broken)}) hold bytes that are no text: {broken[0]!r}"
        )
    counts = collections.Counter(ready.names)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise TableError(
            f"{where}: some names ({len(twice)}) stand there twice: {', '.join(twice[:10])}"
        )
    widths = sorted({array.shape[1] for array in ready.values})
    if len(widths) > 1 or widths == [0]:
        raise TableError(f"{where}: expected one width for all clips, came {widths}")
    return ready
