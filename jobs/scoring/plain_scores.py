"""SCORES as text, CSV or JSON lines, for spreadsheets and scripts; and read back from it.

In CSV a class is a column `p_<class>`, a list is its names between plus signs, and no cell is a formula. What
is null is an empty cell without quotes, an empty list one with quotes.
"""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv

from cluster.errors import SchemaError
from cluster.tables import SCORES
from jobs.interop.spreadsheet import harmless

Row = Mapping[str, Any]

SHARE = "p_"
"""What the name of a class's column begins with."""

LISTS = ("label", "possible", "certain", "modalities", "unusual")
SPAN = ("start_s", "end_s")
PROMISED = ("possible", "certain", "low", "high")
NEEDED = ("name", "task", "label", "status")
"""Columns without which a table is none of scores."""


def csv_bytes(rows: Sequence[Row]) -> bytes:
    """The content of a CSV file; columns that no row has anything of come last, or not at all.

    Args:
        rows: of SCORES, with `probabilities` as a mapping.
    """
    classes = sorted({c for row in rows for c in row["probabilities"] or ()})
    promised = any(row.get(name) is not None for row in rows for name in PROMISED)
    cut = any(row.get(name) is not None for row in rows for name in SPAN)
    several = len({row["bundle"] for row in rows}) > 1
    names = ["name", "task", "confidence", "value", "status", "error"]
    names += ["bundle"] if several else []
    names += SPAN if cut else ()
    names += ["label", "modalities"]
    names += PROMISED if promised else ()
    shares = {c: [(row["probabilities"] or {}).get(c) for row in rows] for c in classes}
    columns = {name: _cells(name, [row.get(name) for row in rows]) for name in names}
    columns |= {f"{SHARE}{c}": pa.array(share, pa.float64()) for c, share in shares.items()}
    # At the end, so that what reads the columns by their place finds the others where they were.
    last = ("bundle", "clip_id", "expected", "unusual")
    columns |= {n: _cells(n, [row.get(n) for row in rows]) for n in last if n not in columns}
    buffer = io.BytesIO()
    pa.csv.write_csv(pa.table(columns), buffer)
    return buffer.getvalue()


def _cells(name: str, values: Sequence[Any]) -> pa.Array:
    kind = SCORES.schema.field(name).type
    if name in LISTS:
        values, kind = [None if each is None else "+".join(each) for each in values], pa.string()
    if kind == pa.string():
        values = [None if each is None else harmless(each) for each in values]
    return pa.array(values, kind)


def jsonl_bytes(rows: Sequence[Row]) -> bytes:
    """The content of a file with a JSON object a line."""
    return "".join(json.dumps(dict(row)) + "\n" for row in rows).encode()


def from_jsonl(content: bytes, where: str) -> pa.Table:
    """SCORES of what `jsonl_bytes` wrote.

    Raises:
        SchemaError: it is something else.
    """
    try:
        rows = [json.loads(line) for line in content.decode().splitlines() if line.strip()]
        table = pa.Table.from_pylist(
            [row | {"probabilities": _pairs(row["probabilities"])} for row in rows], SCORES.schema
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _other(where, f"{type(error).__name__}: {error}") from error
    _check_needed(rows[0] if rows else (), where)
    return table


def _pairs(shares: Mapping[str, float] | None) -> list[tuple[str, float]] | None:
    return None if shares is None else list(shares.items())


def from_csv(content: bytes, where: str) -> pa.Table:
    """SCORES of what `csv_bytes` wrote; columns that an older version did not write are null.

    Raises:
        SchemaError: it is something else.
    """
    texts = {field.name: field.type for field in SCORES.schema if field.name not in LISTS}
    texts |= dict.fromkeys(LISTS, pa.string())
    try:
        header = pa.csv.open_csv(pa.BufferReader(content)).schema.names
        kinds = {n: pa.float64() if n.startswith(SHARE) else texts.get(n) for n in header}
        options = pa.csv.ConvertOptions(
            column_types={name: kind for name, kind in kinds.items() if kind is not None},
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        )
        parsing = pa.csv.ParseOptions(newlines_in_values=True)
        found = pa.csv.read_csv(
            pa.BufferReader(content), parse_options=parsing, convert_options=options
        )
    except pa.ArrowException as error:
        raise _other(where, str(error)) from error
    _check_needed(found.column_names, where)
    classes = [n.removeprefix(SHARE) for n in found.column_names if n.startswith(SHARE)]
    rows = [_row(row, classes) for row in found.to_pylist()]
    return pa.Table.from_pylist(rows, SCORES.schema)


def _row(cells: Row, classes: Sequence[str]) -> dict[str, Any]:
    """One row of SCORES from the cells of its line."""
    row = {k: _as_it_was(v) if isinstance(v, str) else v for k, v in cells.items()}
    shares = [(c, row[SHARE + c]) for c in classes if row[SHARE + c] is not None]
    lists = {
        n: row[n] if row.get(n) is None else _names_in(row[n], classes) for n in LISTS if n in row
    }
    return {**row, **lists, "probabilities": shares or None}


def _as_it_was(cell: str) -> str:
    """The text that `harmless` was given."""
    return cell[1:] if cell.startswith("'") and harmless(cell[1:]) == cell else cell


def _names_in(cell: str, classes: Sequence[str]) -> list[str]:
    """The names between plus signs; that of a class may hold some itself.

    >>> _names_in("joy+not+yet", ["joy", "not+yet"])
    ['joy', 'not+yet']
    """
    parts = cell.split("+") if cell else []
    found = []
    while parts:
        whole = (n for n in range(len(parts), 0, -1) if "+".join(parts[:n]) in classes)
        count = next(whole, 1)
        found.append("+".join(parts[:count]))
        parts = parts[count:]
    return found


def _check_needed(names: Sequence[str] | Row, where: str) -> None:
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise _other(where, f"no column {', '.join(missing)}")


def _other(where: str, why: str) -> SchemaError:
    said = (why.splitlines() or [""])[0][:200]
    return SchemaError(
        f"{where}: came another table ({said}), expected what affuse score --out writes; type: affuse score "
        "CLIP --bundle B --by window --out moments.parquet"
    )
