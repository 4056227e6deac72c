"""Clips encoded one by one in the job's own process: no Ray, one decoded clip in memory at a time."""

from collections.abc import Mapping
from typing import Any

from jobs.stream.decode import decode_rows
from jobs.stream.faults import Kind, WorkerFaultError
from jobs.stream.job import StreamJob, UnitResult, UnitTask
from jobs.stream.watch import Hands, Watch
from jobs.stream.workbench import Workbench


class OneByOne:
    """Encodes single clips; one that keeps a model too long is left behind with that model.

    Args:
        job: the models, and how long a call may take.
        task: what is to do with each clip.
    """

    def __init__(self, job: StreamJob, task: UnitTask) -> None:
        self.job, self.task = job, task
        self._loaded: tuple[Hands, Workbench] | None = None

    def outcome(self, row: Mapping[str, Any]) -> UnitResult | WorkerFaultError:
        """The tables of one clip, by its row of the manifest, or what failed."""
        decoded, _ = decode_rows(self.job, self.task, [row])
        hands, bench = self._loaded = self._loaded or self._load()
        try:
            return hands.run(
                lambda: bench.run(decoded, self.task.todo, transcribe=self.task.transcribe)
            )
        except WorkerFaultError as fault:
            if fault.kind is Kind.HUNG:
                # Its thread keeps the models; the next clip gets them anew.
                self._loaded = None
            return fault

    def _load(self) -> tuple[Hands, Workbench]:
        hands = Hands(Watch())
        limit_s = self.job.stall_limit_s
        return hands, Workbench(self.job.work, watch=hands.watch, stall_limit_s=limit_s)
