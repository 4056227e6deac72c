"""One stored feature table, read unit after unit; a file that lists no units by its clip ids.

A table keeps its last few row groups in hand, so that its units may be interleaved in a few files.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster import storage
from cluster.errors import AbsentError, NotPreparedError
from cluster.unit_tables import UnitRows, best_of, by_file, unmoved
from jobs.catalog.features import reads_of
from jobs.catalog.layout import features_uri
from jobs.catalog.manifest import UnitRef

KEPT_GROUPS = 4
"""Row groups of a table that stay in hand: one of each file that units alternate between."""

OPEN_FILES = 16

UNREAD = ("step_start_s", "step_end_s")
"""Columns that no net reads."""


class UnitTable:
    """One feature table, read unit after unit.

    Args:
        root: the dataset.
        folder: of the table.
    """

    def __init__(self, root: str, folder: str) -> None:
        self._uri = features_uri(root, folder)
        self._reads = reads_of(self._uri)
        self._open: Callable[[str], tuple[pq.ParquetFile, np.ndarray]] = lru_cache(OPEN_FILES)(
            _opened
        )
        self._locate()

    def _locate(self) -> None:
        inside = unmoved(lambda: by_file(self._uri))
        self._where = best_of(inside)
        self._of_unit: dict[str, UnitRows | None] = {}
        self._alone = {
            storage.join(self._uri, name) for name, units in inside.items() if len(units) == 1
        }
        self._unlisted = [storage.join(self._uri, name) for name in inside if not inside[name]]
        self._groups: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()
        self._loose: _Loose | None = None

    def _at(self, ref: UnitRef) -> UnitRows | None:
        if ref.unit not in self._of_unit:  # a version is a hash, and asked for several times
            self._of_unit[ref.unit] = self._where.get(ref.version(self._reads))
        return self._of_unit[ref.unit]

    def place(self, ref: UnitRef) -> tuple[str, int]:
        """Where a unit stands; in this order every row group of this table is read once."""
        at = self._at(ref)
        return ("", 0) if at is None else (at.uri, at.start)

    def groups(self, ref: UnitRef) -> list[tuple[str, int]]:
        """Row groups that hold a unit; none of a file with one unit, which is read once in any order."""
        at = self._at(ref)
        if at is None or at.uri in self._alone:
            return []
        _, ends = self._open(at.uri)
        return [(at.uri, group) for group in _groups(ends, at.start, at.start + at.count)]

    def read(self, refs: Sequence[UnitRef], clip_ids: np.ndarray) -> pa.Table:
        """The rows of some units, in any order.

        Args:
            refs: the units.
            clip_ids: int64, their clips, unit after unit.

        Raises:
            NotPreparedError: a clip has no row any more; all had when the job began.
        """
        return unmoved(lambda: self._read(refs, clip_ids))

    def _read(self, refs: Sequence[UnitRef], clip_ids: np.ndarray) -> pa.Table:
        found = [self._at(ref) for ref in refs]
        ranges: list[tuple[str, int, int]] = []
        for at in found:
            if at is None:
                continue
            if ranges and ranges[-1][0] == at.uri and ranges[-1][2] == at.start:
                ranges[-1] = (at.uri, ranges[-1][1], at.start + at.count)
            else:
                ranges.append((at.uri, at.start, at.start + at.count))
        try:
            parts = [part for one in ranges for part in self._range(*one)]
        except (AbsentError, FileNotFoundError):  # another job has gathered the file
            self._locate()
            raise
        if None in found:
            of_unit = np.repeat([at is None for at in found], [ref.num_clips for ref in refs])
            parts += self._unlisted_rows(clip_ids[of_unit])
        return pa.concat_tables(parts)

    def _unlisted_rows(self, clip_ids: np.ndarray) -> list[pa.Table]:
        """Rows of clips that stand in files which list no units."""
        if self._loose is None:
            self._loose = _Loose(self._unlisted)
        return [
            self._group(uri, group).take(pa.array(rows))
            for uri, group, rows in self._loose.places(clip_ids, self._open)
        ]

    def _range(self, uri: str, start: int, stop: int) -> Iterator[pa.Table]:
        """Some rows of a file, a part a row group."""
        _, ends = self._open(uri)
        for group in _groups(ends, start, stop):
            begin = int(ends[group - 1]) if group else 0
            first, last = max(start, begin), min(stop, int(ends[group]))
            yield self._group(uri, group).slice(first - begin, last - first)

    def _group(self, uri: str, group: int) -> pa.Table:
        """A row group, from hand or from its file."""
        key = (uri, group)
        if key not in self._groups:
            parquet, _ = self._open(uri)
            columns = [name for name in parquet.schema_arrow.names if name not in UNREAD]
            table = parquet.read_row_group(group, columns=columns)
            self._groups[key] = table.replace_schema_metadata(None)
            while len(self._groups) > KEPT_GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]


class _Loose:
    """Where the clips of files lie that list no units."""

    def __init__(self, files: Sequence[str]) -> None:
        self._files = files
        columns = [
            storage.read_table(uri, ["clip_id"])["clip_id"].to_numpy() for uri in self._files
        ]
        counts = [len(column) for column in columns]
        clip_id = np.concatenate([np.empty(0, np.int64), *columns])
        order = np.argsort(clip_id, kind="stable")
        self._clip_id = clip_id[order]
        self._file = np.repeat(np.arange(len(counts)), counts)[order]
        self._row = np.concatenate([np.empty(0, np.int64), *map(np.arange, counts)])[order]

    def places(
        self, clip_ids: np.ndarray, opened: Callable[[str], tuple[pq.ParquetFile, np.ndarray]]
    ) -> Iterator[tuple[str, int, np.ndarray]]:
        """(file, row group, rows inside it) of some clips."""
        wanted = np.unique(clip_ids)
        at = np.searchsorted(self._clip_id, wanted)
        there = at < len(self._clip_id)
        there[there] = self._clip_id[at[there]] == wanted[there]
        if not there.all():
            raise NotPreparedError(f"clip {wanted[~there][0]} has lost its features meanwhile")
        for number in np.unique(self._file[at]):
            uri = self._files[number]
            _, ends = opened(uri)
            rows = np.sort(self._row[at[self._file[at] == number]])
            groups = np.searchsorted(ends, rows, side="right")
            for group in np.unique(groups):
                begin = int(ends[group - 1]) if group else 0
                yield uri, int(group), rows[groups == group] - begin


def _groups(ends: np.ndarray, start: int, stop: int) -> range:
    """Row groups of some rows of a file, whose groups end at `ends`."""
    first, last = np.searchsorted(ends, (start, stop - 1), side="right")
    return range(int(first), int(last) + 1)


def _opened(uri: str) -> tuple[pq.ParquetFile, np.ndarray]:
    """A file, and the row at which each of its row groups ends."""
    parquet = storage.open_parquet(uri, mapped=False)  # as many stay open as there are files
    counts = [parquet.metadata.row_group(g).num_rows for g in range(parquet.num_row_groups)]
    return parquet, np.cumsum(counts, dtype=np.int64)
