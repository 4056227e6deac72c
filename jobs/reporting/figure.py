"""The style of a report's pictures: colour-blind safe, readable in print, no decoration.

Matplotlib draws without a display.
"""

import functools
import io
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jobs.captioning.letters import families

INK, MUTED, RULE = "#222222", "#6b7280", "#d4d4d8"
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW = (
    "#0072b2", "#d55e00", "#009e73", "#b2182b", "#8e5ea2", "#56b4e9", "#e69f00",
)  # fmt: skip
SERIES = (BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY, RED)
STYLE: Any = {
    "font.size": 9.5, "text.color": INK,
    "axes.labelcolor": INK, "axes.edgecolor": MUTED, "axes.linewidth": 0.8,
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 10.5, "axes.titlelocation": "left", "axes.titleweight": "bold",
    "axes.grid": True, "axes.axisbelow": True, "grid.color": RULE, "grid.linewidth": 0.6,
    "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "lines.linewidth": 1.6, "legend.frameon": False, "legend.fontsize": 9,
}  # fmt: skip

DPI = 160
WIDTH = 7.2
"""Of a picture [inch]; the report shows it as wide as its text."""

P = ParamSpec("P")


def styled(draw: Callable[P, bytes]) -> Callable[P, bytes]:
    """Draw in the style of this file and leave the process its own."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> bytes:
        with mpl.rc_context({**STYLE, "font.family": families()}):
            return draw(*args, **kwargs)

    return drawn


def shorten(text: str, most: int = 34) -> str:
    """A long name with its middle left out; no mathematics is read into user-made text."""
    if len(text) > most:
        half = (most - 3) // 2
        text = f"{text[:half]}...{text[-half:]}"
    return text.replace("$", r"\$")


def new_figure(height: float, *, width: float = WIDTH) -> tuple[Figure, Axes]:
    """A picture with one pair of axes.

    Args:
        height: of the picture [inch].
        width: of the picture [inch].
    """
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return figure, figure.subplots()


def new_grid(rows: int, columns: int, *, row_height: float) -> tuple[Figure, list[list[Axes]]]:
    """A picture as wide as the report with axes in rows and columns; `row_height` in inches."""
    figure = Figure(figsize=(WIDTH, row_height * rows + 0.3), dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [list(line) for line in axes]


def png(figure: Figure) -> bytes:
    """The picture as a PNG file; letters that its font lacks are boxes, which is said once."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(buffer, format="png")
    lacking = [each for each in caught if LACKING in str(each.message)]
    if lacking:
        _say_boxes()
    for each in caught:
        if each not in lacking:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    return buffer.getvalue()


LACKING = "missing from font"
"""How Matplotlib says that a letter will be a box; it does so for every letter of every picture."""


@functools.cache
def _say_boxes() -> None:
    print(
        "warning: letters of some names are boxes in the pictures, no font here has them (fonts-noto-cjk "
        "has many); the text and tables of the page have them"
    )
