"""From results to rows: exactly one row for every clip, also for failed ones.

ok       encoded
partial  encoded, but less than the whole clip (a cap on frames)
missing  the clip has no such modality
failed   it has one, but it could not be decoded or encoded; `error` starts with the class of fault
"""

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster import tables
from cluster.errors import Fault, MediaError
from cluster.tables import scalar_lists, vector_lists
from encoders.clip import Word
from encoders.media import ClipSource, Decoded
from encoders.spec import Clip, Descriptor, Encoded, Modality, Transcript
from jobs.stream.job import Todo, UnitResult, Work

ABSENT = frozenset({Fault.NO_AUDIO, Fault.NO_VIDEO, Fault.NO_TEXT})
"""Faults that say that a modality is not there, which is no failure."""


def has_modality(clip: Clip, descriptor: Descriptor) -> bool:
    """Whether a decoded clip holds what an encoder reads."""
    if descriptor.spec.modality == "text":
        return clip.text is not None and clip.text.strip() != ""
    needs = descriptor.needs
    return needs.rates_hz <= clip.waveforms.keys() and needs.frames <= clip.frames.keys()


def feature_table(
    descriptor: Descriptor,
    decoded: Sequence[Decoded],
    results: Sequence[Encoded | MediaError | None],
) -> pa.Table:
    """One FEATURES row a clip; None means that the modality is not there."""
    rows = [result if isinstance(result, Encoded) else None for result in results]
    states = [
        _state(result, descriptor.spec.modality, item)
        for item, result in zip(decoded, results, strict=True)
    ]
    dtype = np.dtype(descriptor.dtype)
    columns = {
        "clip_id": pa.array([item.clip.clip_id for item in decoded], pa.int64()),
        "values": vector_lists(
            [None if r is None else r.values for r in rows], descriptor.dim, dtype
        ),
        "step_start_s": scalar_lists(
            [None if r is None else r.step_start_s for r in rows], np.float32
        ),
        "step_end_s": scalar_lists([None if r is None else r.step_end_s for r in rows], np.float32),
        "valid": scalar_lists([None if r is None else r.valid for r in rows], np.bool_),
        "status": pa.array([status for status, _ in states], pa.string()),
        "error": pa.array([error for _, error in states], pa.string()),
    }
    for name, width in descriptor.side.items():
        side = [None if r is None else r.side[name] for r in rows]
        columns[name] = vector_lists(side, width, np.float32)
    return tables.features(descriptor.dim, descriptor.dtype).conform(
        pa.table(columns), footer={"encoder": descriptor.folder, **_versions()}
    )


def transcript_table(
    decoded: Sequence[Decoded], heard: Sequence[Transcript | MediaError | None]
) -> pa.Table:
    """One TRANSCRIPTS row a clip; text that the manifest had is repeated, with no confidence."""
    rows = []
    for item, result in zip(decoded, heard, strict=True):
        row: dict[str, Any] = {"clip_id": item.clip.clip_id, "text": item.clip.text}
        row |= {"words": None, "language": None, "confidence": None, "status": "ok", "error": None}
        if isinstance(result, Transcript):
            row |= {
                "text": result.text,
                "words": [vars(word) for word in result.words],
                "language": result.language,
                "confidence": result.confidence,
            }
        elif item.clip.text is None:
            row["status"], row["error"] = _state(result, "audio", item)
        rows.append(row)
    schema = tables.TRANSCRIPTS.schema
    return tables.TRANSCRIPTS.conform(pa.Table.from_pylist(rows, schema), footer=_versions())


def with_transcripts(decoded: Sequence[Decoded], transcripts: pa.Table) -> list[Decoded]:
    """Clips without text get what was recognised; a failed recognition becomes a fault of their text."""
    rows = {row["clip_id"]: row for row in transcripts.to_pylist()}
    filled = []
    for item in decoded:
        row = rows.get(item.clip.clip_id)
        if item.clip.text is not None or row is None:
            filled.append(item)
        elif row["status"] == "failed":
            fault, _, detail = row["error"].partition(": ")
            faults = {**item.faults, "text": MediaError(Fault(fault), detail)}
            filled.append(replace(item, faults=faults))
        else:
            words = None if row["words"] is None else [Word(**word) for word in row["words"]]
            clip = replace(item.clip, text=row["text"], words=words)
            filled.append(replace(item, clip=clip))
    return filled


