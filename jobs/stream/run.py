"""Run all units of a job: units that the stream loses are encoded clip by clip, then the stream continues."""

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from cluster.errors import MachineError, StorageError
from cluster.resources import Plan
from jobs.stream.faults import Kind
from jobs.stream.job import StreamJob, UnitReport, UnitTask
from jobs.stream.pipeline import stream
from jobs.stream.progress import Progress
from jobs.stream.rescue import rescue

Unpublished = Callable[[Sequence[UnitTask]], Sequence[UnitTask]]
"""Those of some units of which something is not published."""


def run_units(
    job: StreamJob,
    tasks: Sequence[UnitTask],
    plan: Plan,
    progress: Progress,
    unpublished: Unpublished,
) -> Counter[str]:
    """Stream all units; where workers lose some, rescue those and go on with the rest.

    Every round publishes a unit at least, or raises.

    Args:
        job: the stream.
        tasks: its units.
        plan: its workers.
        progress: counts what is done.
        unpublished: asks the storage.

    Returns:
        Seconds that decoding and each model took, all workers together.

    Raises:
        StorageError: the root takes no more files.
        MachineError: whatever fails, it is no clip.
        TooManyFailuresError: too many clips failed.
    """
    run = _Run(job, plan, progress)
    left = list(tasks)
    try:
        while left:
            finished = run.stream(left)
            left = list(unpublished([task for task in left if task.ref.unit not in run.well]))
            doomed = [task for task in left if finished or task.ref.unit in run.lost]
            doomed = doomed[: job.max_lost_units]
            run.rescue(doomed)
            left = [task for task in left if task.ref.unit not in run.well]
    except (MachineError, StorageError) as error:
        kind = StorageError if isinstance(error, StorageError) else MachineError
        raise kind(f"{error}; {len(run.well)} of {len(tasks)} units are done") from error
    return run.seconds


class _Run:
    """State of the units so far."""

    def __init__(self, job: StreamJob, plan: Plan, progress: Progress) -> None:
        self.job, self.plan, self.progress = job, plan, progress
        self.seconds: Counter[str] = Counter()
        self.well: dict[str, UnitTask] = {}
        """Published."""
        self.lost: dict[str, UnitReport] = {}
        """Figures of this round."""
        self.suspicious = False
        """Workers did nothing but lose units."""

    def stream(self, tasks: Sequence[UnitTask]) -> bool:
        """Stream units; stop, with a message, where workers only lose them."""
        by_unit = {task.ref.unit: task for task in tasks}
        self.lost, self.suspicious = {}, False
        in_a_row = 0
        most = 2 + 2 * self.plan.encode.workers * self.plan.calls_per_actor
        with contextlib.closing(stream(self.job, tasks, self.plan)) as reports:
            for report in reports:
                if report.lost is None:
                    in_a_row = 0
                    self._published(by_unit[report.unit], report)
                    continue
                if report.lost == Kind.STORAGE:
                    raise StorageError(report.detail)
                in_a_row += 1
                self.lost[report.unit] = report
                self.suspicious = in_a_row > most
                if self.suspicious or len(self.lost) >= self.job.max_lost_units:
                    return False
        return True

    def rescue(self, tasks: Sequence[UnitTask]) -> None:
        """Encode units clip by clip."""
        if not tasks:
            return
        why = Counter(report.detail for report in self.lost.values()).most_common(1)
        said = f" ({why[0][0]})" if why else ""
        label = self.progress.label
        self.progress.say(
            f"{label}: {len(tasks)} units were lost with their workers{said}; now clip by clip"
        )
        others = list(self.well.values())
        reports = rescue(self.job, tasks, self.plan, others, suspicious=self.suspicious)
        failed = 0
        with contextlib.closing(reports):
            for task, report in zip(tasks, reports, strict=True):
                failed += report.failed
                self._published(task, report)
        if failed == sum(task.num_clips for task in tasks):  # fresh workers change nothing
            self.job = replace(self.job, trusting=True)

    def _published(self, task: UnitTask, report: UnitReport) -> None:
        self.well[task.ref.unit] = task
        self.seconds.update({"decode": report.decode_s, **report.encode_s})
        self.progress.add(report.num_clips, report.failed, report.reasons)
