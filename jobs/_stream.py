"""The Ray Data stream from manifest units to published tables.

    spans of units  ->  decode: generator tasks  ->  unit rows  ->  encode: one actor class  ->  reports
    (one row each)      a decoder child each                        publishes each unit

A unit is one Arrow row from decode to publish, in a block of its own: Ray can neither cut nor mix it.
The actor checks that it holds as many clips as the unit has before it publishes. What a stream could
not publish (its worker died, more than once) is encoded again clip by clip by `rescue`, in a worker
that may die: the clip that kills it gets an error row, the others their features.
"""

import atexit
import functools
import json
import resource
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from cluster.errors import AffuseError, Fault, MediaError
from cluster.resources import Plan
from encoders.media import Decoded, Decoder
from encoders.spec import Needs
from jobs._clips import buffers, pack, source_of, undecoded, unpack
from jobs._encoding import (
    UnitResult,
    Work,
    Workbench,
    failed_clips,
    feature_table,
    transcript_table,
)
from jobs._features import UnitIndex, features_uri, publish_unit, transcripts_uri
from jobs._manifest import UnitRef, read_unit

MAX_SPANS = 5000
"""Source rows of one execution; a larger set runs as several."""


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """What one clip may cost."""

    time_limit_s: float = 60.0
    """Time for a clip of no length [s]."""

    time_limit_per_s: float = 4.0
    """Further time per second of clip [s/s]."""

    memory_limit_gb: float = 3.0
    """Private memory of a decoder child [GiB]."""

    max_decoded_gb: float = 1.0
    """Cap on the waveforms, and on the frames, of one clip [GiB]; above it fewer are taken."""

    recycle_after: int = 500
    """Clips that a decoder child reads before a fresh one takes over."""


@dataclass(frozen=True, kw_only=True)
class UnitTask:
    """One unit and what is missing of it."""

    ref: UnitRef
    todo: tuple[int, ...]
    """Positions of the encoders in `Work.descriptors`."""

    transcribe: bool
    """Publish transcripts too; without it text encoders read those that are there."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Score the clips by a bundle and publish that in place of their features."""

    bundle: str
    """As `jobs._scoring.open_bundle` takes it, with `root` and `transcriber`."""

    root: str
    transcriber: str | None
    uri: str
    """Folder of the scores."""


@dataclass(frozen=True, kw_only=True)
class StreamJob:
    """All that a worker has to know; small, and the same for every unit."""

    root: str
    work: Work
    decoding: DecodingConfig
    scoring: Scoring | None = None
    stall_limit_s: float = 900.0
    """A stream in which nothing is finished for so long is stopped [s]."""

    max_lost_units: int = 64
    """More units than this lost to dying workers stop the job."""


@dataclass(frozen=True, kw_only=True)
class UnitReport:
    """What the driver hears of a published unit."""

    unit: str
    num_clips: int
    failed: int
    decode_s: float
    encode_s: dict[str, float] = field(default_factory=dict)
    worker_mb: float = 0.0
    """Peak resident memory of the worker so far [MB]."""


def stream(job: StreamJob, tasks: Sequence[UnitTask], plan: Plan) -> Iterator[UnitReport]:
    """Run every unit through the pipeline and yield a report as each is published.

    Raises:
        AffuseError: nothing was finished for `stall_limit_s`.
    """
    import ray.data
    from ray.data.exceptions import ExecutionTimeoutError

    context = ray.data.DataContext.get_current()
    context.target_max_block_size = 1  # every unit row becomes a block of its own at once
    context.max_errored_blocks = job.max_lost_units
    context.execution_no_progress_timeout_s = job.stall_limit_s
    context.wait_for_min_actors_s = 0 if plan.on_gpu else -1
    spans = cut_spans(tasks, plan.decode.workers)
    for start in range(0, len(spans), MAX_SPANS):
        with warnings.catch_warnings():  # bounded retries have no named parameter before Ray 2.64
            warnings.simplefilter("ignore")
            dataset = _pipeline(job, spans[start : start + MAX_SPANS], plan)
        try:
            for batch in dataset.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=1
            ):
                for text in batch["report"].to_pylist():
                    yield UnitReport(**json.loads(text))
        except ExecutionTimeoutError as error:
            raise AffuseError(
                f"no unit was finished for {job.stall_limit_s:g} s; the same command goes on from here"
            ) from error


def cut_spans(tasks: Sequence[UnitTask], workers: int) -> list[list[UnitTask]]:
    """Consecutive units in spans of 16 to 64, shorter where that would leave workers without any."""
    share = len(tasks) // (8 * max(1, workers))
    length = min(64, max(1, share)) if share < 16 else min(64, max(16, share))
    return [list(tasks[i : i + length]) for i in range(0, len(tasks), length)]


