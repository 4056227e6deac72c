"""Measure what the machine or cluster does with the clips of a dataset, and what limits it.

`benchmark encode` measures the rate of decoding alone, of every model alone (fed from memory), and of the
whole job, on the same cores and devices, several times in turn. The efficiency is the whole job's rate in
steady state over the ideal one: on a CPU machine decode and models share the cores, so their times add;
with GPUs the slower of the two counts. Nothing is published under the root.

Reads:  <root>/manifest/            (cluster.tables.MANIFEST)
Writes: a table, and with --json FILE the same figures as JSON

Laptop:   affuse benchmark encode --root data/ravdess --encoders minilm whisper_tiny_en egemaps
One GPU:  affuse benchmark encode --root data/mosei --encoders wav2vec2_base --rounds 5
Cluster:  affuse submit --address URL -- benchmark encode --root s3://bucket/mosei --encoders clip_vit
"""

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cluster import storage
from cluster.errors import ConfigError, PlanError
from cluster.resources import Plan, WorkersConfig, plan_stream
from cluster.session import SessionConfig, cluster_capacity, local_capacity, ray_session
from encoders.media import Decoded
from encoders.store import DEFAULT_STORE
from jobs import encode
from jobs._encoding import Work, Workbench
from jobs._manifest import UnitRef, read_dataset, read_unit, units
from jobs._stream import (
    DecodingConfig,
    StreamJob,
    UnitReport,
    UnitTask,
    decode_rows,
    peak_mb,
    stream,
    worker_device,
)

