"""The Ray Data stream from manifest units to published tables.

    spans of units  ->  decode: generator tasks  ->  unit rows  ->  encode: one actor class  ->  reports
    (one row each)      a decoder child each                        publishes each unit

A unit is one Arrow row from decode to publish, in a block of its own: Ray can neither cut nor mix it.
The actor checks that it holds as many clips as the unit has before it publishes. A worker that cannot go on
(a model hangs, its device is spoilt, a disk is full) reports the unit as lost and ends itself; one that dies
says nothing. Either way `jobs.stream.rescue` encodes those units again clip by clip, in a worker that may
die: the clip that kills it gets an error row, the others their features.
"""

import json
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from cluster.resources import Plan
from cluster.unit_tables import UnitIndex
from encoders.media import Decoded
from jobs.catalog.layout import transcripts_uri
from jobs.stream.clip_buffer import buffers, unpack
from jobs.stream.decode import decode_span
from jobs.stream.faults import Kind, WorkerFaultError, lost_report, of_unit
from jobs.stream.job import (
    StreamJob,
    UnitReport,
    UnitResult,
    UnitTask,
    dump,
    job_needs,
    load,
    no_view_ids,
    reads_text,
)
from jobs.stream.limits import quiet_limit_s
from jobs.stream.memory import private_mb, release_memory
from jobs.stream.result_rows import failure_reasons
from jobs.stream.watch import Hands, Watch
from jobs.stream.workbench import Workbench

T = TypeVar("T")

MAX_SPANS = 5000
"""Source rows of one execution; a larger set runs as several."""

MODELS_LIMIT_S = 1800.0
"""Loading the models, which may come over a network, takes no longer than that [s]."""

LAST_WORD_S = 2.0
"""A worker that lost a unit ends so long after it said so [s]."""


def stream(job: StreamJob, tasks: Sequence[UnitTask], plan: Plan) -> Generator[UnitReport]:
    """Run every unit through the pipeline and yield a report as each is published, or let go of.

    A unit whose worker died (three times) has no report. Where nothing at all moves for longer than any unit
    may take, the workers are ended, and what they had in hand or before them is reported as lost.
    """
    import ray.data
    from ray.data.exceptions import ExecutionTimeoutError

    context = ray.data.DataContext.get_current()
    context.target_max_block_size = 1  # every unit row becomes a block of its own at once
    context.max_errored_blocks = (
        -1
    )  # a block is up to a span; what counts are units without a report
    context.execution_no_progress_timeout_s = quiet_limit_s(job, tasks)
    context.wait_for_min_actors_s = 0 if plan.on_gpu else -1
    # Its errors are raised, or stand in the reports.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    spans = cut_spans(tasks, plan.decode.workers)
    for start in range(0, len(spans), MAX_SPANS):
        part = spans[start : start + MAX_SPANS]
        with warnings.catch_warnings():
            # Bounded retries have no named parameter before Ray 2.64.
            warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated", DeprecationWarning)
            dataset = _pipeline(job, part, plan)
        silent = {task.ref.unit: task for span in part for task in span}
        try:
            for batch in dataset.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=1
            ):
                for text in batch["report"].to_pylist():
                    report = UnitReport(**json.loads(text))
                    silent.pop(report.unit, None)
                    yield report
        except ExecutionTimeoutError:
            detail = f"no worker moved for {context.execution_no_progress_timeout_s:.0f} s"
            for task in silent.values():
                yield lost_report(task, WorkerFaultError(Kind.HUNG, detail))


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


class UnitEncoder:
    """The actor: encodes a unit, publishes it, and reports.

    What it can no longer be trusted with after a fault of its own it leaves to the process that Ray starts in
    its place.
    """

    def __init__(self, job: StreamJob) -> None:
        self.job = job
        self.hands = Hands(Watch(last_resort=True))
        with self.hands.watch.within(MODELS_LIMIT_S):
            self.bench = Workbench(
                job.work,
                device=worker_device(),
                watch=self.hands.watch,
                stall_limit_s=job.stall_limit_s,
                trusting=job.trusting,
            )
        self._ending = False
        self._transcripts: UnitIndex | None = None
        self._publish = job.sink.open(job)

    def __call__(self, row: pa.Table) -> pa.Table:
        """One unit row in, one report out."""
        (task,) = load(row["task"][0].as_py())
        report = row["lost"][0].as_py()
        if report is None:
            outcome = self.guarded(lambda: self._unit(task, row))
            if isinstance(outcome, WorkerFaultError):
                outcome = lost_report(task, outcome)
            report = outcome.text()
        return pa.table({"report": pa.array([report], pa.string())})

    def guarded(self, work: Callable[[], T]) -> T | WorkerFaultError:
        """The result of the work, or the reason why the worker gives up its unit and, mostly, ends."""
        while self._ending:  # Ray gives the unit to the process that takes over
            time.sleep(LAST_WORD_S)
        try:
            return self.hands.run(work)
        except Exception as error:  # noqa: BLE001 (the driver judges it by its kind)
            fault = of_unit(error)
            if fault.spoils:
                self._ending = True
                ending = threading.Timer(LAST_WORD_S, os._exit, [1])
                ending.daemon = True
                ending.start()
            return fault

    def _unit(self, task: UnitTask, row: pa.Table) -> UnitReport:
        needs = job_needs(self.job.work, task)
        (clips,) = buffers(row["clips"].chunk(0))
        decoded = unpack(clips, needs)
        if not len(decoded) == row["n_clips"][0].as_py() == task.num_clips:
            raise RuntimeError(f"unit {task.ref.unit}: {task.num_clips} clips, {len(decoded)} came")
        facts = json.loads(row["facts"][0].as_py())
        result = self.encode(decoded, task, no_view_ids(facts))
        with self.hands.watch.within(self.job.stall_limit_s):
            failed = self._publish(task, result, facts)
        release_memory()
        return UnitReport(
            unit=task.ref.unit,
            num_clips=len(decoded),
            failed=failed,
            decode_s=row["decode_s"][0].as_py(),
            encode_s=dict(result.seconds),
            decode_mb=row["decode_mb"][0].as_py(),
            encode_mb=private_mb(),
            reasons=failure_reasons(result.tables()) if failed else {},
        )

    def encode(
        self, decoded: Sequence[Decoded], task: UnitTask, no_view_ids: Collection[int]
    ) -> UnitResult:
        """Run what is missing; text encoders read transcripts that were published earlier."""
        transcripts = None
        transcriber = self.job.work.transcriber
        if transcriber is not None and not task.transcribe and reads_text(self.job.work, task):
            version = task.ref.version(transcriber.reads)
            with self.hands.watch.within(self.job.stall_limit_s):
                if self._transcripts is None or version not in self._transcripts:
                    uri = transcripts_uri(self.job.root, transcriber.folder)
                    self._transcripts = UnitIndex(uri)
                transcripts = self._transcripts.read(version)
        return self.bench.run(
            decoded,
            task.todo,
            transcribe=task.transcribe,
            transcripts=transcripts,
            no_view_ids=no_view_ids,
        )


def worker_device() -> str:
    """The device of this worker: CUDA where Ray lent it one that works, else the CPU."""
    import ray

    if not ray.get_gpu_ids():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
