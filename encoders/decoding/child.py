"""The child process that opens the files: `python -m encoders.decoding.child`.

Requests and answers are JSON after four bytes of length, on standard input and output; arrays go into the
shared file whose descriptor is the first argument. The child ends with its parent: by a signal from the
kernel on Linux, by the end of its standard input elsewhere. Nothing but `encoders.media` starts it.
"""

import ctypes
import ctypes.util
import gc
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import av.logging
import numpy as np

from cluster.errors import Fault, MediaError
from encoders.decoding.audio import read_sound
from encoders.decoding.frames import read_frames, read_pieces
from encoders.decoding.inspect import inspect
from encoders.decoding.sources import Source, is_machines, reason, staged
from encoders.spec import FramePolicy

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve requests until standard input ends."""
    shared, memory_bytes, parent, threads, max_bytes = map(int, sys.argv[1:6])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    die_with(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a file that kills it must not fill the disk
    # Of its data and not of its address space: libraries reserve far more of that than they ever touch.
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, resource.RLIM_INFINITY))
    av.logging.set_level(None)
    # What a native library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    write_message(answers, {"ready": True})
    while (request := read_message(sys.stdin.buffer)) is not None:
        try:
            answer = serve(request, Shared(shared), threads, max_bytes)
        except MediaError as error:
            answer = {"fault": [error.fault.value, error.detail]}
        except MemoryError:
            detail = f"needs more than {memory_bytes / 2**30:.1f} GiB to decode"
            answer = {"fault": [Fault.TOO_LARGE.value, detail]}
        write_message(answers, answer)
        gc.collect(1)  # files and frames hold each other; the next clip needs their memory


def serve(request: Mapping[str, Any], shared: "Shared", threads: int, max_bytes: int) -> Any:
    """One answer to one request."""
    sources = {
        name: Source(*request[name]) for name in ("video", "audio") if request.get(name) is not None
    }
    if request["kind"] == "probe":
        return {"probe": vars(inspect(next(iter(sources.values()))))}
    segment = (request["start_s"], request["end_s"])
    readers: dict[str, Callable[[Source], dict[str, Any]]] = {
        "audio": lambda source: _audio(source, request["rates_hz"], segment, max_bytes, shared),
        "video": lambda source: (
            _video(source, request["policies"], segment, max_bytes, threads, shared)
            if request.get("pieces") is None
            else _pieces(source, request["policies"], request["pieces"], max_bytes, threads, shared)
        ),
    }
    read, faults = {}, {}
    for modality, source in sources.items():
        try:
            read[modality] = readers[modality](source)
        except MediaError as error:
            faults[modality] = [error.fault.value, error.detail]
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 (the one place that isolates a broken file)
            detail = f"{source.uri}: {type(error).__name__}: {reason(error)}"
            fault = Fault.MACHINE if is_machines(error) else Fault.UNREADABLE
            faults[modality] = [fault.value, detail]
    return {**read, "faults": faults}


def _audio(
    source: Source,
    rates_hz: list[int],
    segment: tuple[float | None, float | None],
    max_bytes: int,
    shared: "Shared",
) -> dict[str, Any]:
    with staged(source) as local:
        sound = read_sound(local, rates_hz, *segment, max_bytes)
    return {
        "start_s": sound.start_s,
        "waveforms": [[rate, shared.put(wave)] for rate, wave in sound.waveforms.items()],
        "end_s": sound.end_s,
        "partial": sound.partial,
    }


def _video(
    source: Source,
    policies: list[dict[str, Any]],
    segment: tuple[float | None, float | None],
    max_bytes: int,
    threads: int,
    shared: "Shared",
) -> dict[str, Any]:
    wanted = [FramePolicy(**policy) for policy in policies]
    with staged(source) as local:
        pictures = read_frames(local, wanted, *segment, max_bytes, threads)
    return {
        "frames": [
            [
                shared.put(pictures.frames[policy].pixels),
                shared.put(pictures.frames[policy].times_s),
            ]
            for policy in wanted
        ],
        "end_s": pictures.end_s,
        "partial": pictures.partial,
    }


def _pieces(
    source: Source,
    policies: list[dict[str, Any]],
    pieces: list[tuple[float, float]],
    max_bytes: int,
    threads: int,
    shared: "Shared",
) -> dict[str, Any]:
    """Pictures of the pieces of a film; one that several pieces show is sent once."""
    wanted = [FramePolicy(**policy) for policy in policies]
    with staged(source) as local:
        read = read_pieces(local, wanted, pieces, max_bytes, threads)
    sent: dict[int, list[Any]] = {}
    parts: list[dict[str, Any]] = []
    for part in read:
        if isinstance(part, MediaError):
            parts.append({"fault": [part.fault.value, part.detail]})
            continue
        frames = []
        for policy in wanted:
            images, times = part.frames[policy]
            for image in images:
                if id(image) not in sent:
                    sent[id(image)] = shared.put(image)
            frames.append([[sent[id(image)] for image in images], shared.put(times)])
        parts.append({"frames": frames, "end_s": part.end_s, "partial": part.partial})
    return {"pieces": parts}


class Shared:
    """The shared file, written from its start for every answer."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._end = 0
        os.ftruncate(descriptor, 0)

    def put(self, array: np.ndarray) -> list[Any]:
        """Append one array and say where it lies: offset, type, shape."""
        view = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        start = self._end
        while len(view):
            written = os.pwrite(self._descriptor, view, self._end)
            self._end += written
            view = view[written:]
        return [start, str(array.dtype), list(array.shape)]


def die_with(parent: int) -> None:
    """Ask the kernel to end this process with its parent; on other systems input ends instead."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the request was heard
            sys.exit(0)


def read_message(stream: BinaryIO) -> Any:
    """The next message, or None at the end."""
    header = stream.read(4)
    if len(header) < 4:
        return None
    return json.loads(stream.read(int.from_bytes(header, "big")))


def write_message(stream: BinaryIO, message: Any) -> None:
    """Send one message."""
    body = json.dumps(message).encode()
    stream.write(len(body).to_bytes(4, "big") + body)
    stream.flush()


if __name__ == "__main__":
    main()
