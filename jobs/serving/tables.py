"""An answer as CSV."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from jobs.interop.spreadsheet import harmless
from jobs.serving.schema import FullAnswer, SaidOfClip


def csv_of(answer: FullAnswer) -> str:
    """A row for the whole, for each modality by itself, and for each piece of the timeline.

    Columns: name, part (whole, modality or timeline), modality, start_s, end_s, label, confidence, value,
    and p_CLASS for each class.
    """
    columns = ["name", "part", "modality", "start_s", "end_s", "label", "confidence", "value"]
    columns += [f"p_{name}" for name in answer.classes]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writerow({column: harmless(column) for column in columns})
    for row in _rows(answer):
        cells = {
            key: harmless(value) if isinstance(value, str) else value for key, value in row.items()
        }
        writer.writerow(cells)
    return out.getvalue()


def _rows(answer: FullAnswer) -> Iterator[dict[str, Any]]:
    whole = {"start_s": 0.0, "end_s": answer.duration_s}
    yield {"name": answer.name, "part": "whole", **whole, **_said(answer)}
    for each in answer.modalities:
        known = {"part": "modality", "modality": each.modality, **whole}
        yield {"name": answer.name, **known, **_said(each)}
    for piece in answer.timeline:
        span = {"part": "timeline", "start_s": piece.start_s, "end_s": piece.end_s}
        yield {"name": answer.name, **span, **_said(piece)}


def _said(said: SaidOfClip) -> dict[str, Any]:
    shares = {f"p_{name}": share for name, share in (said.probabilities or {}).items()}
    return {"label": said.label, "confidence": said.confidence, "value": said.value, **shares}
