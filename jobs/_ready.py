"""Features that people already have, read from whatever file they lie in.

    npz, HDF5    arrays `clips x dim` or `clips x steps x dim`, or one array a clip under the clip's name
    npy          one array `clips x dim` or `clips x steps x dim`
    CSV, Parquet one row a step, or one row a clip with a list column
    pickle       the above in dicts, also a level of splits (the layout of MMSA)
    folder       one npy or csv a clip, the file's name is the clip's

HDF5 groups of `features` and `intervals` (the layout of the CMU SDK) give the time of each step too.
"""

import collections
import fnmatch
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cluster import storage
from cluster.errors import ConfigError
from jobs._arrays import (
    NAME_KEYS,
    as_text,
    beside,
    formatted,
    names_of,
    near,
    parts_of,
    read_columns,
    read_mapping,
)


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
    """Columns of a CSV or Parquet file, wildcards allowed; by default all numbers."""


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
        ConfigError: a key that is not there (naming the nearest), or arrays that do not fit together.
        UnsafePickleError: a pickle asks for more than arrays and containers.
    """
    if not storage.exists(file):
        raise ConfigError(f"{file}: there is no such file")
    suffix = Path(file).suffix.lower()
    if Path(file).is_dir():
        ready = _from_folder(Path(file), layout)
    elif suffix in (".csv", ".tsv", ".parquet"):
        ready = _from_table(read_columns(file), layout, where=file)
    else:
        ready = _from_mapping(read_mapping(file), layout, where=file)
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
    for split, key in parts:
        lengths = _lengths(content, layout, key, split, notes, where=where)
        rows = _rows(content[key], lengths, where=f"{where}: {key}")
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
    numbers = np.asarray(content[found]).reshape(-1)
    if numbers.dtype.kind not in "fiu":
        raise ConfigError(f"{where}: lengths in {found!r} are {numbers.dtype}, expected numbers")
    return numbers.astype(np.int64)


def _rows(value: Any, lengths: np.ndarray | None, *, where: str) -> list[np.ndarray]:
    """One float32 array `steps x dim` a clip."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        if value.ndim not in (1, 2, 3) or value.dtype.kind not in "fiub":
            raise ConfigError(
                f"{where}: expected numbers, clips x dim or clips x steps x dim; "
                f"came {value.dtype} of shape {value.shape}"
            )
        array = value.astype(np.float32)
        rows = list(array.reshape(len(array), -1, array.shape[-1] if array.ndim > 1 else 1))
    else:
        rows = [_two_dimensional(item, where=where) for item in value]
    if lengths is not None:
        if len(lengths) != len(rows):
            raise ConfigError(f"{where}: {len(lengths)} lengths, {len(rows)} clips")
        rows = [row[: int(length)] for row, length in zip(rows, lengths, strict=True)]
    return rows


def _two_dimensional(item: Any, *, where: str) -> np.ndarray:
    try:
        array = np.asarray(item, np.float32)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: expected numbers, came {type(item).__name__}") from error
    if array.ndim not in (1, 2):
        raise ConfigError(f"{where}: expected steps x dim a clip, came shape {array.shape}")
    return array.reshape(-1, array.shape[-1])


def _one_array_a_clip(content: Mapping[str, Any], prefix: str, *, where: str) -> Ready:
    """Keys are clips: arrays, or groups of `features` and `intervals`."""
    inside = {key.removeprefix(prefix): v for key, v in content.items() if key.startswith(prefix)}
    grouped = {key.removesuffix("/features"): key for key in inside if key.endswith("/features")}
    keys = grouped or {key: key for key in inside}
    values, intervals = [], []
    for name, key in keys.items():
        values.append(_two_dimensional(inside[key], where=f"{where}: {key}"))
        times = inside.get(f"{name}/intervals") if grouped else None
        intervals.append(None if times is None else _two_dimensional(times, where=where))
    if len({array.shape[1] for array in values}) > 1:
        known = ", ".join(sorted(inside)[:12])
        raise ConfigError(f"{where}: which array? type: --array KEY; there are: {known}")
    complete = [times for times in intervals if times is not None]
    return Ready(
        names=tuple(keys),
        values=tuple(values),
        intervals=tuple(complete) if values and len(complete) == len(values) else None,
    )


