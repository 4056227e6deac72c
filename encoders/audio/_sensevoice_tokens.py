"""The tokens of SenseVoice: their pieces out of a SentencePiece file, and text out of them."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import WeightsError

BLANK = 0
SPECIAL = re.compile(r"<\|[^|]*\|>|<unk>|</?s>")
"""Pieces that are no text."""

PIECES, PIECE, TEXT = 1, 1, 2
"""Fields of a SentencePiece model: its pieces, the text of a piece; wire type of text."""

LARGEST = 64 * 2**20
"""Bytes of a token file that is believed."""


@dataclass(frozen=True)
class SentencePieces:
    """Pieces by their number."""

    pieces: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path) -> "SentencePieces":
        """The pieces of `tokens.json` or of the only `*.bpe.model` of a folder.

        Raises:
            WeightsError: there is neither, or it cannot be read.
        """
        listed, models = folder / "tokens.json", sorted(folder.glob("*.bpe.model"))
        file = listed if listed.is_file() else models[0] if len(models) == 1 else None
        if file is None or file.stat().st_size > LARGEST:
            raise WeightsError(
                f"{folder} holds no tokens; expected tokens.json or one *.bpe.model, as in "
                "FunAudioLLM/SenseVoiceSmall"
            )
        try:
            if file == listed:
                pieces = [str(piece) for piece in json.loads(file.read_text(encoding="utf-8"))]
            else:
                pieces = [
                    _text(piece) for field, piece in fields(file.read_bytes()) if field == PIECES
                ]
        except (ValueError, IndexError, RecursionError) as error:
            raise WeightsError(f"{file} cannot be read as tokens: {error}") from error
        return cls(tuple(pieces))

    def ids_of(self, pieces: Sequence[str]) -> list[int]:
        """Their numbers.

        Raises:
            WeightsError: one of them is no token.
        """
        if absent := [piece for piece in pieces if piece not in self.pieces]:
            raise WeightsError(f"the tokens have no {' '.join(absent)}; expected SenseVoice's own")
        return [self.pieces.index(piece) for piece in pieces]

    def said(self, token: int) -> str:
        """A piece as text, blanks in place of its marks; empty where it is none."""
        return SPECIAL.sub("", self.pieces[token]).replace("\u2581", " ")


def fields(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message of Protocol Buffers that hold text or messages.

    Raises:
        ValueError: it ends in the middle, or is none.
    """
    at = 0
    while at < len(content):
        key, at = _number(content, at)
        kind = key & 7
        if kind == TEXT:
            size, at = _number(content, at)
            if at + size > len(content):
                raise ValueError("it ends in the middle")
            yield key >> 3, content[at : at + size]
            at += size
        elif kind == 0:
            _, at = _number(content, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"no field of type {kind} is known")


def _number(content: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number does not end")


def _text(piece: bytes) -> str:
    return next((text.decode() for field, text in fields(piece) if field == PIECE), "")
