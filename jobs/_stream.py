"""The Ray Data stream from manifest units to published tables.

    spans of units  ->  decode: generator tasks  ->  unit rows  ->  encode: one actor class  ->  reports
    (one row each)      a decoder child each                        publishes each unit

A unit is one Arrow row from decode to publish, in a block of its own: Ray can neither cut nor mix it.
The actor checks that it holds as many clips as the unit has before it publishes. What a stream could
not publish (its worker died, more than once) is encoded again clip by clip by `jobs._rescue`, in a worker
that may die: the clip that kills it gets an error row, the others their features.
"""

import atexit
import functools
import json
import sys
import time
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import pyarrow as pa

from cluster.errors import AffuseError, MediaError
from cluster.resources import Plan
from cluster.unit_tables import UnitIndex, Version, mended, publish_unit
from encoders.media import Decoded, Decoder
from encoders.spec import Needs
from jobs._clips import buffers, pack, source_of, undecoded, unpack, with_context
from jobs._encoding import UnitResult, Workbench
from jobs._features import features_uri, transcripts_uri
from jobs._manifest import read_unit
from jobs._memory import private_mb, release_memory
from jobs._result_rows import failed_clips
from jobs._work import (
    DecodingConfig,
    Scoring,
    StreamJob,
    UnitReport,
    UnitTask,
    Work,
    dump,
    facts_of,
    job_needs,
    load,
    reads_text,
    withheld,
)

MAX_SPANS = 5000
"""Source rows of one execution; a larger set runs as several."""


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

    rows = [pa.table({"span": pa.array([dump(span)], pa.string())}) for span in spans]
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
        for task in load(text):
            begun = time.perf_counter()
            rows = rows_of(task)
            decoded, needs = decode_rows(job, task, rows)
            clips = pack(decoded, needs)
            offsets = pa.py_buffer(_int64([0, clips.size]))
            yield pa.table(
                {
                    "task": pa.array([dump([task])], pa.string()),
                    "facts": pa.array([json.dumps(facts_of(rows))], pa.string()),
                    "n_clips": pa.array([len(decoded)], pa.int64()),
                    "decode_s": pa.array([time.perf_counter() - begun], pa.float64()),
                    "decode_mb": pa.array([private_mb()], pa.float64()),
                    "clips": pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, clips]),
                }
            )


class UnitEncoder:
    """The actor: encodes a unit, publishes it, and reports."""

    def __init__(self, job: StreamJob) -> None:
        self.job = job
        self.bench = Workbench(job.work, device=worker_device())
        self._transcripts: UnitIndex | None = None
        self._published: dict[str, UnitIndex] = {}

    def __call__(self, row: pa.Table) -> pa.Table:
        """One unit row in, one report out."""
        (task,) = load(row["task"][0].as_py())
        needs = job_needs(self.job.work, task)
        (clips,) = buffers(row["clips"].chunk(0))
        decoded = unpack(clips, needs)
        if not len(decoded) == row["n_clips"][0].as_py() == task.num_clips:
            raise RuntimeError(f"unit {task.ref.unit}: {task.num_clips} clips, {len(decoded)} came")
        facts = json.loads(row["facts"][0].as_py())
        result = self.encode(decoded, task, withheld(facts))
        failed = publish(self.job, task, result, facts, self._published)
        release_memory()
        report = {
            "unit": task.ref.unit,
            "num_clips": len(decoded),
            "failed": failed,
            "decode_s": row["decode_s"][0].as_py(),
            "encode_s": dict(result.seconds),
            "decode_mb": row["decode_mb"][0].as_py(),
            "encode_mb": private_mb(),
        }
        return pa.table({"report": pa.array([json.dumps(report)], pa.string())})

    def encode(
        self, decoded: Sequence[Decoded], task: UnitTask, withheld: Collection[int]
    ) -> UnitResult:
        """Run what is missing; text encoders read transcripts that were published earlier."""
        transcripts = None
        transcriber = self.job.work.transcriber
        if transcriber is not None and not task.transcribe and reads_text(self.job.work, task):
            version = task.ref.version(transcriber.reads)
            if self._transcripts is None or version not in self._transcripts:
                self._transcripts = UnitIndex(transcripts_uri(self.job.root, transcriber.folder))
            transcripts = self._transcripts.read(version)
        return self.bench.run(
            decoded,
            task.todo,
            transcribe=task.transcribe,
            transcripts=transcripts,
            withheld=withheld,
        )


