"""One model fed from many calls: clips of similar length together, errors kept to their clip."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from cluster.errors import Fault, MediaError
from encoders.spec import Clip, Descriptor

T = TypeVar("T")


@dataclass
class _Request(Generic[T]):
    clips: Sequence[Clip]
    results: list[T | MediaError]
    done: threading.Event


class Batcher(Generic[T]):
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


def size_of(descriptor: Descriptor) -> Callable[[Clip], float]:
    """What makes a clip long for an encoder."""
    if descriptor.spec.modality == "text":
        return lambda clip: float(len(clip.text or ""))
    return lambda clip: clip.duration_s
