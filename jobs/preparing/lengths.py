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


def notes(clips: Sequence[Measured], max_clip_s: float | None) -> list[str]:
    """Notes on lengths: segments beyond the ends of their files, and long clips that were cut."""
    segments = [
        clip for clip in clips if clip.row.start_s is not None or clip.row.end_s is not None
    ]
    beyond = [clip for clip in segments if clip.is_beyond]
    cut = [clip for clip in segments if clip.is_cut]
    long = [clip for clip in clips if clip.is_longer(max_clip_s)]
    wordless = [clip for clip in long if clip.row.text is not None and clip.row.words is None]
    found = []
    if beyond:
        doubt = "; are start_s and end_s in seconds?" if 2 * len(beyond) > len(segments) else ""
        found.append(
            f"{len(beyond):,} of {len(segments):,} segments begin beyond the end of their file and "
            f"will have error rows: {_listed(beyond)}{doubt}"
        )
    if cut:
        found.append(
            f"{len(cut):,} of {len(segments):,} segments end beyond the end of their file and are "
            f"shorter than the table says: {_listed(cut)}"
        )
    if long:
        count = sum(len(pieces(clip, max_clip_s)) for clip in long)
        found.append(f"{len(long):,} clips longer than {max_clip_s:g} s became {count:,} pieces")
    if wordless:
        found.append(
            f"the texts of {len(wordless):,} of them have no word times: their pieces have no text; "
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


def _listed(clips: Sequence[Measured]) -> str:
    shown = [
        f"{clip.row.name} ({clip.row.start_s or 0.0:g} to "
        f"{'the end' if clip.row.end_s is None else f'{clip.row.end_s:g} s'} of {clip.whole_s:.2f} s)"
        for clip in clips[:MOST_SHOWN]
    ]
    more = f" and {len(clips) - MOST_SHOWN:,} more" if len(clips) > MOST_SHOWN else ""
    return ", ".join(shown) + more
