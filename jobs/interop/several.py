"""Cells that hold several words: the labels of a clip, or what each rater chose."""

import ast
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jobs.interop.cells import NOT_A_NUMBER, NOTHING, Column, text_of

_WORD = r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\""
_LIST = re.compile(rf"\[\s*(?:(?:{_WORD})\s*(?:,\s*(?:{_WORD})\s*)*(?:,\s*)?)?\]")
LONGEST = 10_000
"""Characters of a list that is written as text; a longer one is not read as such."""


def parts_of(cell: str) -> list[str]:
    """The words of a cell of text that holds several.

    >>> parts_of("sad| happy;sad")
    ['sad', 'happy', 'sad']
    """
    return [part.strip() for part in re.split(r"[|;,]", cell) if part.strip()]


def list_in(cell: str) -> list[str] | None:
    """The words of a list that was written as text, as pandas and JSON do; None: it is no such list.

    >>> list_in("['so, so', 'joy']"), list_in("['so' 'joy']"), list_in("[joy]")
    (['so, so', 'joy'], None, None)
    """
    if len(cell) > LONGEST or not _LIST.fullmatch(cell):
        return None
    try:
        return [ast.literal_eval(word).strip() for word in re.findall(_WORD, cell)]
    except (SyntaxError, ValueError):  # an escape that is none
        return None


def looks_like_a_list(cell: str) -> bool:
    """Whether a cell of text stands in the brackets of a list."""
    return cell.startswith("[") and cell.endswith("]")


def several(
    column: Column, keep: Sequence[str] = (), *, as_is: bool = False
) -> tuple[list[list[str] | None], int, list[str]]:
    """The words of every cell; None where nothing is known. A list is taken as it is, a text is cut.

    Args:
        column: the cells.
        keep: words that are meant as they stand.
        as_is: what only looks like a list is a text.

    Returns:
        The words, how many cells say that nothing is known, and the cells that look like a list and are none.
    """
    nothing = frozenset((*NOTHING, *NOT_A_NUMBER)) - set(keep)
    count, odd = 0, []
    found: list[list[str] | None] = []
    for value in column if isinstance(column, list) else column.to_pylist():
        if isinstance(value, list | tuple | np.ndarray):
            found.append(_words(value))
            continue
        cell = text_of(value)
        listed = list_in(cell) if cell is not None and looks_like_a_list(cell) else None
        if cell is None or cell in nothing:
            count += cell is not None
            found.append(None)
        elif cell in keep:
            found.append([cell])
        elif listed is not None:
            found.append([word for word in listed if word])
        elif looks_like_a_list(cell) and not as_is:
            odd.append(cell)
            found.append(None)
        else:
            found.append(parts_of(cell))
    return found, count, odd


def _words(values: Iterable[Any]) -> list[str]:
    return [word for word in map(text_of, values) if word]
