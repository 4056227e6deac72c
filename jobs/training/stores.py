"""Feature tables as arrays of steps, read piece by piece: the one decoder of FEATURES for nets.

The steps of an input lie behind one another in the order of the clips, in memory or, above a budget, in a
memory-mapped file that nothing holds whole: neither the table that is read nor the file that is written.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from cluster.errors import NotPreparedError, SchemaError
from cluster.tables import lengths_of, scalars_of, vectors_of
from fusion.predictor import Pool
from jobs.catalog.features import FeatureReader
from jobs.training.feeds import Store, pooled
from jobs.training.mapped import StepArray, in_memory

VALUES = "values"
"""Column of FEATURES that nets read; a side column may stand in its place."""


class FeatureTable(Protocol):
    """FEATURES of some clips, readable piece by piece and more than once."""

    @property
    def name(self) -> str:
        """How messages call it."""

    @property
    def schema(self) -> pa.Schema:
        """Its columns."""

    @property
    def is_part(self) -> bool:
        """Whether it holds some clips of many: that they are damaged tells nothing of the others."""

    def pieces(self, columns: list[str], *, lean: bool = False) -> Iterator[pa.Table]:
        """Rows of the clips in any order; `lean`: slower, and never much in memory."""


class StoredTable:
    """A feature table under a root.

    Raises:
        NotPreparedError: clips of the manifest have no row.
    """

    is_part = False

    def __init__(self, root: str, folder: str, clip_ids: np.ndarray) -> None:
        self._reader, self._clip_ids = FeatureReader(root, folder), clip_ids

    @property
    def name(self) -> str:
        """The folder."""
        return self._reader.folder

    @property
    def schema(self) -> pa.Schema:
        """Its columns."""
        return self._reader.schema

    def pieces(self, columns: list[str], *, lean: bool = False) -> Iterator[pa.Table]:
        """Rows as they are stored."""
        return self._reader.pieces(self._clip_ids, columns, lean=lean)


@dataclass(frozen=True)
class HeldTable:
    """A feature table that is in memory already, of the clips that are in hand."""

    name: str
    table: pa.Table

    @property
    def is_part(self) -> bool:
        """It is."""
        return True

    @property
    def schema(self) -> pa.Schema:
        """Its columns."""
        return self.table.schema

    def pieces(self, columns: list[str], *, lean: bool = False) -> Iterator[pa.Table]:
        """The table whole."""
        yield self.table.select(columns)


Allocate = Callable[[tuple[int, int], Any], StepArray]
"""(shape, type) -> where the steps of an input are written."""


def has_one_step(table: FeatureTable) -> bool:
    """Whether no clip of a table has more than one step."""
    return all(
        int(_steps_of(piece).max(initial=0)) <= 1 for piece in table.pieces(["clip_id", "valid"])
    )


def store_of(
    table: FeatureTable,
    clip_ids: np.ndarray,
    pool: Pool,
    allocate: Allocate = in_memory,
    *,
    writable: bool = False,
    column: str = VALUES,
) -> Store:
    """One input of some clips.

    Args:
        table: its rows; clips without a row, or whose row failed, have no steps.
        clip_ids: the clips, ascending.
        pool: reduction of a clip's steps.
        allocate: gives the array, in memory or mapped.
        writable: as float32, because the values will be changed in place.
        column: what is read of a step.

    Raises:
        SchemaError: a row whose values and `valid` are not of one length.
        NotPreparedError: no clip of a whole table has a finite number.
    """
    lengths = np.zeros(len(clip_ids), np.int64)
    for piece in table.pieces(["clip_id", "valid"]):
        lengths[_rows(piece, clip_ids)] = _steps_of(piece)
    if pool == "mean" and bool((lengths <= 1).all()):
        pool = "none"  # the mean of one step is that step
    step = table.schema.field(column).type.value_type
    dim, kind = step.list_size, step.value_type.to_pandas_dtype()
    if pool != "none":
        lengths = np.minimum(lengths, 1)
        dim = dim * (2 if pool == "mean_std" else 1)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    steps = allocate(
        (int(offsets[-1]), dim), kind if pool == "none" and not writable else np.float32
    )
    filling = _Filling(table.name, clip_ids, offsets, pool, steps)
    for piece in table.pieces(["clip_id", column, "valid"], lean=steps.is_mapped):
        filling.add(piece.rename_columns({column: VALUES}))
    filling.check(is_part=table.is_part)
    return Store.of_steps(steps, filling.valid, offsets)


def steps_in(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """How many valid steps of each row of FEATURES are finite, and how many are not [row]."""
    values, valid = _steps(table)
    finite = _finite(values)
    row = np.repeat(np.arange(table.num_rows), _steps_of(table))
    there, damaged = (
        np.bincount(row[valid & those], minlength=table.num_rows) for those in (finite, ~finite)
    )
    return there, damaged


class _Filling:
    """Writes the pieces of a table where their clips belong.

    A step with a number that is not finite counts as not there: one damaged clip does not stop the others.
    """

    def __init__(
        self, name: str, clip_ids: np.ndarray, offsets: np.ndarray, pool: Pool, steps: StepArray
    ) -> None:
        self.name, self.clip_ids, self.offsets = name, clip_ids, offsets
        self.pool, self.steps = pool, steps
        self.valid = np.zeros(int(offsets[-1]), bool)
        self.damaged: dict[int, int] = {}
        """Clip -> how many of its steps are not finite."""

    def add(self, piece: pa.Table) -> None:
        """The clips of one piece."""
        rows, counts = _rows(piece, self.clip_ids), _steps_of(piece)
        self._check_lengths(piece, rows, counts)
        values, valid = _steps(piece)
        finite = _finite(values)
        if not finite.all():
            broken = np.repeat(rows, counts)[valid & ~finite]
            for row, count in zip(*np.unique(broken, return_counts=True), strict=True):
                self.damaged[int(self.clip_ids[row])] = int(count)
            values, valid = np.where(finite[:, None], values, 0), valid & finite
        starts = np.concatenate([[0], np.cumsum(counts)])
        if self.pool == "none":  # all at once: a slice a clip takes longer than its numbers
            at = np.arange(starts[-1]) + np.repeat(self.offsets[rows] - starts[:-1], counts)
            self.steps.array[at], self.valid[at] = values, valid
        else:
            for row, start, end in zip(rows.tolist(), starts[:-1], starts[1:], strict=True):
                if end > start:
                    one = pooled(values[start:end], valid[start:end], self.pool)
                    to = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
                    self.steps.array[to], self.valid[to] = one
        self.steps.touched(values.nbytes, len(rows))

    def check(self, *, is_part: bool) -> None:
        """Say what was damaged.

        Raises:
            NotPreparedError: nothing else is there in a whole table.
        """
        if not self.damaged:
            return
        found = (
            f"features {self.name}: {sum(self.damaged.values())} steps of {len(self.damaged)} clips "
            "hold numbers that are not finite"
        )
        if not self.valid.any() and not is_part:
            raise NotPreparedError(f"{found}, and no clip has others: encode or import it again")
        print(f"{found}; they count as missing (first: clip {min(self.damaged)})")

    def _check_lengths(self, piece: pa.Table, rows: np.ndarray, counts: np.ndarray) -> None:
        differ = np.flatnonzero(lengths_of(piece["values"]) != counts)
        if len(differ):
            clip = int(self.clip_ids[rows[differ[0]]])
            raise SchemaError(
                f"features {self.name}: `values` and `valid` of clip {clip} differ in length"
            )


def _steps(piece: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Values [step feature] of all rows behind one another, and which steps are valid [step]."""
    return vectors_of(piece["values"]), scalars_of(piece["valid"]).astype(bool)


def _finite(values: np.ndarray) -> np.ndarray:
    """Which steps hold finite numbers alone, bool [step]."""
    each = np.isfinite(values)
    # Row by row takes longer than all at once, and hardly a table has any other.
    return np.ones(len(values), bool) if each.all() else each.all(1)


def _rows(piece: pa.Table, clip_ids: np.ndarray) -> np.ndarray:
    """Where the clips of a piece stand among all."""
    return np.asarray(np.searchsorted(clip_ids, piece["clip_id"].to_numpy()))


def _steps_of(piece: pa.Table) -> np.ndarray:
    """Number of steps of each row."""
    return lengths_of(piece["valid"])
