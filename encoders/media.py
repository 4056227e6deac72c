"""Decoding, supervised: a broken file costs one clip and never the process that asked for it.

`Decoder` runs a child process (`encoders.decoding.child`) that opens the files. Native code that crashes,
hangs or fills the memory does so there: the clip gets a `MediaError`, the child is replaced, the next clip
follows. Frames and waveforms come back through an anonymous shared file, which ends with both processes.

    with Decoder() as decoder:
        decoded = decoder.decode(ClipSource(clip_id=1, video=Source("clip.mp4")), needs)
        decoded.clip.frames, decoded.faults, decoded.partial
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import Fault, MediaError
from encoders.decoding.inspect import Probe, inspect
from encoders.decoding.sources import Source
from encoders.spec import Clip, Frames, Modality, Needs, Word

__all__ = ["ClipSource", "Decoded", "Decoder", "Probe", "Source", "probe"]

UNKNOWN_DURATION_S = 20.0
"""Assumed for the time limit where the manifest does not know a clip's length."""

START_LIMIT_S = 120.0
"""A child that has not said hello by then cannot start here at all."""


TRACKS: tuple[Modality, ...] = ("audio", "video")
"""What is read of files."""


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """One row of a manifest, as the decoder needs it."""

    clip_id: int
    video: Source | None = None
    audio: Source | None = None
    """A sound file, or the container whose sound track is wanted (often the same as `video`)."""

    text: str | None = None
    words: Sequence[Word] | None = None
    start_s: float | None = None
    """Start of the segment inside the files [s]; None: the whole file."""

    end_s: float | None = None
    duration_s: float | None = None
    context: tuple[Sequence[str], Sequence[str]] = ((), ())


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A clip with what could be read of it."""

    clip: Clip
    faults: Mapping[Modality, MediaError] = field(default_factory=dict)
    """Why a modality that has a source is absent. One without a source is absent without a fault."""

    partial: Mapping[Modality, str] = field(default_factory=dict)
    """Why less was read than asked for (truncated, damaged, capped)."""

    no_views: bool = False
    """No augmented views are made of it: it is of the test split."""


def probe(source: Source | str) -> Probe:
    """Read a file's headers in this process; `Decoder.probe` does it in the supervised one.

    Raises:
        MediaError: missing, empty, truncated before its index, or no media.
    """
    return inspect(Source(source) if isinstance(source, str) else source)


class Decoder:
    """Decodes clips in a child process that is watched; for one thread at a time.

    On Linux the kernel ends the child together with the thread that started it, so a decoder is created
    in the thread that uses it.
    """

    def __init__(
        self,
        *,
        time_limit_s: float = 60.0,
        time_limit_per_s: float = 4.0,
        memory_limit_gb: float = 3.0,
        max_decoded_gb: float = 1.0,
        recycle_after: int = 500,
        attempts: int = 2,
        threads: int = 1,
    ) -> None:
        """Set the limits; the child starts with the first clip.

        Args:
            time_limit_s: time for a clip of no length [s].
            time_limit_per_s: further time per second of clip [s/s].
            memory_limit_gb: private memory of the child [GiB].
            max_decoded_gb: cap on the waveforms, and on the frames, of one clip [GiB].
            recycle_after: clips after which the child is replaced.
            attempts: tries, each in a fresh child, before a clip that crashes it is given up; one that
                outlives its time is given up at once.
            threads: threads of a video codec.
        """
        self._time_limit_s = time_limit_s
        self._time_limit_per_s = time_limit_per_s
        self._memory_bytes = round(memory_limit_gb * 2**30)
        self._max_bytes = round(max_decoded_gb * 2**30)
        self._recycle_after = recycle_after
        self._attempts = attempts
        self._threads = threads
        self._child: _Child | None = None

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id while there is one."""
        return None if self._child is None else self._child.process.pid

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def decode(self, source: ClipSource, needs: Needs) -> Decoded:
        """Read what is needed of one clip.

        Raises:
            MediaError: the child crashed, ran out of time or memory on this clip.
        """
        rates, policies = sorted(needs.rates_hz), sorted(needs.frames, key=repr)
        request = {
            "kind": "decode",
            "audio": _plain(source.audio) if rates else None,
            "video": _plain(source.video) if policies else None,
            "start_s": source.start_s,
            "end_s": source.end_s,
            "rates_hz": rates,
            "policies": [vars(policy) for policy in policies],
        }
        answer: Mapping[str, Any] = {}
        read: dict[str, Any] = {}
        if request["audio"] or request["video"]:
            answer, child = self._ask(request, self._limit(source))
            if sound := answer.get("audio"):
                read["waveforms"] = {
                    rate: child.array(*place) for rate, place in sound["waveforms"]
                }
                read["audio_start_s"] = sound["start_s"]
            if pictures := answer.get("video"):
                read["frames"] = {
                    policy: Frames(*(child.array(*place) for place in places))
                    for policy, places in zip(policies, pictures["frames"], strict=True)
                }
            child.release()
        tracks = {name: answer[name] for name in TRACKS if name in answer}
        measured_s = max((track["end_s"] for track in tracks.values()), default=0.0)
        clip = Clip(
            clip_id=source.clip_id,
            duration_s=measured_s if source.duration_s is None else source.duration_s,
            text=source.text,
            words=source.words,
            context=source.context,
            **read,
        )
        faults = {
            modality: MediaError(Fault(fault), detail)
            for modality, (fault, detail) in answer.get("faults", {}).items()
        }
        partial = {name: track["partial"] for name, track in tracks.items() if track["partial"]}
        return Decoded(clip=clip, faults=faults, partial=partial)

    def probe(self, source: Source) -> Probe:
        """Read a file's headers in the child.

        Raises:
            MediaError: missing, empty, truncated before its index, no media; or the child died of it.
        """
        request = {"kind": "probe", "video": _plain(source)}
        return Probe(**self._ask(request, self._time_limit_s)[0]["probe"])

    def _limit(self, source: ClipSource) -> float:
        length = source.duration_s
        if source.start_s is not None and source.end_s is not None:
            length = source.end_s - source.start_s
        return self._time_limit_s + self._time_limit_per_s * (length or UNKNOWN_DURATION_S)

    def _ask(
        self, request: Mapping[str, Any], limit_s: float
    ) -> tuple[Mapping[str, Any], "_Child"]:
        """The child's answer; what killed one child is tried again in a fresh one."""
        for attempt in range(1, self._attempts + 1):
            child = self._ready()
            try:
                answer = child.ask(request, limit_s)
            except MediaError as error:
                self.close()
                if error.fault == Fault.CRASHED and attempt < self._attempts:
                    continue
                named = request["video"] or request["audio"]
                raise MediaError(error.fault, f"{named[0]}: {error.detail}") from error
            if "fault" in answer:
                fault, detail = answer["fault"]
                if fault == Fault.TOO_LARGE:
                    self.close()
                raise MediaError(Fault(fault), detail)
            return answer, child
        raise AssertionError("at least one attempt is made")

    def _ready(self) -> "_Child":
        if self._child is not None:
            worn_out = self._child.served >= self._recycle_after
            if worn_out or self._child.process.poll() is not None:
                self.close()
        if self._child is None:
            self._child = _Child(self._memory_bytes, self._threads, self._max_bytes)
        return self._child


