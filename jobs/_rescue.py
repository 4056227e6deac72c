"""Units that a stream lost, encoded again clip by clip in a worker that may die.

The clip that kills the worker, or keeps it too long, gets an error row; the others get their features.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from cluster.errors import Fault, MediaError
from cluster.resources import Plan
from cluster.unit_tables import UnitIndex
from jobs._clips import source_of, undecoded
from jobs._encoding import UnitResult
from jobs._result_rows import feature_table, transcript_table
from jobs._stream import UnitEncoder, decode_rows, publish, rows_of
from jobs._work import StreamJob, UnitReport, UnitTask, Work, facts_of, withheld


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
    published: dict[str, UnitIndex] = {}
    for task in tasks:
        begun = time.perf_counter()
        parts: list[UnitResult] = []
        rows = rows_of(task)
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
        failed = publish(job, task, _joined(parts), facts_of(rows), published)
        yield UnitReport(
            unit=task.ref.unit,
            num_clips=task.num_clips,
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
        return self.encode(decoded, task, withheld([row]))


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
