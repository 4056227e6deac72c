"""What an encoder actor does with one unit: transcribe, encode, and turn results into tables.

Nothing here knows Ray. Every clip of a unit comes out with exactly one row per encoder:

    ok       encoded
    partial  encoded, but less than the whole clip (a cap on frames)
    missing  the clip has no such modality
    failed   it has one, but it could not be decoded or encoded; `error` starts with the class of fault
"""

import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa

from cluster import tables
from cluster.errors import Fault, MediaError
from encoders import spec
from encoders.media import Decoded
from encoders.spec import Clip, Descriptor, Encoded, Modality, Needs, Transcript
from encoders.store import local_paths

T = TypeVar("T")

ABSENT = frozenset({Fault.NO_AUDIO, Fault.NO_VIDEO, Fault.NO_TEXT})
"""Faults that say that a modality is not there, which is no failure."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """The encoders of a stream; their positions are the numbers in a unit's `todo`."""

    descriptors: tuple[Descriptor, ...]
    transcriber: Descriptor | None
    store: str
    threads: int = 1

    def needs(self, todo: Sequence[int], *, transcribe: bool) -> Needs:
        """What has to be decoded for some of the encoders."""
        needs = Needs()
        for index in todo:
            needs |= self.descriptors[index].needs
        if transcribe and self.transcriber is not None:
            needs |= self.transcriber.needs
        return needs


@dataclass(frozen=True, kw_only=True)
class UnitResult:
    """The finished tables of one unit."""

    features: Mapping[int, pa.Table]
    transcripts: pa.Table | None
    failed: int
    """Clips with at least one failed row."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    """Name of encoder or transcriber -> time it took [s]."""


class Workbench:
    """The loaded models of one process."""

    def __init__(self, work: Work, *, device: str = "cpu") -> None:
        self.work = work
        batch = 64 if device == "cuda" else 8
        self._encoders = [
            _Batcher(
                spec.load(
                    item,
                    local_paths(item.weights, work.store),
                    device=device,
                    threads=work.threads,
                ).encode,
                size=_size_of(item),
                max_clips=batch,
            )
            for item in work.descriptors
        ]
        self._transcribe: _Batcher[Transcript] | None = None
        if work.transcriber is not None:
            transcriber = spec.load_transcriber(
                work.transcriber,
                local_paths(work.transcriber.weights, work.store),
                device=device,
                threads=work.threads,
            )
            self._transcribe = _Batcher(
                transcriber.transcribe, size=_size_of(work.transcriber), max_clips=batch
            )

    def run(
        self,
        decoded: Sequence[Decoded],
        todo: Sequence[int],
        *,
        transcribe: bool,
        transcripts: pa.Table | None = None,
    ) -> UnitResult:
        """Encode the clips of one unit with some of the encoders.

        Args:
            decoded: the unit's clips.
            todo: which encoders.
            transcribe: recognise the speech of clips without text.
            transcripts: rows published earlier, used in place of recognising.
        """
        seconds: dict[str, float] = {}
        table = None
        if transcripts is not None:
            decoded = with_transcripts(decoded, transcripts)
        elif transcribe and self._transcribe is not None and self.work.transcriber is not None:
            begun = time.perf_counter()
            heard = self._recognise(decoded, self.work.transcriber)
            table = transcript_table(decoded, heard)
            decoded = with_transcripts(decoded, table)
            seconds[self.work.transcriber.name] = time.perf_counter() - begun
        features = {}
        for index in todo:
            descriptor = self.work.descriptors[index]
            begun = time.perf_counter()
            results = self._encode(index, decoded)
            features[index] = feature_table(descriptor, decoded, results)
            seconds[descriptor.folder] = time.perf_counter() - begun
        return UnitResult(
            features=features,
            transcripts=table,
            failed=failed_clips([*features.values(), *([] if table is None else [table])]),
            seconds=seconds,
        )

    def _encode(self, index: int, decoded: Sequence[Decoded]) -> list[Encoded | MediaError | None]:
        descriptor = self.work.descriptors[index]
        modality = descriptor.spec.modality
        given = [i for i, item in enumerate(decoded) if has_modality(item.clip, descriptor)]
        encoded = self._encoders[index]([decoded[i].clip for i in given])
        results: list[Encoded | MediaError | None] = [item.faults.get(modality) for item in decoded]
        for i, result in zip(given, encoded, strict=True):
            checked = result if isinstance(result, MediaError) else _checked(result, descriptor)
            results[i] = checked
        return results

    def _recognise(
        self, decoded: Sequence[Decoded], transcriber: Descriptor
    ) -> list[Transcript | MediaError | None]:
        assert self._transcribe is not None
        results: list[Transcript | MediaError | None] = [
            item.faults.get("audio") for item in decoded
        ]
        given = [
            i
            for i, item in enumerate(decoded)
            if item.clip.text is None and has_modality(item.clip, transcriber)
        ]
        heard = self._transcribe([decoded[i].clip for i in given])
        for i, result in zip(given, heard, strict=True):
            results[i] = result
        return results


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
    dtype = np.dtype(descriptor.spec.dtype)
    columns = {
        "clip_id": pa.array([item.clip.clip_id for item in decoded], pa.int64()),
        "values": _steps([None if r is None else r.values for r in rows], descriptor.dim, dtype),
        "step_start_s": _scalars([None if r is None else r.step_start_s for r in rows], np.float32),
        "step_end_s": _scalars([None if r is None else r.step_end_s for r in rows], np.float32),
        "valid": _scalars([None if r is None else r.valid for r in rows], np.bool_),
        "status": pa.array([status for status, _ in states], pa.string()),
        "error": pa.array([error for _, error in states], pa.string()),
    }
    for name, width in descriptor.spec.side.items():
        side = [None if r is None else r.side[name] for r in rows]
        columns[name] = _steps(side, width, np.dtype(np.float32))
    return tables.features(descriptor.dim, descriptor.spec.dtype).conform(
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
            words = None if row["words"] is None else [spec.Word(**word) for word in row["words"]]
            clip = replace(item.clip, text=row["text"], words=words)
            filled.append(replace(item, clip=clip))
    return filled


def failed_clips(all_tables: Sequence[pa.Table]) -> int:
    """How many clips have a failed row in at least one of the tables."""
    failed: set[int] = set()
    for table in all_tables:
        states = zip(table["clip_id"].to_pylist(), table["status"].to_pylist(), strict=True)
        failed |= {clip_id for clip_id, status in states if status == "failed"}
    return len(failed)


@dataclass
class _Request(Generic[T]):
    clips: Sequence[Clip]
    results: list[T | MediaError]
    done: threading.Event


class _Batcher(Generic[T]):
    """Runs one model on batches of clips of similar length, drawn from all calls that wait.

    One caller at a time leads: it serves every request in the queue, its own among them. With one call
    at a time that is a plain sorted loop; with several, units share device batches.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Clip]], Sequence[T]],
        *,
        size: Callable[[Clip], float],
        max_clips: int,
    ) -> None:
        self._call, self._size, self._max_clips = call, size, max_clips
        self._waiting: deque[_Request[T]] = deque()
        self._lead = threading.Lock()

    def __call__(self, clips: Sequence[Clip]) -> list[T | MediaError]:
        request: _Request[T] = _Request(
            clips=clips,
            results=[MediaError(Fault.ENCODER, "no result")] * len(clips),
            done=threading.Event(),
        )
        self._waiting.append(request)
        with self._lead:
            if not request.done.is_set():
                self._serve()
        return request.results

    def _serve(self) -> None:
        requests = [self._waiting.popleft() for _ in range(len(self._waiting))]
        items = [(request, i) for request in requests for i in range(len(request.clips))]
        items.sort(key=lambda item: self._size(item[0].clips[item[1]]))
        for start in range(0, len(items), self._max_clips):
            part = items[start : start + self._max_clips]
            results = self._isolated([request.clips[i] for request, i in part])
            for (request, i), result in zip(part, results, strict=True):
                request.results[i] = result
        for request in requests:
            request.done.set()

    def _isolated(self, clips: Sequence[Clip]) -> list[T | MediaError]:
        """The one place that turns any error of a model into the error row of one clip."""
        try:
            results = list(self._call(clips))
            if len(results) != len(clips):
                raise ValueError(f"{len(results)} results for {len(clips)} clips")
        except Exception as error:  # noqa: BLE001
            if len(clips) > 1:
                return [result for clip in clips for result in self._isolated([clip])]
            return [MediaError(Fault.ENCODER, one_line(error))]
        return [*results]


