"""Cut clips into units of work; a unit stays as it is when clips are added."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from jobs.preparing.keys import turn_rank
from jobs.preparing.workplace import BATCH_ROWS, Workplace

UNKNOWN_CLIP_S = 5.0
"""Length assumed where a file could not be probed, to fill units."""

BASE_COST_S = 0.02
SOUND_COST = 0.01
PICTURE_COST = 0.02
"""Rough seconds of decoding per second of sound, and per second of 640 x 360 picture."""

LONGEST = 8
"""A dialogue of so many times the clips or seconds of a unit is still one unit; a longer one is cut."""

Clip = Mapping[str, Any]


def unit_id(clip_ids: Iterable[int]) -> str:
    """The hash of the clips that a unit holds, in order, and of nothing else."""
    text = " ".join(str(clip_id) for clip_id in clip_ids)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Piece(NamedTuple):
    """What a clip counts in a unit."""

    seq: int
    clip_id: int
    dialogue: str | None
    turn: int | None
    name: str
    media_s: float
    shards: tuple[str | None, ...]
    """The files that its video and audio share with many others; None for a file of its own."""


def cut(place: Workplace, *, most_clips: int, most_s: float) -> None:
    """Give every clip its unit and its place: fills `placed` (seq, place, unit).

    A unit that is there already stays while its clips are there and its dialogues whole; what is left over
    is cut anew, along the shards. No unit holds a part of a dialogue, but for dialogues that are longer than
    `LONGEST` units: these are cut between turns.

    Args:
        place: with `clips`, and `before`: clips and units of the manifest before, numbered by `n`.
        most_clips: clips a unit may hold.
        most_s: media it may hold [s]; a single longer clip, or dialogue, is a unit by itself.
    """
    _keep(place)
    count = int(place.one("select count(*) from placed"))
    for batch in _batches(_filled(_blocks(place), most_clips, most_s)):
        seq = pa.array([piece.seq for _, unit in batch for piece in unit], pa.int64())
        names = [name for name, unit in batch for _ in unit]
        places = pa.array(range(count, count + len(seq)), pa.int64())
        place.add("placed", pa.table({"seq": seq, "place": places, "unit": names}))
        count += len(seq)


def _batches(units: Iterable[list[Piece]]) -> Iterator[list[tuple[str, list[Piece]]]]:
    """The units with their ids, some thousand clips at a time."""
    batch: list[tuple[str, list[Piece]]] = []
    clips = 0
    for unit in units:
        batch.append((unit_id(piece.clip_id for piece in unit), unit))
        clips += len(unit)
        if clips >= BATCH_ROWS:
            yield batch
            batch, clips = [], 0
    if batch:
        yield batch


SHARD = """case when {0}."offset" is not null then {0}.uri end"""


def _keep(place: Workplace) -> None:
    """Fill `placed` with the units that stay: of clips that are there, whole dialogues, of one shard."""
    place.run(
        f"""
        create table placed as
        with member as (
            select n, unit, clip_id, clips.seq, dialogue,
                row({SHARD.format("video")}, {SHARD.format("audio")}) as shards
            from before left join clips using (clip_id)
        ), of_dialogue as (
            select unit, dialogue, count(*) as here from member where dialogue is not null group by all
        ), dialogues as (
            select dialogue, count(*) as turns from clips where dialogue is not null group by all
        ), whole as (
            select unit, bool_and(here = turns) as ok, count(*) as talks, sum(here) as said
            from of_dialogue join dialogues using (dialogue) group by unit
        ), of_unit as (
            select unit, count(*) as clips, count(seq) as found, min(n) as first,
                count(distinct shards) as shards
            from member group by unit
        ), kept as (
            select unit, first from of_unit left join whole using (unit)
            where clips = found and coalesce(ok, true) and (shards = 1 or (talks = 1 and said = clips))
        )
        select seq, row_number() over (order by first, n) - 1 as place, unit
        from member join kept using (unit) order by place
        """
    )


def _blocks(place: Workplace) -> Iterator[list[Piece]]:
    """Blocks that are never cut (dialogues, single clips): shard by shard, and in each by offset.

    Loose files come as they are given, the clips of a dialogue with the first of them.
    """
    inside = " ".join(
        f"""when {kind}."offset" is not null then row({kind}.uri, {kind}."offset", seq)"""
        for kind in ("video", "audio")
    )
    place.run(
        f"""
        create table ordered as
        with rest as (
            select seq, dialogue, case {inside} else row('', 0, seq) end as lies
            from clips anti join placed using (seq)
        ), talks as (
            select dialogue, min(lies) as first from rest where dialogue is not null group by dialogue
        )
        select seq from rest left join talks using (dialogue) order by coalesce(first, lies), lies
        """
    )
    block: list[Piece] = []
    for batch in place.in_order(
        f"""
        select seq, clip_id, dialogue, turn, name,
            case when video is null and audio is null then 0.0
                when coalesce(duration_s, 0.0) = 0.0 then {UNKNOWN_CLIP_S} else duration_s end as media_s,
            {SHARD.format("video")} as video_shard, {SHARD.format("audio")} as audio_shard
        from ordered join clips using (seq)
        """,
        "ordered.rowid",
        "ordered",
    ):
        columns = [batch[name].to_pylist() for name in batch.column_names]
        for seq, clip_id, dialogue, turn, name, length_s, *shards in zip(*columns, strict=True):
            piece = Piece(seq, clip_id, dialogue, turn, name, length_s, tuple(shards))
            if block and (piece.dialogue is None or piece.dialogue != block[-1].dialogue):
                yield block
                block = []
            block.append(piece)
    if block:
        yield block


def media_s(clip: Clip) -> float:
    """Seconds of media to decode; none where a clip is only text."""
    if clip["video"] is None and clip["audio"] is None:
        return 0.0
    return clip["duration_s"] or UNKNOWN_CLIP_S


def cost(clip: Clip, pixels: int) -> float:
    """Estimated seconds of decoding on one core."""
    length = media_s(clip)
    sound = SOUND_COST * length if clip["audio"] is not None else 0.0
    picture = PICTURE_COST * length * max(pixels, 1) / (640 * 360) if clip["video"] else 0.0
    return round(BASE_COST_S + sound + picture, 6)


def _filled(
    blocks: Iterable[Sequence[Piece]], most_clips: int, most_s: float
) -> Iterator[list[Piece]]:
    """Units of whole blocks; a block that is too long even by itself is cut between its clips."""
    unit: list[Piece] = []
    length_s = 0.0
    border: set[tuple[str | None, ...]] | None = None
    for block in blocks:
        block_s = sum(piece.media_s for piece in block)
        too_long = len(block) > LONGEST * most_clips or block_s > LONGEST * most_s
        if len(block) > 1 and too_long:
            if unit:
                yield unit
            unit, length_s, border = [], 0.0, None
            turns = sorted(block, key=lambda piece: turn_rank(piece.turn, piece.name))
            yield from _filled(([piece] for piece in turns), most_clips, most_s)
            continue
        here = {piece.shards for piece in block}
        full = len(unit) + len(block) > most_clips or length_s + block_s > most_s
        if unit and (full or here != border or len(here) > 1):
            yield unit
            unit, length_s = [], 0.0
        border = here
        unit += block
        length_s += block_s
    if unit:
        yield unit
