"""The first half of the stream: the units of a span, decoded in a child of this process."""

import atexit
import functools
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import pyarrow as pa

from cluster.errors import Fault, MediaError
from encoders.media import Decoded, Decoder
from encoders.spec import Needs
from jobs.catalog.manifest import read_unit
from jobs.stream.clip_buffer import pack, source_of, undecoded, with_context
from jobs.stream.faults import Kind, WorkerFaultError, lost_report, of_unit
from jobs.stream.job import (
    DecodingConfig,
    StreamJob,
    UnitTask,
    dump,
    facts_of,
    job_needs,
    load,
    no_view_ids,
)
from jobs.stream.limits import decode_limit_s
from jobs.stream.memory import private_mb
from jobs.stream.watch import Watch


def decode_span(batch: pa.Table, job: StreamJob) -> Iterator[pa.Table]:
    """Decode the units of a span, one row as soon as it is ready."""
    for text in batch["span"].to_pylist():
        for task in load(text):
            begun = time.perf_counter()
            lost = None
            try:
                with _watch().within(job.stall_limit_s):
                    rows = rows_of(task)
                limits = (decode_limit_s(job.decoding, row["duration_s"]) for row in rows)
                with _watch().within(job.stall_limit_s + sum(limits)):
                    decoded, needs = decode_rows(job, task, rows)
                lost = machines_fault(decoded)
                clips = pack(decoded, needs)
            except Exception as error:  # noqa: BLE001 (the span's other units go on)
                lost = of_unit(error)
            if lost is not None:
                rows, decoded, clips = [], [], pa.py_buffer(b"")
            offsets = pa.py_buffer(_int64([0, clips.size]))
            yield pa.table(
                {
                    "task": pa.array([dump([task])], pa.string()),
                    "facts": pa.array([json.dumps(facts_of(rows))], pa.string()),
                    "n_clips": pa.array([len(decoded)], pa.int64()),
                    "decode_s": pa.array([time.perf_counter() - begun], pa.float64()),
                    "decode_mb": pa.array([private_mb()], pa.float64()),
                    "clips": pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, clips]),
                    "lost": pa.array(
                        [None if lost is None else lost_report(task, lost).text()], pa.string()
                    ),
                }
            )


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
    job: StreamJob,
    task: UnitTask,
    rows: Sequence[Mapping[str, Any]],
    decoder: Decoder | None = None,
) -> tuple[list[Decoded], Needs]:
    """Decode clips by their manifest rows; one that cannot be read keeps its text and its fault.

    Args:
        job: the stream.
        task: what of the clips is to do.
        rows: rows of the manifest, with their context.
        decoder: by default this process's.
    """
    needs = job_needs(job.work, task)
    originals = [index for index in task.todo if job.work.descriptors[index].view is None]
    without_views = job.work.needs(originals, transcribe=task.transcribe)
    test = no_view_ids(rows)
    decoder = decoder or _decoder(job.decoding)
    decoded = []
    for row in rows:
        source = source_of(row)
        try:
            wanted = without_views if row["clip_id"] in test else needs
            decoded.append(decoder.decode(source, wanted))
        except MediaError as error:
            decoded.append(undecoded(source, error))
    return decoded, needs


@functools.cache
def _watch() -> Watch:
    """Ends this process where it hangs outside of its child, e.g. on a lost mount."""
    return Watch(last_resort=True)


@functools.lru_cache(maxsize=1)
def _decoder(decoding: DecodingConfig) -> Decoder:
    """This process's decoder; its child serves unit after unit."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(Decoder(**vars(decoding), threads=1))


def _int64(values: Sequence[int]) -> bytes:
    return b"".join(value.to_bytes(8, sys.byteorder, signed=True) for value in values)