SETTLED = (0.1, 0.9)
"""The steady state lies between these shares of the clips: all workers run, none has run dry."""


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """Rate of decode, of each model, and of the whole encode job; efficiency; memory."""

    root: str
    """Folder or URI of one dataset."""

    encoders: tuple[str, ...]
    """Encoders with their options."""

    transcriber: str | None = None
    """Recogniser for clips without text."""

    clips: int = 400
    """Clips to measure with; the whole set where it is smaller."""

    rounds: int = 3
    """Measurements of each kind, in turn; medians are printed."""

    store: str = DEFAULT_STORE
    """Folder or bucket of the pretrained weights."""

    json: str | None = None
    """File for the figures as JSON."""

    workers: WorkersConfig = field(default_factory=WorkersConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    session: SessionConfig = field(default_factory=SessionConfig)

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.clips < 1:
            raise ConfigError("--rounds and --clips: expected 1 or more")
        if not (self.encoders or self.transcriber):
            raise ConfigError("which encoders? type: --encoders NAME ...")


COMMANDS = {"encode": EncodeConfig}


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

    early_mb: float
    """Peak memory of the actors when a quarter of the clips is done [MB]."""

    late_mb: float
    """The same at the end [MB]."""


def main(config: EncodeConfig) -> None:
    """Measure in turn, print the table, and write the JSON."""
    root = storage.absolute(config.root)
    dataset = read_dataset(root)
    work = encode.chosen_work(
        encode.Config(
            root=root,
            encoders=config.encoders,
            transcriber=config.transcriber,
            store=config.store,
        ),
        root,
    )
    tasks = measured_tasks(units(root), work, config.clips)
    models = encode.models_gb(work)
    capacity = local_capacity(config.session)
    if capacity is not None:
        one_pass(plan_stream(models, capacity, config.workers))
    with ray_session(config.session):
        plan = one_pass(plan_stream(models, capacity or cluster_capacity(), config.workers))
        print("\n".join(plan.lines()), flush=True)
        work = replace(work, threads=plan.encode.threads_each)
        job = StreamJob(root=root, work=work, decoding=config.decoding)
        alone, whole = [], []
        for number in range(1, config.rounds + 1):
            alone.append(measure_alone(job, tasks, plan))
            whole.append(measure_whole(job, tasks, plan))
            print(
                f"round {number}: alone {alone[-1].ideal(on_gpu=plan.on_gpu):.2f}, "
                f"whole job {whole[-1].steady:.2f} clips/s",
                flush=True,
            )
    figures = summary(dataset.name, tasks, plan, alone, whole)
    print(figures_table(figures))
    if config.json is not None:
        storage.publish_json(figures, storage.absolute(config.json))
        print(f"wrote {config.json}")


def measured_tasks(refs: Sequence[UnitRef], work: Work, clips: int) -> list[UnitTask]:
    """Whole units, spread over the set, that hold about so many clips; every encoder is to do."""
    total = sum(ref.num_clips for ref in refs)
    share = max(1, round(total / clips))
    todo = tuple(range(len(work.descriptors)))
    return [
        UnitTask(ref=ref, todo=todo, transcribe=work.transcriber is not None)
        for ref in refs[::share]
    ]


def one_pass(plan: Plan) -> Plan:
    """Refuse a plan of several passes, which has no one rate.

    Raises:
        PlanError: the encoders do not fit together.
    """
    if len(plan.passes) > 1:
        raise PlanError(f"{plan.notes[0]}; measure them one by one")
    return plan


class PartBench:
    """A Ray actor that runs the parts of the job on its share of the units, one part at a time."""

    def __init__(self, job: StreamJob, tasks: Sequence[UnitTask]) -> None:
        self.job, self.tasks = job, tasks
        self.bench: Workbench | None = None
        self.decoded: list[list[Decoded]] = []

    def decode(self) -> float:
        """Decode every unit [s]; the first clip's start of the child is not counted."""
        rows = [read_unit(self.job.root, task.ref).to_pylist() for task in self.tasks]
        decode_rows(self.job, self.tasks[0], rows[0][:1])
        begun = time.perf_counter()
        self.decoded = [
            decode_rows(self.job, task, unit)[0]
            for task, unit in zip(self.tasks, rows, strict=True)
        ]
        return time.perf_counter() - begun

    def load(self, decoded: Sequence[Sequence[Decoded]] | None = None) -> None:
        """Load the models and run each once, so that nothing is set up inside the measurement."""
        self.decoded = self.decoded if decoded is None else [list(unit) for unit in decoded]
        self.bench = Workbench(self.job.work, device=worker_device())
        self.bench.run(self.decoded[0], self.tasks[0].todo, transcribe=self.tasks[0].transcribe)

    def encode(self) -> tuple[float, dict[str, float]]:
        """Run all models over the units in memory [s], in all and of each."""
        assert self.bench is not None
        seconds: dict[str, float] = {}
        begun = time.perf_counter()
        for unit, task in zip(self.decoded, self.tasks, strict=True):
            result = self.bench.run(unit, task.todo, transcribe=task.transcribe)
            for name, value in result.seconds.items():
                seconds[name] = seconds.get(name, 0.0) + value
        return time.perf_counter() - begun, seconds

    def peak_mb(self) -> float:
        """Peak resident memory [MB]."""
        return peak_mb()


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
    with tempfile.TemporaryDirectory(prefix="af-bench-") as folder:
        begun = time.perf_counter()
        reports: list[tuple[float, UnitReport]] = [
            (time.perf_counter() - begun, report)
            for report in stream(replace(job, root=folder), tasks, plan)
        ]
    clips = 0
    done = []
    for at, report in reports:
        clips += report.num_clips
        done.append((at, clips, report.worker_mb))
    quarter = max(mb for _, count, mb in done if count <= max(0.25 * clips, done[0][1]))
    return Whole(
        rate=clips / done[-1][0],
        steady=_steady(done, clips),
        start_s=done[0][0],
        early_mb=quarter,
        late_mb=max(mb for _, _, mb in done),
    )


def summary(
    name: str,
    tasks: Sequence[UnitTask],
    plan: Plan,
    alone: Sequence[Alone],
    whole: Sequence[Whole],
) -> dict[str, Any]:
    """Medians over the rounds, and what limits."""
    ideals = [item.ideal(on_gpu=plan.on_gpu) for item in alone]
    ratios = [item.steady / ideal for item, ideal in zip(whole, ideals, strict=True)]
    models = {
        model: statistics.median(item.models[model] for item in alone) for model in alone[0].models
    }
    decode = statistics.median(item.decode for item in alone)
    steady = statistics.median(item.steady for item in whole)
    cpus = plan.decode.workers + plan.encode.workers * plan.encode.cpus_each
    return {
        "dataset": name,
        "clips": sum(task.ref.num_clips for task in tasks),
        "rounds": len(whole),
        "plan": plan.lines(),
        "decode_only": decode,
        "model_only": models,
        "ideal": statistics.median(ideals),
        "end_to_end": statistics.median(item.rate for item in whole),
        "end_to_end_steady": steady,
        "start_s": statistics.median(item.start_s for item in whole),
        "efficiency": statistics.median(ratios),
        "efficiency_rounds": ratios,
        "steady_per_cpu": steady / cpus,
        "steady_per_gpu": steady / (plan.encode.workers * plan.encode.gpus_each)
        if plan.on_gpu
        else None,
        "actor_mb_at_a_quarter": statistics.median(item.early_mb for item in whole),
        "actor_mb_at_the_end": statistics.median(item.late_mb for item in whole),
        "limit": limit(decode, models, on_gpu=plan.on_gpu),
    }


def limit(decode: float, models: Mapping[str, float], *, on_gpu: bool) -> str:
    """What would have to be faster."""
    if on_gpu:
        together = 1 / sum(1 / rate for rate in models.values())
        return "decode: more CPUs per GPU" if decode < together else "the models: more GPUs"
    seconds = {"decode": 1 / decode} | {name: 1 / rate for name, rate in models.items()}
    most = max(seconds, key=lambda name: seconds[name])
    return f"{most}: {seconds[most] / sum(seconds.values()):.0%} of the cores' time"


def figures_table(figures: Mapping[str, Any]) -> str:
    """The figures for people."""
    rows = [("decode alone", f"{figures['decode_only']:.2f} clips/s")]
    rows += [
        (f"{name} alone", f"{rate:.2f} clips/s") for name, rate in figures["model_only"].items()
    ]
    rows += [
        ("ideal", f"{figures['ideal']:.2f} clips/s"),
        ("whole job, steady", f"{figures['end_to_end_steady']:.2f} clips/s"),
        ("whole job, with start", f"{figures['end_to_end']:.2f} clips/s"),
        ("first unit after", f"{figures['start_s']:.1f} s"),
        ("efficiency", f"{figures['efficiency']:.3f} ({_each(figures['efficiency_rounds'])})"),
        ("per CPU", f"{figures['steady_per_cpu']:.2f} clips/s"),
        (
            "actor memory",
            f"{figures['actor_mb_at_a_quarter']:.0f} MB at a quarter, "
            f"{figures['actor_mb_at_the_end']:.0f} MB at the end",
        ),
        ("limit", figures["limit"]),
    ]
    if figures["steady_per_gpu"] is not None:
        rows.insert(-2, ("per GPU", f"{figures['steady_per_gpu']:.2f} clips/s"))
    width = max(len(name) for name, _ in rows)
    head = f"{figures['dataset']}: {figures['clips']} clips, median of {figures['rounds']} rounds"
    return "\n".join([head, *(f"  {name:<{width}}  {value}" for name, value in rows)])


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


def _steady(done: Sequence[tuple[float, int, float]], clips: int) -> float:
    low, high = (share * clips for share in SETTLED)
    inside = [(at, count) for at, count, _ in done if low <= count <= high]
    if len(inside) < 2:
        inside = [(0.0, 0), (done[-1][0], clips)]
    (start, before), (end, after) = inside[0], inside[-1]
    return (after - before) / max(end - start, 1e-9)


def _each(ratios: Sequence[float]) -> str:
    return ", ".join(f"{ratio:.3f}" for ratio in ratios)
