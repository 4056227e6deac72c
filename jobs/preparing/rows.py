"""From the rows of an adapter to manifest rows: label faults, probes, cuts, the Arrow table."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from cluster import storage
from cluster.errors import LabelTableError
from cluster.settings import nearest
from cluster.tables import MANIFEST
from encoders.media import Probe, Source
from fusion.tasks import Task
from jobs.interop.cells import is_text
from jobs.interop.tables import raise_faults
from jobs.preparing import lengths, probing, units
from jobs.preparing.adapter import Collected, Label, Preparation, Row, clip_id
from jobs.preparing.groups import Grouping, group_rows


def grouped(collected: Collected, config: Preparation) -> tuple[Collected, Grouping]:
    """The rows with a group each, and where the groups come from."""
    rows, grouping = group_rows(
        collected.rows, storage.absolute(getattr(config, "source", "") or ".")
    )
    return replace(collected, rows=rows), grouping


def checked(collected: Collected) -> Sequence[Row]:
    """The rows, if their labels hold no fault.

    Raises:
        LabelTableError: listing every fault.
    """
    faults = list(collected.faults)
    ids: dict[int, Row] = {}
    for row in collected.rows:
        if not all(is_text(word) for word in _words_of(row) if word):
            faults.append(f"{row.name}: holds bytes that are no text; rename it, or mend the table")
            continue
        other = ids.setdefault(clip_id(row.name), row)
        if other is not row:
            same = other.name == row.name
            faults.append(
                f"{row.name}: the name stands twice" if same else f"{row.name}: id of {other.name}"
            )
        for name, label in row.labels.items():
            fault = _label_fault(label, collected.tasks[name])
            if fault:
                faults.append(f"{row.name}: {name} {fault}")
    faults += _straddling({row.name: row.split for row in collected.rows}, collected.rows, "split")
    for name, fold_of in collected.folds.items():
        faults += _straddling(fold_of, collected.rows, f"fold of {name!r}")
    if not collected.rows and not faults:
        faults.append("the source holds no clip")
    raise_faults(faults, f"the labels of {collected.name}", LabelTableError)
    return collected.rows


def sources_of(rows: Sequence[Row]) -> list[Source]:
    """Every file or part of a file that the rows name."""
    return [source for row in rows for source in (row.video, row.audio) if source is not None]


def measure(
    collected: Collected,
    stamps: Mapping[str, probing.Stamp],
    probes: Mapping[str, probing.Outcome],
) -> list[lengths.Measured]:
    """Every row with the length of its files."""
    measured = []
    for row in collected.rows:
        tracks = (("video", row.video), ("audio", row.audio))
        known = [_track(source, kind, stamps, probes)[2] for kind, source in tracks]
        whole_s = max((length for length in known if length is not None), default=None)
        measured.append(lengths.Measured(row, whole_s))
    return measured


def clips_of(
    collected: Collected,
    stamps: Mapping[str, probing.Stamp],
    probes: Mapping[str, probing.Outcome],
    max_clip_s: float | None,
) -> list[units.Clip]:
    """One manifest row a clip, without its unit; `parent` is the name before long clips were cut."""
    clips = []
    for measured in measure(collected, stamps, probes):
        row = measured.row
        video, pixels, _ = _track(row.video, "video", stamps, probes)
        audio, _, _ = _track(row.audio, "audio", stamps, probes)
        for piece in lengths.pieces(measured, max_clip_s):
            piece_s = lengths.Measured(piece, measured.whole_s).length_s
            clip = {
                "clip_id": clip_id(piece.name),
                "name": piece.name,
                "video": None if video is None else vars(video),
                "audio": None if audio is None else vars(audio),
                "text": piece.text,
                "start_s": piece.start_s,
                "end_s": piece.end_s,
                "duration_s": piece_s,
                "words": None if piece.words is None else [vars(word) for word in piece.words],
                "dialogue": piece.dialogue,
                "turn": piece.turn,
                "speaker": piece.speaker,
                "group": row.group or row.name,
                "split": piece.split,
                "labels": piece.labels,
                "profile": piece.profile,
                "parent": row.name,
            }
            clips.append({**clip, "cost": units.cost(clip, pixels)})
    return clips


def manifest_table(clips: Sequence[units.Clip], collected: Collected) -> pa.Table:
    """The rows as Arrow, with a column per task and the profile."""
    columns: dict[str, Any] = {
        field.name: pa.array([clip[field.name] for clip in clips], field.type)
        for field in MANIFEST.schema
    }
    for name, task in collected.tasks.items():
        kind = {
            "classification": pa.string(),
            "regression": pa.float64(),
            "multilabel": pa.list_(pa.float64()),
        }[task.kind]
        columns[name] = pa.array([clip["labels"].get(name) for clip in clips], kind)
    fields = profile_fields(collected)
    if fields:
        kind = pa.struct([(name, pa.string()) for name in fields])
        columns["profile"] = pa.array([clip["profile"] for clip in clips], kind)
    return MANIFEST.conform(pa.table(columns))


def profile_fields(collected: Collected) -> list[str]:
    """Names of all profile fields that occur."""
    return sorted({name for row in collected.rows for name in row.profile})


def _words_of(row: Row) -> list[str | None]:
    """All text of a row that the manifest stores."""
    uris = [source.uri for source in (row.video, row.audio) if source is not None]
    labels = [label for label in row.labels.values() if isinstance(label, str)]
    said = [row.name, row.text, row.speaker, row.dialogue, row.group]
    return [*said, *uris, *labels, *row.profile.values()]


def _label_fault(label: Label, task: Task) -> str | None:
    if label is None:
        return None
    if task.kind == "classification":
        if label in task.classes:
            return None
        return f"{label!r} is not among its classes; {nearest(str(label), list(task.classes))}"
    if task.kind == "multilabel":
        if isinstance(label, Sequence) and len(label) == len(task.classes):
            return None
        return f"{label!r}: expected {len(task.classes)} numbers"
    if not isinstance(label, int | float) or not math.isfinite(label):
        return f"{label!r}: expected a number"
    if task.range is not None and not task.range[0] <= label <= task.range[1]:
        return f"{label:g} lies outside {task.range[0]:g} to {task.range[1]:g}"
    return None


def _straddling(part_of: Mapping[str, Any], rows: Sequence[Row], what: str) -> list[str]:
    parts: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if part_of.get(row.name) is not None:
            parts[row.group or row.name].add(str(part_of[row.name]))
    return [
        f"group {group!r} stands in more than one {what}: {', '.join(sorted(found))}; people, "
        "dialogues and films must not straddle them; where clips may, type: --columns group=name"
        for group, found in parts.items()
        if len(found) > 1
    ]


def _track(
    source: Source | None,
    kind: str,
    stamps: Mapping[str, probing.Stamp],
    probes: Mapping[str, probing.Outcome],
) -> tuple[Source | None, int, float | None]:
    """The source if it has such a track or cannot be opened (`encode` will say so); pixels; length."""
    if source is None:
        return None, 0, None
    outcome = probes[probing.key(source, stamps)]
    if not isinstance(outcome, Probe):
        return source, 0, None
    there = outcome.has_video if kind == "video" else outcome.has_audio
    pixels = (outcome.width or 0) * (outcome.height or 0)
    return (source if there else None), pixels, outcome.duration_s
