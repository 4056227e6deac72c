"""Text with a row a line and cells between commas, semicolons, tabs or bars, read strictly.

Every line becomes a row, a fault, or a part of what is said about the table: none is lost without a word.
"""

import csv
import io
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

import pyarrow as pa

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
SAMPLE_ROWS = 200
SAMPLE_LETTERS = 4_000_000
CHUNK_ROWS = 20_000
FEW = 20
"""As many rows of a wrong width are named one by one."""

HINT = re.compile(r"\A\ufeff?\"?sep=(.)\"?\r?\n")
"""The line by which Excel is told the delimiter."""

NUMBER = re.compile(r"[+-]?\d*\.?\d+(e[+-]?\d+)?", re.IGNORECASE)
FRACTION = re.compile(r"[+-]?\d*\.\d+(e[+-]?\d+)?", re.IGNORECASE)


@dataclass(kw_only=True)
class Delimited:
    """The rows of such a text."""

    header: list[str]
    """As they stand, without spaces around them; a column without a name is empty text."""

    columns: list[pa.ChunkedArray]
    """large_string, one a column of the header."""

    num_rows: int = 0

    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Record:
    line: int
    """Where it begins, from 1."""

    cells: list[str]
    fault: str | None = None

    @property
    def blank(self) -> bool:
        return not any(cell.strip() for cell in self.cells)

    @property
    def comment(self) -> bool:
        return bool(self.cells) and self.cells[0].lstrip().startswith("#")


def read_delimited(text: str, *, suffix: str) -> Delimited:
    """Find out delimiter and header, and read the rows.

    Args:
        text: the whole file.
        suffix: of its name; it only decides between delimiters that fit equally well.
    """
    notes = []
    hint = HINT.match(text)
    usual = "\t" if suffix in (".tsv", ".tab") else ","
    start_line = 1
    if hint:
        text, start_line = text[hint.end() :], 2
    delimiter = hint[1] if hint else _delimiter(text, usual)
    if delimiter != usual:
        notes.append(f"separated by {DELIMITERS.get(delimiter, repr(delimiter))}")
    with _wide_cells():
        found = _read(text, delimiter, start_line, quotes=True)
        if delimiter == "\t" and any("quote" in fault for fault in found.faults):
            # Tables between tabs are often written without a thought of quotes.
            plain = _read(text, delimiter, start_line, quotes=False)
            if not plain.faults:
                plain.notes.insert(0, "quotes are read as they stand")
                found = plain
    found.notes[:0] = notes
    return found


