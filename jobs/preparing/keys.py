"""Keys of each unit (hashes of sound, pictures, texts, ...), and the texts around a dialogue that was cut.

A unit's id says which clips it holds; these hashes say what was read of them. An encoder's key is made of
the parts that it reads (`encoders.spec.Descriptor.reads`), so that a typo in a text makes no film be encoded
again, and a turn that moved makes every text that reads its neighbours be.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeVar

CONTEXT_TEXTS = 1024
"""Texts before and after a clip that can be its context; no text encoder reads so many tokens."""

Clip = dict[str, Any]
Turn = TypeVar("Turn", bound=Mapping[str, Any])
Stamps = Mapping[str, Mapping[str, object] | None]
"""Source URI -> its size and time of change, None where there is no such file."""


def keyed(clips: Sequence[Clip], stamps: Stamps) -> list[Clip]:
    """The clips, unit by unit, with `keys`, and `before` and `after` where a dialogue was cut.

    Args:
        clips: manifest rows in the order of their units.
        stamps: size and time of change of every source.
    """
    dialogues = _dialogues(clips)
    done = []
    for _, group in groupby(clips, key=lambda clip: clip["unit"]):
        unit = list(group)
        parts = {name: _part_of(turns, dialogues[name]) for name, turns in _dialogues(unit).items()}
        keys = _media_keys(unit, stamps) | _text_keys(unit, parts.values())
        first = {part["turns"][0]["clip_id"]: part for part in parts.values() if part["cut"]}
        for clip in unit:
            part = first.get(clip["clip_id"], {"before": None, "after": None})
            done.append({**clip, "keys": keys, "before": part["before"], "after": part["after"]})
    return done


def by_turn(clips: Iterable[Turn]) -> list[Turn]:
    """The clips of a dialogue in the order of their turns."""
    return sorted(
        clips, key=lambda row: (row["turn"] if row["turn"] is not None else -1, row["name"])
    )


def _dialogues(clips: Iterable[Clip]) -> dict[str, list[Clip]]:
    """Name of a dialogue -> its clips in order of turn."""
    found: dict[str, list[Clip]] = {}
    for clip in clips:
        if clip["dialogue"] is not None:
            found.setdefault(clip["dialogue"], []).append(clip)
    return {name: by_turn(turns) for name, turns in found.items()}


def _part_of(turns: Sequence[Clip], dialogue: Sequence[Clip]) -> dict[str, Any]:
    """Turns of a dialogue in a unit, and the nearest texts around them."""
    if len(turns) == len(dialogue):
        return {"turns": turns, "before": [], "after": [], "cut": False}
    inside = {clip["clip_id"] for clip in turns}
    places = [place for place, clip in enumerate(dialogue) if clip["clip_id"] in inside]
    first, last = places[0], places[-1]
    assert last - first + 1 == len(turns), "a dialogue is cut between its turns"
    before = [clip["text"] for clip in dialogue[:first] if clip["text"]]
    after = [clip["text"] for clip in dialogue[last + 1 :] if clip["text"]]
    return {
        "turns": turns,
        "before": before[-CONTEXT_TEXTS:],
        "after": after[:CONTEXT_TEXTS],
        "cut": True,
    }


def _media_keys(unit: Sequence[Clip], stamps: Stamps) -> dict[str, str]:
    def source(clip: Clip, kind: str) -> list[object] | None:
        value = clip[kind]
        if value is None:
            return None
        stamp = stamps.get(value["uri"])
        times = [clip["start_s"], clip["end_s"]]
        return [value["uri"], value["offset"], value["size"], stamp, times]

    return {
        "sound": _digest(source(clip, "audio") for clip in unit),
        "heard": _digest(source(clip, "audio") if clip["text"] is None else "" for clip in unit),
        "picture": _digest(source(clip, "video") for clip in unit),
    }


def _text_keys(unit: Sequence[Clip], parts: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    past, around = [], []
    for part in parts:
        own = [[clip["clip_id"], clip["text"]] for clip in part["turns"]]
        past.append([part["before"], own])
        around.append([part["before"], own, part["after"]])
    return {
        # Steps of a text without word times span the clip: its length is read too.
        "text": _digest([clip["text"], clip["duration_s"]] for clip in unit),
        "words": _digest(clip["words"] for clip in unit),
        "past": _digest(past),
        "around": _digest(around),
        "split": _digest(clip["split"] == "test" for clip in unit),
        "people": _digest([clip["dialogue"], clip["turn"], clip["speaker"]] for clip in unit),
    }


def _digest(items: Iterable[object]) -> str:
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps(item, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()[:16]