def rows_of(task: UnitTask) -> list[dict[str, Any]]:
    """The manifest rows of a unit that are to do, each with the texts around it."""
    rows = with_context(read_unit(task.ref).to_pylist())
    return [row for row in rows if not task.clips or row["clip_id"] in task.clips]


def decode_rows(
    job: StreamJob,
    task: UnitTask,
    rows: Sequence[Mapping[str, Any]],
    decoder: Decoder | None = None,
) -> tuple[list[Decoded], Needs]:
    """Decode clips by their manifest rows; one that cannot be read keeps its text and its fault.

    Args:
        job: the stream.
        task: what of the clips is to do.
        rows: rows of the manifest, with their context.
        decoder: by default this process's.
    """
    needs = job_needs(job.work, task)
    originals = [index for index in task.todo if job.work.descriptors[index].view is None]
    without_views = job.work.needs(originals, transcribe=task.transcribe)
    test = withheld(rows)
    decoder = decoder or _decoder(job.decoding)
    decoded = []
    for row in rows:
        source = source_of(row)
        try:
            wanted = without_views if row["clip_id"] in test else needs
            decoded.append(decoder.decode(source, wanted))
        except MediaError as error:
            decoded.append(undecoded(source, error))
    return decoded, needs


def publish(
    job: StreamJob,
    task: UnitTask,
    result: UnitResult,
    facts: Sequence[Mapping[str, Any]],
    published: dict[str, UnitIndex],
) -> int:
    """Publish a unit's tables, transcripts first, because features may rest on them.

    Args:
        job: the stream.
        task: the unit.
        result: its tables.
        facts: of its clips, in their order.
        published: tables whose rows are mended, as they were found; filled here.

    Returns:
        How many of the clips failed.
    """
    if job.scoring is not None:
        scores = score_unit(job.scoring, job.work, task, result, facts)
        publish_unit(job.scoring.uri, task.ref.version(job.scoring.reads), scores)
        return failed_clips([scores])
    tables = [(job.work.descriptors[index], table) for index, table in result.features.items()]
    if result.transcripts is not None:
        assert job.work.transcriber is not None
        tables.insert(0, (job.work.transcriber, result.transcripts))
    for item, table in tables:
        folder = transcripts_uri if item is job.work.transcriber else features_uri
        uri, version = folder(job.root, item.folder), task.ref.version(item.reads)
        if task.mend:
            _publish_mended(uri, version, task, table, published)
        else:
            publish_unit(uri, version, table)
    return result.failed


def _publish_mended(
    uri: str, version: Version, task: UnitTask, table: pa.Table, published: dict[str, UnitIndex]
) -> None:
    """Publish what is there and has not failed together with what was done again."""
    if uri not in published or version not in published[uri]:
        published[uri] = UnitIndex(uri)
    if version in published[uri]:
        rows = mended(published[uri].read(version), table)
        publish_unit(uri, version, rows, mended=True)
    elif not task.clips:
        publish_unit(uri, version, table)
    # Else the other rows of the unit have left since: the next start finds that they are missing.


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


def worker_device() -> str:
    """The device of this worker: CUDA where Ray lent it one that works, else the CPU."""
    import ray

    if not ray.get_gpu_ids():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@functools.lru_cache(maxsize=1)
def _decoder(decoding: DecodingConfig) -> Decoder:
    """This process's decoder; its child serves unit after unit."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(Decoder(**vars(decoding), threads=1))


def _int64(values: Sequence[int]) -> bytes:
    return b"".join(value.to_bytes(8, sys.byteorder, signed=True) for value in values)