def undecoded(source: ClipSource, error: MediaError) -> Decoded:
    """A clip whose media cannot be read: its text alone."""
    named: list[Modality] = []
    if source.audio is not None:
        named.append("audio")
    if source.video is not None:
        named.append("video")
    return Decoded(
        clip=Clip(
            clip_id=source.clip_id,
            duration_s=source.duration_s or 0.0,
            text=source.text,
            words=source.words,
            context=source.context,
        ),
        faults=dict.fromkeys(named, error),
    )


def error_rows(work: Work, todo: Todo, source: ClipSource, error: MediaError) -> UnitResult:
    """Error rows of a clip that no worker survived."""
    left = [undecoded(source, error)]
    transcripts = None
    if todo.transcribe:
        transcripts = transcript_table(left, [error])
    return UnitResult(
        features={
            folder: feature_table(work.by_folder[folder], left, [error]) for folder in todo.encoders
        },
        transcripts=transcripts,
        failed=1,
    )


def joined(parts: Sequence[UnitResult]) -> UnitResult:
    """The clips of a unit put together again."""
    transcripts = [part.transcripts for part in parts if part.transcripts is not None]
    return UnitResult(
        features={
            folder: pa.concat_tables([part.features[folder] for part in parts])
            for folder in parts[0].features
        },
        transcripts=pa.concat_tables(transcripts) if transcripts else None,
        failed=sum(part.failed for part in parts),
    )


def failed_clips(all_tables: Sequence[pa.Table]) -> int:
    """How many clips have a failed row in at least one of the tables."""
    failed: set[int] = set()
    for table in all_tables:
        states = zip(table["clip_id"].to_pylist(), table["status"].to_pylist(), strict=True)
        failed |= {clip_id for clip_id, status in states if status == "failed"}
    return len(failed)


def failure_reasons(all_tables: Sequence[pa.Table]) -> dict[str, int]:
    """Why clips failed, in a few words, and how many of them; a clip counts once."""
    errors: dict[int, str] = {}
    for table in all_tables:
        rows = table.select(["clip_id", "status", "error"])
        for row in rows.filter(pc.equal(rows["status"], "failed")).to_pylist():
            errors.setdefault(row["clip_id"], row["error"] or "")
    return dict(Counter(map(reason_of, errors.values())))


def reason_of(error: str) -> str:
    """The class of a fault and its message, without the name of the file."""
    fault, *rest = error.split(": ")
    if fault == Fault.ENCODER or len(rest) < 2:
        return error[:120]
    return f"{fault}: {rest[-1]}"[:120]


def checked(encoded: Encoded, descriptor: Descriptor) -> Encoded | MediaError:
    """Refuse a result that differs from its descriptor, or is not finite in the stored type."""
    steps = len(encoded.values)
    shapes = {len(encoded.step_start_s), len(encoded.step_end_s), len(encoded.valid)}
    if encoded.values.shape != (steps, descriptor.dim) or shapes != {steps}:
        return MediaError(
            Fault.ENCODER,
            f"{descriptor.name} gave values {encoded.values.shape} and {sorted(shapes)} times; "
            f"expected (steps, {descriptor.dim})",
        )
    if encoded.side.keys() != descriptor.side.keys():
        return MediaError(Fault.ENCODER, f"{descriptor.name} gave columns {sorted(encoded.side)}")
    with np.errstate(over="ignore"):
        stored = encoded.values.astype(descriptor.dtype)
    if not np.isfinite(stored).all():
        return MediaError(
            Fault.ENCODER, f"{descriptor.name} gave values not finite as {descriptor.dtype}"
        )
    return encoded


def _state(
    result: Encoded | MediaError | Transcript | None, modality: Modality, item: Decoded
) -> tuple[str, str | None]:
    """Status and error of a row."""
    if isinstance(result, MediaError):
        return ("missing" if result.fault in ABSENT else "failed"), str(result)
    if result is not None:
        reason = result.partial if isinstance(result, Encoded) else None
        reason = reason or item.partial.get(modality)
        return ("ok", None) if reason is None else ("partial", reason)
    wordless = modality == "text" and item.clip.text is not None
    said = "nothing was said" if wordless else "none given"
    return "missing", f"{Fault(f'no_{modality}')}: {said}"


@functools.cache
def _versions() -> dict[str, str]:
    """Library versions for the footer; they are not part of a fingerprint."""
    from importlib.metadata import version

    return {"numpy": version("numpy"), "torch": version("torch")}