@contextmanager
def _wide_cells() -> Iterator[None]:
    """The library refuses cells above 131,072 characters; a transcript may be longer."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _records(text: str, delimiter: str, start_line: int, *, quotes: bool) -> Iterator[_Record]:
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
        skipinitialspace=True,
        strict=True,
    )
    while True:
        line = reader.line_num + start_line
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _Record(
                line, [], _quote_fault(str(error), line, reader.line_num + start_line - 1)
            )
            continue
        yield _Record(line, cells)


def _quote_fault(error: str, line: int, last: int) -> str:
    where = f"line {line}" if last == line else f"lines {line} to {last}"
    if "unexpected end" in error:
        return f"{where}: a quote is opened and never closed"
    if "expected after" in error:
        return f"{where}: a quote inside of a quoted cell is not doubled"
    return f"{where}: {error} (quote)"


def _delimiter(text: str, usual: str) -> str:
    """The delimiter under which the first row is as wide as most, and most rows are of one width."""
    best, best_score = usual, (False, 0.0, 0)
    with _wide_cells():
        for delimiter in sorted(DELIMITERS, key=lambda each: each != usual):
            sample = _sample(text, delimiter)
            width = _usual_width(sample)
            if width < 2:
                continue
            share = sum(len(record.cells) == width for record in sample) / len(sample)
            score = (len(sample[0].cells) == width, share, width)
            if score > best_score:
                best, best_score = delimiter, score
    return best


def _sample(text: str, delimiter: str) -> list[_Record]:
    records = _records(text[:SAMPLE_LETTERS], delimiter, 1, quotes=True)
    wanted = (r for r in records if r.fault or not (r.blank or r.comment))
    sample = list(islice(wanted, SAMPLE_ROWS))
    whole = len(text) <= SAMPLE_LETTERS or len(sample) < 2
    return sample if whole else sample[:-1]  # the last may be cut


def _usual_width(sample: Sequence[_Record]) -> int:
    widths = Counter(len(record.cells) for record in sample if not record.fault)
    return min(widths, key=lambda width: (-widths[width], width), default=0)


def _read(text: str, delimiter: str, start_line: int, *, quotes: bool) -> Delimited:
    width = _usual_width(_sample(text, delimiter))
    records = _records(text, delimiter, start_line, quotes=quotes)
    found = Delimited(header=[], columns=[])
    found.header = _header(records, width, found)
    _rows(records, found)
    return found


def _header(records: Iterator[_Record], width: int, found: Delimited) -> list[str]:
    """The first row that is no blank line, comment or title; the lines before it are noted."""
    before: list[_Record] = []
    for record in records:
        if record.fault:
            found.faults.append(record.fault)
            continue
        filled = sum(bool(cell.strip()) for cell in record.cells)
        title = filled == 1 and width > 1 and (len(record.cells) < width or width > 2)
        if record.blank or record.comment or title:
            before.append(record)
            continue
        break
    else:
        found.faults.append("is empty, expected a line of column names")
        return []
    last = before[-1] if before else None
    only_numbers = all(NUMBER.fullmatch(cell.strip()) for cell in record.cells)
    if last is not None and last.comment and len(last.cells) == width and only_numbers:
        found.faults.append(f"line {last.line} begins with #: is it the header? take the # away")
    if before:
        plural = "line before it is" if len(before) == 1 else f"{len(before)} lines before it are"
        found.notes.append(f"header in line {record.line} (the {plural} not read)")
    header = [unicodedata.normalize("NFC", cell.strip()) for cell in record.cells]
    while header and not header[-1] and len(header) > max(width, 1):
        header.pop()
    fraction = next((name for name in header if FRACTION.fullmatch(name)), None)
    if fraction is not None:
        found.faults.append(
            f"line {record.line}: holds the number {fraction}, expected the names of the columns"
        )
    return header


def _rows(records: Iterator[_Record], found: Delimited) -> None:
    width = len(found.header)
    wrong: dict[int, list[int]] = defaultdict(list)
    empty = trimmed = 0
    chunk: list[list[str]] = []
    chunks: list[list[pa.Array]] = []
    for record in records:
        cells = record.cells
        beyond = [cell for cell in cells[width:] if cell.strip()]
        if record.fault:
            found.faults.append(record.fault)
        elif record.blank:
            empty += len(cells) > 1
        elif len(cells) < width or beyond:
            wrong[len(cells)].append(record.line)
        else:
            trimmed += len(cells) > width
            chunk.append(cells[:width])
            found.num_rows += 1
        if len(chunk) == CHUNK_ROWS:
            chunks.append(_arrow(chunk))
            chunk = []
    chunks.append(_arrow(chunk) if chunk or not chunks else [])
    parts = [part for part in chunks if part]
    kind = pa.large_string()
    found.columns = [pa.chunked_array([part[k] for part in parts], kind) for k in range(width)]
    found.faults += _width_faults(wrong, width)
    if empty:
        found.notes.append(f"rows of empty cells, passed over: {empty}")
    if trimmed:
        found.notes.append(f"rows that end with empty cells beyond the header: {trimmed}")


def _arrow(rows: list[list[str]]) -> list[pa.Array]:
    return [pa.array(column, pa.large_string()) for column in zip(*rows, strict=True)]


def _width_faults(wrong: dict[int, list[int]], width: int) -> list[str]:
    faults = []
    for count, lines in wrong.items():
        noun = "cell" if count == 1 else "cells"
        why = "; a delimiter inside of a cell needs quotes around the cell" if count > width else ""
        if len(lines) > FEW:
            some = ", ".join(map(str, lines[:5]))
            faults.append(
                f"{len(lines)} rows (lines {some}, ...) have {count} {noun}, the header {width}{why}"
            )
        else:
            faults += [
                f"line {line}: {count} {noun}, the header has {width}{why}" for line in lines
            ]
    return faults
