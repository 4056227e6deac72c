"""A few clips timed on the workers that a stream will have: one decode task, one encoder actor.

The task holds what a decode task holds. The actor holds what an encoder actor holds, on a GPU plan its
share of a GPU, and runs the models on the shorter half of the clips, then on the longer half. Nothing is
measured in the driver, which may be another kind of machine.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from cluster.devices import worker_device
from cluster.errors import MachineError
from cluster.resources import DECODER_GB, Plan
from cluster.session import processor
from cluster.unit_tables import UnitIndex
from encoders.media import Decoded, Decoder
from jobs.catalog.layout import transcripts_uri
from jobs.stream.actor import MODELS_LIMIT_S
from jobs.stream.clip_buffer import pack, unpack
from jobs.stream.decode import decode_rows, rows_of
from jobs.stream.job import StreamJob, UnitTask
from jobs.stream.memory import private_mb
from jobs.stream.workbench import Workbench

CLIP_LIMIT_S = 10.0
"""A clip that takes longer to decode, beyond its own length, is not measured with."""

MOST_BYTES = 1 << 30
"""Decoded clips that are handed to the actor at most."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A clip to measure with."""

    task: UnitTask
    """Its unit, with all that any unit of the job lacks."""

    row: int
    cost: float
    """Decoding as the manifest estimates it [s]."""

    media_s: float


@dataclass(frozen=True, kw_only=True)
class Half:
    """Some clips of like length, on average."""

    clips: int
    cost: float
    media_s: float
    decode_s: float
    encode_s: Mapping[str, float]
    """By encoder and transcriber; empty where time ran out before [s]."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Times of the clips, as they are stored under the root."""

    halves: tuple[Half, ...]
    unreadable: int
    device: str
    actor_gb: float
    decoder_gb: float
    clip_gb: float
    """A decoded clip."""

    seconds: float
    """All of it, starting the actor included."""


def time_clips(
    job: StreamJob, drawn: Sequence[Drawn], plan: Plan, *, budget_s: float
) -> Timed | str:
    """Time the clips; or say in a few words why it came to nothing.

    Args:
        job: the stream; its threads are the plan's.
        drawn: clips, the cheapest first.
        plan: whose workers do it.
        budget_s: time for the clips, once the models are loaded.
    """
    import ray
    from ray.exceptions import (
        GetTimeoutError,
        NodeDiedError,
        OutOfMemoryError,
        RayActorError,
        WorkerCrashedError,
    )

    device = {"num_gpus": plan.encode.gpus_each} if plan.on_gpu else {}
    remote = ray.remote(num_cpus=plan.encode.cpus_each, max_restarts=0, **device)(Models)
    decode = ray.remote(num_cpus=plan.decode.cpus_each, max_retries=0)(decode_drawn)
    limit_s = 60 + 4 * budget_s
    begun = time.monotonic()
    actor = remote.remote(job)
    try:
        # One after the other: on few cores the loading of models would be timed with the decoding.
        name = ray.get(actor.device.remote(), timeout=MODELS_LIMIT_S)
        decoded = ray.get(decode.remote(job, list(drawn), budget_s / 2), timeout=limit_s)
        if not decoded.halves:
            return f"none of {len(drawn)} clips drawn could be read"
        since = time.monotonic()
        halves: list[Half] = []
        for half, clips in zip(decoded.halves, decoded.buffers, strict=True):
            if not halves or time.monotonic() - since < budget_s / 2:
                seconds = ray.get(actor.run.remote(list(drawn), clips), timeout=limit_s)
                half = replace(half, encode_s=seconds)
            halves.append(half)
        actor_gb = ray.get(actor.memory_gb.remote())
    except GetTimeoutError:
        return f"a worker with clips of the job did not answer within {limit_s:.0f} s"
    except MachineError as error:
        return f"a worker with clips of the job failed ({str(error).splitlines()[-1]})"
    except (NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError) as error:
        return f"a worker with clips of the job ended ({type(error).__name__})"
    finally:
        ray.kill(actor)
    return Timed(
        halves=tuple(halves),
        unreadable=decoded.unreadable,
        device=name,
        actor_gb=actor_gb,
        decoder_gb=decoded.decoder_gb,
        clip_gb=decoded.clip_gb,
        seconds=time.monotonic() - begun,
    )


@dataclass(frozen=True, kw_only=True)
class DecodedHalves:
    """Result of the decode task."""

    halves: tuple[Half, ...]
    buffers: tuple[bytes, ...]
    """The clips of each half, as `jobs.stream.clip_buffer.pack` writes them."""

    unreadable: int
    decoder_gb: float
    clip_gb: float


