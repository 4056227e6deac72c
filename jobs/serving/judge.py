"""From what one visitor gave (a file, words, or both) to everything that is said about it, as JSON."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pyarrow as pa

from cluster.errors import MediaError
from encoders.media import Source
from jobs.captioning.faces import FaceBoxes, face_boxes
from jobs.library.clip_rows import ClipRow
from jobs.library.encoding import encode_rows
from jobs.library.loaded_bundle import LoadedBundle, load
from jobs.preparing.adapter import is_sound
from jobs.serving.captioned import FILM, write_captioned
from jobs.serving.darkness import SENTENCE, too_dark
from jobs.serving.refusal import RefusalError
from jobs.serving.sniffing import PICTURES
from jobs.stream.decode import decoder_of
from jobs.stream.faults import WorkerFaultError

WINDOW_S = 5.0
"""Length of a piece of the timeline [s]."""

LONGER_S = 7.5
"""From this length on a clip has a timeline [s]."""

MOST_WINDOWS = 24
"""Pieces of the timeline; those of a long clip are longer."""

WHOLE_SHARE = 0.5
"""Share of the progress at which the clip as a whole is done, where a timeline follows."""

Report = Callable[[float], None]
"""Told what share is done [0..1]."""

Answer = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What one visitor gave."""

    file: str | None = None
    name: str = "text"
    """What the visitor called it; never part of a path."""

    text: str | None = None
    """Words that were typed, or those of the file."""

    said: Answer | None = None
    """What was answered about the file before; it is written on the film."""


class Judge:
    """A bundle, loaded in one process, that answers one order after the other.

    Args:
        loaded: the bundle.
        max_s: longest clip [s].
    """

    def __init__(self, loaded: LoadedBundle, max_s: float) -> None:
        loaded.bundle.refuse_raw()
        self.loaded, self.max_s = loaded, max_s
        loaded.encoder.load()
        self._modality = loaded.scorer.modality
        self._mark: FaceBoxes | None = None

    def answer(self, order: Order, report: Report) -> Answer:
        """All that is said of an order.

        Raises:
            RefusalError: it cannot be read, is too long, or holds nothing that the bundle reads.
        """
        if order.said is not None:
            return self._captioned(order, order.said, report)
        begun = time.perf_counter()
        duration_s, film = self._facts(order)
        row = ClipRow(clip_id=0, name=order.name, file=order.file, text=order.text, given={})
        features, heard = self._encode(row, order)
        whole, *alone = self._verdicts(row, features)
        hint = self._hint(order, alone)
        if whole["status"] in ("failed", "missing"):
            raise RefusalError(
                422, "; ".join(filter(None, (_without_path(whole["error"], order), hint)))
            )
        windows = _windows(duration_s)
        report(WHOLE_SHARE if windows else 1.0)
        timeline = []
        for place, (start_s, end_s) in enumerate(windows, 1):
            timeline.append(self._window(row, order, heard, start_s, end_s))
            report(WHOLE_SHARE + (1 - WHOLE_SHARE) * place / len(windows))
        return {
            "name": order.name,
            "bundle": self.loaded.bundle.name,
            "task": self.loaded.task_name,
            "kind": self.loaded.task.kind,
            "classes": list(self.loaded.task.classes),
            **_said(whole),
            "status": whole["status"],
            "error": None if whole["error"] is None else _without_path(whole["error"], order),
            "hint": hint,
            "modalities": alone,
            "transcript": heard,
            "timeline": timeline,
            "duration_s": duration_s,
            "film": film,
            "seconds": round(time.perf_counter() - begun, 3),
        }

    def _captioned(self, order: Order, said: Answer, report: Report) -> Answer:
        """The same answer; the film with it lies beside the order's file."""
        assert order.file is not None
        if self._mark is None:
            self._mark = face_boxes(self.loaded.bundle.encoders, self.loaded.store)
        target = os.path.join(os.path.dirname(order.file), FILM)
        write_captioned(order.file, target, said, self._mark, report)
        return said

    def _facts(self, order: Order) -> tuple[float | None, bool]:
        """Length of a file [s], and whether it is a film."""
        if order.file is None:
            return None, False
        try:
            decoder = decoder_of(self.loaded.encoder.decoding)
            found = decoder.probe(Source(order.file))
        except MediaError as error:
            raise RefusalError(422, _without_path(str(error), order)) from error
        length_s = found.duration_s
        if length_s is not None and length_s > self.max_s:
            raise RefusalError(
                413, f"{order.name} is {length_s:.0f} s long; at most {self.max_s:g} s are taken"
            )
        still = os.path.splitext(order.file)[1] in PICTURES
        return length_s, found.has_video and not still and not is_sound(order.file)

    def _hint(self, order: Order, alone: Sequence[Mapping[str, Any]]) -> str | None:
        """Why there is no word of the pictures, where that can be mended."""
        reads = "video" in self._modality.values()
        if order.file is None or not reads or any(each["modality"] == "video" for each in alone):
            return None
        dark = too_dark(order.file, decoder_of(self.loaded.encoder.decoding))
        return SENTENCE if dark else None

    def _encode(
        self, row: ClipRow, order: Order
    ) -> tuple[Mapping[str, pa.Table], dict[str, Any] | None]:
        """The features of a clip, and its transcript."""
        try:
            found = encode_rows(self.loaded.encoder, [row])
        except WorkerFaultError as fault:
            raise RefusalError(422, f"{order.name} cannot be read: {fault.kind}") from fault
        return found.features, _transcript(found.transcripts)

    def _verdicts(self, row: ClipRow, features: Mapping[str, pa.Table]) -> list[dict[str, Any]]:
        """SCORES of a clip, then what is said where only one modality is there, for each that is."""
        names = sorted({self._modality[folder] for folder in features})
        facts = [{**row.facts, "clip_id": place} for place in range(len(names) + 1)]
        copies = {
            folder: pa.concat_tables(
                [
                    _numbered(table, place, there=name in (None, self._modality[folder]))
                    for place, name in enumerate([None, *names])
                ]
            )
            for folder, table in features.items()
        }
        rows = self.loaded.scorer.scores(facts, copies).sort_by("clip_id").to_pylist()
        alone = [
            {"modality": name, **_said(said)}
            for name, said in zip(names, rows[1:], strict=True)
            if said["status"] not in ("failed", "missing")
        ]
        return [rows[0], *alone]

    def _window(
        self,
        row: ClipRow,
        order: Order,
        heard: Mapping[str, Any] | None,
        start_s: float,
        end_s: float,
    ) -> dict[str, Any]:
        text = order.text
        if text is None and heard is not None and heard["words"] is not None:
            middle = ((word["start_s"] + word["end_s"]) / 2 for word in heard["words"])
            inside = [start_s <= second < end_s for second in middle]
            words = zip(heard["words"], inside, strict=True)
            text = " ".join(word["text"].strip() for word, so in words if so)
        piece = replace(row, start_s=start_s, end_s=end_s, text=text)
        features, _ = self._encode(piece, order)
        (said,) = self.loaded.scorer.scores([piece.facts], features).to_pylist()
        return {"start_s": start_s, "end_s": end_s, **_said(said)}


