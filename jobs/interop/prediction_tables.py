"""Predictions made elsewhere as a frame: names stay text, every fault of the file is listed at once."""

import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from cluster.console import readable
from cluster.errors import ConfigError
from cluster.tables import ROLES
from fusion.tasks import Task
from jobs.interop.arrays import items_of, open_arrays
from jobs.interop.cells import name_of
from jobs.interop.columns import meant, unread_note
from jobs.interop.tables import SUFFIXES, Table, raise_faults, read_table

T = TypeVar("T")


def read_frame(file: str, task: Task) -> pd.DataFrame:
    """The rows of a file: `clip_id` or `name`, `fold`, `role` and the columns of scores.

    Args:
        file: Parquet, CSV, TSV, JSON lines, or npz with one array a column.
        task: whose scores they are: a column a class, or `value`.

    Raises:
        ConfigError: a format that is not offered.
        AbsentError: there is no such file.
        TableError: columns that are not there, cells that are not what they should be, all listed.
    """
    table = _table(file)
    faults = list(table.faults)
    key = "clip_id" if "clip_id" in table.columns else "name"
    scores = score_columns(table.columns, task)
    wanted = [key, "fold", "role", *scores]
    missing = [column for column in wanted if column not in table.columns]
    if missing:
        hints = "; ".join(meant(column, table.columns) for column in missing[:3])
        named = ["name (or clip_id)" if column == "name" else column for column in missing]
        raise_faults([*faults, f"columns {named} are missing; {hints}"], file)
    columns: dict[str, Sequence[Any]] = {
        key: _whole(table, key, faults) if key == "clip_id" else _names(table, faults),
        "fold": _whole(table, "fold", faults),
        "role": _checked(table.texts("role"), "role", faults, _role, f"one of {', '.join(ROLES)}"),
        **{name: _scores(table, name, task, faults) for name in scores},
    }
    table.notes += filter(None, [unread_note([c for c in table.columns if c not in wanted])])
    if table.note:
        print(readable(table.note))
    raise_faults(faults, file)
    return pd.DataFrame(columns)


def score_columns(header: Sequence[str] | Any, task: Task) -> list[str]:
    """The columns that hold the scores of a task: logits where all of them are there."""
    if task.kind == "regression":
        return ["value"]
    logits = [f"logit_{name}" for name in task.classes]
    return logits if all(name in header for name in logits) else list(task.classes)


def _table(file: str) -> Table:
    suffix = PurePosixPath(file).suffix.lower()
    if suffix in SUFFIXES:
        return read_table(file)
    if suffix != ".npz":
        raise ConfigError(f"{file}: predictions come as npz, {', '.join(SUFFIXES)}")
    with open_arrays(file) as content:
        arrays = {key: items_of(content, key, file) for key in content}
    sizes = {key: len(array) for key, array in arrays.items()}
    faults = [] if len(set(sizes.values())) < 2 else [f"arrays of different length: {sizes}"]
    deep = [key for key, array in arrays.items() if np.ndim(array) != 1]
    faults += [
        f"{key!r} has shape {np.shape(arrays[key])}, expected one value a row" for key in deep
    ]
    raise_faults(faults, file)
    columns = {key: list(array) for key, array in arrays.items()}
    return Table(where=file, columns=columns, num_rows=next(iter(sizes.values()), 0))


def _names(table: Table, faults: list[str]) -> list[str]:
    names = [name_of(cell) for cell in table.cells("name")]
    return _checked(names, "name", faults, str, "the name of a clip")


def _whole(table: Table, column: str, faults: list[str]) -> list[int]:
    """Whole numbers; ids are longer than what floating point holds, so they never pass through it."""
    return _checked(table.texts(column), column, faults, _int, "a whole number")


def _checked(
    cells: Sequence[str | None], column: str, faults: list[str], read: Callable[[str], T], what: str
) -> list[T]:
    found = []
    for row, cell in enumerate(cells, 1):
        try:
            found.append(read(cell or ""))
            if not cell:
                raise ValueError
        except ValueError:
            faults.append(f"row {row}: {column} {cell!r}; expected {what}")
    return found


def _int(cell: str) -> int:
    return int(re.sub(r"\.0+$", "", cell))


def _role(cell: str) -> str:
    if cell not in ROLES:
        raise ValueError
    return cell


def _scores(table: Table, name: str, task: Task, faults: list[str]) -> Sequence[float]:
    """Finite numbers; probabilities lie between 0 and 1."""
    found = table.numbers(name)
    wrong = ~np.isfinite(found.values)
    what = "a number"
    if task.kind != "regression" and not name.startswith("logit_"):
        wrong |= (found.values < 0) | (found.values > 1 + 1e-6)
        what = "a probability from 0 to 1"
    cells = table.texts(name) if wrong.any() else []
    faults += [
        f"row {row + 1}: {name} {cells[row]!r}; expected {what}"
        for row in np.flatnonzero(wrong).tolist()
    ]
    return list(found.values)
