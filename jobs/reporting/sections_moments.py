"""The section of a report on films that were scored piece by piece: what is read along them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import ConfigError
from fusion.number_format import figure_text
from jobs.captioning.captions import piece_of
from jobs.reporting.evidence import Evidence
from jobs.reporting.grid import Grid
from jobs.reporting.page import Options, Section
from jobs.reporting.plots_over_time import Trajectory, over_time

MOST_FILMS = 4
"""That are drawn, those with the most pieces first."""

Piece = Mapping[str, Any]


def moments(options: Options, evidence: Evidence) -> Section | None:
    """The longest films window by window, or sentence by sentence; the pieces of all are in the data.

    Raises:
        ConfigError: scores of whole clips, or of another task.
    """
    if options.moments is None:
        return None
    films = films_of(options.moments, evidence.task_name)
    valued = evidence.task.kind == "regression"
    names = list(evidence.task.classes) or [evidence.task_name]
    shown = sorted(films, key=lambda film: (-len(films[film]), film))[:MOST_FILMS]
    courses = [_course(film, films[film], names, valued) for film in shown]
    data = Grid(
        name="moments",
        caption="What is read in each piece.",
        header=["film", "start_s", "end_s", "status", *(["value"] if valued else names)],
        rows=[
            [film, f"{piece['start_s']:.3f}", f"{piece['end_s']:.3f}", piece["status"] or ""]
            + [figure_text(figure, digits=4) for figure in _figures(piece, names, valued)]
            for film, pieces in sorted(films.items())
            for piece in pieces
        ],
    )
    count = sum(map(len, films.values()))
    return Section(
        title="Moments of films",
        text=f"What was read along the {len(shown)} longest of {len(films)} films, at the middle of each "
        "window or sentence. Nobody has labelled these films; a line breaks where nothing was read.",
        pictures={"moments": over_time(courses, names, "s", "value" if valued else "probability")},
        data=(data,),
        basis=f"{count} pieces of {len(films)} films",
    )


def films_of(scores: pa.Table, task: str) -> dict[str, list[Piece]]:
    """The pieces of each film, in the order of time; of several bundles each has films of its own.

    Args:
        scores: SCORES with `start_s` and `end_s`.
        task: whose rows are taken.

    Raises:
        ConfigError: no row is of a piece and of this task.
    """
    kept = scores.filter(pc.and_(pc.equal(scores["task"], task), pc.is_valid(scores["start_s"])))
    if not kept.num_rows:
        known = ", ".join(sorted(set(scores["task"].to_pylist()))) or "none"
        raise ConfigError(
            f"--moments: no window or sentence of task {task!r} among {scores.num_rows} rows (tasks: "
            f"{known}); type: affuse score FILM --bundle B --by window --out moments.parquet"
        )
    several = pc.count_distinct(kept["bundle"]).as_py() > 1
    films: dict[str, list[Piece]] = defaultdict(list)
    for piece in kept.sort_by("start_s").to_pylist():
        film = piece_of(piece["name"])[0]
        films[f"{film} ({piece['bundle']})" if several else film].append(piece)
    return films


def _course(film: str, pieces: Sequence[Piece], names: Sequence[str], valued: bool) -> Trajectory:
    return Trajectory(
        name=film,
        at=np.array([(piece["start_s"] + piece["end_s"]) / 2 for piece in pieces]),
        figures=np.array([_figures(piece, names, valued) for piece in pieces]),
        truth=[None] * len(pieces),
        span=(0.0, max(piece["end_s"] for piece in pieces)),
    )


def _figures(piece: Piece, names: Sequence[str], valued: bool) -> list[float]:
    """Of each class, or the value; NaN where nothing was read."""
    if valued:
        return [np.nan if piece["value"] is None else piece["value"]]
    shares = dict(piece["probabilities"] or ())
    return [shares.get(name, np.nan) for name in names]
