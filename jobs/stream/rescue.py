"""Units that a stream lost, encoded again clip by clip in a worker that may die.

A clip that kills the worker, keeps it too long or spoils it, alone and in a fresh process each time, gets an
error row; the others get their features. What may be the machine's fault (a full disk, no memory) is blamed
on a clip only while another one can be shown to pass; else the job stops and says what has to be mended.
"""

import contextlib
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

from cluster.errors import MachineError
from cluster.resources import Plan
from encoders.media import UNKNOWN_DURATION_S
from jobs.stream.actor import UnitEncoder
from jobs.stream.decode import decode_rows, decoder_of, machines_fault, rows_of, source_of
from jobs.stream.faults import NEED_A_WITNESS, Kind, WorkerFaultError, one_line
from jobs.stream.job import StreamJob, UnitReport, UnitResult, UnitTask, facts_of
from jobs.stream.limits import decode_limit_s
from jobs.stream.pace import SLACK
from jobs.stream.result_rows import error_rows, failure_reasons, joined
from jobs.stream.tries import Tries
from jobs.stream.watch import last_resort_s

START_LIMIT_S = 600.0
"""A worker that has not loaded its models by then does not start at all."""

WITNESSES = 2
"""Other clips that are tried, to distinguish a fault of the machine from one of a clip."""

MOST_IN_A_ROW = 4
"""More clips in a row than that without room or memory are no coincidence, whatever passes beside them."""

NO_MEMORY = "Ray ended its process because the machine had no memory left"

PAUSES_S: dict[Kind, tuple[float, ...]] = {Kind.HUNG: (), Kind.ENDED: (5.0, 30.0)}
"""Time before every further try of a clip [s]; other kinds have one, at once. Others on the machine may give
memory back meanwhile; a second wait for a clip that hangs would tell nothing new."""

PATIENCE_S = 140.0
"""What all pauses of a rescue take at most [s]: where many clips are too large, later ones do not wait."""

ODD = 3
"""Clips that may fail, each first in a fresh worker, before clips and not workers are suspected."""


def rescue(
    job: StreamJob,
    tasks: Sequence[UnitTask],
    plan: Plan,
    others: Sequence[UnitTask] = (),
    *,
    suspicious: bool = False,
) -> Generator[UnitReport]:
    """Encode units that a stream lost, clip by clip.

    Args:
        job: the stream.
        tasks: the units.
        plan: whose encoder actor the worker is like.
        others: units of the same job that went well.
        suspicious: so many units were lost in a row that nothing need be shown to blame the machine.

    Raises:
        MachineError: what fails is not a clip.
    """
    publish = job.sink.open(job)
    with contextlib.closing(_Ward(job, plan, others, suspicious=suspicious)) as ward:
        for task in tasks:
            begun = time.perf_counter()
            rows = rows_of(task)
            result = joined([ward.treated(task, rows, number) for number in range(len(rows))])
            failed = publish(task, result, facts_of(rows))
            yield UnitReport(
                unit=task.ref.unit,
                num_clips=task.num_clips,
                failed=failed,
                decode_s=0.0,
                encode_s={"rescue": time.perf_counter() - begun},
                reasons=failure_reasons(result.tables()) if failed else {},
            )


