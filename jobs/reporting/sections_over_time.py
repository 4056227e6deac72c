"""The section of a report on dialogues: what is said turn by turn, beside what it is."""

from collections import defaultdict

import numpy as np

from fusion.late.members import probabilities
from fusion.number_format import figure_text
from jobs.reporting.evidence import Evidence
from jobs.reporting.grid import Grid
from jobs.reporting.page import Options, Section
from jobs.reporting.plots_over_time import Trajectory, over_time

MOST_DIALOGUES = 4
"""That are drawn, the longest first."""

FEWEST_TURNS = 3
"""Of a dialogue, for its course to be one."""


def dialogues(_: Options, evidence: Evidence) -> Section | None:
    """The longest dialogues turn by turn; the turns of all are in the data."""
    turns: dict[str, list[int]] = defaultdict(list)
    for row, place in enumerate(evidence.turns):
        if place is not None:
            turns[place[0]].append(row)
    long = {name: rows for name, rows in turns.items() if len(rows) >= FEWEST_TURNS}
    if not long:
        return None
    for rows in long.values():
        rows.sort(key=lambda row: (_turn(evidence, row), row))
    shown = sorted(long, key=lambda name: (-len(long[name]), name))[:MOST_DIALOGUES]
    figures = _figures(evidence)
    names = list(evidence.task.classes) or [evidence.task_name]
    courses = [_course(evidence, name, long[name], figures) for name in shown]
    valued = evidence.task.kind == "regression"
    picture = over_time(courses, names, "turn", "value" if valued else "probability")
    count = sum(map(len, long.values()))
    data = Grid(
        name="over_time",
        caption="What is said of each turn.",
        header=["dialogue", "turn", "clip", "is", *(names if not valued else ["said"])],
        rows=[
            [name, f"{_turn(evidence, row):g}", evidence.clips[row], _in_words(evidence, row)]
            + [figure_text(figure, digits=4) for figure in figures[row]]
            for name, rows in sorted(long.items())
            for row in rows
        ],
    )
    text = (
        f"What {evidence.focus.name} says of the {len(shown)} longest of {len(long)} dialogues with at least "
        f"{FEWEST_TURNS} judged turns, turn by turn. "
        + ("Black dots are true values." if valued else "Dots below are what a turn is, by colour.")
        + " A line breaks where nothing is said; turns that were not held out are left out."
    )
    basis = f"{count} turns of {len(long)} dialogues"
    return Section(
        title="Over time", text=text, pictures={"over_time": picture}, data=(data,), basis=basis
    )


def _turn(evidence: Evidence, row: int) -> float:
    """Number of a turn; a clip of which it is not known stands last."""
    place = evidence.turns[row]
    return float("inf") if place is None or place[1] is None else float(place[1])


def _figures(evidence: Evidence) -> np.ndarray:
    """[row line] probabilities, or values; NaN where nothing is said."""
    scores = evidence.focus.scores
    kind = evidence.task.kind
    shares = scores if kind == "regression" else probabilities(kind, scores)
    return shares.double().numpy()


def _course(evidence: Evidence, name: str, rows: list[int], figures: np.ndarray) -> Trajectory:
    """One dialogue; where turns are not numbered, in the order of its clips."""
    at = np.array([_turn(evidence, row) for row in rows])
    if not np.isfinite(at).all() or len(np.unique(at)) < len(at):
        at = np.arange(len(rows), dtype=float)
    truth = [_truth(evidence, row) for row in rows]
    return Trajectory(name=name, at=at, figures=figures[rows], truth=truth)


def _truth(evidence: Evidence, row: int) -> frozenset[int] | float | None:
    target = evidence.target[row]
    if evidence.task.kind == "regression":
        return None if bool(target.isnan().any()) else float(target)
    if evidence.task.kind == "multilabel":
        return frozenset(np.flatnonzero((target > 0.5).numpy()).tolist())
    return frozenset([int(target)]) if float(target) >= 0 else None


def _in_words(evidence: Evidence, row: int) -> str:
    true = _truth(evidence, row)
    if isinstance(true, frozenset):
        return "+".join(evidence.task.classes[index] for index in sorted(true))
    return "" if true is None else figure_text(true, digits=4)
