"""Clips of a Python call through pretrained encoders, in this process; a frame with a row a step."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from cluster import storage
from cluster.errors import ConfigError
from encoders import ENCODERS
from encoders.registry import describe, find
from encoders.store import local_paths
from jobs.library.clip_rows import ClipRow, ClipsGiven, clip_rows, contexts
from jobs.scoring.in_process import OneByOne, settled
from jobs.stream.decode import decoder_of
from jobs.stream.job import STALL_LIMIT_S, DecodingConfig, UnitResult, Work
from jobs.stream.result_rows import joined
from jobs.stream.selection import chosen_store

ONE_AT_A_TIME = threading.RLock()
"""Held by a call from Python: all of a process share its decoder, and those of a bundle its models."""


def encoded(clips: ClipsGiven, encoder: str, *, transcriber: str | None, store: str | None) -> Any:
    """Features of clips as a pandas.DataFrame; see `affuse.features`."""
    import pandas as pd

    find(encoder.partition(":")[0], ENCODERS)  # a transcriber is none
    ear = None if transcriber is None else describe(transcriber)
    descriptor = describe(encoder)
    if ear is not None and descriptor.reads_text:
        descriptor = describe(encoder, upstream=(ear.fingerprint,))
    rows = clip_rows(clips)
    if not rows:
        raise ConfigError("clips: expected at least one")
    where = storage.absolute(chosen_store(store, ""))
    for item in filter(None, (descriptor, ear)):
        local_paths(item.weights, where)
    work = Work(descriptors=(descriptor,), transcriber=ear, store=where)
    with ONE_AT_A_TIME:
        found = encode_rows(OneByOne(work, DecodingConfig(), STALL_LIMIT_S), rows)
    (table,) = found.features.values()
    frame = pd.DataFrame(_steps(rows, table))
    return frame.rename(
        columns=lambda name: f"{descriptor.name}_{name}" if isinstance(name, int) else name
    )


def encode_rows(encoder: OneByOne, rows: Sequence[ClipRow]) -> UnitResult:
    """FEATURES of clips by the folder of the encoder, and the transcripts; one clip in memory at a time.

    Raises:
        WorkerFaultError: what may be the machine's fault, where no clip passed.
    """
    decoder, around = decoder_of(encoder.decoding), contexts(rows)
    sources = [replace(row.source(decoder), context=around[row.clip_id]) for row in rows]
    outcomes = [encoder.outcome(source) for source in sources]
    return joined(settled(encoder.work, sources, outcomes))


def _steps(rows: Sequence[ClipRow], table: pa.Table) -> list[dict[Any, Any]]:
    """A dict a step; of a clip without steps one that says why."""
    found: list[dict[Any, Any]] = []
    for row, each in zip(rows, table.sort_by("clip_id").to_pylist(), strict=True):
        state: dict[Any, Any] = {"status": each["status"], "error": each["error"]}
        nothing: dict[Any, Any] = {"start_s": None, "end_s": None, "valid": False}
        if not each["values"]:
            found.append({"name": row.name, **nothing, **state})
        columns = (each[name] or () for name in ("step_start_s", "step_end_s", "valid", "values"))
        for start_s, end_s, valid, values in zip(*columns, strict=True):
            step = {"name": row.name, "start_s": start_s, "end_s": end_s, "valid": valid}
            found.append({**step, **state} | dict(enumerate(values)))
    return found
