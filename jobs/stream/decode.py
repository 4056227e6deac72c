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
from encoders.media import Decoded, Decoder
from jobs.catalog.manifest import read_unit
from jobs.stream.clip_buffer import pack, source_of, undecoded, with_context
from jobs.stream.faults import Kind, WorkerFaultError, lost_report, of_unit
from jobs.stream.job import DecodingConfig, StreamJob, Todo, UnitTask, Work, facts_of
from jobs.stream.limits import decode_limit_s
from jobs.stream.memory import private_mb
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
    """Decode clips by their manifest rows; one that cannot be read keeps its text and its fault.

    Args:
        work: the encoders.
        todo: which of them are to do.
        rows: rows of the manifest, with their context.
        decoder: what reads the media.
    """
    needs, without_views = work.needs(todo), work.needs(todo, views=False)
    decoded = []
    for row in rows:
        source = source_of(row)
        no_views = row["split"] == "test"
        try:
            item = decoder.decode(source, without_views if no_views else needs)
        except MediaError as error:
            item = undecoded(source, error)
        decoded.append(replace(item, no_views=no_views))
    return decoded


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
