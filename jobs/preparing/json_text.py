"""Columns as JSON text, cell by cell, as `json.dumps(cell, sort_keys=True)` writes it, and rows of it.

Hashes of manifests and keys are made of such text. Whole columns take a tenth of the time that rows of Python
take: most cells are words, and most columns say the same again and again.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any

import pyarrow as pa

Texts = Sequence[str]


def json_texts(column: pa.ChunkedArray | pa.Array) -> Texts:
    """Every cell of a column as JSON."""
    kind = column.type
    if column.null_count == len(column):
        return ["null"] * len(column)
    values = column.to_pylist()
    if pa.types.is_string(kind):
        if not column.null_count:
            return list(map(encode_basestring_ascii, values))
        return ["null" if value is None else encode_basestring_ascii(value) for value in values]
    if pa.types.is_integer(kind):
        return ["null" if value is None else str(value) for value in values]
    if pa.types.is_floating(kind):
        return [_number(value) for value in values]
    return ["null" if value is None else dumps(value) for value in values]


def dumps(value: Any) -> str:
    """One value as JSON, names in order."""
    return json.dumps(value, sort_keys=True)


def lists(*columns: Texts) -> Texts:
    """Rows of cells as lists."""
    return [f"[{', '.join(row)}]" for row in zip(*columns, strict=True)]


def objects(columns: Mapping[str, Texts]) -> Iterable[str]:
    """Rows of cells as objects, names in order."""
    names = sorted(columns)
    frame = ", ".join(f"{encode_basestring_ascii(name).replace('%', '%%')}: %s" for name in names)
    frame = "{" + frame + "}"
    return (frame % row for row in zip(*(columns[name] for name in names), strict=True))


def _number(value: float | None) -> str:
    if value is None:
        return "null"
    return float.__repr__(value) if math.isfinite(value) else json.dumps(value)
