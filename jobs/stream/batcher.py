"""One model fed from many calls: clips of similar length together, errors kept to their clip."""

import contextlib
import gc
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from cluster.errors import Fault, MediaError
from encoders.spec import Clip, Descriptor, Frames
from jobs.stream.faults import (
    Kind,
    WorkerFaultError,
    is_device_full,
    is_full,
    machines,
    of_unit,
    one_line,
)
from jobs.stream.pace import Pace
from jobs.stream.watch import Watch

T = TypeVar("T")

GROW_AFTER = 8
"""Full batches after which twice as many clips are tried again, where memory once ran out."""

WITNESS_BYTES = 1 << 25
"""The clip that is kept to prove the model with may be so large."""


@dataclass
class _Request(Generic[T]):
    clips: Sequence[Clip]
    results: list[T | MediaError]
    done: threading.Event
    fault: WorkerFaultError | None = None


class Batcher(Generic[T]):
    """Runs one model on batches of clips of similar length, drawn from all calls that wait.

    One caller at a time leads: it serves every request in the queue, its own among them. With one call
    at a time that is a plain sorted loop; with several, units share device batches.

    An error is a clip's own if it meets that clip alone, is of a kind that data cause, and the model is in
    order after it: a later clip passes, or else one that has passed before (the witness). Where memory runs
    out, fewer clips are taken at once, for a while.

    Args:
        call: the model.
        size: what makes a clip long.
        max_clips: of a batch.
        pace: gives each call its deadline.
        watch: keeps it.
        trusting: without a witness an error is the clip's own; else the model is taken for spoilt.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Clip]], Sequence[T]],
        *,
        size: Callable[[Clip], float],
        max_clips: int,
        pace: Pace | None = None,
        watch: Watch | None = None,
        trusting: bool = True,
    ) -> None:
        self._call, self._size, self._max_clips = call, size, max_clips
        self._pace, self._watch, self._trusting = pace, watch, trusting
        self._waiting: deque[_Request[T]] = deque()
        self._lead = threading.Lock()
        self._at_once, self._full_batches = max_clips, 0
        self._witness: Clip | None = None
        self._suspicion: Exception | None = None

    def __call__(self, clips: Sequence[Clip]) -> list[T | MediaError]:
        """One result a clip.

        Raises:
            WorkerFaultError: the machine failed, or the model is spoilt; no clip is to blame yet.
        """
        request: _Request[T] = _Request(
            clips=clips,
            results=[MediaError(Fault.ENCODER, "no result")] * len(clips),
            done=threading.Event(),
        )
        self._waiting.append(request)
        with self._lead:
            if not request.done.is_set():
                self._serve()
        if request.fault is not None:
            raise request.fault
        return request.results

    def _serve(self) -> None:
        requests = [self._waiting.popleft() for _ in range(len(self._waiting))]
        items = [(request, i) for request in requests for i in range(len(request.clips))]
        items.sort(key=lambda item: self._size(item[0].clips[item[1]]))
        try:
            while items:
                count = self._next_count()
                part, items = items[:count], items[count:]
                results = self._isolated([request.clips[i] for request, i in part])
                for (request, i), result in zip(part, results, strict=True):
                    request.results[i] = result
            if self._suspicion is not None and not self._trusting:
                raise WorkerFaultError(Kind.DEVICE, one_line(self._suspicion))
        except Exception as error:  # noqa: BLE001 (each caller raises it)
            for request in requests:
                request.fault = of_unit(error)
        finally:
            for request in requests:
                request.done.set()

    def _next_count(self) -> int:
        """Clips of the next batch; the first is one, which tells the pace."""
        if self._pace is not None and not self._pace.measured:
            return 1
        if self._at_once < self._max_clips and self._full_batches >= GROW_AFTER:
            self._at_once = min(2 * self._at_once, self._max_clips)
            self._full_batches = 0
        return self._at_once

    def _isolated(self, clips: Sequence[Clip], *, prove: bool = True) -> list[T | MediaError]:
        """The one place that turns an error of a model into the error row of one clip."""
        outcome = self._tried(clips)
        if not isinstance(outcome, Exception):
            self._full_batches += len(clips) == self._at_once
            self._remember(clips)
            return [*outcome]
        if is_full(outcome):
            return self._with_less(clips, outcome)
        if (fault := machines(outcome)) is not None:
            raise fault
        results: list[T | MediaError] = [MediaError(Fault.ENCODER, one_line(outcome))]
        if len(clips) > 1:
            results = [each for clip in clips for each in self._isolated([clip], prove=False)]
        if prove and isinstance(results[-1], MediaError):
            self._prove(outcome)
        return results

    def _with_less(self, clips: Sequence[Clip], error: Exception) -> list[T | MediaError]:
        """The same clips, fewer at once, when memory is given back."""
        _empty_caches()
        if len(clips) > 1:
            self._at_once, self._full_batches = len(clips) // 2, 0
            results: list[T | MediaError] = []
            while len(results) < len(clips):
                part = clips[len(results) : len(results) + self._at_once]
                results += self._isolated(part)
            return results
        outcome = self._tried(clips)
        if not isinstance(outcome, Exception):
            self._remember(clips)
            return [*outcome]
        fault = machines(error)
        assert fault is not None
        if self._witness is None or not is_device_full(error):
            raise fault
        self._prove(error)
        return [fault.row()]

    def _tried(self, clips: Sequence[Clip]) -> list[T] | Exception:
        """Results or the error, without the frames of its traceback: they would keep the batch in memory."""
        limit = contextlib.nullcontext() if self._watch is None else self._limit(clips)
        begun = time.perf_counter()
        try:
            with limit:
                results = list(self._call(clips))
            if len(results) != len(clips):
                raise ValueError(f"{len(results)} results for {len(clips)} clips")
        except Exception as error:  # noqa: BLE001
            return error.with_traceback(None)
        if self._pace is not None:
            self._pace.took(_lengths_s(clips), time.perf_counter() - begun)
        return results

    def _limit(self, clips: Sequence[Clip]) -> contextlib.AbstractContextManager[None]:
        assert self._watch is not None
        assert self._pace is not None
        return self._watch.within(self._pace.limit_s(_lengths_s(clips)))

    def _prove(self, error: Exception) -> None:
        """Give a clip that has passed to the model again.

        Raises:
            WorkerFaultError: it fails now, so the model is spoilt, and the clips that failed may be in order.
        """
        if self._witness is None:
            self._suspicion = error
            return
        outcome = self._tried([self._witness])
        if isinstance(outcome, Exception):
            raise machines(outcome) or WorkerFaultError(Kind.DEVICE, one_line(error))

    def _remember(self, clips: Sequence[Clip]) -> None:
        """Keep a copy of a small clip that passed; its arrays are views of a whole unit."""
        self._suspicion = None
        smallest = min(clips, key=_bytes_of)
        size = _bytes_of(smallest)
        if size > WITNESS_BYTES:
            return
        if self._witness is None or 2 * size < _bytes_of(self._witness):
            self._witness = replace(
                smallest,
                waveforms={rate: wave.copy() for rate, wave in smallest.waveforms.items()},
                frames={
                    policy: Frames(frames.pixels.copy(), frames.times_s.copy())
                    for policy, frames in smallest.frames.items()
                },
            )


def _lengths_s(clips: Sequence[Clip]) -> list[float]:
    return [clip.duration_s for clip in clips]


def _bytes_of(clip: Clip) -> int:
    waves = sum(wave.nbytes for wave in clip.waveforms.values())
    return waves + sum(frames.pixels.nbytes for frames in clip.frames.values())


def _empty_caches() -> None:
    """Give back what the failed call held, on the host and on the device."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def size_of(descriptor: Descriptor) -> Callable[[Clip], float]:
    """Function that gives the length of a clip for an encoder."""
    if descriptor.spec.modality == "text":
        return lambda clip: float(len(clip.text or ""))
    return lambda clip: clip.duration_s
