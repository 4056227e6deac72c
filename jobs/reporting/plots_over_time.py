"""The picture of what is said over time: of dialogues turn by turn, of films window by window."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from jobs.reporting.figure import INK, MUTED, SERIES, new_grid, png, shorten, styled

STYLES = ("-", "--", ":")
"""Of the lines, when there are more classes than colours."""


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """What is said along one dialogue or film."""

    name: str
    at: NDArray[np.float64]
    """[point] turn, or middle of a window [s]; ascending."""

    figures: NDArray[np.float64]
    """[point line] probabilities or values; NaN where nothing is said, and the lines break."""

    truth: Sequence[frozenset[int] | float | None]
    """Of each point the classes that it is, or its true value; None: not known."""

    span: tuple[float, float] | None = None
    """From where to where the axis goes; None: as far as the points lie."""


@styled
def over_time(courses: Sequence[Trajectory], lines: Sequence[str], along: str, label: str) -> bytes:
    """A row of axes a course, a line a class; dots below are the truth in the colour of its class.

    Args:
        courses: what is drawn.
        lines: classes, or the single name of a value.
        along: what the points lie along.
        label: of the heights.
    """
    figure, grid = new_grid(len(courses), 1, row_height=1.9)
    styles = [(colour, style) for style in STYLES for colour in SERIES]
    looks = [look for look, _ in zip(cycle(styles), lines, strict=False)]
    for (axes,), course in zip(grid, courses, strict=True):
        for (colour, style), name, heights in zip(looks, lines, course.figures.T, strict=True):
            axes.plot(course.at, heights, style, color=colour, marker=".", label=shorten(name, 18))
        _truth(axes, course, [colour for colour, _ in looks])
        axes.set_title(shorten(course.name, 60))
        axes.set_ylabel(label)
        if course.span is not None:
            axes.set_xlim(*course.span)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    grid[-1][0].set_xlabel(along)
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(5, len(names)))
    return png(figure)


def _truth(axes: Axes, course: Trajectory, colours: Sequence[str]) -> None:
    """The truth: dots below of classes, dots in their place of values."""
    values = [
        (at, true)
        for at, true in zip(course.at, course.truth, strict=True)
        if isinstance(true, float)
    ]
    if values:
        axes.plot(*zip(*values, strict=True), "o", color=INK, markersize=3.5, label="true value")
    if course.figures.shape[1] == 1:
        return
    labelled = any(isinstance(true, frozenset) for true in course.truth)
    axes.set_ylim(-0.19 if labelled else -0.04, 1.04)
    axes.axhline(0, color=MUTED, linewidth=0.6)
    for at, true in zip(course.at, course.truth, strict=True):
        for step, index in enumerate(sorted(true) if isinstance(true, frozenset) else ()):
            axes.plot(at, -0.06 - 0.045 * (step % 3), "o", color=colours[index], markersize=4)
