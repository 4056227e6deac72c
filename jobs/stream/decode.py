"""The first half of the stream: the units of a span, decoded in a child of this process."""

import atexit
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pyarrow as pa

from cluster.errors import Fault, MediaError
from encoders.media import ClipSource, Decoded, Decoder, Source
from jobs.catalog.manifest import read_unit
from jobs.preparing.keys import CONTEXT_TEXTS, by_turn
from jobs.stream.clip_buffer import pack, words_of
from jobs.stream.faults import Kind, WorkerFaultError, lost_report, of_unit
from jobs.stream.job import DecodingConfig, StreamJob, Todo, UnitTask, Work, facts_of
from jobs.stream.limits import decode_limit_s
from jobs.stream.memory import private_mb
from jobs.stream.result_rows import undecoded
from jobs.stream.rows import tasks_of, unit_row
from jobs.stream.tries import Tries
from jobs.stream.watch import Watch


def decode_span(batch: pa.Table, job: StreamJob, tries: Tries) -> Iterator[pa.Table]:
    """Decode the units of a span, one row as soon as it is ready."""
    for task in tasks_of(batch):
        lost = tries.begin("decoding", task.ref.unit)
        yield _decoded(task, job) if lost is None else _lost_row(task, lost)
        tries.end("decoding", task.ref.unit)  # its row has left this process


def _decoded(task: UnitTask, job: StreamJob) -> pa.Table:
    begun = time.perf_counter()
    try:
        with _watch().within(job.stall_limit_s):
            rows = rows_of(task)
        limits = (decode_limit_s(job.decoding, row["duration_s"]) for row in rows)
        with _watch().within(job.stall_limit_s + sum(limits)):
            decoded = decode_rows(job.work, task.todo, rows, decoder_of(job.decoding))
        if (fault := machines_fault(decoded)) is not None:
            return _lost_row(task, fault)
        clips = pack(decoded, job.work.needs(task.todo))
    except Exception as error:  # noqa: BLE001 (the span's other units go on)
        return _lost_row(task, of_unit(error))
    seconds = time.perf_counter() - begun
    return unit_row(
        task, facts_of(rows), clips, decode_s=seconds, decode_mb=private_mb(), lost=None
    )


def _lost_row(task: UnitTask, fault: WorkerFaultError) -> pa.Table:
    report = lost_report(task, fault)
    return unit_row(task, [], pa.py_buffer(b""), decode_s=0.0, decode_mb=private_mb(), lost=report)


def machines_fault(decoded: Sequence[Decoded]) -> WorkerFaultError | None:
    """The first fault of decoding that is not a clip's at first sight."""
    for item in decoded:
        for error in item.faults.values():
            if error.fault is Fault.MACHINE:
                return WorkerFaultError(Kind.DISK, error.detail)
    return None


def rows_of(task: UnitTask) -> list[dict[str, Any]]:
    """The manifest rows of a unit that are to do, each with the texts around it."""
    rows = with_context(read_unit(task.ref).to_pylist())
    return [row for row in rows if not task.clips or row["clip_id"] in task.clips]


def decode_rows(
    work: Work, todo: Todo, rows: Sequence[Mapping[str, Any]], decoder: Decoder
) -> list[Decoded]:
    """Decode clips by their rows of the manifest.

    Args:
        work: the encoders.
        todo: which of them are to do.
        rows: rows of the manifest, with their context.
        decoder: what reads the media.
    """
    return [
        decode_clip(work, todo, source_of(row), decoder, views=row["split"] != "test")
        for row in rows
    ]


def decode_clip(
    work: Work, todo: Todo, source: ClipSource, decoder: Decoder, *, views: bool = True
) -> Decoded:
    """Decode one clip; one that cannot be read keeps its text and its fault.

    Args:
        work: the encoders.
        todo: which of them are to do.
        source: the clip.
        decoder: what reads the media.
        views: whether augmented views are made of it.
    """
    try:
        decoded = decoder.decode(source, work.needs(todo, views=views))
    except MediaError as error:
        decoded = undecoded(source, error)
    return replace(decoded, no_views=not views)


def source_of(row: Mapping[str, Any]) -> ClipSource:
    """The decoder's view of one manifest row."""
    return ClipSource(
        clip_id=row["clip_id"],
        video=_source(row["video"]),
        audio=_source(row["audio"]),
        text=row["text"],
        words=words_of(row["words"]),
        start_s=row["start_s"],
        end_s=row["end_s"],
        duration_s=row["duration_s"],
        context=row.get("context", ((), ())),
    )


def with_context(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The manifest rows of a unit, each with the nearest texts before and after it in its dialogue.

    A unit holds whole dialogues; of one that is too long for that, the first row brings the texts of the
    turns in other units, so that a context does not depend on where the cut fell. A clip without a dialogue
    has no context.
    """
    dialogues: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["dialogue"] is not None:
            dialogues.setdefault(row["dialogue"], []).append(row)
    context = {}
    for turns in dialogues.values():
        first = [text for row in turns for text in row.get("before") or ()]
        last = [text for row in turns for text in row.get("after") or ()]
        ordered = by_turn(turns)
        texts = [*first, *(row["text"] for row in ordered), *last]
        for place, row in enumerate(ordered, start=len(first)):
            before = [text for text in texts[:place] if text][-CONTEXT_TEXTS:]
            after = [text for text in texts[place + 1 :] if text][:CONTEXT_TEXTS]
            context[row["clip_id"]] = (tuple(before), tuple(after))
    return [{**row, "context": context.get(row["clip_id"], ((), ()))} for row in rows]


def _source(value: Mapping[str, Any] | None) -> Source | None:
    if value is None or value["uri"] is None:
        return None
    return Source(uri=value["uri"], offset=value["offset"], size=value["size"])


@functools.cache
def _watch() -> Watch:
    """Ends this process where it hangs outside of its child, e.g. on a lost mount."""
    return Watch(last_resort=True)


@functools.lru_cache(maxsize=1)
def decoder_of(decoding: DecodingConfig) -> Decoder:
    """This process's decoder; its child serves unit after unit."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(Decoder(**vars(decoding), threads=1))
