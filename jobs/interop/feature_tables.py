"""Features in tables: a row a step, or a row a clip; the columns that count as features are printed."""

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from cluster.errors import ConfigError, TableError
from jobs.interop.arrays import NAME_KEYS, formatted
from jobs.interop.cells import Column, composed, name_of, texts
from jobs.interop.columns import meant, near_roles, unread_note
from jobs.interop.tables import Table, raise_faults

INDEX_NAME = re.compile(r"\(column \d+\)|Unnamed: \d+.*|index|level_\d+|__index_level_\d+__")
"""What an index is called when a table of pandas or R is written."""

FEWEST_COUNTED = 4
"""A column that counts 0, 1, 2 ... over so many rows is an index; over fewer it may be chance."""

TRUTH = {"True": "1", "true": "1", "TRUE": "1", "False": "0", "false": "0", "FALSE": "0"}


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a table holds."""

    names: tuple[str, ...]
    values: tuple[np.ndarray, ...]
    """float32, steps x dim, one a name."""

    columns: tuple[str, ...]
    notes: tuple[str, ...]


def names_in(table: Table, wanted: Sequence[str], name_format: str) -> tuple[list[str], list[str]]:
    """The clip's name in every row, and the columns that say it.

    Raises:
        ConfigError: a column that was named is not there.
        TableError: no column names the clips, or a row without a name.
    """
    header = list(table.columns)
    keys = list(wanted) or [key for key in NAME_KEYS if key in table.columns][:1]
    if not keys:
        near = near_roles(header, ["name"]).get("name", [])
        hint = (
            f"type: --names {near[0]}" if near else f"type: --names COLUMN; {meant('name', header)}"
        )
        raise_faults([*table.faults, f"which column names the clips? {hint}"], table.where)
    for key in keys:
        if key not in table.columns:
            raise ConfigError(f"{table.where}: no column {key!r}; {meant(key, header)}")
    parts = [[name_of(cell) for cell in texts(table.columns[key])] for key in keys]
    nameless = [k for k, row in enumerate(zip(*parts, strict=True), 1) if None in row]
    table.faults += [f"row {k}: has no name" for k in nameless]
    rows = zip(*parts, strict=True)
    return [formatted([part or "" for part in row], name_format) for row in rows], keys


def stacked(tables: Sequence[Table], folder: Path) -> tuple[Table, list[str]]:
    """Tables of single clips as one, and the clip of every row.

    Raises:
        TableError: files of other columns than the first, and all faults of each.
    """
    first, header = Path(tables[0].where).name, list(tables[0].columns)
    others = [Path(table.where).name for table in tables if list(table.columns) != header]
    faults = [f"{Path(t.where).name}: {fault}" for t in tables for fault in t.faults]
    if others:
        some = ", ".join(others[:10])
        faults.append(f"{len(others)} files have other columns than {first}: {some}")
    raise_faults(faults, str(folder))
    names = [composed(Path(t.where).stem) for t in tables for _ in range(t.num_rows)]
    table = Table(
        where=str(folder),
        columns={name: _joined([table.columns[name] for table in tables]) for name in header},
        num_rows=len(names),
        notes=list(dict.fromkeys(note for table in tables for note in table.notes)),
        commas=any(table.commas for table in tables),
    )
    return table, names


def _joined(columns: Sequence[Column]) -> Column:
    arrow = [column for column in columns if not isinstance(column, list)]
    if len(arrow) < len(columns) or len({str(column.type) for column in arrow}) > 1:
        lists = (c if isinstance(c, list) else c.to_pylist() for c in columns)
        return [cell for cells in lists for cell in cells]
    return pa.chunked_array([chunk for column in arrow for chunk in column.chunks], arrow[0].type)


def features_of(
    table: Table, names: Sequence[str], keys: Sequence[str], patterns: Sequence[str]
) -> Found:
    """The columns of numbers, rows of one name as its steps.

    Args:
        table: the file.
        names: the clip of every row.
        keys: columns that are names.
        patterns: columns that are meant, wildcards allowed; without any all that hold numbers.

    Raises:
        TableError: listing every column that is numbers in part only, and every fault of the file.
        ConfigError: a pattern that no column fits.
    """
    for pattern in patterns:
        if not fnmatch.filter(table.columns, pattern):
            raise ConfigError(
                f"{table.where}: no column {pattern!r}; {meant(pattern, table.columns)}"
            )
    rows_of: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        rows_of.setdefault(name, []).append(index)
    position, first = np.zeros((2, len(names)), np.int64)
    for rows in rows_of.values():
        position[rows], first[rows] = np.arange(len(rows)), rows[0]
    columns: dict[str, np.ndarray] = {}
    unread: list[str] = []
    for name in table.columns:
        if name in keys:
            continue
        wanted = any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        if patterns and not wanted:
            unread.append(name)
            continue
        values = _numbers(table, name, wanted=wanted)
        if values is None:
            unread.append(f"{name} (no numbers)")
        elif not wanted and _is_index(name, values, position, first):
            unread.append(f"{name} (an index)")
        else:
            columns[name] = values
    note = unread_note(unread)
    notes = [*filter(None, [table.note, note])]
    raise_faults(table.faults, table.where)
    if not table.num_rows:
        raise TableError(f"{table.where}: no clips inside")
    if not columns:
        raise TableError(f"{table.where}: no column of numbers; {note or 'it holds names only'}")
    if len(rows_of) < len(names):
        counts = sorted({len(rows) for rows in rows_of.values()})
        steps = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
        notes.append(f"rows of one name are its steps: {steps} steps a clip")
    matrix = np.stack(list(columns.values()), axis=1)
    return Found(
        names=tuple(rows_of),
        values=tuple(matrix[rows] for rows in rows_of.values()),
        columns=tuple(columns),
        notes=tuple(notes),
    )


def _numbers(table: Table, name: str, *, wanted: bool) -> np.ndarray | None:
    """A column as float32, nan where nothing stands; None where it is words, and not meant to be more."""
    found = table.numbers(name)
    there = ~found.missing
    if found.wrong.any():
        cells = table.texts(name)
        if all(cell is None or cell in TRUTH for cell in cells):
            return np.array([np.nan if c is None else float(TRUTH[c]) for c in cells], np.float32)
        count = int(found.wrong.sum())
        if not wanted and count == int(there.sum()) and not found.doubtful:
            return None
        first = int(np.flatnonzero(found.wrong)[0])
        why = " (commas of thousands or of fractions?)" if found.doubtful else ""
        table.faults.append(
            f"column {name!r}: {count} of {int(there.sum())} cells are no numbers{why}, first "
            f"{cells[first]!r} in row {first + 1}; mend them, or choose by --columns"
        )
        return None
    if not there.any() and not wanted:
        return None
    return found.values.astype(np.float32)


def _is_index(name: str, values: np.ndarray, position: np.ndarray, first: np.ndarray) -> bool:
    """Whether a column counts the rows, or the steps of each clip, or is called as indices are.

    Args:
        name: of the column.
        values: its numbers [row].
        position: of each row among those of its clip, from 0 [row].
        first: the first row of its clip [row].
    """
    if INDEX_NAME.fullmatch(name):
        return True
    rows = np.arange(len(values))
    counted = [(rows, np.zeros_like(rows))]  # over all rows, from 0 or 1
    if len(rows) and position.max() + 1 >= FEWEST_COUNTED:
        counted.append((position, first))  # over the steps of each clip
    return len(rows) >= FEWEST_COUNTED and any(
        bool(np.isin(values[start], (0, 1)).all() and (values - values[start] == place).all())
        for place, start in counted
    )
