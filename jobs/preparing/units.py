"""Cut clips into units of work; a unit stays as it is when clips are added."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jobs.preparing.keys import by_turn

UNKNOWN_CLIP_S = 5.0
"""Length assumed where a file could not be probed, to fill units."""

BASE_COST_S = 0.02
SOUND_COST = 0.01
PICTURE_COST = 0.02
"""Rough seconds of decoding per second of sound, and per second of 640 x 360 picture."""

LONGEST = 8
"""A dialogue of so many times the clips or seconds of a unit is still one unit; a longer one is cut."""

Clip = dict[str, Any]


def unit_id(clip_ids: Iterable[int]) -> str:
    """The hash of the clips that a unit holds, in order, and of nothing else."""
    text = " ".join(str(clip_id) for clip_id in clip_ids)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cut(
    clips: Sequence[Clip],
    present: Iterable[Sequence[int]],
    *,
    most_clips: int,
    most_s: float,
) -> list[Clip]:
    """Give every clip its unit, and put them in the order of their units.

    A unit that is there already stays while its clips are there and its dialogues whole; what is left over
    is cut anew, along the shards. No unit holds a part of a dialogue, but for dialogues that are longer than
    `LONGEST` units: these are cut between turns.

    Args:
        clips: manifest rows.
        present: the clip ids, in order, of each unit of the manifest before.
        most_clips: clips a unit may hold.
        most_s: media it may hold [s]; a single longer clip, or dialogue, is a unit by itself.
    """
    by_id = {clip["clip_id"]: clip for clip in clips}
    turns = Counter(clip["dialogue"] for clip in clips)
    kept: list[list[Clip]] = []
    for ids in present:
        members = [by_id[key] for key in ids if key in by_id]
        if len(members) == len(ids) and _stays(members, turns):
            kept.append(members)
    settled = {clip["clip_id"] for members in kept for clip in members}
    rest = [clip for clip in clips if clip["clip_id"] not in settled]
    kept += _filled(_blocks(rest), most_clips, most_s)
    return [
        {**clip, "unit": unit}
        for members in kept
        for unit in [unit_id(clip["clip_id"] for clip in members)]
        for clip in members
    ]


def _stays(members: Sequence[Clip], turns: Mapping[str, int]) -> bool:
    """Whether a unit holds whole dialogues, and of one shard where it holds several."""
    inside = Counter(clip["dialogue"] for clip in members if clip["dialogue"] is not None)
    whole = all(count == turns[name] for name, count in inside.items())
    one = len(inside) == 1 and len(members) == sum(inside.values())
    return whole and (one or len({_shards(clip) for clip in members}) == 1)


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


def parted(
    sizes: Mapping[str, int], shares: Sequence[float], seed: int, fixed: Mapping[str, int]
) -> dict[str, int]:
    """Deal groups out to parts so that each gets its share of the clips.

    The largest groups first, equal ones in an order drawn from the seed, each to the part that lacks most;
    the last ones to parts that would stay empty.

    Args:
        sizes: group -> number of its clips.
        shares: of each part; they sum to 1.
        seed: of the order.
        fixed: groups that have their part already.
    """
    total = sum(sizes.values())
    part_of = {group: part for group, part in fixed.items() if group in sizes}
    lacks = [share * total for share in shares]
    for group, part in part_of.items():
        lacks[part] -= sizes[group]
    rest = [group for group in sizes if group not in part_of]
    for index, group in enumerate(sorted(rest, key=lambda g: (-sizes[g], _draw(seed, g)))):
        left = len(rest) - index
        choices: Sequence[int] = range(len(shares))
        if left <= len(shares):
            empty = set(choices) - set(part_of.values())
            wanting = [part for part in empty if shares[part] > 0]
            choices = wanting if left <= len(wanting) else choices
        part = max(choices, key=lambda k: lacks[k])
        part_of[group] = part
        lacks[part] -= sizes[group]
    return part_of


def _draw(seed: int, group: str) -> str:
    return hashlib.sha256(f"{seed}/{group}".encode()).hexdigest()


def _filled(
    blocks: Iterable[Sequence[Clip]], most_clips: int, most_s: float
) -> Iterator[list[Clip]]:
    """Units of whole blocks; a block that is too long even by itself is cut between its clips."""
    unit: list[Clip] = []
    length_s, border = 0.0, None
    for block in blocks:
        block_s = sum(map(media_s, block))
        too_long = len(block) > LONGEST * most_clips or block_s > LONGEST * most_s
        if len(block) > 1 and too_long:
            if unit:
                yield unit
            unit, length_s, border = [], 0.0, None
            yield from _filled(([clip] for clip in by_turn(block)), most_clips, most_s)
            continue
        here = {_shards(clip) for clip in block}
        full = len(unit) + len(block) > most_clips or length_s + block_s > most_s
        if unit and (full or here != border or len(here) > 1):
            yield unit
            unit, length_s = [], 0.0
        border = here
        unit += block
        length_s += block_s
    if unit:
        yield unit


def _blocks(clips: Sequence[Clip]) -> list[list[Clip]]:
    """Blocks that are never cut (dialogues, single clips): shard by shard, and in each by offset.

    Loose files come as they are given, the clips of a dialogue with the first of them.
    """
    blocks: dict[object, list[tuple[tuple[str, int, int], Clip]]] = {}
    for index, clip in enumerate(clips):
        block = blocks.setdefault(index if clip["dialogue"] is None else clip["dialogue"], [])
        block.append(((*_place(clip), index), clip))
    for block in blocks.values():
        block.sort(key=lambda item: item[0])
    in_order = sorted(blocks.values(), key=lambda block: block[0][0])
    return [[clip for _, clip in block] for block in in_order]


def _place(clip: Clip) -> tuple[str, int]:
    for source in (clip["video"], clip["audio"]):
        if source is not None and source["offset"] is not None:
            return source["uri"], source["offset"]
    return "", 0


def _shards(clip: Clip) -> tuple[str | None, ...]:
    """The files that a clip's video and audio share with many others; None for a file of its own."""
    return tuple(
        source["uri"] if source is not None and source["offset"] is not None else None
        for source in (clip["video"], clip["audio"])
    )
