"""Tables that are published a unit at a time: each clip once, its row current, and footers that say so.

What is read is what a reader that knows nothing of units would read, too: all rows of all files.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster import stamps, storage
from cluster.errors import AbsentError, AffuseError
from cluster.tables import Table
from cluster.unit_tables import (
    FOOTERS_AT_ONCE,
    PART,
    UnitRows,
    Version,
    units_in,
    unmoved,
)
from jobs.verification.findings import EXAMPLES, UNREADABLE, Clips, Findings, anew, typing
from jobs.verification.rows import RowCheck, among, ids_of

LEFT = ("left", "rows of units that are not in the manifest as they were")
STRAY = ("misplaced", "rows of clips that their unit does not hold")


@dataclass(frozen=True, kw_only=True)
class UnitTable:
    """A table and what it should be."""

    uri: str
    title: str
    contract: Table
    wanted: Sequence[Version]
    """Of the present manifest, in its order."""

    check: RowCheck
    command: str
    """That fills the table."""

    covers: bool = True
    """Whether every clip has to have a row."""


def check_unit_table(table: UnitTable, clips: Clips) -> Findings:
    """Read all rows of a table; begun anew where another job gathers its files meanwhile."""
    return unmoved(lambda: _Reading(table, clips).findings())


class _Reading:
    """One reading of a table."""

    def __init__(self, table: UnitTable, clips: Clips) -> None:
        self.table, self.clips = table, clips
        self.found = Findings(table=table.title)
        self.place = {version: number for number, version in enumerate(table.wanted)}
        self.seen = np.zeros(len(clips.clip_id), np.uint16)  # rows of each clip [clip]

    def findings(self) -> Findings:
        """Everything about the table."""
        there = stamps.of_folder(self.table.uri, ".parquet")
        self.found.files = len(there)
        self.found.size = sum(stamp.size for stamp in there.values())
        with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
            for name, inside in zip(there, pool.map(self._footer, there), strict=True):
                if inside is not None:
                    self._file(name, inside)
        if self.table.covers:
            self._covered()
        return self.found

    def _footer(self, name: str) -> tuple[pq.ParquetFile, Mapping[Version, UnitRows]] | None:
        uri = storage.join(self.table.uri, name)
        try:
            return storage.open_parquet(uri), units_in(uri)
        except (AbsentError, FileNotFoundError):
            raise
        except UNREADABLE as error:
            self.found.unreadable(uri, error, anew(self.table.command))
            return None

    def _file(self, name: str, opened: tuple[pq.ParquetFile, Mapping[Version, UnitRows]]) -> None:
        parquet, inside = opened
        uri, rows = storage.join(self.table.uri, name), parquet.metadata.num_rows
        self.found.rows += rows
        mend = anew(self.table.command)
        if not contract_holds(self.found, parquet, self.table.contract, name, mend):
            return
        if not self._names_its_units(name, inside, rows):
            return
        counts = [at.count for at in inside.values()]
        unit = np.repeat([self.place.get(version, -1) for version in inside], counts)
        version_of = np.repeat(np.arange(len(counts)), counts)  # [row]
        failed = np.zeros(len(counts), np.int64)
        try:
            for begin, piece in read_pieces(uri):
                self._rows(name, piece, unit[begin : begin + len(piece)] if counts else None)
                if counts and "status" in piece.column_names:
                    own = version_of[begin : begin + len(piece)]
                    failed += np.bincount(
                        own[among(piece["status"], "failed")], minlength=len(failed)
                    )
        except (AbsentError, FileNotFoundError):
            raise
        except UNREADABLE as error:
            self.found.unreadable(uri, error, anew(self.table.command))
            return
        if failed.tolist() != [at.failed for at in inside.values()]:
            said = "footers with other numbers of failed rows than there are"
            self.found.add("footer", said, examples=[name], mend=mend)

    def _names_its_units(self, name: str, inside: Mapping[Version, UnitRows], rows: int) -> bool:
        """Whether a file holds what its footer and its name say."""
        mend = anew(self.table.command)
        counts = [at.count for at in inside.values()]
        if inside and (sum(counts) != rows or min(counts) < 0):
            said = "footers with other numbers of rows than there are"
            self.found.add("footer", said, examples=[name], mend=mend)
            return False
        if inside and not name.startswith(PART):
            first = "-".join(next(iter(inside)))
            own = name == f"{first}.parquet" or name.startswith(f"{first}-")
            if len(inside) > 1 or not own:
                said = "files whose names are not those of their units"
                self.found.add("footer", said, examples=[name], mend=mend)
        return True

    def _rows(self, name: str, piece: pa.Table, unit: np.ndarray | None) -> None:
        """Some rows of a file.

        Args:
            name: of the file.
            piece: the rows.
            unit: place of the unit that each is of by the footer, -1 for one that is not current; None: the
                file lists no units.
        """
        clip_id = ids_of(piece)
        at, known = self.clips.find(clip_id)
        current = known if unit is None else unit >= 0
        kept = current & known
        if unit is not None:
            kept &= self.clips.unit[at] == unit
        np.add.at(self.seen, at[kept], 1)
        if self.table.covers:
            self._count(*LEFT, clip_id, ~current)
        self._count(*STRAY, clip_id, current & ~kept, name)
        for kind, said, odd in self.table.check(piece):
            self._count(kind, said, clip_id, odd, name)

    def _covered(self) -> None:
        ids = self.clips.clip_id
        self._count("missing", "clips without a row", ids, self.seen == 0)
        self._count("twice", "clips with more than one row", ids, self.seen > 1)

    def _count(
        self, kind: str, said: str, clip_id: np.ndarray, odd: np.ndarray, file: str | None = None
    ) -> None:
        """Count clips with a fault; with a file's name where nothing but its removal helps."""
        at = np.flatnonzero(odd)
        some: list[str] = []
        if len(at) and self.found.wants_examples(kind, said):
            some = self.clips.named(clip_id[at[:EXAMPLES]])
        if file is not None:
            some = [f"{clip} in {file}" for clip in some]
        mend = typing(self.table.command) if file is None else anew(self.table.command)
        self.found.add(kind, said, count=len(at), examples=some, mend=mend)


