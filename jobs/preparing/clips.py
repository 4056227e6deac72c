"""From rows to clips: which tracks and lengths their files have, what they cost, pieces of long ones."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from cluster.tables import MANIFEST
from encoders.media import Probe, Source
from encoders.spec import Word
from jobs.preparing import lengths, probing, units
from jobs.preparing.adapter import Row, clip_id
from jobs.preparing.row_tables import Shape
from jobs.preparing.workplace import Workplace

Stamps = Mapping[str, probing.Stamp]
Probes = Mapping[str, probing.Outcome]

CLIP = pa.schema(
    [
        MANIFEST.schema.field(name)
        for name in (
            "clip_id", "name", "video", "audio", "text", "words", "start_s", "end_s", "duration_s",
            "dialogue", "turn", "speaker", "group", "split", "cost",
        )
    ]
)  # fmt: skip

ROW = tuple(name for name in Row.__dataclass_fields__ if name not in ("labels", "profile", "votes"))


def make_clips(
    place: Workplace, shape: Shape, stamps: Stamps, probes: Probes, max_clip_s: float | None
) -> list[str]:
    """Fill `clips` from `rows`, numbered by `seq`; one row a clip, pieces in their order.

    Returns:
        Notes on lengths.
    """
    notes = lengths.Notes(max_clip_s)
    more = [field.name for field in shape.more]
    schema = pa.schema([*CLIP, *shape.more])
    count = 0
    for rows in place.in_order(
        'select rows.* exclude ("group"), grp as "group" from rows join grouped using (seq)',
        "seq",
        "rows",
    ):
        if all(
            rows[name].null_count == rows.num_rows
            for name in ("video", "audio", "start_s", "end_s")
        ):
            clips = _of_texts(rows, more)
        else:
            listed = [
                {**clip, **{name: row[name] for name in more}}
                for row in rows.to_pylist()
                for clip in clips_of(_row(row), stamps, probes, notes)
            ]
            clips = pa.Table.from_pylist(listed, schema)
        clips = clips.select(schema.names).cast(schema)
        seq = pa.array(range(count, count + clips.num_rows), pa.int64())
        place.add("clips", clips.append_column("seq", seq))
        count += clips.num_rows
    return notes.lines()


def _of_texts(rows: pa.Table, more: list[str]) -> pa.Table:
    """Clips without media and times: there is nothing to measure."""
    count = rows.num_rows
    cost = units.cost({"video": None, "audio": None, "duration_s": None}, 0)
    return rows.append_column("duration_s", pa.nulls(count, pa.float64())).append_column(
        "cost", pa.repeat(pa.scalar(cost, pa.float64()), count)
    )


def _row(facts: Mapping[str, Any]) -> Row:
    """A row as an adapter gives it, without its labels."""
    given = {name: facts[name] for name in ROW}
    for kind in ("video", "audio"):
        given[kind] = None if given[kind] is None else Source(**given[kind])
    if given["words"] is not None:
        given["words"] = [Word(**word) for word in given["words"]]
    return Row(**given)


def clips_of(
    row: Row, stamps: Stamps, probes: Probes, notes: "lengths.Notes"
) -> Iterator[dict[str, Any]]:
    """The clip of a row, or its pieces where it is too long, as rows of a manifest without units.

    Args:
        row: with its group.
        stamps: of the files.
        probes: of the files.
        notes: gets what is to be said of its length; it knows how long a clip may be.
    """
    video, pixels, video_s = _track(row.video, "video", stamps, probes)
    audio, _, audio_s = _track(row.audio, "audio", stamps, probes)
    whole_s = max((length for length in (video_s, audio_s) if length is not None), default=None)
    measured = lengths.Measured(row, whole_s)
    notes.add(measured)
    for piece in lengths.pieces(measured, notes.max_clip_s):
        clip = {
            "clip_id": clip_id(piece.name),
            "name": piece.name,
            "video": None if video is None else vars(video),
            "audio": None if audio is None else vars(audio),
            "text": piece.text,
            "words": None if piece.words is None else [vars(word) for word in piece.words],
            "start_s": piece.start_s,
            "end_s": piece.end_s,
            "duration_s": lengths.Measured(piece, whole_s).length_s,
            "dialogue": piece.dialogue,
            "turn": piece.turn,
            "speaker": piece.speaker,
            "group": row.group or row.name,
            "split": piece.split,
        }
        yield {**clip, "cost": units.cost(clip, pixels)}


def _track(
    source: Source | None, kind: str, stamps: Stamps, probes: Probes
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