def _column_names(
    content: Mapping[str, Any], array: str, values: Sequence[np.ndarray]
) -> tuple[str, ...]:
    """Names of the dimensions from ``<array>_names`` or ``<stem>_names``, where their number fits."""
    stems = [array, array.partition("_")[0]]
    for key in (f"{stem}_names" for stem in stems):
        if key in content and values and len(content[key]) == values[0].shape[1]:
            return tuple(as_text(item) for item in content[key])
    return ()


# ---- tables and folders


def _from_table(columns: Mapping[str, list[Any]], layout: Layout, *, where: str) -> Ready:
    names = layout.names or next(((key,) for key in NAME_KEYS if key in columns), ())
    if not names:
        raise ConfigError(
            f"{where}: which column names the clips? type: --names COLUMN; {near('name', columns)}"
        )
    for name in names:
        if name not in columns:
            raise ConfigError(f"{where}: no column {name!r}; {near(name, columns)}")
    rows = zip(*(columns[name] for name in names), strict=True)
    keys = [formatted([as_text(part) for part in row], layout.name_format) for row in rows]
    if layout.array is not None:
        if layout.array not in columns:
            raise ConfigError(f"{where}: no column {layout.array!r}; {near(layout.array, columns)}")
        lists = [
            _two_dimensional(item, where=f"{where}: {layout.array}")
            for item in columns[layout.array]
        ]
        return Ready(names=tuple(keys), values=tuple(lists))
    chosen = _chosen(columns, layout.columns, excluded=names, where=where)
    matrix = np.array([columns[name] for name in chosen], np.float32).T
    steps: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        steps.setdefault(key, []).append(index)
    return Ready(
        names=tuple(steps),
        values=tuple(matrix[indices] for indices in steps.values()),
        columns=tuple(chosen),
    )


def _chosen(
    columns: Mapping[str, list[Any]],
    patterns: Sequence[str],
    *,
    excluded: Sequence[str],
    where: str,
) -> list[str]:
    """Columns that fit the patterns, in the file's order; without patterns all that hold numbers."""
    numeric = [
        name
        for name, values in columns.items()
        if name not in excluded
        and all(isinstance(value, int | float | None) for value in values[:100])
    ]
    for pattern in patterns:
        if not fnmatch.filter(columns, pattern):
            raise ConfigError(f"{where}: no column {pattern!r}; {near(pattern, columns)}")
    chosen = [
        name
        for name in numeric
        if not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    ]
    if not chosen:
        raise ConfigError(f"{where}: no column of numbers among {', '.join(columns)}")
    return chosen


def _from_folder(folder: Path, layout: Layout) -> Ready:
    """One file a clip."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".npy", ".csv"))
    if not files:
        raise ConfigError(f"{folder}: expected files NAME.npy or NAME.csv, one a clip")
    values: list[np.ndarray] = []
    columns: tuple[str, ...] = ()
    for path in files:
        if path.suffix == ".npy":
            array = np.load(path, allow_pickle=False)
            values.append(_two_dimensional(array, where=str(path)))
        else:
            table = read_columns(str(path))
            chosen = _chosen(table, layout.columns, excluded=(), where=str(path))
            values.append(np.array([table[name] for name in chosen], np.float32).T)
            columns = tuple(chosen)
    return Ready(names=tuple(path.stem for path in files), values=tuple(values), columns=columns)


# ---- checks


def _checked(ready: Ready, *, where: str) -> Ready:
    if not ready.names:
        raise ConfigError(f"{where}: no clips inside")
    counts = collections.Counter(ready.names)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise ConfigError(f"{where}: {len(twice)} names stand there twice: {', '.join(twice[:10])}")
    widths = sorted({array.shape[1] for array in ready.values})
    if len(widths) > 1 or widths == [0]:
        raise ConfigError(f"{where}: expected one width for all clips, came {widths}")
    return ready
