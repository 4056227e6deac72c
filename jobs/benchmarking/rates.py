"""Rates of an encode job: its parts alone on the same workers, and the whole stream."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from cluster.devices import worker_device
from cluster.resources import Plan
from cluster.scratch import scratch_folder
from encoders.media import Decoded
from jobs.catalog.manifest import read_unit
from jobs.stream.decode import decode_rows, decoder_of
from jobs.stream.job import StreamJob, UnitReport, UnitTask
from jobs.stream.pipeline import stream
from jobs.stream.workbench import Workbench

SETTLED = (0.1, 0.9)
"""The steady state lies between these shares of the clips: all workers run, none has run dry."""


@dataclass(frozen=True, kw_only=True)
class Alone:
    """Rates of the parts by themselves, on all cores or devices of the plan [clips/s]."""

    decode: float
    models: Mapping[str, float]

    def ideal(self, *, on_gpu: bool) -> float:
        """The rate of a stream that loses nothing [clips/s]."""
        models = 1 / sum(1 / rate for rate in self.models.values())
        return min(self.decode, models) if on_gpu else 1 / (1 / self.decode + 1 / models)


@dataclass(frozen=True, kw_only=True)
class Whole:
    """One run of the whole job."""

    rate: float
    """Clips per second, start-up included."""

    steady: float
    """Clips per second between `SETTLED` shares of the clips."""

    start_s: float
    """Time to the first published unit [s]."""

    memory: Mapping[str, "Held"]
    """Memory of the processes of each stage."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """Private memory of a stage's processes [MB]: without the object store, which all of them share."""

    quarter: float
    """Median over the units around a quarter of the clips."""

    end: float
    """Median over the units of the last quarter."""

    peak: float


class PartBench:
    """A Ray actor that runs the parts of the job on its share of the units, one part at a time."""

    def __init__(self, job: StreamJob, tasks: Sequence[UnitTask]) -> None:
        self.job, self.tasks = job, tasks
        self.bench: Workbench | None = None
        self.decoded: list[list[Decoded]] = []

    def decode(self) -> float:
        """Decode every unit [s]; the first clip's start of the child is not counted."""
        rows = [read_unit(task.ref).to_pylist() for task in self.tasks]
        work, decoder = self.job.work, decoder_of(self.job.decoding)
        decode_rows(work, self.tasks[0].todo, rows[0][:1], decoder)
        begun = time.perf_counter()
        self.decoded = [
            decode_rows(work, task.todo, unit, decoder)
            for task, unit in zip(self.tasks, rows, strict=True)
        ]
        return time.perf_counter() - begun

    def load(self, decoded: Sequence[Sequence[Decoded]] | None = None) -> None:
        """Load the models and run each once, so that nothing is set up inside the measurement."""
        self.decoded = self.decoded if decoded is None else [list(unit) for unit in decoded]
        self.bench = Workbench(self.job.work, device=worker_device())
        self.bench.run(self.decoded[0], self.tasks[0].todo)

    def encode(self) -> tuple[float, dict[str, float]]:
        """Run all models over the units in memory [s], in all and of each."""
        assert self.bench is not None
        seconds: dict[str, float] = {}
        begun = time.perf_counter()
        for unit, task in zip(self.decoded, self.tasks, strict=True):
            result = self.bench.run(unit, task.todo)
            for name, value in result.seconds.items():
                seconds[name] = seconds.get(name, 0.0) + value
        return time.perf_counter() - begun, seconds


def measure_alone(job: StreamJob, tasks: Sequence[UnitTask], plan: Plan) -> Alone:
    """Decode alone on every decode worker at once, then the models alone on every actor at once."""
    import ray

    decoders = min(plan.decode.workers, len(tasks))
    shares = [list(tasks[i::decoders]) for i in range(decoders)]
    remote = ray.remote(num_cpus=0)(PartBench)
    actors = [remote.remote(job, share) for share in shares]
    times = ray.get([actor.decode.remote() for actor in actors])
    decode = _rate(shares, times)
    if plan.on_gpu or plan.encode.workers != decoders:
        for actor in actors:
            ray.kill(actor)
        actors, shares = _model_actors(job, tasks, plan)
        ray.get([actor.decode.remote() for actor in actors])
    ray.get([actor.load.remote() for actor in actors])
    results = ray.get([actor.encode.remote() for actor in actors])
    for actor in actors:
        ray.kill(actor)
    names = results[0][1]
    models = {name: _rate(shares, [seconds[name] for _, seconds in results]) for name in names}
    return Alone(decode=decode, models=models)


def measure_whole(job: StreamJob, tasks: Sequence[UnitTask], plan: Plan) -> Whole:
    """The stream itself, publishing into a folder that is thrown away."""
    with scratch_folder() as folder:
        begun = time.perf_counter()
        reports: list[tuple[float, UnitReport]] = [
            (time.perf_counter() - begun, report)
            for report in stream(replace(job, root=folder), tasks, plan)
        ]
    counts = list(accumulate(report.num_clips for _, report in reports))
    times = [at for at, _ in reports]
    stages = {
        "decode": [report.decode_mb for _, report in reports],
        "encode": [report.encode_mb for _, report in reports],
    }
    return Whole(
        rate=counts[-1] / times[-1],
        steady=_steady(times, counts),
        start_s=times[0],
        memory={stage: _held(counts, sizes) for stage, sizes in stages.items()},
    )


def _model_actors(
    job: StreamJob, tasks: Sequence[UnitTask], plan: Plan
) -> tuple[list[Any], list[list[UnitTask]]]:
    import ray

    count = min(plan.encode.workers, len(tasks))
    shares = [list(tasks[i::count]) for i in range(count)]
    options = {"num_gpus": plan.encode.gpus_each} if plan.on_gpu else {"num_cpus": 0}
    remote = ray.remote(**options)(PartBench)
    return [remote.remote(job, share) for share in shares], shares


def _rate(shares: Sequence[Sequence[UnitTask]], seconds: Sequence[float]) -> float:
    """All workers together, each by its own time."""
    return sum(
        sum(task.ref.num_clips for task in share) / max(time_s, 1e-9)
        for share, time_s in zip(shares, seconds, strict=True)
    )


def _steady(times: Sequence[float], counts: Sequence[int]) -> float:
    low, high = (share * counts[-1] for share in SETTLED)
    inside = [(at, count) for at, count in zip(times, counts, strict=True) if low <= count <= high]
    if len(inside) < 2:
        inside = [(0.0, 0), (times[-1], counts[-1])]
    (start, before), (end, after) = inside[0], inside[-1]
    return (after - before) / max(end - start, 1e-9)


def _held(counts: Sequence[int], sizes: Sequence[float]) -> Held:
    """From the clips done and the memory held after each unit."""

    def median(low: float, high: float) -> float:
        shares = [count / counts[-1] for count in counts]
        inside = [mb for share, mb in zip(shares, sizes, strict=True) if low <= share <= high]
        return statistics.median(inside or sizes)

    return Held(quarter=median(0.125, 0.375), end=median(0.75, 1.0), peak=max(sizes))
