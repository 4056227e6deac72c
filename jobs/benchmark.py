"""Measure how fast a machine or cluster encodes clips, what encoders are worth, or how long a visitor waits.

`benchmark encode` measures the rate of decoding alone, of every model alone (fed from memory), and of the
whole job, on the same cores and devices, several times in turn. The efficiency is the whole job's rate in
steady state over the ideal one: on a CPU machine decode and models share the cores, so their times add;
with GPUs the slower of the two counts. The baseline is a plain script (one clip after the other), on at
most 60 of the clips (`jobs.benchmarking.plain_script`). Nothing is published under the root.

`benchmark encoders` ranks feature tables on the labels of a dataset (`jobs.ranking.config`).

`benchmark serve` asks a server for a clip of 5 s over and over: a voice, a film, a text.

Reads:  <root>/manifest/            (cluster.tables.MANIFEST)
Writes: a table, and with --json FILE the same figures as JSON; `encoders`: <root>/comparisons/<name>/

Laptop:   affuse benchmark encode --root data/ravdess --encoders minilm whisper_tiny_en egemaps
One GPU:  affuse benchmark encode --root data/mosei --encoders wav2vec2_base --rounds 5
Cluster:  affuse submit --address URL -- benchmark encode --root s3://bucket/mosei --encoders clip_vit
Ranking:  affuse benchmark encoders --root data/ravdess --folds subject
Server:   affuse benchmark serve --bundle data/demo/bundles/demo --json latency.json
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from cluster import storage
from cluster.errors import ConfigError, PlanError
from cluster.growth import known_capacity, planned_capacity
from cluster.health import watched
from cluster.resources import Plan, WorkersConfig, plan_stream
from cluster.session import SessionConfig, ray_session
from cluster.settings import Place
from jobs.benchmarking.plain_script import Plain, measure_plain
from jobs.benchmarking.rates import Alone, Whole, measure_alone, measure_whole
from jobs.catalog.manifest import UnitRef, read_dataset, units
from jobs.catalog.outputs import check_outputs, publish_outputs, record_of
from jobs.ranking.config import EncodersConfig
from jobs.serving.latency import ServeConfig
from jobs.serving.latency import measure as serving_latency
from jobs.stream.job import DecodingConfig, StreamJob, UnitTask, Work
from jobs.stream.selection import chosen_store, chosen_work, models_gb
from jobs.stream.sink import FeatureSink

LOOK_S = 30.0
"""How often the object store is looked at [s]; each look takes time from what is measured."""


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """Rate of decode, of each model, and of the whole encode job; efficiency; memory."""

    root: Place
    """Folder or URI of one dataset."""

    encoders: tuple[str, ...]
    """Encoders with their options."""

    transcriber: str | None = None
    """Transcriber for clips that have no text."""

    clips: int = 400
    """Number of clips to measure with; the whole dataset where it is smaller."""

    rounds: int = 3
    """Rounds of measurements, each kind in turn; medians over the rounds are printed."""

    store: Place | None = None
    """Store of the weights; by default ~/.cache/affuse/store, or ROOT/../store where ROOT is remote."""

    json: Place | None = None
    """File for the figures as JSON."""

    overwrite: bool = False
    """Replace a file that no earlier run made; an input is never replaced."""

    workers: WorkersConfig = field(default_factory=WorkersConfig)
    """Workers of the stream; what is left out is derived from the machine."""

    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    """Limits of decoding one clip."""

    session: SessionConfig = field(default_factory=SessionConfig)
    """Ray session: which cluster is joined, or what a local session may use."""

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.clips < 1:
            raise ConfigError("--rounds and --clips: expected 1 or more")
        if not (self.encoders or self.transcriber):
            raise ConfigError("which encoders? type: --encoders NAME ...")


COMMANDS = {"encode": EncodeConfig, "encoders": EncodersConfig, "serve": ServeConfig}


def main(config: EncodeConfig | EncodersConfig | ServeConfig) -> None:
    """Measure what the command names."""
    if isinstance(config, ServeConfig):
        serving_latency(config)
    elif isinstance(config, EncodersConfig):
        from jobs.ranking.encoders import rank  # torch, which the others do without

        rank(config)
    else:
        encoding_rates(config)


def encoding_rates(config: EncodeConfig) -> None:
    """Measure each kind in turn, print the table, and write the JSON."""
    root = storage.absolute(config.root)
    dataset = read_dataset(root)
    out = None if config.json is None else storage.absolute(config.json)
    if out is not None:
        check_outputs([out], record_of(out), overwrite=config.overwrite)
    store = chosen_store(config.store, root)
    work = chosen_work(root, config.encoders, config.transcriber, store)
    tasks = measured_tasks(units(root), work, config.clips)
    models = models_gb(work)
    capacity = known_capacity(config.session, config.workers.nodes)
    if capacity is not None:
        one_pass(plan_stream(models, capacity, config.workers))
    with ray_session(config.session):
        plan = one_pass(
            plan_stream(models, capacity or planned_capacity(config.workers.nodes), config.workers)
        )
        print("\n".join(plan.lines()), flush=True)
        work = replace(work, threads=plan.encode.threads_each)
        job = StreamJob(root=root, work=work, decoding=config.decoding, sink=FeatureSink())
        with watched(every_s=LOOK_S) as watch:
            alone, whole = measured_rounds(job, tasks, plan, config.rounds)
    figures = summary(dataset.name, tasks, plan, alone, whole)
    figures["health"] = vars(watch.health) | {"complaints": watch.health.complaints}
    figures["plain"] = beside(figures, measure_plain(job, tasks, plan))
    print(figures_table(figures))
    if out is not None:
        publish_outputs(config, {out: storage.json_bytes(figures)}, record_of(out))
        print(f"wrote {out}")


def measured_tasks(refs: Sequence[UnitRef], work: Work, clips: int) -> list[UnitTask]:
    """Whole units, spread over the set, that hold about so many clips; every encoder is to do."""
    total = sum(ref.num_clips for ref in refs)
    share = max(1, round(total / clips))
    return [UnitTask(ref=ref, todo=work.everything) for ref in refs[::share]]


def measured_rounds(
    job: StreamJob, tasks: Sequence[UnitTask], plan: Plan, rounds: int
) -> tuple[list[Alone], list[Whole]]:
    """The whole job once a round, and its parts alone before and after each."""
    alone, whole = [measure_alone(job, tasks, plan)], []
    for number in range(1, rounds + 1):
        whole.append(measure_whole(job, tasks, plan))
        alone.append(measure_alone(job, tasks, plan))
        print(
            f"round {number}: alone {ideals_around(alone, plan)[-1]:.2f}, "
            f"whole job {whole[-1].steady:.2f} clips/s",
            flush=True,
        )
    return alone, whole


def one_pass(plan: Plan) -> Plan:
    """Refuse a plan of several passes, which has no one rate.

    Raises:
        PlanError: the encoders do not fit together.
    """
    if len(plan.passes) > 1:
        raise PlanError(f"{plan.notes[0]}; measure them one by one")
    return plan


def ideals_around(alone: Sequence[Alone], plan: Plan) -> list[float]:
    """The ideal rate of each round: the mean of before and after it, as the machine's own speed drifts."""
    rates = [item.ideal(on_gpu=plan.on_gpu) for item in alone]
    return [(before + after) / 2 for before, after in pairwise(rates)]


