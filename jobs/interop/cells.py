"""Convert the cells of a column to numbers or words once its kind is known; other cells are faults."""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Column: TypeAlias = pa.ChunkedArray | list[Any]

NOTHING = ("#N/A", "#N/A N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "None", "n/a", "null")
"""Words that spreadsheets and pandas write where nothing is known."""

NOT_A_NUMBER = ("-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "NaN", "nan")
"""What programs write of a computation without a result: no class, and as a number not a finite one."""

_DIGITS = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
NUMBER = rf"^({_DIGITS}|[+-]?([iI][nN][fF]([iI][nN][iI][tT][yY])?))$"
COMMA = r"^[+-]?([0-9]+|[0-9]*,[0-9]+)([eE][+-]?[0-9]+)?$"
THOUSANDS = r"^[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+$"


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """A column as numbers."""

    values: np.ndarray
    """float64 [row]; nan where missing or wrong, and where the cell says so."""

    missing: np.ndarray
    """bool [row]: nothing stands there, or a word for nothing."""

    wrong: np.ndarray
    """bool [row]: something stands there that is no number."""

    commas: bool
    """Whether fractions stand behind commas."""

    doubtful: bool = False
    """Whether every comma may as well part thousands: then all such cells are wrong."""


def text_of(value: Any) -> str | None:
    """A cell as text, without spaces around it; None where nothing stands there.

    Whole numbers are written without a fraction, several values with bars between them.
    """
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float | Decimal) and math.isnan(value)):
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip() or None
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, list | tuple | np.ndarray):
        return "|".join(text_of(item) or "" for item in value)
    return str(value).strip() or None


def composed(name: str) -> str:
    """A name in Unicode's composed form: some disks store an accent as a letter of its own."""
    return unicodedata.normalize("NFC", name)


def is_text(word: str) -> bool:
    """Whether it holds whole letters only; names of files whose bytes are no UTF-8 hold halves."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def name_of(value: Any) -> str | None:
    """A cell as a name; None where nothing stands there."""
    text = text_of(value)
    return None if text is None else composed(text)


def holds_objects(kind: pa.DataType) -> bool:
    """Whether cells of a type are objects of names and values, or lists of them."""
    while pa.types.is_nested(kind) and not (pa.types.is_struct(kind) or pa.types.is_map(kind)):
        kind = kind.value_type
    return bool(pa.types.is_nested(kind))


def texts(column: Column) -> list[str | None]:
    """Every cell as text."""
    values = column if isinstance(column, list) else column.to_pylist()
    return [text_of(value) for value in values]


def words(column: Column, keep: Sequence[str] = ()) -> tuple[list[str | None], int]:
    """Every cell as a word of some list (a class, a speaker), and how many say that nothing is known.

    Args:
        column: the cells.
        keep: words that are meant as they stand.
    """
    cells = texts(column)
    nothing = frozenset((*NOTHING, *NOT_A_NUMBER)) - set(keep)
    count = sum(cell in nothing for cell in cells)
    return [None if cell in nothing else cell for cell in cells], count


@dataclass(frozen=True)
class CommaStyle:
    """What commas in a column of numbers mean."""

    fractions: bool = False
    """Fractions stand behind commas."""

    doubtful: bool = False
    """Every comma may as well part thousands."""


def comma_style(parts: Iterable[Column], *, commas: bool = False) -> CommaStyle:
    """What commas mean in a column that is read part by part.

    Args:
        parts: all cells of the column.
        commas: whether the table is known to have its fractions behind commas.
    """
    odd = with_comma = plainly = False
    fits = True
    for part in parts:
        column = _as_arrow(part)
        if not _is_text(column.type):
            continue
        cells = _trimmed(column)
        right, nothing = _right(cells), _missing(cells) | _not_finite(cells)
        behind = np.asarray(pc.match_substring_regex(cells, COMMA))
        thousands = np.asarray(pc.match_substring_regex(cells, THOUSANDS))
        odd |= not (right | nothing).all()
        fits &= bool((behind | nothing).all())
        with_comma |= bool((behind & ~right).any())
        plainly |= bool((behind & ~right & ~thousands).any())
    if not (odd and with_comma and fits):
        return CommaStyle()
    doubtful = not commas and not plainly
    return CommaStyle(fractions=not doubtful, doubtful=doubtful)


def numbers(column: Column, *, commas: bool = False, style: CommaStyle | None = None) -> Numbers:
    """Every cell as a number.

    Args:
        column: the cells.
        commas: whether the table is known to have its fractions behind commas.
        style: what commas mean, where the cells are a part of a column; by default they are all of it.
    """
    column = _as_arrow(column)
    kind = column.type
    if _is_text(kind):
        return _from_text(column, style or comma_style([column], commas=commas))
    plain = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    missing = np.asarray(column.is_null(nan_is_null=True))
    if not any(fits(kind) for fits in plain):
        values = np.full(len(column), np.nan)
        return Numbers(values=values, missing=missing, wrong=~missing, commas=False)
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    values = np.asarray(column.cast(pa.float64(), safe=False).fill_null(np.nan))
    return Numbers(values=values, missing=missing, wrong=np.zeros(len(values), bool), commas=False)


def is_whole(values: np.ndarray) -> np.ndarray:
    """Which numbers are whole, and small enough to be so exactly."""
    near = np.abs(np.nan_to_num(values, nan=0.5, posinf=0.5, neginf=0.5))
    return np.asarray((near < 2**53) & (near % 1 == 0))


def _number_text(cell: Any) -> str | None:
    if isinstance(cell, bool | np.bool_):
        return str(int(cell))
    if isinstance(cell, float):
        return None if math.isnan(cell) else repr(float(cell))
    return text_of(cell)


def _as_arrow(column: Column) -> pa.ChunkedArray:
    """The column as Arrow, its words written out."""
    if isinstance(column, list):
        cells = [_number_text(cell) for cell in column]
        return pa.chunked_array([pa.array(cells, pa.large_string())])
    kind = column.type
    return column.cast(kind.value_type) if pa.types.is_dictionary(kind) else column


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _trimmed(column: pa.ChunkedArray) -> pa.Array:
    return pc.utf8_trim_whitespace(column.combine_chunks()).fill_null("")


def _missing(cells: pa.Array) -> np.ndarray:
    return np.asarray(pc.is_in(cells, pa.array(["", *NOTHING], cells.type)))


def _not_finite(cells: pa.Array) -> np.ndarray:
    return np.asarray(pc.is_in(cells, pa.array(NOT_A_NUMBER, cells.type)))


def _right(cells: pa.Array) -> np.ndarray:
    return np.asarray(pc.match_substring_regex(cells, NUMBER))


def _from_text(column: pa.ChunkedArray, style: CommaStyle) -> Numbers:
    cells = _trimmed(column)
    missing, not_finite, right = _missing(cells), _not_finite(cells), _right(cells)
    if style.fractions:
        right = np.asarray(pc.match_substring_regex(cells, COMMA))
        cells = pc.replace_substring(cells, ",", ".")
    values = np.full(len(cells), np.nan)
    chosen = np.flatnonzero(right)
    values[chosen] = np.asarray(cells.take(pa.array(chosen)).cast(pa.float64()))
    return Numbers(
        values=values,
        missing=missing,
        wrong=~(right | missing | not_finite),
        commas=style.fractions,
        doubtful=style.doubtful,
    )
