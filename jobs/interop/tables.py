"""One reader for every table of labels, features or predictions: CSV, TSV, JSON lines, Parquet.

Nothing is guessed from values: cells stay text (in Parquet and JSON what they are) until somebody asks for
numbers or words. Faults are gathered beside the rows that can be read, so that all are told at once.
"""

import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster import storage
from cluster.errors import TableError
from jobs.interop.bounds import check_size
from jobs.interop.cells import Column, Numbers, numbers, texts, words
from jobs.interop.delimited import read_delimited
from jobs.interop.encoding import decode_text

PARQUET = (".parquet", ".pq")
JSON_LINES = (".json", ".jsonl", ".ndjson")
DELIMITED = (".csv", ".tab", ".tsv", ".txt")
SUFFIXES = (*DELIMITED, *JSON_LINES, *PARQUET)

TEXT_OVERHEAD = 8
"""A text in memory takes about so many times its bytes on disk while it is read."""

CELL = 64
"""Bytes that a cell takes at least when it is an object of Python."""

PART_ROWS = 16_384
"""Rows of a part of a table."""

MOST_LISTED = 1000
"""Faults beyond this many are counted, not listed."""


class Faults(list[str]):
    """A list of faults that keeps the first of them, and counts all."""

    def __init__(self, faults: Iterable[str] = ()) -> None:
        super().__init__()
        self.total = 0
        self.extend(faults)

    def append(self, fault: str) -> None:
        """Count a fault; keep it if it is among the first."""
        self.total += 1
        if len(self) < MOST_LISTED:
            super().append(fault)

    def extend(self, faults: Iterable[str]) -> None:
        """Count several."""
        for fault in faults:
            self.append(fault)

    def __iadd__(self, faults: Iterable[str]) -> "Faults":  # type: ignore[misc,override]
        self.extend(faults)
        return self


@dataclass(kw_only=True)
class Table:
    """A table as it stands in its file."""

    where: str
    """Path or URI."""

    columns: Mapping[str, Column]
    """By name, in order; a column without a name is called by its place, `(column 1)`."""

    num_rows: int
    notes: list[str] = field(default_factory=list)
    """What was found out or passed over."""

    faults: list[str] = field(default_factory=list)
    """Faults of the file itself; the rows are those that could be read."""

    commas: bool = False
    """Whether its delimiter says that fractions stand behind commas."""

    def cells(self, name: str) -> list[Any]:
        """A column as it stands."""
        column = self.columns[name]
        return column if isinstance(column, list) else column.to_pylist()

    def texts(self, name: str) -> list[str | None]:
        """A column as text."""
        return texts(self.columns[name])

    def words(self, name: str, keep: Sequence[str] = ()) -> list[str | None]:
        """A column as words of a list; cells such as NaN are no word, which is noted."""
        cells, nothing = words(self.columns[name], keep)
        if nothing:
            self.notes.append(f"{name}: {nothing} cells such as NaN or NA say nothing")
        return cells

    def numbers(self, name: str) -> Numbers:
        """A column as numbers."""
        found = numbers(self.columns[name], commas=self.commas)
        if found.commas:
            self.notes.append(f"{name}: decimal commas")
        return found

    def parts(self, names: Sequence[str]) -> Iterator["Table"]:
        """Some columns, a part of the rows at a time; `notes` and `faults` stay with the whole."""
        unique = list(dict.fromkeys(names))
        if isinstance(self.columns, _ParquetColumns):
            slices = self.columns.slices(unique)
        else:
            slices = (
                {name: self.columns[name][start : start + PART_ROWS] for name in unique}
                for start in range(0, self.num_rows, PART_ROWS)
            )
        start = 0
        for columns in slices:
            count = min(PART_ROWS, self.num_rows - start)
            start += count
            yield Table(where=self.where, columns=columns, num_rows=count, commas=self.commas)

    @property
    def note(self) -> str | None:
        """All notes in one line."""
        name = PurePosixPath(self.where).name
        return f"{name}: {'; '.join(dict.fromkeys(self.notes))}" if self.notes else None


def read_table(uri: str) -> Table:
    """Read a table of rows and named columns.

    Raises:
        TableError: not a table of the kind its name says, or more than fits into memory.
        AbsentError: no such file.
        StorageError: no permission.
    """
    suffix = PurePosixPath(uri).suffix.lower()
    if suffix in PARQUET:
        return _parquet(uri)
    with storage.local_copy(uri) as path:
        text, encoding = decode_text(_content(path, uri), where=uri)
    table = _json(text, uri) if suffix in JSON_LINES else _delimited(text, uri, suffix)
    if not table.columns:
        raise_faults(table.faults, uri)  # whatever else it lacks follows from this
    if encoding is not None:
        table.notes.insert(0, f"read as {encoding}")
    return table


def _content(path: str, where: str) -> bytes:
    with open(path, "rb") as file:
        check_size(file.seek(0, 2) * TEXT_OVERHEAD, where)
        file.seek(0)
        return file.read()


def raise_faults(faults: Sequence[str], what: str, kind: type[TableError] = TableError) -> None:
    """Raise them all as one error, if there are any."""
    if not faults:
        return
    total = faults.total if isinstance(faults, Faults) else len(faults)
    noun = "fault" if total == 1 else "faults"
    lines = [*faults[:MOST_LISTED]]
    if total > MOST_LISTED:
        lines.append(f"and {total - MOST_LISTED:,} more")
    raise kind(f"{total} {noun} in {what}; nothing was written:\n  " + "\n  ".join(lines))


