"""The film of a visitor with the answer written on it."""

from collections.abc import Callable, Mapping
from typing import Any

import av.error
import numpy as np

from cluster.errors import AffuseError
from jobs.captioning.captions import captions_of
from jobs.captioning.film import Draw, write_film
from jobs.serving.refusal import RefusalError

FILM = "captioned.mp4"
"""Its name in the room of its order."""

BARS = 5
"""Classes that have a bar; the most probable ones."""


def write_captioned(
    source: str,
    target: str,
    answer: Mapping[str, Any],
    mark: Draw | None,
    report: Callable[[float], None],
) -> None:
    """Write an answer on a film: that of each piece of the timeline while it lasts, or that of the whole.

    Args:
        source: the film.
        target: MP4 to write.
        answer: of the judge, about it.
        mark: draws into the pictures first.
        report: told how far it is.

    Raises:
        RefusalError: it cannot be drawn into.
    """
    length_s = answer["duration_s"]

    def marked(image: np.ndarray, time_s: float) -> np.ndarray:
        if length_s:
            report(min(time_s / length_s, 1.0))
        return image if mark is None else mark(image, time_s)

    try:
        write_film(source, target, captions_of(rows_of(answer), BARS), None, marked)
    except (AffuseError, av.error.FFmpegError) as error:
        said = str(error).replace(source, answer["name"])
        raise RefusalError(422, f"{answer['name']}: no captions can be written: {said}") from error


def rows_of(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """An answer as rows of SCORES."""
    pieces = answer["timeline"] or [{**answer, "start_s": 0.0, "end_s": None}]
    return [
        {
            "name": answer["name"],
            "task": answer["task"],
            "status": "ok",
            "error": None,
            "start_s": piece["start_s"],
            "end_s": piece["end_s"],
            "label": None if piece["label"] is None else [piece["label"]],
            "confidence": piece["confidence"],
            "probabilities": [*(piece["probabilities"] or {}).items()],
            "value": piece["value"],
        }
        for piece in pieces
    ]
