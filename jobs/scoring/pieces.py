"""A clip of any length in pieces, windows or sentences, with a few of them in memory at a time.

The clip is read in blocks of half a minute. A block's sound is decoded and its speech recognised once; then
all pieces that end inside it are decoded together, so that a picture that several windows see is decoded
once. The next block starts with the first piece that did not fit.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cluster.errors import ConfigError
from encoders.media import ClipSource, Decoded
from encoders.spec import Word

By = Literal["clip", "window", "sentence"]

BLOCK_S = 30.0
"""Least length of a block [s]."""

PAUSE_S = 0.8
"""A silence this long ends a sentence, whatever stands there [s]."""

LONGEST_SENTENCE_S = 20.0
"""A sentence is cut at a word after this long [s]."""

LEAST_STEP_S = 1.0
"""Least time from the start of a block to that of the next [s]: a recogniser's times may be nonsense."""

ENDS = (".", "?", "!", "\u2026", "\u3002", "\uff1f", "\uff01")
"""What a sentence ends with."""

Span = tuple[float, float]
"""Start and end in the file [s]."""


@dataclass(frozen=True, kw_only=True)
class PiecesConfig:
    """Pieces that a clip is scored in."""

    window_s: float = 5.0
    """Length of a window [s]."""

    step_s: float = 1.0
    """From the start of a window to that of the next [s]."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.window_s) and self.window_s > 0):
            raise ConfigError(f"window_s {self.window_s:g}: expected more than 0")
        if not 0 < self.step_s <= self.window_s:
            raise ConfigError(
                f"step_s {self.step_s:g}: expected more than 0 and at most window_s "
                f"({self.window_s:g}), else parts of the clip are left out"
            )

    @property
    def block_s(self) -> float:
        """Length of a block that holds several windows [s]."""
        return max(BLOCK_S, 2 * self.window_s)


def windows(start_s: float, end_s: float, config: PiecesConfig) -> Iterator[Span]:
    """Windows over a clip; the last one ends with the clip and may be shorter.

    >>> list(windows(0.0, 6.5, PiecesConfig()))
    [(0.0, 5.0), (1.0, 6.0), (2.0, 6.5)]
    """
    for number in range(math.ceil((end_s - start_s) / config.step_s)):
        begin = start_s + number * config.step_s
        yield begin, min(begin + config.window_s, end_s)
        if begin + config.window_s >= end_s - 1e-6:
            return


def sentences(words: Sequence[Word]) -> list[list[Word]]:
    """Words in sentences: by punctuation, by pauses, and by length where there is neither.

    >>> def said(text, start): return Word(text, start, start + 0.3)
    >>> found = sentences([said("Oh", 0.0), said("no.", 0.4), said("Stop", 0.8), said("it", 3.0)])
    >>> [" ".join(word.text for word in words) for words in found]
    ['Oh no.', 'Stop', 'it']
    """
    found: list[list[Word]] = []
    for word in words:
        last = found[-1] if found else None
        if (
            last is None
            or last[-1].text.rstrip("\"')\u201d\u2019").endswith(ENDS)
            or word.start_s - last[-1].end_s >= PAUSE_S
            or word.end_s - last[0].start_s > LONGEST_SENTENCE_S
        ):
            found.append([])
        found[-1].append(word)
    return found


def text_of(words: Sequence[Word]) -> str:
    """Words as a line."""
    return " ".join(word.text for word in words)


def with_words(piece: Decoded, block: Decoded, span: Span) -> Decoded:
    """A piece with the words of its block that are said in it (by their middle), in its own time.

    Args:
        piece: without words.
        block: what was recognised in all of the block.
        span: of the piece, from the start of the block [s].
    """
    heard = block.clip.words
    faults = dict(piece.faults)
    if (unheard := block.faults.get("text")) is not None:
        faults["text"] = unheard
    if block.clip.text is None or heard is None:
        return replace(piece, faults=faults)
    start_s, end_s = span
    inside = [word for word in heard if start_s <= (word.start_s + word.end_s) / 2 < end_s]
    moved = [
        Word(word.text, max(word.start_s - start_s, 0.0), min(word.end_s, end_s) - start_s)
        for word in inside
    ]
    clip = replace(piece.clip, text=text_of(moved), words=moved)
    return replace(piece, clip=clip, faults=faults)


def next_start(found: Sequence[Sequence[Word]], length_s: float) -> tuple[int, float]:
    """How many sentences of a block are whole, and where the next block starts.

    The last sentence is recognised again in the next block, unless a pause behind it says that it is over.

    Args:
        found: the sentences, in time from the block's start.
        length_s: of the block [s].
    """
    if len(found) < 2 or length_s - found[-1][-1].end_s >= PAUSE_S:
        return len(found), length_s
    between_s = (found[-2][-1].end_s + found[-1][0].start_s) / 2
    if not LEAST_STEP_S <= between_s < length_s:
        return len(found), length_s
    return len(found) - 1, between_s


def block_of(source: ClipSource, start_s: float, end_s: float) -> ClipSource:
    """A part of a clip."""
    return replace(source, start_s=start_s, end_s=end_s, duration_s=end_s - start_s)
