"""Scoring a clip in pieces, in this process: rows as they come, memory that does not grow with the clip."""

import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from cluster import storage
from cluster.errors import ConfigError, Fault, MediaError
from cluster.tables import SCORES
from encoders.media import ClipSource, Decoded, Decoder
from jobs.catalog.manifest import read_unit, units
from jobs.preparing.adapter import clip_id
from jobs.preparing.probing import stamps_of
from jobs.scoring.files import names_of
from jobs.scoring.in_process import OneByOne, clip_of, scores_of
from jobs.scoring.pieces import (
    BLOCK_S,
    By,
    PiecesConfig,
    Span,
    block_of,
    next_start,
    sentences,
    windows,
    with_words,
)
from jobs.scoring.scorer import Scorer
from jobs.stream.decode import decode_clip, decoder_of, source_of
from jobs.stream.faults import Kind, WorkerFaultError
from jobs.stream.job import Todo, UnitResult
from jobs.stream.progress import clock
from jobs.stream.result_rows import error_rows, joined, undecoded, with_transcripts

TOGETHER = 8
"""Pieces that are encoded at once."""


class PieceScorer:
    """Scores clips in pieces.

    Args:
        encoder: of what the bundles read.
        scorers: the bundles.
        by: what a piece is.
        pieces: how long it is.
    """

    def __init__(
        self, encoder: OneByOne, scorers: Sequence[Scorer], by: By, pieces: PiecesConfig
    ) -> None:
        self.encoder, self.scorers, self.by, self.pieces = encoder, scorers, by, pieces
        self.work = encoder.work
        self._passed = False
        if by == "sentence" and self.work.transcriber is None:
            raise ConfigError(
                "--by sentence: the bundle hears no words; type: --transcriber whisper_tiny_en_asr, or "
                "--by window"
            )

    def scores(self, source: ClipSource, name: str) -> Iterator[pa.Table]:
        """SCORES of a clip, some pieces at a time in order of time.

        Args:
            source: the clip, with its length.
            name: of the clip; all its rows have it.
        """
        start_s = source.start_s or 0.0
        end_s = source.duration_s if source.end_s is None else source.end_s
        if end_s is None:  # decoding says why, or it is read as one
            whole = replace(source, clip_id=clip_id(name))
            yield self._scored(name, [None], [self._settled(whole, self.encoder.outcome(whole))])
            return
        silent = True
        while start_s < end_s - 1e-6:
            block = (start_s, min(start_s + self.pieces.block_s, end_s))
            heard = self._heard(source, block)
            spans, start_s = self._cut(block, end_s, heard)
            pieces = zip(spans, self._decoded(source, name, block, spans, heard), strict=True)
            while few := list(itertools.islice(pieces, TOGETHER)):
                silent = False
                results = self._encoded([piece for _, piece in few])
                yield self._scored(name, [span for span, _ in few], results)
        if silent:
            nothing = MediaError(Fault.NO_TEXT, "nothing was said")
            all_of_it = (source.start_s or 0.0, end_s)
            named = replace(source, clip_id=id_of(name, all_of_it))
            rows = error_rows(self.work, self._todo, named, nothing)
            yield self._scored(name, [all_of_it], [rows])

    @property
    def _todo(self) -> Todo:
        return replace(self.work.everything, transcribe=False)

    def _cut(self, block: Span, end_s: float, heard: Decoded | None) -> tuple[list[Span], float]:
        """The pieces of a block, and where the next block starts [s]."""
        if self.by == "sentence":
            words = () if heard is None else heard.clip.words or ()
            found = sentences(words)
            whole, left_s = len(found), block[1] - block[0]
            if block[1] < end_s - 1e-6:
                whole, left_s = next_start(found, left_s)
            times = [(said[0].start_s, said[-1].end_s) for said in found[:whole]]
            spans = [(block[0] + start, min(block[0] + end, end_s)) for start, end in times]
            return [span for span in spans if span[1] > span[0]], block[0] + left_s
        spans = []
        for span in windows(block[0], end_s, self.pieces):
            if span[1] > block[1] + 1e-6:
                return spans, span[0]
            spans.append(span)
        return spans, end_s

    def _heard(self, source: ClipSource, block: Span) -> Decoded | None:
        """A block with the words that are recognised in it; None where nobody listens."""
        if self.work.transcriber is None or source.audio is None:
            return None
        todo = Todo(encoders=(), transcribe=True)
        decoder = decoder_of(self.encoder.decoding)
        decoded = decode_clip(self.work, todo, block_of(source, *block), decoder)
        outcome = self.encoder.encoded([decoded], todo)
        if isinstance(outcome, WorkerFaultError):
            return replace(decoded, faults={**decoded.faults, "text": outcome.row()})
        assert outcome.transcripts is not None
        return with_transcripts([decoded], outcome.transcripts)[0]

    def _decoded(
        self,
        source: ClipSource,
        name: str,
        block: Span,
        spans: Sequence[Span],
        heard: Decoded | None,
    ) -> Iterator[Decoded]:
        """The pieces, decoded together, with the words that are said in them."""
        if not spans:
            return
        decoder = decoder_of(self.encoder.decoding)
        pieces = decoder.decode_pieces(source, self.work.needs(self._todo), spans)
        fault = MediaError(Fault.UNREADABLE, "not decoded")
        for span in spans:
            alone = replace(block_of(source, *span), clip_id=id_of(name, span))
            try:
                piece = next(pieces)
                piece = replace(piece, clip=replace(piece.clip, clip_id=alone.clip_id))
            except MediaError as error:
                fault, pieces = error, iter(())
                piece = undecoded(alone, fault)
            except StopIteration:
                piece = undecoded(alone, fault)
            if heard is not None:
                piece = with_words(piece, heard, (span[0] - block[0], span[1] - block[0]))
            yield piece

    def _encoded(self, pieces: Sequence[Decoded]) -> list[UnitResult]:
        """The tables of some pieces; where something fails, one by one."""
        together = self.encoder.encoded(pieces, self._todo)
        if isinstance(together, UnitResult):
            self._passed = True
            return [together]
        if len(pieces) > 1:
            return [result for piece in pieces for result in self._encoded([piece])]
        return [self._settled(ClipSource(clip_id=pieces[0].clip.clip_id), together)]

    def _settled(self, source: ClipSource, outcome: UnitResult | WorkerFaultError) -> UnitResult:
        """As `jobs.scoring.in_process.settled`, for pieces that come one after the other."""
        if isinstance(outcome, UnitResult):
            return outcome
        if not self._passed and outcome.kind is not Kind.HUNG:
            raise outcome
        return error_rows(self.work, self._todo, source, outcome.row())

    def _scored(
        self, name: str, spans: Sequence[Span | None], results: Sequence[UnitResult]
    ) -> pa.Table:
        """SCORES of some pieces by each bundle."""
        features = joined(results).features
        facts = [fact_of(name, span) for span in spans]
        order = [("bundle", "ascending"), ("start_s", "ascending")]
        return scores_of(self.scorers, facts, features).sort_by(order)