def summary(
    name: str,
    tasks: Sequence[UnitTask],
    plan: Plan,
    alone: Sequence[Alone],
    whole: Sequence[Whole],
) -> dict[str, Any]:
    """Medians over the rounds, and the stage that limits the rate.

    Args:
        name: of the dataset.
        tasks: what was run.
        plan: how.
        alone: one more than rounds: before the first, and after each.
        whole: one a round.
    """
    ideals = ideals_around(alone, plan)
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
        "private_mb": {
            stage: {
                when: statistics.median(getattr(item.memory[stage], when) for item in whole)
                for when in ("quarter", "end", "peak")
            }
            for stage in ("decode", "encode")
        },
        "limit": limit(decode, models, on_gpu=plan.on_gpu),
    }


def beside(figures: Mapping[str, Any], plain: Plain | None) -> dict[str, Any] | None:
    """The plain script and how many times faster the job is, as a whole and stage by stage."""
    if plain is None:
        return None
    steady, models = figures["end_to_end_steady"], figures["model_only"]
    ratios = plain.ratios(steady, figures["decode_only"], models)
    return {**vars(plain), "rate": plain.rate, "ratios": ratios}


def limit(decode: float, models: Mapping[str, float], *, on_gpu: bool) -> str:
    """The stage that limits the rate."""
    if on_gpu:
        together = 1 / sum(1 / rate for rate in models.values())
        return "decode: more CPUs per GPU" if decode < together else "the models: more GPUs"
    seconds = {"decode": 1 / decode} | {name: 1 / rate for name, rate in models.items()}
    most = max(seconds, key=lambda name: seconds[name])
    return f"{most}: {seconds[most] / sum(seconds.values()):.0%} of the cores' time"


def figures_table(figures: Mapping[str, Any]) -> str:
    """The figures as a printed table."""
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
        *(
            (
                f"memory of a worker, {stage}",
                f"{held['quarter']:.0f} MB at a quarter, {held['end']:.0f} MB at the end, "
                f"peak {held['peak']:.0f} MB",
            )
            for stage, held in figures["private_mb"].items()
        ),
        ("limit", figures["limit"]),
        ("health", _health_text(figures["health"])),
    ]
    if figures["steady_per_gpu"] is not None:
        rows.insert(-3, ("per GPU", f"{figures['steady_per_gpu']:.2f} clips/s"))
    rows += _plain_rows(figures["plain"])
    width = max(len(name) for name, _ in rows)
    head = f"{figures['dataset']}: {figures['clips']} clips, median of {figures['rounds']} rounds"
    return "\n".join([head, *(f"  {name:<{width}}  {value}" for name, value in rows)])


def _health_text(health: Mapping[str, Any]) -> str:
    """What Ray counted of troubles: rates with any of them are those of a sick cluster."""
    if health["complaints"]:
        return f"NOT SOUND: {', '.join(health['complaints'])}"
    return f"sound: nothing evicted, died or spilled; object store up to {health['store_peak_gb']:.2f} GB"


def _plain_rows(plain: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if plain is None:
        return [("plain script", "not measured: every clip is longer than a minute")]
    failed = f", {plain['failed']} failed" if plain["failed"] else ""
    where = (
        f"{plain['clips']} clips one by one{failed}; {plain['device']}, {plain['threads']} threads"
    )
    rows = [("plain script", f"{plain['rate']:.2f} clips/s ({where})")]
    for name, ratio in plain["ratios"].items():
        stage = "whole job" if name == "whole" else name
        rows.append((f"{stage} over plain", "-" if ratio is None else f"{ratio:.2f} times"))
    return rows


def _each(ratios: Sequence[float]) -> str:
    return ", ".join(f"{ratio:.3f}" for ratio in ratios)
