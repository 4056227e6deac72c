"""The worker of a stream: encodes unit after unit, publishes each, and lets go of what it cannot finish."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import pyarrow as pa

from cluster.devices import worker_device
from cluster.unit_tables import UnitIndex
from encoders.media import Decoded
from jobs.catalog.layout import transcripts_uri
from jobs.stream.clip_buffer import buffers, unpack
from jobs.stream.faults import WorkerFaultError, lost_report, of_unit
from jobs.stream.job import StreamJob, UnitReport, UnitResult, UnitTask
from jobs.stream.memory import private_mb, release_memory
from jobs.stream.result_rows import failure_reasons
from jobs.stream.rows import report_row, task_of
from jobs.stream.tries import Tries
from jobs.stream.watch import Hands, Watch
from jobs.stream.workbench import Workbench

T = TypeVar("T")

MODELS_LIMIT_S = 1800.0
"""Loading the models, which may come over a network, takes no longer than that [s]."""

LAST_WORD_S = 2.0
"""A worker that lost a unit ends so long after it said so [s]."""


class UnitEncoder:
    """The actor: encodes a unit, publishes it, and reports.

    What it can no longer be trusted with after a fault of its own it leaves to the process that Ray starts in
    its place.
    """

    def __init__(self, job: StreamJob, tries: Tries) -> None:
        self.job, self.tries = job, tries
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
        lost = row["lost"][0].as_py()
        if lost is not None:
            return report_row(lost)
        task = task_of(row)
        outcome = self.guarded(lambda: self._begun(task, row))
        if isinstance(outcome, WorkerFaultError):
            outcome = lost_report(task, outcome)
        return report_row(outcome)

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
                # Not at once: the report has to reach the driver first. And by the system call, because
                # an exit that runs handlers waits for the thread in which the model hangs.
                ending = threading.Timer(LAST_WORD_S, os._exit, [1])
                ending.daemon = True
                ending.start()
            return fault

    def _begun(self, task: UnitTask, row: pa.Table) -> UnitReport:
        """The report on a unit, unless it has killed too many workers to be begun again."""
        fatal = self.tries.begin("encoding", task.ref.unit)
        if fatal is not None:
            return lost_report(task, fatal)
        try:
            return self._unit(task, row)
        finally:
            self.tries.end("encoding", task.ref.unit)

    def _unit(self, task: UnitTask, row: pa.Table) -> UnitReport:
        (clips,) = buffers(row["clips"].chunk(0))
        decoded = unpack(clips, self.job.work.needs(task.todo))
        # A unit that lost clips on its way would be published as whole, and never be done again.
        if not len(decoded) == row["n_clips"][0].as_py() == task.num_clips:
            raise RuntimeError(f"unit {task.ref.unit}: {task.num_clips} clips, {len(decoded)} came")
        result = self.encode(decoded, task)
        with self.hands.watch.within(self.job.stall_limit_s):
            failed = self._publish(task, result, row["facts"][0].as_py())
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

    def encode(self, decoded: Sequence[Decoded], task: UnitTask) -> UnitResult:
        """Run what is missing; text encoders read transcripts that were published earlier."""
        transcripts = None
        work, todo = self.job.work, task.todo
        transcriber = work.transcriber
        if transcriber is not None and not todo.transcribe and work.reads_text(todo):
            version = task.ref.version(transcriber.reads)
            with self.hands.watch.within(self.job.stall_limit_s):
                if self._transcripts is None or version not in self._transcripts:
                    uri = transcripts_uri(self.job.root, transcriber.folder)
                    self._transcripts = UnitIndex(uri)
                transcripts = self._transcripts.read(version)
        return self.bench.run(decoded, todo, transcripts=transcripts)