def _pipeline(job: StreamJob, spans: Sequence[Sequence[UnitTask]], plan: Plan) -> Any:
    import ray.data

    rows = [pa.table({"span": pa.array([_dump(span)], pa.string())}) for span in spans]
    decoded = ray.data.from_arrow(rows).map_batches(
        decode_span,
        fn_kwargs={"job": job},
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.TaskPoolStrategy(size=min(plan.decode.workers, len(spans))),
        num_cpus=plan.decode.cpus_each,
        max_retries=2,
    )
    needs = (
        {"num_gpus": plan.encode.gpus_each} if plan.on_gpu else {"num_cpus": plan.encode.cpus_each}
    )
    return decoded.map_batches(
        UnitEncoder,
        fn_constructor_kwargs={"job": job},
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            size=min(plan.encode.workers, sum(map(len, spans))),
            max_concurrent_calls_per_actor=plan.calls_per_actor,
            enable_true_multi_threading=plan.calls_per_actor > 1,
        ),
        max_task_retries=2,
        **needs,
    )


def decode_span(batch: pa.Table, job: StreamJob) -> Iterator[pa.Table]:
    """Decode the units of a span, one row as soon as it is ready."""
    for text in batch["span"].to_pylist():
        for task in _load(text):
            begun = time.perf_counter()
            rows = read_unit(job.root, task.ref).to_pylist()
            decoded, needs = decode_rows(job, task, rows)
            clips = pack(decoded, needs)
            offsets = pa.py_buffer(_int64([0, clips.size]))
            yield pa.table(
                {
                    "task": pa.array([_dump([task])], pa.string()),
                    "facts": pa.array([json.dumps(_facts(rows))], pa.string()),
                    "n_clips": pa.array([len(decoded)], pa.int64()),
                    "decode_s": pa.array([time.perf_counter() - begun], pa.float64()),
                    "clips": pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, clips]),
                }
            )


class UnitEncoder:
    """The actor: encodes a unit, publishes it, and reports."""

    def __init__(self, job: StreamJob) -> None:
        self.job = job
        self.bench = Workbench(job.work, device=worker_device())
        self._transcripts: UnitIndex | None = None

    def __call__(self, row: pa.Table) -> pa.Table:
        """One unit row in, one report out."""
        (task,) = _load(row["task"][0].as_py())
        needs = job_needs(self.job.work, task)
        (clips,) = buffers(row["clips"].chunk(0))
        decoded = unpack(clips, needs)
        if not len(decoded) == row["n_clips"][0].as_py() == task.ref.num_clips:
            raise RuntimeError(
                f"unit {task.ref.unit} has {task.ref.num_clips} clips, {len(decoded)} came"
            )
        result = self.encode(decoded, task)
        failed = publish(self.job, task, result, json.loads(row["facts"][0].as_py()))
        report = {
            "unit": task.ref.unit,
            "num_clips": len(decoded),
            "failed": failed,
            "decode_s": row["decode_s"][0].as_py(),
            "encode_s": dict(result.seconds),
            "worker_mb": peak_mb(),
        }
        return pa.table({"report": pa.array([json.dumps(report)], pa.string())})

    def encode(self, decoded: Sequence[Decoded], task: UnitTask) -> UnitResult:
        """Run what is missing; text encoders read transcripts that were published earlier."""
        transcripts = None
        transcriber = self.job.work.transcriber
        if transcriber is not None and not task.transcribe and _reads_text(self.job.work, task):
            if self._transcripts is None or task.ref.unit not in self._transcripts:
                self._transcripts = UnitIndex(transcripts_uri(self.job.root, transcriber.folder))
            transcripts = self._transcripts.read(task.ref.unit)
        return self.bench.run(
            decoded, task.todo, transcribe=task.transcribe, transcripts=transcripts
        )


def decode_rows(
    job: StreamJob, task: UnitTask, rows: Sequence[Mapping[str, Any]]
) -> tuple[list[Decoded], Needs]:
    """Decode clips by their manifest rows; one that cannot be read keeps its text and its fault."""
    needs = job_needs(job.work, task)
    decoder = _decoder(job.decoding)
    decoded = []
    for row in rows:
        source = source_of(row)
        try:
            decoded.append(decoder.decode(source, needs))
        except MediaError as error:
            decoded.append(undecoded(source, error))
    return decoded, needs


def job_needs(work: Work, task: UnitTask) -> Needs:
    """What has to be decoded for a unit."""
    return work.needs(task.todo, transcribe=task.transcribe)


def publish(
    job: StreamJob, task: UnitTask, result: UnitResult, facts: Sequence[Mapping[str, Any]]
) -> int:
    """Publish a unit's tables, transcripts first, because features may rest on them.

    Returns:
        How many of its clips failed.
    """
    if job.scoring is not None:
        scores = score_unit(job.scoring, job.work, task, result, facts)
        publish_unit(job.scoring.uri, task.ref.unit, scores)
        return failed_clips([scores])
    if result.transcripts is not None:
        assert job.work.transcriber is not None
        uri = transcripts_uri(job.root, job.work.transcriber.folder)
        publish_unit(uri, task.ref.unit, result.transcripts)
    for index, table in result.features.items():
        uri = features_uri(job.root, job.work.descriptors[index].folder)
        publish_unit(uri, task.ref.unit, table)
    return result.failed