def id_of(name: str, span: Span) -> int:
    """A stable id of a piece."""
    return clip_id(f"{name}@{span[0]:.6f}-{span[1]:.6f}")


def fact_of(name: str, span: Span | None) -> dict[str, Any]:
    """What a scorer is told of a piece."""
    if span is None:
        return {"clip_id": clip_id(name), "name": name}
    return {"clip_id": id_of(name, span), "name": name, "start_s": span[0], "end_s": span[1]}


@dataclass(frozen=True, kw_only=True)
class WholeClip:
    """A clip that is scored in pieces."""

    name: str
    version: Sequence[Any]
    """What its rows depend on, as JSON: name, files with their times of change, segment."""

    source: Callable[[], ClipSource]
    """Opens it."""


def clips_of_files(files: Sequence[str], decoder: Decoder) -> Iterator[WholeClip]:
    """Files as clips, by paths or URIs."""
    names = names_of(files)
    for file in files:
        yield WholeClip(
            name=names[file],
            version=[names[file], file, stamps_of([file], workers=1)[file]],
            source=partial(clip_of, file, names[file], decoder),
        )


def clips_of_dataset(root: str) -> Iterator[WholeClip]:
    """The clips of a manifest, without their texts: nobody says which words fall into a piece."""
    for ref in units(root):
        for row in read_unit(ref).to_pylist():
            places = [row[track] for track in ("video", "audio") if row[track] is not None]
            stamps = stamps_of([place["uri"] for place in places], workers=1)
            yield WholeClip(
                name=row["name"],
                version=[row["name"], row["start_s"], row["end_s"], places, stamps],
                source=partial(replace, source_of(row), text=None, words=None, context=((), ())),
            )


def score_pieces(
    clips: Iterable[WholeClip], pieces: PieceScorer, folder: str | None = None
) -> Iterator[pa.Table]:
    """SCORES of clips in pieces, a table a clip.

    Args:
        clips: what is scored.
        pieces: what scores them.
        folder: where the table of each is kept until all are there, so that a stop costs one clip.
    """
    for clip in clips:
        kept = None if folder is None else storage.join(folder, part_of(clip))
        if kept is not None and storage.exists(kept):
            yield storage.read_table(kept)
            continue
        source = clip.source()
        parts = []
        for part in pieces.scores(source, clip.name):
            parts.append(part)
            _tell(clip.name, part, source.duration_s)
        table = SCORES.conform(pa.concat_tables(parts))
        if kept is not None:
            storage.publish_table(table, kept)
        yield table


def part_of(clip: WholeClip) -> str:
    """Name of the table of one clip: another version of its files has another."""
    return f"{clip_id(json.dumps(clip.version))}.parquet"


def _tell(name: str, part: pa.Table, length_s: float | None) -> None:
    """Progress within a clip of more than a block, a line at a time."""
    reached = part["end_s"][-1].as_py()
    if length_s is not None and reached is not None and length_s > 4 * BLOCK_S:
        print(f"{name}: {clock(reached)} of {clock(length_s)}", file=sys.stderr, flush=True)
