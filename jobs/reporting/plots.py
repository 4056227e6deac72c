"""The pictures of a report; every function takes plain numbers and gives a PNG."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fusion.number_format import figure_text
from jobs.reporting.figure import (
    BLUE,
    DPI,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    RULE,
    SERIES,
    SKY,
    WIDTH,
    YELLOW,
    new_figure,
    new_grid,
    png,
    shorten,
    styled,
)

Shown = Sequence[tuple[str, str, float, float, float]]
"""(name, role, value, low, high)."""

ROLE_COLOURS = {
    "majority": MUTED, "metadata": MUTED, "linear": MUTED, "member": BLUE, "mean": YELLOW, "pool": YELLOW,
    "ensemble": ORANGE, "shipped": ORANGE,
}  # fmt: skip


@styled
def intervals(lines: Shown, metric: str, *, limit: tuple[str, float] | None = None) -> bytes:
    """A dot and its 95 % interval for each way to answer; `limit` is a dashed line with a name."""
    figure, axes = new_figure(0.36 * len(lines) + 1.0)
    for height, (_, role, value, low, high) in enumerate(reversed(lines)):
        colour = ROLE_COLOURS[role]
        if np.isfinite([low, high]).all():
            axes.plot([low, high], [height, height], color=colour, linewidth=2.4)
        axes.plot(value, height, "o", color=colour, markersize=6)
    axes.set_yticks(range(len(lines)), [shorten(line[0]) for line in reversed(lines)])
    axes.set_xlabel(f"{metric}, 95 % interval over groups")
    axes.grid(axis="y", visible=False)
    axes.set_ylim(-0.6, len(lines) - 0.4)
    if limit is not None:
        axes.axvline(limit[1], color=INK, linestyle="--", linewidth=1)
        axes.annotate(
            limit[0], (limit[1], 1.01), xycoords=("data", "axes fraction"), ha="center",
            fontsize=8.5, color=INK,
        )  # fmt: skip
    return png(figure)


@styled
def confusion(counts: NDArray[np.float64], classes: Sequence[str], title: str) -> bytes:
    """Rows are the truth: share of each true class, with the counts written in."""
    size = 0.62 * len(classes) + 2.2
    figure, axes = new_figure(min(size * 0.85, 8.5), width=min(size + 0.8, 9.5))
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(classes)):
        for column in range(len(classes)):
            colour = "white" if share[row, column] > 0.55 else INK
            axes.text(
                column, row, f"{counts[row, column]:.0f}", ha="center", va="center", color=colour,
                fontsize=9.5 if len(classes) <= 8 else 7,
            )  # fmt: skip
    names = [shorten(name, 16) for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("said")
    axes.set_ylabel("is")
    axes.grid(visible=False)
    axes.set_title(title)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, label="share of the true class")
    return png(figure)


@styled
def scatter(value: NDArray[np.float64], target: NDArray[np.float64], title: str) -> bytes:
    """Predicted over true values of a regression."""
    figure, axes = new_figure(4.6, width=5.2)
    low, high = min(value.min(), target.min()), max(value.max(), target.max())
    axes.plot([low, high], [low, high], color=MUTED, linewidth=1, linestyle="--")
    axes.plot(target, value, "o", color=BLUE, markersize=3.5, alpha=0.45, markeredgewidth=0)
    axes.set_xlabel("true value")
    axes.set_ylabel("predicted value")
    axes.set_title(title)
    return png(figure)


@styled
def learning_curves(
    runs: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], metric: str
) -> bytes:
    """For each run: loss on training and validation rows, and the metric on validation rows.

    Thin lines are folds and seeds, thick ones their mean until the first of them stopped.
    """
    figure, grid = new_grid(len(runs), 2, row_height=1.9)
    for row, (run, histories) in enumerate(runs.items()):
        for column, keys in enumerate((("train/loss", "valid/loss"), (metric,))):
            axes = grid[row][column]
            for key, colour in zip(keys, (BLUE, ORANGE) if column == 0 else (GREEN,), strict=True):
                _thin_and_mean(axes, histories, key, colour)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            if column == 0:
                axes.set_title(shorten(run, 44))
        grid[row][0].set_ylabel("loss")
        grid[row][1].set_ylabel(metric.rsplit("/", 1)[-1])
    for column in (0, 1):
        grid[-1][column].set_xlabel("epoch")
    if grid[0][0].get_legend_handles_labels()[0]:
        grid[0][0].legend(loc="upper right")
    return png(figure)


def _thin_and_mean(
    axes: Axes, histories: Sequence[Sequence[Mapping[str, float]]], key: str, colour: str
) -> None:
    series = [[record[key] for record in history if key in record] for history in histories]
    series = [values for values in series if values]
    if not series:
        return
    for values in series:
        axes.plot(range(1, len(values) + 1), values, color=colour, alpha=0.25, linewidth=0.8)
    shared = min(map(len, series))
    mean = np.mean([values[:shared] for values in series], axis=0)
    label = {"train/loss": "training rows", "valid/loss": "validation rows"}.get(key)
    mark = "o" if shared == 1 else ""
    axes.plot(range(1, shared + 1), mean, marker=mark, color=colour, linewidth=2, label=label)


@styled
def over_groups(
    runs: Mapping[str, Sequence[tuple[float, float, float, float]]], metric: str, floor: float
) -> bytes:
    """(groups trained on, value, low, high) of each run as a line; `floor` is the majority's figure."""
    figure, axes = new_figure(3.4)
    for (run, points), colour in zip(runs.items(), cycle(SERIES), strict=False):
        groups, values, low, high = np.array(points).T
        axes.plot(groups, values, "o-", color=colour, markersize=5, label=shorten(run))
        axes.vlines(groups, low, high, color=colour, alpha=0.5, linewidth=2)
    if np.isfinite(floor):
        axes.axhline(floor, color=MUTED, linestyle="--", linewidth=1, label="majority")
    axes.set_xlim(left=0)
    axes.set_xlabel("groups that a net was trained on")
    axes.set_ylabel(f"{metric}, 95 % interval")
    axes.legend(loc="best")
    return png(figure)