def decode_drawn(job: StreamJob, drawn: Sequence[Drawn], budget_s: float) -> DecodedHalves:
    """Decode clip by clip until time is up; clips with a fault are counted, not timed."""
    limits = vars(job.decoding) | {
        "time_limit_s": min(job.decoding.time_limit_s, CLIP_LIMIT_S),
        "time_limit_per_s": min(job.decoding.time_limit_per_s, 1.0),
    }
    needs = job.work.needs(drawn[0].task.todo)
    good: list[tuple[Drawn, Decoded, float]] = []
    unreadable = size = 0
    with Decoder(**limits, attempts=1, threads=1) as decoder:
        begun = None
        for item in [drawn[0], *drawn]:  # the first warms the child up
            rows = rows_of(item.task)
            since = time.perf_counter()
            [decoded] = decode_rows(job.work, item.task.todo, [rows[item.row]], decoder)
            size_now = pack([decoded], needs).size
            seconds = time.perf_counter() - since
            if begun is None:
                begun = time.perf_counter()
                continue
            if decoded.faults:
                unreadable += 1
            else:
                good.append((item, decoded, seconds))
                size += size_now
            if time.perf_counter() - begun > budget_s or size > MOST_BYTES:
                break
        decoder_gb = _decoder_gb(decoder.pid)
    good.sort(key=lambda entry: entry[0].media_s)
    middle = (len(good) + 1) // 2
    parts = [part for part in (good[:middle], good[middle:]) if part]
    return DecodedHalves(
        halves=tuple(_half(part) for part in parts),
        buffers=tuple(pack([d for _, d, _ in part], needs).to_pybytes() for part in parts),
        unreadable=unreadable,
        decoder_gb=decoder_gb,
        clip_gb=size / max(1, len(good)) / 1e9,
    )


class Models:
    """A Ray actor with the models of a stream, as an encoder actor has them."""

    def __init__(self, job: StreamJob) -> None:
        self.job = job
        self.on = worker_device()
        self.bench = Workbench(job.work, device=self.on)
        self.warm = False

    def device(self) -> str:
        """Device of the models."""
        if self.on != "cuda":
            return processor()
        import torch

        return torch.cuda.get_device_name()

    def run(self, drawn: Sequence[Drawn], clips: bytes) -> Mapping[str, float]:
        """Seconds a clip of every model, in batches as large as the stream's on a GPU."""
        task = drawn[0].task
        decoded = unpack(pa.py_buffer(clips), self.job.work.needs(task.todo))
        transcripts = self._transcripts(drawn, task)
        if not self.warm or self.on == "cuda":  # a GPU's kernels are chosen for each new shape
            self._seconds(decoded if self.on == "cuda" else decoded[:1], task, transcripts)
            self.warm = True
        return self._seconds(decoded, task, transcripts)

    def memory_gb(self) -> float:
        """Memory of this process that it shares with no other [GB]."""
        return private_mb() / 1e3

    def _seconds(
        self, decoded: Sequence[Decoded], task: UnitTask, transcripts: pa.Table | None
    ) -> Mapping[str, float]:
        copies = -(-self.bench.batch // len(decoded)) if self.on == "cuda" else 1
        result = self.bench.run([*decoded] * copies, task.todo, transcripts=transcripts)
        return {name: value / (len(decoded) * copies) for name, value in result.seconds.items()}

    def _transcripts(self, drawn: Sequence[Drawn], task: UnitTask) -> pa.Table | None:
        """Published transcripts of the drawn units, for encoders that read them."""
        transcriber = self.job.work.transcriber
        if transcriber is None or task.todo.transcribe:
            return None
        index = UnitIndex(transcripts_uri(self.job.root, transcriber.folder))
        heard = {item.task.ref.version(transcriber.reads) for item in drawn}
        found = [index.read(each).replace_schema_metadata(None) for each in heard if each in index]
        return pa.concat_tables(found) if found else None


def _half(part: Sequence[tuple[Drawn, Decoded, float]]) -> Half:
    count = len(part)
    return Half(
        clips=count,
        cost=sum(item.cost for item, _, _ in part) / count,
        media_s=sum(item.media_s for item, _, _ in part) / count,
        decode_s=sum(seconds for _, _, seconds in part) / count,
        encode_s={},
    )


def _decoder_gb(child: int | None) -> float:
    """Memory of this process, and the most that its decoder child held [GB]."""
    try:
        lines = Path(f"/proc/{child}/status").read_text().splitlines()
    except FileNotFoundError:
        return DECODER_GB
    most_kb = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return private_mb() / 1e3 + most_kb * 1024 / 1e9
