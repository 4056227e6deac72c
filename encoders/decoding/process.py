"""The parent's end of the child that decodes: the process, its pipes and the shared file."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import Fault, MediaError
from cluster.scratch import anonymous_file

START_LIMIT_S = 120.0
"""A child that has not said hello by then cannot start here at all."""

AHEAD, AHEAD_BYTES = 8, 1 << 13
"""Questions that wait inside the child, and the bytes above which no other is sent: an end that writes to a
full pipe would wait for the other, which does the same."""

PIPE_BYTES = 1 << 16
"""Read at most at once: several short answers, and what a pipe holds."""


class Child:
    """The process, its pipes and the shared file."""

    def __init__(self, memory_bytes: int, threads: int, max_bytes: int) -> None:
        self.served = 0
        self._unread = bytearray()
        self._shared = anonymous_file()
        self._errors = anonymous_file()  # of no folder: that of temporary files may be full
        numbers = (self._shared.fileno(), memory_bytes, os.getpid(), threads, max_bytes)
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "encoders.decoding.child", *map(str, numbers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            pass_fds=[self._shared.fileno()],
            bufsize=0,
            env={
                # It reads strangers' files: nothing of Ray, whose token would let it run what it likes.
                **{key: value for key, value in os.environ.items() if not key.startswith("RAY_")},
                "PYTHONPATH": os.pathsep.join(paths),
                "OMP_NUM_THREADS": "1",
            },
        )
        try:
            self._receive(START_LIMIT_S)
        except MediaError as error:
            self.close()
            raise RuntimeError(f"the decoding process does not start: {error.detail}") from error

    def ask(self, request: Mapping[str, Any], limit_s: float) -> Mapping[str, Any]:
        """Send one request and wait for its answer.

        Raises:
            MediaError: the process ended, or the time did.
        """
        self._send(request)
        return self._answer(limit_s)

    def ask_each(
        self, requests: Iterable[Mapping[str, Any]], limit_s: float
    ) -> Iterator[Mapping[str, Any]]:
        """The answers to short questions, in their order; some are sent before the one ahead is answered.

        Args:
            requests: taken as they are sent.
            limit_s: for each [s].

        Raises:
            MediaError: the process ended, or the time did, at the first that has no answer.
        """
        coming, lengths = iter(requests), deque[int]()
        more = True
        while True:
            while more and len(lengths) < AHEAD and sum(lengths) < AHEAD_BYTES:
                request = next(coming, None)
                more = request is not None
                if request is not None:
                    lengths.append(self._send(request))
            if not lengths:
                return
            answer = self._answer(limit_s)
            lengths.popleft()
            yield answer

    def _send(self, request: Mapping[str, Any]) -> int:
        """Send one request: its length [bytes]."""
        body = json.dumps(request).encode()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its end is then seen by the read
            self.process.stdin.write(len(body).to_bytes(4, "big") + body)
        return len(body)

    def _answer(self, limit_s: float) -> Mapping[str, Any]:
        self.served += 1
        return self._receive(limit_s)  # type: ignore[no-any-return]

    def array(self, offset: int, dtype: str, shape: Sequence[int]) -> np.ndarray:
        """Copy one array out of the shared file."""
        array = np.empty(shape, dtype)
        view = array.reshape(-1).view(np.uint8).data
        self._shared.seek(offset)
        while len(view):
            read = self._shared.readinto(view)
            assert read, "the shared file is shorter than the child said"
            view = view[read:]
        return array

    def release(self) -> None:
        """Give the memory of the last answer back."""
        os.ftruncate(self._shared.fileno(), 0)

    def close(self) -> None:
        """End the process and everything it held."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._shared, self._errors):
            assert stream is not None
            stream.close()

    def _receive(self, limit_s: float) -> Any:
        deadline = time.monotonic() + limit_s
        length = int.from_bytes(self._read(4, deadline, limit_s), "big")
        return json.loads(self._read(length, deadline, limit_s))

    def _read(self, count: int, deadline: float, limit_s: float) -> bytes:
        assert self.process.stdout is not None
        while len(self._unread) < count:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self.process.stdout], [], [], left)[0]:
                raise MediaError(Fault.TIMEOUT, f"not decoded after {limit_s:.0f} s")
            part = os.read(self.process.stdout.fileno(), PIPE_BYTES)
            if not part:
                raise MediaError(Fault.CRASHED, self._last_words())
            self._unread += part
        first = bytes(self._unread[:count])
        del self._unread[:count]
        return first

    def _last_words(self) -> str:
        status = self.process.wait()
        self._errors.seek(0)
        lines = self._errors.read()[-4000:].decode(errors="replace").strip().splitlines()
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return f"the decoder ended with {how}" + (f": {lines[-1][:200]}" if lines else "")
