"""One child at a time, which is replaced when it dies, outlives its time or has served enough."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from cluster.errors import Fault, MediaError
from encoders.decoding.process import Child

Request = Mapping[str, Any]
Answer = Mapping[str, Any]


class Supervisor:
    """Asks children; for one thread at a time.

    Args:
        memory_bytes: private memory of a child.
        threads: of a video codec.
        max_bytes: cap on the arrays of one answer.
        recycle_after: requests after which a child is replaced.
        attempts: tries, each in a fresh child, before a request that crashes it is given up.
    """

    def __init__(
        self,
        *,
        memory_bytes: int,
        threads: int,
        max_bytes: int,
        recycle_after: int,
        attempts: int,
    ) -> None:
        self._limits = (memory_bytes, threads, max_bytes)
        self._recycle_after = recycle_after
        self._attempts = attempts
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id while there is one."""
        return None if self._child is None else self._child.process.pid

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def ready(self) -> Child:
        """The child, or a fresh one."""
        if self._child is not None:
            worn_out = self._child.served >= self._recycle_after
            if worn_out or self._child.process.poll() is not None:
                self.close()
        if self._child is None:
            self._child = Child(*self._limits)
        return self._child

    def ask(
        self, request: Request, limit_s: float, attempts: int | None = None
    ) -> tuple[Answer, Child]:
        """The child's answer; what killed one child is tried again in a fresh one.

        Raises:
            MediaError: the child said so, or died of it.
        """
        attempts = attempts or self._attempts
        for attempt in range(1, attempts + 1):
            child = self.ready()
            try:
                answer = child.ask(request, limit_s)
            except MediaError as error:
                self.close()
                if error.fault == Fault.CRASHED and attempt < attempts:
                    continue
                raise _named(request, error) from error
            if (fault := self._fault(answer)) is not None:
                raise fault
            return answer, child
        raise AssertionError("at least one attempt is made")

    def ask_each(
        self, requests: Iterable[Request], limit_s: float
    ) -> Iterator[Answer | MediaError]:
        """What `ask` gives or raises of short questions, in their order; answers hold no arrays.

        The child has some in hand ahead, so that neither process waits for the other. What kills it costs no
        other question: those behind it are asked again.

        Args:
            requests: taken as they are needed.
            limit_s: for each [s].
        """
        coming = iter(requests)
        waiting: deque[Request] = deque()
        try:
            for first in coming:
                waiting.append(first)
                while waiting:
                    yield from self._answers(waiting, islice(coming, self._recycle_after), limit_s)
        finally:
            if waiting:  # its answers would be taken for those to later questions
                self.close()

    def _answers(
        self, waiting: deque[Request], more: Iterator[Request], limit_s: float
    ) -> Iterator[Answer | MediaError]:
        """Outcomes of those that wait, and of more, until a child ends."""
        child = self.ready()
        try:
            for answer in child.ask_each(_taken(waiting, more), limit_s):
                waiting.popleft()
                yield self._fault(answer) or answer
                if self._child is None:
                    return
        except MediaError as error:
            self.close()
            yield self._again(waiting.popleft(), error, limit_s)

    def _again(self, request: Request, error: MediaError, limit_s: float) -> Answer | MediaError:
        """The outcome of a question that killed a child, or outlived its time there."""
        if error.fault != Fault.CRASHED or self._attempts < 2:
            return _named(request, error)
        try:
            return self.ask(request, limit_s, self._attempts - 1)[0]
        except MediaError as another:
            return another

    def _fault(self, answer: Answer) -> MediaError | None:
        """What the child says of a file that it could not read."""
        if "fault" not in answer:
            return None
        fault = Fault(answer["fault"][0])
        if fault == Fault.TOO_LARGE:
            self.close()
        return MediaError(fault, answer["fault"][1])


def _named(request: Request, error: MediaError) -> MediaError:
    """The end of a child, with the file that it was given."""
    named = request["video"] or request["audio"]
    return MediaError(error.fault, f"{named[0]}: {error.detail}")


def _taken(waiting: deque[Request], more: Iterator[Request]) -> Iterator[Request]:
    """Those that wait already, then more, which wait from then on."""
    yield from tuple(waiting)
    for request in more:
        waiting.append(request)
        yield request
