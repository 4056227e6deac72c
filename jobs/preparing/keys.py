"""Keys of each unit (hashes of sound, pictures, texts, ...), and the texts around a dialogue that was cut.

A unit's id says which clips it holds; these hashes say what was read of them. An encoder's key is made of
the parts that it reads (`encoders.spec.Descriptor.reads`), so that a typo in a text makes no film be encoded
again, and a turn that moved makes every text that reads its neighbours be.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from cluster.tables import KEYS, MANIFEST
from jobs.preparing.json_text import Texts, dumps, json_texts, lists

CONTEXT_TEXTS = 1024
"""Texts before and after a clip that can be its context; no text encoder reads so many tokens."""

Turn = TypeVar("Turn", bound=Mapping[str, Any])
Stamps = Mapping[str, Mapping[str, object] | None]
"""Source URI -> its size and time of change, None where there is no such file."""


class Said(NamedTuple):
    """A turn of a dialogue."""

    clip_id: int
    text: str | None


Dialogues = Callable[[str], Sequence[Said] | None]
"""Name of a dialogue that was cut -> all its turns in order; None for one that lies in one unit."""


def keyed(clips: pa.Table, stamps: Stamps, dialogues: Dialogues) -> pa.Table:
    """The clips with `keys`, and `before` and `after` where a dialogue was cut.

    Args:
        clips: whole units behind one another.
        stamps: size and time of change of every source.
        dialogues: the turns of those that were cut.
    """
    columns = _media_texts(clips, stamps) | _text_texts(clips)
    around = _Around(clips, dialogues)
    count = clips.num_rows
    before: list[list[str] | None] = [None] * count
    after: list[list[str] | None] = [None] * count
    parts: dict[str, list[str]] = {name: [] for name in KEYS.names}
    lengths = []
    for start, stop in unit_ranges(clips):
        lengths.append(stop - start)
        for name, texts in columns.items():
            parts[name].append(digest(texts[start:stop]))
        past, both = [], []
        for part in around.of(start, stop):
            past.append(dumps([part.before, part.own]))
            both.append(dumps([part.before, part.own, part.after]))
            if part.cut:
                before[part.first], after[part.first] = part.before, part.after
        parts["past"].append(digest(past))
        parts["around"].append(digest(both))
    index = pa.array(np.repeat(np.arange(len(lengths)), lengths))
    keys = pa.StructArray.from_arrays(
        [pa.array(parts[name], pa.string()).take(index) for name in KEYS.names], KEYS.names
    )
    found = {"keys": keys, "before": before, "after": after}
    for name, values in found.items():
        clips = clips.append_column(name, pa.array(values, MANIFEST.schema.field(name).type))
    return clips


def turn_rank(turn: int | None, name: str) -> tuple[int, str]:
    """What the clips of a dialogue are ordered by."""
    return (-1 if turn is None else turn), name


def by_turn(clips: Iterable[Turn]) -> list[Turn]:
    """The clips of a dialogue in the order of their turns."""
    return sorted(clips, key=lambda row: turn_rank(row["turn"], row["name"]))


def unit_ranges(clips: pa.Table) -> Iterator[tuple[int, int]]:
    """First row of every unit, and the row behind its last."""
    start = 0
    for _, rows in groupby(clips["unit"].to_pylist()):
        stop = start + sum(1 for _ in rows)
        yield start, stop
        start = stop


class TalkPart(NamedTuple):
    """Turns of a dialogue in a unit, in order, and the nearest texts around them."""

    first: int
    """Row of its first turn."""

    own: list[list[Any]]
    before: list[str]
    after: list[str]
    cut: bool


class _Around:
    """The dialogues in units."""

    def __init__(self, clips: pa.Table, dialogues: Dialogues) -> None:
        self._none = clips["dialogue"].null_count == clips.num_rows
        self._turns_of = dialogues
        if not self._none:
            columns = ("dialogue", "turn", "name", "clip_id", "text")
            self._rows = list(zip(*(clips[name].to_pylist() for name in columns), strict=True))

    def of(self, start: int, stop: int) -> Iterator[TalkPart]:
        """The dialogues of a unit, in the order of their first rows."""
        if self._none:
            return
        found: dict[str, list[int]] = {}
        for row in range(start, stop):
            if (name := self._rows[row][0]) is not None:
                found.setdefault(name, []).append(row)
        for name, rows in found.items():
            ordered = sorted(rows, key=lambda row: turn_rank(*self._rows[row][1:3]))
            own = [list(self._rows[row][3:]) for row in ordered]
            whole = self._turns_of(name)
            if whole is None:
                yield TalkPart(ordered[0], own, [], [], cut=False)
            else:
                yield TalkPart(ordered[0], own, *_texts_around(own, whole), cut=True)


def _texts_around(
    own: Sequence[Sequence[Any]], whole: Sequence[Said]
) -> tuple[list[str], list[str]]:
    inside = {clip_id for clip_id, _ in own}
    places = [place for place, said in enumerate(whole) if said.clip_id in inside]
    first, last = places[0], places[-1]
    assert last - first + 1 == len(own), "a dialogue is cut between its turns"
    before = [said.text for said in whole[:first] if said.text]
    after = [said.text for said in whole[last + 1 :] if said.text]
    return before[-CONTEXT_TEXTS:], after[:CONTEXT_TEXTS]


def _media_texts(clips: pa.Table, stamps: Stamps) -> dict[str, Texts]:
    times = lists(json_texts(clips["start_s"]), json_texts(clips["end_s"]))

    def sources(kind: str) -> Texts:
        column = clips[kind]
        if column.null_count == len(column):
            return json_texts(column)
        return [
            "null"
            if value is None
            else f"{dumps([*value.values(), stamps.get(value['uri'])])[:-1]}, {time}]"
            for value, time in zip(column.to_pylist(), times, strict=True)
        ]

    sound = sources("audio")
    wordless = clips["text"].is_null().to_pylist()
    return {
        "sound": sound,
        "heard": [
            source if nothing else '""' for source, nothing in zip(sound, wordless, strict=True)
        ],
        "picture": sources("video"),
    }


def _text_texts(clips: pa.Table) -> dict[str, Texts]:
    texts = {
        name: json_texts(clips[name])
        for name in ("text", "duration_s", "words", "dialogue", "turn", "speaker")
    }
    return {
        # Steps of a text without word times span the clip: its length is read too.
        "text": lists(texts["text"], texts["duration_s"]),
        "words": texts["words"],
        "split": ["true" if split == "test" else "false" for split in clips["split"].to_pylist()],
        "people": lists(texts["dialogue"], texts["turn"], texts["speaker"]),
    }


def digest(texts: Texts) -> str:
    """The hash of some JSON texts, one a line."""
    if len(set(texts)) <= 1:
        return _digest_of_equals(texts[0] if texts else "", len(texts))
    return hashlib.sha256(("\n".join(texts) + "\n").encode()).hexdigest()[:16]


@lru_cache(4096)
def _digest_of_equals(text: str, count: int) -> str:
    return hashlib.sha256(f"{text}\n".encode() * count).hexdigest()[:16]
