"""The section of a report on people: is it wrong for some more than for others, where profiles are known?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fusion.late.members import probabilities
from fusion.statistics import Groups, Interval, bootstrap
from jobs.reporting import plots
from jobs.reporting.evidence import Evidence
from jobs.reporting.grid import Grid
from jobs.reporting.number_format import bounds, title
from jobs.reporting.page import Options, Section

MOST_VALUES = 12
"""Values of a field that are listed, the most frequent first."""

BANDS = 3
"""Parts that a field of numbers, such as an age, is cut into; each holds as many clips."""

FEWEST_GROUPS = 2
"""Of a value: the figure of one person says nothing of others like them."""

CAUTION = (
    "By a profile field the intervals stand on few people: a difference may be theirs and not their group's. "
    "An interval that lies apart from the others is a reason to look, and not to use it for these people "
    "before. Who is not in the data is not in this table."
)


def people(_: Options, evidence: Evidence) -> Section | None:
    """The main figure by every profile field."""
    rows, shown = [], []
    for name, values in evidence.profiles.items():
        for value, at in by_value(values):
            figure, count = _figure(evidence, at)
            if count < FEWEST_GROUPS:
                continue
            rows.append([name, value, str(len(at)), str(count), str(figure)])
            shown.append((f"{name}: {value}", "member", *bounds(figure)))
    if len(rows) < 2:
        return None
    main = title(evidence.main)
    grid = Grid(
        name="people",
        caption=f"{evidence.focus.name}: {main} by profile field, 95 % intervals over groups; values that "
        f"fewer than {FEWEST_GROUPS} groups share are left out.",
        header=["field", "value", "n", "groups", main],
        rows=rows,
    )
    pictures = {"people": plots.intervals(shown, main)}
    return Section(title="Groups of people", text=CAUTION, pictures=pictures, tables=(grid,))


def by_value(values: Sequence[Any]) -> list[tuple[str, np.ndarray]]:
    """Each value, or band of numbers, and the rows that have it; rows of none are left out.

    >>> [(name, rows.tolist()) for name, rows in by_value(["f", "m", None, "f"])]
    [('f', [0, 3]), ('m', [1])]
    >>> [name for name, _ in by_value(["20", "31", "38", "44", "51", "67"])]
    ['20 to 31', '38 to 44', '51 to 67']
    """
    known = np.array([at for at, value in enumerate(values) if value is not None], np.int64)
    numbers = _numbers([values[at] for at in known])
    if numbers is not None and len(np.unique(numbers)) > BANDS:
        edges = np.quantile(numbers, np.linspace(0, 1, BANDS + 1)[1:-1])
        band = np.searchsorted(edges, numbers, side="left")
        parts = [(numbers[band == each], known[band == each]) for each in range(BANDS)]
        return [(f"{n.min():g} to {n.max():g}", rows) for n, rows in parts if len(rows)]
    words = np.array([str(values[at]) for at in known], object)
    found = [(str(word), known[words == word]) for word in dict.fromkeys(words)]
    return sorted(found, key=lambda pair: -len(pair[1]))[:MOST_VALUES]


def _numbers(values: Sequence[Any]) -> np.ndarray | None:
    try:
        found = np.array([float(value) for value in values])
    except ValueError:
        return None
    return found if np.isfinite(found).all() else None


def _figure(evidence: Evidence, at: np.ndarray) -> tuple[Interval, int]:
    """The main figure of some rows, and of how many groups they are."""
    rows = torch.from_numpy(at)
    scores = evidence.focus.scores[rows]
    there = ~scores.isnan().any(1)
    rows, scores = rows[there], scores[there]
    groups = Groups.of(evidence.groups.code[rows])
    if groups.count < FEWEST_GROUPS:
        return Interval(value=np.nan, low=np.nan, high=np.nan, level=0.95, groups=groups.count), 0
    answers = probabilities(evidence.task.kind, scores)
    return bootstrap(
        evidence.main, answers, evidence.target[rows], groups, resamples=2000
    ), groups.count