class _Child:
    """The process, its pipes and the shared file."""

    def __init__(self, memory_bytes: int, threads: int, max_bytes: int) -> None:
        self.served = 0
        self._shared = _anonymous_file()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        numbers = (self._shared.fileno(), memory_bytes, os.getpid(), threads, max_bytes)
        root = str(Path(__file__).resolve().parent.parent)
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
        self.served += 1
        body = json.dumps(request).encode()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its end is then seen by the read
            self.process.stdin.write(len(body).to_bytes(4, "big") + body)
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
        parts: list[bytes] = []
        while count:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self.process.stdout], [], [], left)[0]:
                raise MediaError(Fault.TIMEOUT, f"not decoded after {limit_s:.0f} s")
            part = os.read(self.process.stdout.fileno(), count)
            if not part:
                raise MediaError(Fault.CRASHED, self._last_words())
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _last_words(self) -> str:
        status = self.process.wait()
        self._errors.seek(0)
        lines = self._errors.read()[-4000:].decode(errors="replace").strip().splitlines()
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return f"the decoder ended with {how}" + (f": {lines[-1][:200]}" if lines else "")


def _anonymous_file() -> Any:
    """A file without a name that a child can inherit: in memory on Linux, on disk elsewhere."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("affuse-decoded"), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _plain(source: Source | None) -> list[Any] | None:
    return None if source is None else [source.uri, source.offset, source.size]