@styled
def reliability(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], *, bins: int, title: str
) -> bytes:
    """How often answers of a confidence are right, over how many there are."""
    figure = Figure(figsize=(5.4, 5.2), dpi=DPI, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    upper.plot(
        [0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1, label="perfectly calibrated"
    )
    for index in np.flatnonzero(counts):
        rows = place == index
        hits, says = right[rows].mean(), confidence[rows].mean()
        upper.plot([says, says], wilson(hits, counts[index]), color=BLUE, alpha=0.5)
        upper.plot(says, hits, "o", color=BLUE, markersize=5)
    upper.set_ylabel("share that is right")
    upper.set_ylim(0, 1.02)
    upper.legend(loc="lower right")
    upper.set_title(title)
    lower.bar(edges[:-1], counts, width=1 / bins, align="edge", color=SKY, edgecolor="white")
    lower.set_xlim(0, 1)
    lower.set_xlabel("confidence of the answer")
    lower.set_ylabel("clips")
    return png(figure)


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; it has a width at 0 and 1 too.

    >>> [round(bound, 3) for bound in wilson(1.0, 10)]
    [0.722, 1.0]
    """
    z = 1.96
    centre = share + z**2 / (2 * count)
    spread = z * float(np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)))
    whole = 1 + z**2 / count
    return (centre - spread) / whole, (centre + spread) / whole


@styled
def bars(shares: Mapping[str, float], label: str) -> bytes:
    """Weights of the members of an ensemble."""
    figure, axes = new_figure(0.34 * len(shares) + 0.9)
    names = [*shares][::-1]
    values = [shares[name] for name in names]
    axes.barh(range(len(names)), values, color=BLUE, height=0.62)
    room = max([*map(abs, values), 1e-9])
    for height, value in enumerate(values):
        said = figure_text(value, *values, digits=2)
        axes.text(max(value, 0) + 0.012 * room, height, said, va="center", fontsize=9)
    axes.set_yticks(range(len(names)), [shorten(name) for name in names])
    axes.set_xlim(min(0, *values) if len(values) > 1 else 0, 1.12 * room)
    axes.set_xlabel(label)
    axes.grid(axis="y", visible=False)
    return png(figure)


ROLE_NAMES = {"train": "trained on", "valid": "chose the epoch", "oof": "held out"}


@styled
def role_dots(roles: Mapping[str, Mapping[str, float]], metric: str) -> bytes:
    """The figure of each run on rows it trained on, rows that chose the epoch, and held-out rows."""
    figure, axes = new_figure(0.36 * len(roles) + 1.3)
    names = [*roles][::-1]
    for height, run in enumerate(names):
        values = list(roles[run].values())
        if values:
            axes.plot(
                [min(values), max(values)], [height, height], color=RULE, linewidth=3, zorder=1
            )
    marks = {"train": ("s", MUTED), "valid": ("D", SKY), "oof": ("o", ORANGE)}
    for role, (mark, colour) in marks.items():
        at = [(roles[run][role], height) for height, run in enumerate(names) if role in roles[run]]
        if at:
            axes.plot(*zip(*at, strict=True), mark, color=colour, markersize=6.5,
                      label=ROLE_NAMES[role], zorder=2)  # fmt: skip
    axes.set_yticks(range(len(names)), [shorten(name) for name in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel(metric)
    axes.grid(axis="y", visible=False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return png(figure)


@styled
def parallel(columns: Mapping[str, Sequence[object]], score: Sequence[float], label: str) -> bytes:
    """Trials of a search: one line a trial across its settings, coloured by its score (lower is better).

    Of a single setting a trial is a point.
    """
    names = list(columns)
    figure, axes = new_figure(3.9, width=max(WIDTH, 1.25 * len(names) + 1.6))
    values = np.asarray(score, float)
    span = np.ptp(values[np.isfinite(values)]) if np.isfinite(values).any() else 0.0
    low = float(np.nanmin(values))
    colours = mpl.colormaps["viridis_r"]((values - low) / (span or 1.0))
    heights = []
    for place, name in enumerate(names):
        scaled, ticks = _axis_of(columns[name])
        heights.append(scaled)
        axes.axvline(place, color=MUTED, linewidth=0.8, zorder=0)
        for height, text in ticks:
            axes.annotate(
                shorten(text, 26), (place, height), xytext=(4, 0), textcoords="offset points",
                va="center", fontsize=7.5, color=INK, zorder=5,
                bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6},
            )  # fmt: skip
    for trial in np.argsort(-values):  # the best on top
        axes.plot(
            range(len(names)), [axis[trial] for axis in heights], color=colours[trial],
            linewidth=1.3, alpha=0.75, marker="o" if len(names) == 1 else "", markersize=5,
        )  # fmt: skip
    axes.set_xticks(range(len(names)), [shorten(name, 18) for name in names])
    axes.set_xlim(-0.15, len(names) - 0.45)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(low, low + (span or 1.0)), "viridis_r")
    figure.colorbar(scale, ax=axes, fraction=0.03, pad=0.02, label=label)
    return png(figure)


ABSENT = -0.12
"""Height of a setting that a trial does not have."""

APART = 0.07
"""Least distance of two ticks of an axis of `parallel`."""

SPREAD = 0.03
"""Height over which trials of one value lie beside each other: lines on a line would hide one another."""


def _axis_of(values: Sequence[object]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights in [0, 1] of one setting's values, and (height, text) of its ticks."""
    given = [value for value in values if value is not None]
    missing = [(ABSENT, "-")] if len(given) < len(values) else []
    if given and all(type(value) in (int, float) for value in given):
        array = np.asarray(given, float)
        logged = bool(array.min() > 0 and array.max() / array.min() > 30)
        low, high = array.min(), array.max()

        def place(value: Any) -> float:
            pair = np.log([low, value, high]) if logged else np.array([low, value, high])
            return float((pair[1] - pair[0]) / (pair[2] - pair[0])) if high > low else 0.5

        heights = [ABSENT if value is None else place(value) for value in values]
        ticks = [(place(value), f"{value:.3g}") for value in _ticks(array.tolist(), place)]
    else:
        known = sorted({str(value) for value in given})
        at = {text: index / max(1, len(known) - 1) for index, text in enumerate(known)}
        heights = [ABSENT if value is None else at[str(value)] for value in values]
        ticks = [(height, text) for text, height in at.items()]
    return _beside(heights), ticks + missing


def _ticks(values: Sequence[float], place: Callable[[float], float]) -> list[float]:
    """The lowest and the highest value, and of the others those that have room between them."""
    low, *others = sorted(set(values))
    if not others:
        return [low]
    kept, high = [low], others[-1]
    for value in others[:-1]:
        if min(place(value) - place(kept[-1]), place(high) - place(value)) >= APART:
            kept.append(value)
    return [*kept, high]


def _beside(heights: Sequence[float]) -> list[float]:
    """Heights that differ where several were one."""
    count, seen, found = Counter(heights), Counter[float](), []
    for height in heights:
        seen[height] += 1
        share = (seen[height] - (count[height] + 1) / 2) / max(1, count[height] - 1)
        found.append(height + SPREAD * share)
    return found