def open_judge(bundle: str, root: str, store: str | None, max_s: float) -> Judge:
    """A judge of a bundle; its models are loaded."""
    return Judge(load(bundle, root=root, store=store), max_s)


def _said(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row of SCORES says, as JSON has it."""
    shares = row["probabilities"]
    return {
        "label": None if row["label"] is None else "+".join(row["label"]),
        "confidence": row["confidence"],
        "probabilities": None if shares is None else dict(shares),
        "value": row["value"],
    }


def _numbered(table: pa.Table, clip_id: int, *, there: bool) -> pa.Table:
    """The row of a clip under another id; of a modality that is taken away, what absence looks like."""
    columns = {}
    for field in table.schema:
        if field.name == "clip_id":
            columns[field.name] = pa.array([clip_id], field.type)
        elif there:
            columns[field.name] = table[field.name]
        elif field.name == "status":
            columns[field.name] = pa.array(["missing"], field.type)
        else:
            columns[field.name] = pa.nulls(1, field.type)
    return pa.table(columns, schema=table.schema)


def _transcript(table: pa.Table | None) -> dict[str, Any] | None:
    if table is None:
        return None
    (row,) = table.to_pylist()
    if row["text"] is None:
        return None
    return {name: row[name] for name in ("text", "language", "confidence", "words")}


def _windows(duration_s: float | None) -> Sequence[tuple[float, float]]:
    """The pieces of a timeline; none of a short clip."""
    if duration_s is None or duration_s < LONGER_S:
        return []
    count = min(round(duration_s / WINDOW_S), MOST_WINDOWS)
    ends = [duration_s * place / count for place in range(count + 1)]
    return [(round(a, 3), round(b, 3)) for a, b in pairwise(ends)]


def _without_path(message: str, order: Order) -> str:
    """A message in which the file is called what the visitor called it."""
    if order.file is not None:
        message = message.replace(order.file, order.name)
        with suppress(ValueError):
            message = message.replace(order.file.rsplit("/", 1)[1], order.name)
    return message
