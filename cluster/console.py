"""Printed output of jobs; the only place that uses rich.

Names of files, classes, tasks and errors are other people's text. They are shown letter by letter: no markup,
no emoji codes, no colours by guessing; what a terminal would obey instead of showing is spelt out.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, OverflowMethod
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable
from rich.text import Text

__all__ = ["Table", "bar", "readable", "show"]

UNREADABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control codes but tab and line feed, marks that turn the direction of writing, bytes that are no text."""


LOG_WIDTH = 400
"""Characters of a line in a file or a pipe, where nothing has to fit on a screen: words stay whole."""


class Table(RichTable):
    """A table of texts; a name that is wider than its column goes on below and is never cut off."""

    def add_column(self, *cells: Any, overflow: OverflowMethod = "fold", **options: Any) -> None:
        """A column, as of rich."""
        super().add_column(*cells, overflow=overflow, **options)


LEAST_CELL = 4
"""Characters of a cell that a column keeps on any screen; rich would leave cells empty where it is narrow."""


def show(*things: Table | str) -> None:
    """Print tables and lines to standard output.

    Args:
        things: a table, or text that is printed as it stands.
    """
    console = _PlainConsole(markup=False, emoji=False, highlight=False)
    if not (console.is_terminal or os.environ.get("COLUMNS")):
        console.width = LOG_WIDTH
    for thing in things:
        if isinstance(thing, Table):
            console.width = max(console.width, len(thing.columns) * (LEAST_CELL + 3) + 1)
        console.print(thing)


def readable(text: str) -> str:
    r"""Text that a terminal shows and does not obey.

    >>> readable("clip\x1b[2J.mp4")
    'clip\\x1b[2J.mp4'
    """
    return UNREADABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


@contextmanager
def bar(label: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar that is gone when its work is done; yields what to call after each item."""
    console = _PlainConsole(markup=False, emoji=False, highlight=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, transient=True, console=console) as progress:
        task = progress.add_task(readable(label), total=total)
        yield lambda: progress.advance(task)


class _PlainConsole(Console):
    """Every cell, title and line that is a text passes through `render_str`."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(readable(text), **options)
