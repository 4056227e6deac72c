"""From the scores of a film to its captions: what is shown from when to when."""

import itertools
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fusion.number_format import figure_text

HELD_S = 1.0
"""A caption stays over a gap of this length, so that it does not flicker [s]."""


@dataclass(frozen=True, kw_only=True)
class Caption:
    """Title and bars that are shown for a while."""

    start_s: float
    end_s: float | None = None
    """None: to the end of the film."""

    title: str
    bars: tuple[tuple[str, float], ...] = ()
    """Class and probability, the highest first."""

    order: Mapping[str, int]
    """Class -> its place in the palette."""

    row: Mapping[str, Any]
    """The row of SCORES that it shows."""


def captions_of(rows: Sequence[Mapping[str, Any]], classes: int) -> list[Caption]:
    """The captions of a film, in order of time; none overlaps the next.

    Of pieces that overlap, as windows do, the one whose middle is nearest is shown.

    Args:
        rows: of SCORES, of one film and task.
        classes: largest number of bars.
    """
    names = sorted({name for row in rows for name, _ in row["probabilities"] or ()})
    order = {name: place for place, name in enumerate(names)}
    captions = [_caption(row, classes, order) for row in rows]
    captions.sort(key=lambda caption: caption.start_s)
    return [
        replace(caption, start_s=start_s, end_s=end_s)
        for caption, (start_s, end_s) in zip(captions, _stretches(captions), strict=True)
        if end_s is None or end_s > start_s
    ]


def _stretches(captions: Sequence[Caption]) -> list[tuple[float, float | None]]:
    """When each is shown: cut where the next begins, or halfway between the middles of two that overlap."""
    spans = [[caption.start_s, caption.end_s] for caption in captions]
    for at, (this, then) in enumerate(itertools.pairwise(captions)):
        if this.end_s is None or then.start_s - HELD_S <= this.end_s <= then.start_s:
            spans[at][1] = then.start_s
        elif this.end_s > then.start_s:
            last_s = this.end_s if then.end_s is None else then.end_s
            border_s = (this.start_s + this.end_s + then.start_s + last_s) / 4
            spans[at][1] = spans[at + 1][0] = border_s
    return [(float(start_s or 0.0), end_s) for start_s, end_s in spans]


def _caption(row: Mapping[str, Any], classes: int, order: Mapping[str, int]) -> Caption:
    bars = sorted(row["probabilities"] or (), key=lambda bar: -bar[1])[:classes]
    if row["status"] == "failed" or (row["value"] is None and not row["label"]):
        title = f"{row['task']}: not scored ({row['error'] or row['status']})"
    elif row["value"] is not None:
        title = f"{row['task']}: {figure_text(row['value'], digits=2)}"
    else:
        sure = "" if row["confidence"] is None else f"  {row['confidence']:.0%}"
        title = f"{row['task']}: {_from_left(', '.join(row['label']))}{sure}"
    start_s, end_s = row.get("start_s"), row.get("end_s")
    return Caption(
        start_s=piece_of(row["name"])[1] if start_s is None else start_s,
        end_s=end_s,
        title=title,
        bars=tuple(bars),
        order=order,
        row=row,
    )


def _from_left(label: str) -> str:
    """A label behind which text goes on to the right, as a number would not behind Arabic or Hebrew."""
    is_from_right = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in label)
    return f"{label}\N{LEFT-TO-RIGHT MARK}" if is_from_right else label


def piece_of(name: str) -> tuple[str, float]:
    """The clip a piece was cut from and the second it starts at; a whole clip starts at 0."""
    parent, at, second = name.rpartition("@")
    try:
        return (parent, float(second)) if at else (name, 0.0)
    except ValueError:
        return name, 0.0


def shown_at(captions: Sequence[Caption], time_s: float) -> int | None:
    """Which caption is on screen at a time; None between two."""
    at = None
    for index, caption in enumerate(captions):
        if caption.start_s > time_s + 1e-6:
            break
        at = index
    if at is None:
        return None
    end_s = captions[at].end_s
    return at if end_s is None or time_s < end_s - 1e-6 else None