def score_unit(
    scoring: Scoring,
    work: Work,
    task: UnitTask,
    result: UnitResult,
    facts: Sequence[Mapping[str, Any]],
) -> pa.Table:
    """The SCORES of a unit from the features just made of it."""
    from jobs._scoring import scorer

    features = {work.descriptors[index].folder: result.features[index] for index in task.todo}
    return scorer(scoring.bundle, scoring.root, scoring.transcriber).scores(facts, features)


def rescue(job: StreamJob, tasks: Sequence[UnitTask], plan: Plan) -> Iterator[UnitReport]:
    """Encode units that a stream lost, clip by clip, in one worker that may die.

    A clip that kills the worker, or keeps it longer than its time limit, gets an error row.
    """
    import ray

    options: dict[str, Any] = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0}
    if plan.on_gpu:
        options["num_gpus"] = plan.encode.gpus_each
    remote = ray.remote(**options)(ClipEncoder)
    worker = None
    for task in tasks:
        begun = time.perf_counter()
        parts: list[UnitResult] = []
        rows = read_unit(job.root, task.ref).to_pylist()
        for row in rows:
            worker = worker or remote.remote(job)
            limit_s = 300 + 10 * (
                job.decoding.time_limit_s
                + job.decoding.time_limit_per_s * (row["duration_s"] or 0.0)
            )
            reference = worker.encode_clip.remote(task, row)
            try:
                parts.append(ray.get(reference, timeout=limit_s))
            except ray.exceptions.GetTimeoutError:
                ray.kill(worker)
                worker = None
                error = MediaError(Fault.TIMEOUT, f"encoding took longer than {limit_s:.0f} s")
                parts.append(_lost(job.work, task, row, error))
            except ray.exceptions.RayActorError:
                worker = None
                error = MediaError(Fault.CRASHED, "encoding killed its process")
                parts.append(_lost(job.work, task, row, error))
        failed = publish(job, task, _joined(parts), _facts(rows))
        yield UnitReport(
            unit=task.ref.unit,
            num_clips=task.ref.num_clips,
            failed=failed,
            decode_s=0.0,
            encode_s={"rescue": time.perf_counter() - begun},
        )
    if worker is not None:
        ray.kill(worker)


class ClipEncoder(UnitEncoder):
    """Decodes and encodes single clips, for `rescue`."""

    def encode_clip(self, task: UnitTask, row: dict[str, Any]) -> UnitResult:
        """The tables of one clip."""
        decoded, _ = decode_rows(self.job, task, [row])
        return self.encode(decoded, task)


def worker_device() -> str:
    """The device of this worker: CUDA where Ray lent it one that works, else the CPU."""
    import ray

    if not ray.get_gpu_ids():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def peak_mb() -> float:
    """Peak resident memory of this process [MB]."""
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


@functools.lru_cache(maxsize=1)
def _decoder(decoding: DecodingConfig) -> Decoder:
    """This process's decoder; its child serves unit after unit."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(Decoder(**vars(decoding), threads=1))


def _facts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a scorer has to know of manifest rows."""
    names = ("clip_id", "name", "dialogue", "turn", "speaker")
    return [{name: row[name] for name in names} for row in rows]


def _reads_text(work: Work, task: UnitTask) -> bool:
    return any(work.descriptors[index].spec.modality == "text" for index in task.todo)


def _lost(work: Work, task: UnitTask, row: dict[str, Any], error: MediaError) -> UnitResult:
    """Error rows of a clip that no worker survived."""
    left = [undecoded(source_of(row), error)]
    transcripts = None
    if task.transcribe:
        transcripts = transcript_table(left, [error])
    return UnitResult(
        features={
            index: feature_table(work.descriptors[index], left, [error]) for index in task.todo
        },
        transcripts=transcripts,
        failed=1,
    )


def _joined(parts: Sequence[UnitResult]) -> UnitResult:
    """The clips of a unit put together again."""
    transcripts = [part.transcripts for part in parts if part.transcripts is not None]
    return UnitResult(
        features={
            index: pa.concat_tables([part.features[index] for part in parts])
            for index in parts[0].features
        },
        transcripts=pa.concat_tables(transcripts) if transcripts else None,
        failed=sum(part.failed for part in parts),
    )


def _dump(tasks: Sequence[UnitTask]) -> str:
    return json.dumps(
        [
            {"ref": vars(task.ref), "todo": task.todo, "transcribe": task.transcribe}
            for task in tasks
        ]
    )


def _load(text: str) -> list[UnitTask]:
    return [
        UnitTask(
            ref=UnitRef(**item["ref"]), todo=tuple(item["todo"]), transcribe=item["transcribe"]
        )
        for item in json.loads(text)
    ]


def _int64(values: Sequence[int]) -> bytes:
    return b"".join(value.to_bytes(8, sys.byteorder, signed=True) for value in values)