def one_line(error: BaseException) -> str:
    """Class and first line of an error."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__


def _size_of(descriptor: Descriptor) -> Callable[[Clip], float]:
    """What makes a clip long for an encoder."""
    if descriptor.spec.modality == "text":
        return lambda clip: float(len(clip.text or ""))
    return lambda clip: clip.duration_s


def _checked(encoded: Encoded, descriptor: Descriptor) -> Encoded | MediaError:
    """Refuse a result that is not what the descriptor promises, or not finite in the stored type."""
    steps = len(encoded.values)
    shapes = {len(encoded.step_start_s), len(encoded.step_end_s), len(encoded.valid)}
    if encoded.values.shape != (steps, descriptor.dim) or shapes != {steps}:
        return MediaError(
            Fault.ENCODER,
            f"{descriptor.name} gave values {encoded.values.shape} and {sorted(shapes)} times; "
            f"expected (steps, {descriptor.dim})",
        )
    if encoded.side.keys() != descriptor.spec.side.keys():
        return MediaError(Fault.ENCODER, f"{descriptor.name} gave columns {sorted(encoded.side)}")
    with np.errstate(over="ignore"):
        stored = encoded.values.astype(descriptor.spec.dtype)
    if not np.isfinite(stored).all():
        return MediaError(
            Fault.ENCODER, f"{descriptor.name} gave values not finite as {descriptor.spec.dtype}"
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


def _steps(arrays: Sequence[np.ndarray | None], width: int, dtype: np.dtype[Any]) -> pa.Array:
    """A column of `steps x width` lists."""
    present = [np.asarray(array, dtype).reshape(-1, width) for array in arrays if array is not None]
    flat = np.concatenate(present) if present else np.zeros((0, width), dtype)
    inner = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), width)
    return _lists(arrays, inner)


def _scalars(arrays: Sequence[np.ndarray | None], dtype: type[np.generic]) -> pa.Array:
    """A column of lists with one value a step."""
    present = [np.asarray(array, dtype) for array in arrays if array is not None]
    return _lists(arrays, pa.array(np.concatenate(present) if present else np.zeros(0, dtype)))


def _lists(arrays: Sequence[np.ndarray | None], values: pa.Array) -> pa.Array:
    lengths = [0 if array is None else len(array) for array in arrays]
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    absent = pa.array([array is None for array in arrays], pa.bool_())
    return pa.ListArray.from_arrays(offsets, values, mask=absent)


@functools.cache
def _versions() -> dict[str, str]:
    """Library versions for the footer; they are not part of a fingerprint."""
    from importlib.metadata import version

    return {"numpy": version("numpy"), "torch": version("torch")}
