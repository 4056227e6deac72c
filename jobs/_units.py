"""Units of work and groups: what is cut once and stays as it is when clips are added."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

UNKNOWN_CLIP_S = 5.0
"""Length assumed where a file could not be probed, to fill units."""

BASE_COST_S = 0.02
SOUND_COST = 0.01
PICTURE_COST = 0.02
"""Rough seconds of decoding per second of sound, and per second of 640 x 360 picture."""

Clip = dict[str, Any]
Stamps = Mapping[str, Mapping[str, object] | None]
"""Source URI -> its size and time of change, None where there is no such file."""


def unit_id(clips: Sequence[Clip], stamps: Stamps) -> str:
    """The hash of the clips of a unit and of all that is read of them."""
    digest = hashlib.sha256()
    for clip in clips:
        facts = {key: clip[key] for key in ("clip_id", "text", "words", "start_s", "end_s")}
        sources = [clip["video"], clip["audio"]]
        changes = [None if source is None else stamps.get(source["uri"]) for source in sources]
        line = json.dumps([facts, sources, changes], sort_keys=True, default=str)
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()[:16]


def cut(
    clips: Sequence[Clip],
    stamps: Stamps,
    present: Mapping[str, Sequence[int]],
    *,
    most_clips: int,
    most_s: float,
) -> list[Clip]:
    """Give every clip its unit, and put them in the order of their units.

    A unit that is there already and whose clips have not changed stays; what is left over is cut anew,
    along the shards, and never across a dialogue or a shard.

    Args:
        clips: manifest rows.
        stamps: size and time of change of every source.
        present: units of the manifest before -> their clip ids in order.
        most_clips: clips a unit may hold.
        most_s: media it may hold [s]; a single longer clip is a unit by itself.
    """
    by_id = {clip["clip_id"]: clip for clip in clips}
    kept: dict[str, list[Clip]] = {}
    for unit, ids in present.items():
        members = [by_id[key] for key in ids if key in by_id]
        if len(members) == len(ids) and unit_id(members, stamps) == unit:
            kept[unit] = members
    settled = {clip["clip_id"] for members in kept.values() for clip in members}
    rest = _in_reading_order([clip for clip in clips if clip["clip_id"] not in settled])
    for members in _filled(rest, most_clips, most_s):
        kept[unit_id(members, stamps)] = members
    return [{**clip, "unit": unit} for unit, members in kept.items() for clip in members]


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


def _filled(clips: Iterable[Clip], most_clips: int, most_s: float) -> Iterable[list[Clip]]:
    unit: list[Clip] = []
    length_s, border = 0.0, None
    for clip in clips:
        clip_s = media_s(clip)
        here = (clip["dialogue"], _shard(clip["video"]), _shard(clip["audio"]))
        if unit and (here != border or len(unit) == most_clips or length_s + clip_s > most_s):
            yield unit
            unit, length_s = [], 0.0
        border = here
        unit.append(clip)
        length_s += clip_s
    if unit:
        yield unit


def _in_reading_order(clips: Sequence[Clip]) -> list[Clip]:
    """Shard by shard and in each by offset, dialogues together; loose files as they come."""
    first: dict[object, int] = {}
    for index, clip in enumerate(clips):
        first.setdefault((_place(clip)[0], clip["dialogue"] or index), index)

    def key(item: tuple[int, Clip]) -> tuple[str, int, int, int]:
        index, clip = item
        shard, offset = _place(clip)
        together = first[shard, clip["dialogue"] or index] if clip["dialogue"] or not shard else 0
        return shard, together, offset, index

    return [clip for _, clip in sorted(enumerate(clips), key=key)]


def _place(clip: Clip) -> tuple[str, int]:
    for source in (clip["video"], clip["audio"]):
        if source is not None and source["offset"] is not None:
            return source["uri"], source["offset"]
    return "", 0


def _shard(source: Mapping[str, Any] | None) -> str | None:
    """The file that many clips share; None for a file of its own."""
    return source["uri"] if source is not None and source["offset"] is not None else None
