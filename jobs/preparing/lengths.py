"""Lengths of clips: segments against the ends of their files, and pieces of clips that are too long."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from encoders.spec import Word
from jobs.preparing.adapter import Row

ROUNDING_S = 0.5
"""A segment may end so much behind its file: tables and containers round differently."""

MOST_SHOWN = 5


@dataclass(frozen=True)
class Measured:
    """A row, and how long its files are together [s]; None where they could not be opened."""

    row: Row
    whole_s: float | None

    @property
    def length_s(self) -> float | None:
        """Length of what is there of the clip [s]; 0 for a segment beyond the end of its file."""
        row, whole_s = self.row, self.whole_s
        if row.end_s is None and whole_s is None:
            return None
        end_s = min(end for end in (row.end_s, whole_s) if end is not None)
        return max(0.0, end_s - (row.start_s or 0.0))

    @property
    def is_beyond(self) -> bool:
        """Whether nothing of the segment is there."""
        start_s = self.row.start_s
        return start_s is not None and self.whole_s is not None and start_s >= self.whole_s

    @property
    def is_cut(self) -> bool:
        """Whether the segment reaches behind the end of its file."""
        end_s, whole_s = self.row.end_s, self.whole_s
        cut = end_s is not None and whole_s is not None and end_s > whole_s + ROUNDING_S
        return cut and not self.is_beyond

    def is_longer(self, max_clip_s: float | None) -> bool:
        """Whether it has to be cut into pieces."""
        return max_clip_s is not None and (self.length_s or 0.0) > max_clip_s


def pieces(clip: Measured, max_clip_s: float | None) -> list[Row]:
    """Successive pieces of a clip that is too long, each with its own words where their times are known.

    A piece never gets the text of the whole: without times it has none, and a transcriber may give it one.
    """
    row, length = clip.row, clip.length_s
    if max_clip_s is None or length is None or not clip.is_longer(max_clip_s):
        whole_s = clip.whole_s
        open_end = row.start_s is not None and row.end_s is None and whole_s is not None
        return [replace(row, end_s=max(whole_s or 0.0, row.start_s or 0.0)) if open_end else row]
    count = math.ceil(length / max_clip_s - 1e-9)
    said: list[list[Word]] = [[] for _ in range(count)]
    for word in row.words or ():
        said[min(max(0, int(word.start_s // max_clip_s)), count - 1)].append(word)
    return [
        _piece(row, k * max_clip_s, min(length, (k + 1) * max_clip_s), said[k])
        for k in range(count)
    ]


class Notes:
    """What is to be said of lengths: segments beyond the ends of their files, long clips that were cut.

    Args:
        max_clip_s: length of the pieces that longer clips are cut into [s].
    """

    def __init__(self, max_clip_s: float | None) -> None:
        self.max_clip_s = max_clip_s
        self._segments = self._long = self._pieces = self._wordless = 0
        self._beyond, self._cut = _Listed(), _Listed()

    def add(self, clip: Measured) -> None:
        """Count a clip."""
        row = clip.row
        if row.start_s is not None or row.end_s is not None:
            self._segments += 1
            if clip.is_beyond:
                self._beyond.add(clip)
            if clip.is_cut:
                self._cut.add(clip)
        if clip.is_longer(self.max_clip_s):
            self._long += 1
            self._pieces += len(pieces(clip, self.max_clip_s))
            self._wordless += row.text is not None and row.words is None

    def lines(self) -> list[str]:
        """All that was found."""
        found = []
        if self._beyond.count:
            many = 2 * self._beyond.count > self._segments
            doubt = "; are start_s and end_s in seconds?" if many else ""
            found.append(
                f"{self._beyond.count:,} of {self._segments:,} segments begin beyond the end of their file "
                f"and will have error rows: {self._beyond}{doubt}"
            )
        if self._cut.count:
            found.append(
                f"{self._cut.count:,} of {self._segments:,} segments end beyond the end of their file and "
                f"are shorter than the table says: {self._cut}"
            )
        if self._long:
            found.append(
                f"{self._long:,} clips longer than {self.max_clip_s:g} s became {self._pieces:,} pieces"
            )
        if self._wordless:
            found.append(
                f"the texts of {self._wordless:,} of them have no word times: their pieces have no text; "
                "affuse encode --transcriber NAME gives each piece the words that are heard in it"
            )
        return found


def _piece(row: Row, start: float, end: float, said: Sequence[Word]) -> Row:
    begin = row.start_s or 0.0
    return replace(
        row,
        name=f"{row.name}@{start:g}",
        start_s=begin + start,
        end_s=begin + end,
        words=None
        if row.words is None
        else [
            Word(word.text, max(0.0, word.start_s - start), max(0.0, min(word.end_s, end) - start))
            for word in said
        ],
        text=None if row.words is None else " ".join(word.text for word in said),
    )


class _Listed:
    """Clips that are counted, the first of them by name."""

    def __init__(self) -> None:
        self.count = 0
        self._shown: list[str] = []

    def add(self, clip: Measured) -> None:
        """Count a segment."""
        self.count += 1
        if self.count <= MOST_SHOWN:
            row = clip.row
            end = "the end" if row.end_s is None else f"{row.end_s:g} s"
            self._shown.append(
                f"{row.name} ({row.start_s or 0.0:g} to {end} of {clip.whole_s:.2f} s)"
            )

    def __str__(self) -> str:
        more = self.count - len(self._shown)
        return ", ".join(self._shown) + (f" and {more:,} more" if more else "")