def contract_holds(
    found: Findings, parquet: pq.ParquetFile, contract: Table, name: str, mend: str
) -> bool:
    """Whether the footer names the table, and columns and types are its own."""
    schema = parquet.schema_arrow
    try:
        contract.check(schema, where=name)
    except AffuseError as error:
        said = "files of another table or version"
        found.add("schema", said, examples=[str(error)], mend=mend)
        return False
    faults = []
    for item in contract.schema:
        if item.name not in schema.names:
            faults.append(f"{name}: no column {item.name}")
        elif schema.field(item.name).type != item.type:
            came = schema.field(item.name).type
            faults.append(f"{name}: {item.name} is {came}, expected {item.type}")
    extra = [] if contract.open_ended else sorted(set(schema.names) - set(contract.schema.names))
    faults += [f"{name}: unknown column {column}" for column in extra]
    said = "columns that are not those of the table"
    found.add("schema", said, count=len(faults), examples=faults, mend=mend)
    return not faults


def read_pieces(uri: str, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pa.Table]]:
    """First row and rows of a file, some MB at a time, compared with their checksums."""
    parquet = storage.open_parquet(uri, checked=True)
    groups = map(parquet.metadata.row_group, range(parquet.num_row_groups))
    size = sum(group.total_byte_size for group in groups)
    rows = max(1, storage.PIECE_BYTES * parquet.metadata.num_rows // max(size, 1))
    begin = 0
    for batch in parquet.iter_batches(rows, columns=columns):
        yield begin, pa.Table.from_batches([batch]).replace_schema_metadata(None)
        begin += len(batch)