class _Ward:
    """One worker at a time, and evidence on whether the machine is at fault."""

    def __init__(
        self, job: StreamJob, plan: Plan, others: Sequence[UnitTask], *, suspicious: bool
    ) -> None:
        import ray

        # No CPU on one machine: the workers of the stream may not have given theirs back yet. No restarts:
        # whether a clip ends its worker is what is to be found out.
        options: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0}
        if plan.on_gpu:
            options |= {"num_cpus": 0, "num_gpus": plan.encode.gpus_each}
        else:
            options |= {"num_cpus": plan.encode.cpus_each}
        self.job = replace(job, trusting=True)
        self._remote = ray.remote(**options)(ClipEncoder)
        self._worker: Any = None
        self._proven = False
        """The worker has passed a clip."""
        self._others, self._suspicious = others, suspicious
        self._in_a_row = 0
        """Number of clips in a row that failed by what may be the machine's fault."""
        self._patience_s = PATIENCE_S
        self.odd = 0
        """Clips that failed as the first ones of a fresh worker, with none that passed since."""

    def close(self) -> None:
        """End the worker, whatever it does."""
        import ray

        if self._worker is not None:
            ray.kill(self._worker)
            self._worker, self._proven = None, False

    def treated(self, task: UnitTask, rows: Sequence[dict[str, Any]], number: int) -> UnitResult:
        """The tables of one clip of a unit; error rows where every try has failed.

        Raises:
            MachineError: it is not the clip that fails.
        """
        row = rows[number]
        outcome, tries = self._tried(task, row), 1
        while isinstance(outcome, WorkerFaultError):
            pauses_s = PAUSES_S.get(outcome.kind, (0.0,))
            if tries > len(pauses_s):
                break
            self._pause(pauses_s[tries - 1])
            outcome, tries = self._tried(task, row), tries + 1
        if isinstance(outcome, UnitResult):
            self._in_a_row = 0
            return outcome
        if outcome.kind in NEED_A_WITNESS:
            self._in_a_row += 1
            suspicious = self._suspicious or self._in_a_row > MOST_IN_A_ROW
            if suspicious or not self._well(task, rows, number):
                raise MachineError(f"no clip passes any more: {outcome.detail}")
        return error_rows(self.job.work, task.todo, source_of(row), outcome.row())

    def _pause(self, pause_s: float) -> None:
        """Wait, as long as the rescue has patience left."""
        pause_s = min(pause_s, self._patience_s)
        self._patience_s -= pause_s
        time.sleep(pause_s)

    def _well(self, task: UnitTask, rows: Sequence[dict[str, Any]], number: int) -> bool:
        """Whether another clip passes now: the first of another unit, or one of the same."""
        candidates = [(other, rows_of(other)[0]) for other in self._others[:WITNESSES]]
        candidates += [(task, row) for at, row in enumerate(rows) if at != number][:WITNESSES]
        for other, row in candidates:
            outcome = self._tried(other, row)
            if isinstance(outcome, UnitResult) and not outcome.failed:
                return True
        return False

    def _tried(self, task: UnitTask, row: dict[str, Any]) -> UnitResult | WorkerFaultError:
        """One clip in the worker, which is replaced after a fault."""
        import ray

        if self._worker is None:
            self._worker = self._started()
        reference = self._worker.encode_clip.remote(task, row)
        limit_s = self._limit_s(row)
        outcome: UnitResult | WorkerFaultError
        try:
            outcome = ray.get(reference, timeout=limit_s)
        except ray.exceptions.GetTimeoutError:
            detail = f"encoding took longer than {limit_s:.0f} s"
            outcome = WorkerFaultError(Kind.HUNG, detail)
        except ray.exceptions.RayActorError:
            outcome = WorkerFaultError(Kind.CRASH, "encoding killed its process")
        except ray.exceptions.OutOfMemoryError:  # it is none of an actor's
            outcome = WorkerFaultError(Kind.ENDED, NO_MEMORY)
        if isinstance(outcome, WorkerFaultError):
            self.close()
        elif not outcome.failed:
            self._proven, self.odd = True, 0
        elif not self._proven:
            # It may have spoilt its worker; after a few, failing has nothing to do with the worker.
            self.odd += 1
            if self.odd <= ODD:
                self.close()
        return outcome

    def _started(self) -> Any:
        import ray

        worker = self._remote.remote(self.job, Tries())
        try:
            ray.get(worker.ready.remote(), timeout=START_LIMIT_S)
        except ray.exceptions.GetTimeoutError:
            ray.kill(worker)
            raise MachineError(f"no worker started within {START_LIMIT_S:.0f} s") from None
        except ray.exceptions.OutOfMemoryError:
            raise MachineError(f"no worker can start: {NO_MEMORY}") from None
        return worker

    def _limit_s(self, row: dict[str, Any]) -> float:
        """The worker keeps each call's own deadline; this is for one that cannot [s]."""
        length_s = row["duration_s"] or UNKNOWN_DURATION_S
        work = self.job.work
        models = [*work.descriptors, *([work.transcriber] if work.transcriber else [])]
        calls_s = sum(
            self.job.stall_limit_s + SLACK * item.spec.seconds_per_clip_second * length_s
            for item in models
        )
        return decode_limit_s(self.job.decoding, length_s) + calls_s + 2 * last_resort_s(calls_s)


class ClipEncoder(UnitEncoder):
    """Decodes and encodes single clips, for `rescue`."""

    def ready(self) -> None:
        """Answer, once the models are loaded."""

    def encode_clip(self, task: UnitTask, row: dict[str, Any]) -> UnitResult | WorkerFaultError:
        """The tables of one clip, or why there are none."""
        try:
            decoder = decoder_of(self.job.decoding)
            decoded = decode_rows(self.job.work, task.todo, [row], decoder)
        except Exception as error:  # noqa: BLE001 (files that are broken raise nothing)
            return WorkerFaultError(Kind.DISK, one_line(error))
        if (fault := machines_fault(decoded)) is not None:
            return fault
        return self.guarded(lambda: self.encode(decoded, task))
