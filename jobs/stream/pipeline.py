"""The Ray Data stream from manifest units to published tables.

    spans of units  ->  decode: generator tasks  ->  unit rows  ->  encode: one actor class  ->  reports
    (one row each)      a decoder child each                        publishes each unit

A unit is one Arrow row from decode to publish, in a block of its own: Ray can neither cut nor mix it.
The actor checks that it holds as many clips as the unit has before it publishes. A worker that cannot go on
(a model hangs, its device is spoilt, a disk is full) reports the unit as lost and ends itself. One that dies
says nothing: Ray begins its units again elsewhere, and a unit that killed its worker each time
(`jobs.stream.tries`) is reported as lost by the next. `jobs.stream.rescue` encodes lost units again clip by
clip, in a worker that may die: the clip that kills it gets an error row, the others their features.
"""

import logging
from collections.abc import Generator, Sequence
from typing import Any

from cluster.resources import Plan
from jobs.stream.actor import UnitEncoder
from jobs.stream.decode import decode_span
from jobs.stream.faults import Kind, WorkerFaultError, lost_report
from jobs.stream.job import StreamJob, UnitReport, UnitTask
from jobs.stream.limits import quiet_limit_s
from jobs.stream.rows import reports_of, span_row
from jobs.stream.tries import Tries

MAX_SPANS = 5000
"""Source rows of one execution; a larger set runs as several.

Ray lays out every source row before it starts the first one: of 20,000 rows the first came out after 30 s, of
390,000 none within a minute.
"""


def stream(job: StreamJob, tasks: Sequence[UnitTask], plan: Plan) -> Generator[UnitReport]:
    """Run every unit through the pipeline and yield a report as each is published, or let go of.

    A machine that dies costs time: what its workers had in hand, and what lay decoded in its memory, is
    made again. Where nothing at all moves for longer than any unit may take, also when that is the last
    one, the workers are ended, and what they had in hand or before them is reported as lost.
    """
    import ray.data
    from ray.data.exceptions import ExecutionTimeoutError

    context = ray.data.DataContext.get_current()
    context.target_max_block_size = 1  # every unit row becomes a block of its own at once
    context.max_errored_blocks = -1  # a block may be a span: units without a report are what counts
    context.execution_no_progress_timeout_s = quiet_limit_s(job, tasks)
    # A worker that waits for decoded units keeps its models.
    context.autoscaling_config.actor_pool_util_downscaling_threshold = 0.0
    context.wait_for_min_actors_s = 0 if plan.on_gpu else -1
    # Its errors are raised, or stand in the reports.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    spans, tries = cut_spans(tasks, plan.decode.workers), Tries()
    for start in range(0, len(spans), MAX_SPANS):
        part = spans[start : start + MAX_SPANS]
        dataset = _pipeline(job, part, plan, tries)
        silent = {task.ref.unit: task for span in part for task in span}
        try:
            for batch in dataset.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=1
            ):
                for report in reports_of(batch):
                    silent.pop(report.unit, None)
                    yield report
        except ExecutionTimeoutError:
            detail = f"no worker moved for {context.execution_no_progress_timeout_s:.0f} s"
            for task in silent.values():
                yield lost_report(task, WorkerFaultError(Kind.HUNG, detail))
        finally:
            tries.forget()


def cut_spans(tasks: Sequence[UnitTask], workers: int) -> list[list[UnitTask]]:
    """Consecutive units in spans of 16 to 64, shorter where that would leave workers without any."""
    share = len(tasks) // (8 * max(1, workers))
    length = min(64, max(1, share)) if share < 16 else min(64, max(16, share))
    return [list(tasks[i : i + length]) for i in range(0, len(tasks), length)]


def _pipeline(job: StreamJob, spans: Sequence[Sequence[UnitTask]], plan: Plan, tries: Tries) -> Any:
    import ray.data

    decoded = ray.data.from_arrow([span_row(span) for span in spans]).map_batches(
        decode_span,
        fn_kwargs={"job": job, "tries": tries},
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.TaskPoolStrategy(size=min(plan.decode.workers, len(spans))),
        num_cpus=plan.decode.cpus_each,
    )
    needs = (
        {"num_gpus": plan.encode.gpus_each} if plan.on_gpu else {"num_cpus": plan.encode.cpus_each}
    )
    most = min(plan.encode.workers, sum(map(len, spans)))
    return decoded.map_batches(
        UnitEncoder,
        fn_constructor_kwargs={"job": job, "tries": tries},
        batch_size=1,  # a row is a unit: Ray can then neither cut nor mix it
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            min_size=1 if plan.elastic else most,
            max_size=most,
            max_concurrent_calls_per_actor=plan.calls_per_actor,
            enable_true_multi_threading=plan.calls_per_actor > 1,
        ),
        **needs,
    )