def twins(header: Sequence[str]) -> list[str]:
    """A fault for every name that several columns have."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(header, 1):
        places[name].append(place)
    return [
        f"{len(found)} columns are called {name!r}: columns {', '.join(map(str, found))}"
        for name, found in places.items()
        if name and len(found) > 1
    ]


# ---- text between delimiters


def _delimited(text: str, where: str, suffix: str) -> Table:
    found = read_delimited(text, suffix=suffix)
    header = [name or f"(column {place})" for place, name in enumerate(found.header, 1)]
    columns: dict[str, Column] = {}
    for name, plain, column in zip(header, found.header, found.columns, strict=True):
        if plain or any(cell.as_py().strip() for cell in column):
            columns.setdefault(name, column)
    return Table(
        where=where,
        columns=columns,
        num_rows=found.num_rows,
        notes=found.notes,
        faults=[*twins(found.header), *found.faults],
        commas=any("semicolons" in note for note in found.notes),
    )


# ---- JSON


def _json(text: str, where: str) -> Table:
    """A row a line, or one list of rows."""
    faults: list[str] = []
    rows: list[Mapping[str, Any]] = []
    if text.lstrip().startswith("["):
        values = _parsed(text, "", faults)
        items = enumerate(values or [], 1)
        numbered: Iterator[tuple[str, Any]] = ((f"row {k}", value) for k, value in items)
    else:
        # A line ends where JSON says so: strings may hold the other separators that Python splits at.
        lines = ((f"line {k}", line) for k, line in enumerate(text.split("\n"), 1) if line.strip())
        numbered = ((name, _parsed(line, name, faults)) for name, line in lines)
    for name, value in numbered:
        if isinstance(value, _Pairs):
            rows.append(value.row(name, faults))
        elif value is not None:
            faults.append(
                f"{name}: expected an object of names and values, came {str(value)[:40]!r}"
            )
    header = list(dict.fromkeys(key for row in rows for key in row))
    return Table(
        where=where,
        columns={key: [row.get(key) for row in rows] for key in header},
        num_rows=len(rows),
        faults=faults if rows or faults else ["is empty, expected a JSON object a line"],
    )


class _Pairs(list[tuple[str, Any]]):
    """An object as it stands, names that stand twice included."""

    def row(self, where: str, faults: list[str]) -> dict[str, Any]:
        names = Counter(key for key, _ in self)
        faults += [f"{where}: {name!r} stands twice" for name, count in names.items() if count > 1]
        faults += [
            f"{where}: {key!r} is an object, expected text, a number or a list"
            for key, value in self
            if isinstance(value, _Pairs)
        ]
        return {unicodedata.normalize("NFC", key.strip()): value for key, value in self}


def _parsed(text: str, where: str, faults: list[str]) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        faults.append(f"{where}: not JSON: {error}" if where else f"not JSON: {error}")
        return None


# ---- Parquet


def _parquet(uri: str) -> Table:
    storage.check_file(uri)
    parquet = storage.open_parquet(uri)
    header = [unicodedata.normalize("NFC", name.strip()) for name in parquet.schema_arrow.names]
    raise_faults(twins(header), uri)  # Arrow reads none of them
    return Table(
        where=uri,
        columns=_ParquetColumns(uri, parquet, header),
        num_rows=parquet.metadata.num_rows,
    )


class _ParquetColumns(Mapping[str, Column]):
    """Columns that are read when they are asked for: some hold films."""

    def __init__(self, uri: str, parquet: pq.ParquetFile, header: Sequence[str]) -> None:
        self._uri, self._parquet = uri, parquet
        self._places: dict[str, int] = {}
        for place, name in enumerate(header):
            self._places.setdefault(name, place)

    def __getitem__(self, name: str) -> Column:
        plain = self._parquet.schema_arrow.names[self._places[name]]
        metadata = self._parquet.metadata
        wanted = [
            k
            for k in range(metadata.num_columns)
            if metadata.schema.column(k).path.split(".")[0] == plain.split(".")[0]
        ]
        size = sum(
            metadata.row_group(group).column(k).total_uncompressed_size
            for group in range(metadata.num_row_groups)
            for k in wanted
        )
        check_size(max(size, metadata.num_rows * CELL), f"{self._uri}: column {name!r}")
        try:
            return self._parquet.read(columns=[plain])[plain]
        except (pa.ArrowException, OSError, KeyError) as error:
            raise TableError(f"{self._uri}: column {name!r} is not readable: {error}") from error

    def slices(self, names: Sequence[str]) -> Iterator[dict[str, Column]]:
        """Some columns, `PART_ROWS` rows at a time."""
        plain = [self._parquet.schema_arrow.names[self._places[name]] for name in names]
        if not plain:
            count = -(-self._parquet.metadata.num_rows // PART_ROWS)
            yield from ({} for _ in range(count))
            return
        held: list[pa.Table] = []
        for batch in self._parquet.iter_batches(PART_ROWS, columns=plain):
            held.append(pa.Table.from_batches([batch]))
            table = pa.concat_tables(held)
            while table.num_rows >= PART_ROWS:
                part, table = table.slice(0, PART_ROWS), table.slice(PART_ROWS)
                yield {name: part[of] for name, of in zip(names, plain, strict=True)}
            held = [table] if table.num_rows else []
        if held:
            yield {name: held[0][of] for name, of in zip(names, plain, strict=True)}

    def __contains__(self, name: object) -> bool:
        return name in self._places  # a Mapping would read the column

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
