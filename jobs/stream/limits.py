"""Time limits of a whole unit, from the limits of its clips and calls."""

from collections.abc import Sequence

from encoders.media import START_LIMIT_S, UNKNOWN_DURATION_S
from jobs.catalog.manifest import read_columns
from jobs.stream.job import DecodingConfig, StreamJob, UnitTask
from jobs.stream.pace import SLACK
from jobs.stream.workbench import CPU_BATCH


def quiet_limit_s(job: StreamJob, tasks: Sequence[UnitTask]) -> float:
    """Time in which a stream that works finishes something: all that its largest unit may take [s].

    Workers keep the deadlines of each clip and call themselves (`jobs.stream.watch`); this one is for what
    they cannot see, such as a cluster without room for them.
    """
    largest = [
        max(tasks, key=lambda task: task.num_clips).ref,
        max(tasks, key=lambda task: task.ref.cost).ref,
    ]
    models = [*job.work.descriptors, *([job.work.transcriber] if job.work.transcriber else [])]
    limits = []
    for column in read_columns(largest, ["duration_s"]):
        lengths = [length or UNKNOWN_DURATION_S for length in column["duration_s"].to_pylist()]
        paces = sum(item.spec.seconds_per_clip_second for item in models)
        decode_s = sum(decode_limit_s(job.decoding, length) for length in lengths)
        calls = len(models) * (1 + -(-len(lengths) // CPU_BATCH))
        limits.append(decode_s + calls * job.stall_limit_s + SLACK * paces * sum(lengths))
    return 4 * job.stall_limit_s + max(limits)


def decode_limit_s(decoding: DecodingConfig, length_s: float | None) -> float:
    """Time limit of decoding a clip: two children that start and reach their own limits [s]."""
    each_s = decoding.time_limit_s + decoding.time_limit_per_s * (length_s or UNKNOWN_DURATION_S)
    return 2 * (START_LIMIT_S + each_s)
