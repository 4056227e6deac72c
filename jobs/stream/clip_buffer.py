"""Decoded clips as one Arrow IPC buffer, and back without copying.

The buffer is the payload of a unit's row between decode and encode. Waveforms and frames lie in it as
raw bytes of one large-binary column each; what comes back are read-only NumPy views of the same memory,
which on a worker is Ray's shared object store.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import pyarrow as pa

from cluster.errors import Fault, MediaError
from encoders.media import Decoded
from encoders.spec import Clip, FramePolicy, Frames, Modality, Needs, Word


def pack(decoded: Sequence[Decoded], needs: Needs) -> pa.Buffer:
    """Clips as an Arrow IPC stream of one record batch, one row a clip."""
    clips = [item.clip for item in decoded]
    columns: dict[str, pa.Array] = {
        "clip_id": pa.array([clip.clip_id for clip in clips], pa.int64()),
        "duration_s": pa.array([clip.duration_s for clip in clips], pa.float64()),
        "audio_start_s": pa.array([clip.audio_start_s for clip in clips], pa.float64()),
        "text": pa.array([clip.text for clip in clips], pa.string()),
        "words": pa.array([_plain_words(clip.words) for clip in clips], _WORDS),
        "before": pa.array([list(clip.context[0]) for clip in clips], pa.list_(pa.string())),
        "after": pa.array([list(clip.context[1]) for clip in clips], pa.list_(pa.string())),
        "faults": pa.array([_plain_faults(item) for item in decoded], _FAULTS),
        "partial": pa.array([list(item.partial.items()) for item in decoded], _PARTIAL),
        "no_views": pa.array([item.no_views for item in decoded], pa.bool_()),
    }
    for rate_hz in sorted(needs.rates_hz):
        waves = [clip.waveforms.get(rate_hz) for clip in clips]
        columns[f"wave {rate_hz}"] = _raw([_bytes_of(wave, np.float32) for wave in waves])
    for index, policy in enumerate(ordered(needs.frames)):
        frames = [clip.frames.get(policy) for clip in clips]
        columns[f"pixels {index}"] = _raw(
            [None if f is None else _bytes_of(f.pixels, np.uint8) for f in frames]
        )
        columns[f"shape {index}"] = pa.array(
            [None if f is None else list(f.pixels.shape) for f in frames], pa.list_(pa.int64())
        )
        columns[f"times {index}"] = pa.array(
            [None if f is None else f.times_s for f in frames], pa.list_(pa.float64())
        )
    batch = pa.record_batch(list(columns.values()), names=list(columns))
    # Measured first: a buffer that grows would copy the frames each time.
    measure = pa.MockOutputStream()
    _write(batch, measure)
    buffer = pa.allocate_buffer(measure.size())
    _write(batch, pa.FixedSizeBufferWriter(buffer))
    return buffer


def _write(batch: pa.RecordBatch, sink: Any) -> None:
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)


def unpack(buffer: pa.Buffer, needs: Needs) -> list[Decoded]:
    """The clips of a buffer; their arrays are views of it and keep it alive."""
    with pa.ipc.open_stream(buffer) as reader:
        batch = reader.read_next_batch()
    rows = batch.select(
        [name for name in batch.schema.names if not name.startswith(("wave", "pixels"))]
    ).to_pylist()
    waves = {rate_hz: buffers(batch.column(f"wave {rate_hz}")) for rate_hz in needs.rates_hz}
    pixels = {
        policy: (index, buffers(batch.column(f"pixels {index}")))
        for index, policy in enumerate(ordered(needs.frames))
    }
    return [
        Decoded(
            clip=Clip(
                clip_id=row["clip_id"],
                duration_s=row["duration_s"],
                audio_start_s=row["audio_start_s"],
                waveforms=_present(
                    {rate: _view(column[number], np.float32) for rate, column in waves.items()}
                ),
                frames=_present(
                    {
                        policy: _frames(column[number], row[f"shape {i}"], row[f"times {i}"])
                        for policy, (i, column) in pixels.items()
                    }
                ),
                text=row["text"],
                words=words_of(row["words"]),
                context=(tuple(row["before"]), tuple(row["after"])),
            ),
            faults=_faults_of(row["faults"]),
            partial=dict(row["partial"]),
            no_views=row["no_views"],
        )
        for number, row in enumerate(rows)
    ]


def buffers(column: pa.Array) -> list[pa.Buffer | None]:
    """The values of a large-binary column as slices of its memory (a scalar would be a copy)."""
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    present = column.is_valid().to_pylist()
    return [
        data.slice(start, end - start) if valid else None
        for start, end, valid in zip(ends[:-1].tolist(), ends[1:].tolist(), present, strict=True)
    ]


def ordered(policies: frozenset[FramePolicy]) -> list[FramePolicy]:
    """The one order in which the frame policies of a set are numbered."""
    return sorted(policies, key=lambda policy: sorted(asdict(policy).items()))


_WORDS = pa.list_(
    pa.struct([("text", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64())])
)
_FAULTS = pa.list_(
    pa.struct([("modality", pa.string()), ("fault", pa.string()), ("detail", pa.string())])
)

_PARTIAL = pa.map_(pa.string(), pa.string())


def _raw(items: Sequence[np.ndarray | None]) -> pa.Array:
    """A large-binary column of bytes.

    Put together by hand: `pa.array` never lets go of a memoryview it has read (pyarrow 25), so that a
    worker would keep the frames of every clip.
    """
    there = np.packbits([item is not None for item in items], bitorder="little")
    offsets = np.cumsum([0, *(0 if item is None else len(item) for item in items)], dtype=np.int64)
    data = np.concatenate([np.empty(0, np.uint8), *(item for item in items if item is not None)])
    parts = [pa.py_buffer(part) for part in (there, offsets, data)]
    return pa.Array.from_buffers(pa.large_binary(), len(items), parts)


def _bytes_of(array: np.ndarray | None, dtype: type[np.generic]) -> np.ndarray | None:
    """The array's memory as bytes, without a copy where it is contiguous already."""
    if array is None:
        return None
    return np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8)


def _view(buffer: pa.Buffer | None, dtype: type[np.generic]) -> np.ndarray | None:
    return None if buffer is None else np.frombuffer(buffer, dtype)


def _frames(
    value: pa.Buffer | None, shape: list[int] | None, times_s: list[float]
) -> Frames | None:
    pixels = _view(value, np.uint8)
    if pixels is None or shape is None:
        return None
    return Frames(pixels.reshape(shape), np.asarray(times_s, np.float64))


def _present(values: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _plain_words(words: Sequence[Word] | None) -> list[dict[str, Any]] | None:
    return None if words is None else [asdict(word) for word in words]


def words_of(words: Sequence[Mapping[str, Any]] | None) -> tuple[Word, ...] | None:
    """Timed words of plain columns."""
    return None if words is None else tuple(Word(**word) for word in words)


def _plain_faults(item: Decoded) -> list[dict[str, str]]:
    return [
        {"modality": modality, "fault": str(error.fault), "detail": error.detail}
        for modality, error in sorted(item.faults.items())
    ]


def _faults_of(rows: Sequence[Mapping[str, str]]) -> dict[Modality, MediaError]:
    return {
        cast(Modality, row["modality"]): MediaError(Fault(row["fault"]), row["detail"])
        for row in rows
    }
