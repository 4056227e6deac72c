"""What a job would take, before anything starts: plan, files, time and price, and where each figure is from.

Costs of a clip are those that autotuning has measured under the root (`jobs.stream.autotune`), else the
estimates of the manifest and of the encoders. The stages are sized by them as those of a real job are.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cluster import storage
from cluster.errors import ConfigError
from cluster.growth import capacity_of, known_capacity
from cluster.nodes import parse_nodes
from cluster.resources import DECODER_GB, Plan, WorkersConfig, plan_stream
from cluster.session import Capacity, SessionConfig, processor
from cluster.sizing import Measured, Sizing, size_stream
from encoders.spec import Descriptor
from jobs.catalog import layout
from jobs.stream.autotune import GPU_SPEEDUP, Survey, averages, kept, survey_of
from jobs.stream.clip_timing import Timed
from jobs.stream.job import StreamJob, UnitTask, Work
from jobs.stream.pending import in_order, restricted
from jobs.stream.selection import models_gb

COMPACTED_GB = 0.256
"""Size of a file of a finished table."""

STEPS_PER_S = 3.0
"""Words and tokens of a second of speech."""

LEAST_COST_S = 1e-4
"""A clip that costs less than this costs what nobody has estimated."""


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """What --dry-run plans for; what is left out is as it is."""

    nodes: str | None = None
    """Machines, e.g. ``128xH100:16cpu``, ``4x8xA100:96cpu:1000gb``, ``2x32cpu+8xL4:16cpu``."""

    clips: str | None = None
    """Number of clips like those of the dataset, e.g. ``100M``; by default those that are left to do."""

    price_per_hour: float | None = None
    """Price of one machine for an hour."""

    def __post_init__(self) -> None:
        if self.nodes is not None:
            parse_nodes(self.nodes)
        if self.clips is not None:
            parse_count(self.clips)
        if self.price_per_hour is not None and self.price_per_hour < 0:
            raise ConfigError(
                f"--assume.price-per-hour {self.price_per_hour:g}: expected 0 or more"
            )

    def check(self, *, dry_run: bool) -> None:
        """Refuse assumptions for a job that runs."""
        if not dry_run and self != Assumed():
            raise ConfigError("--assume is for a plan that is printed and not run; type: --dry-run")


def parse_count(text: str) -> int:
    """``250000``, ``250k``, ``1.5M``, ``2G``.

    Raises:
        ConfigError: what came, and what was expected in its place.
    """
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)([kmg]?)", text, re.IGNORECASE)
    times = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}
    count = round(float(found[1]) * times[found[2].lower()]) if found else 0
    if not 1 <= count <= 1e15:
        raise ConfigError(
            f"--assume.clips {text!r}: expected a number such as 250000, 250k or 100M"
        )
    return count


def forecast(
    job: StreamJob,
    tasks: Sequence[UnitTask],
    session: SessionConfig,
    workers: WorkersConfig,
    assumed: Assumed,
) -> list[str]:
    """The lines of a dry run.

    Args:
        job: the stream.
        tasks: its units.
        session: where it would run, if nothing is assumed.
        workers: what the user set.
        assumed: what is not as it is.

    Raises:
        ConfigError: a cluster would be joined, and nothing says what it has.
        PlanError: it cannot fit; the message says what would.
    """
    capacity = planned_for(session, workers, assumed)
    plan = plan_stream(models_gb(job.work), capacity, workers)
    total = sum(task.num_clips for task in tasks)
    clips = total if assumed.clips is None else parse_count(assumed.clips)
    shape = assumed.nodes or workers.nodes or "this machine"
    lines = [
        f"plan: for {shape}: {capacity.cpus:g} CPUs, {capacity.gpus:g} GPUs, {capacity.memory_gb:.0f} GB",
        *plan.lines(),
    ]
    hours = 0.0
    for number, names in enumerate(in_order(plan.passes, job.work), start=1):
        part, part_tasks = restricted(job.work, tasks, names)
        if not part_tasks:
            continue
        if len(plan.passes) > 1:
            lines.append(f"pass {number} of {len(plan.passes)}: {', '.join(names)}")
        share = clips * sum(task.num_clips for task in part_tasks) / total
        pass_hours, said = _pass(
            replace(job, work=part), part_tasks, plan, capacity, workers, share
        )
        hours += pass_hours
        lines += said
    return [*lines, *_price(hours, capacity, assumed)]


def planned_for(session: SessionConfig, workers: WorkersConfig, assumed: Assumed) -> Capacity:
    """The machines of a dry run; it does not ask for them.

    Raises:
        ConfigError: a cluster would be joined, and nothing says what it has.
    """
    words = assumed.nodes or (None if (workers.nodes or "").isdecimal() else workers.nodes)
    if words is not None:
        return replace(capacity_of(parse_nodes(words)), wanted=())
    capacity = known_capacity(session, workers.nodes)
    if capacity is None:
        raise ConfigError(
            "--dry-run asks no cluster what it has; type e.g.: --assume.nodes 8xL4:16cpu"
        )
    return capacity


def _pass(
    job: StreamJob,
    tasks: Sequence[UnitTask],
    plan: Plan,
    capacity: Capacity,
    workers: WorkersConfig,
    clips: float,
) -> tuple[float, list[str]]:
    """Hours of one pass over the clips, and what to print of it."""
    survey = survey_of(job, tasks)
    measured, source = costs(job, survey, plan)
    sizing = size_stream(plan, measured, capacity, workers)
    each = {"decode": measured.decode_s, **measured.encode_s}
    said = ", ".join(f"{name} {seconds:.2g} s" for name, seconds in each.items())
    lines = [
        f"plan: a clip of {survey.media_s:.1f} s takes {said}: {source}",
        *(f"plan: {note}" for note in sizing.notes),
        _data(job.work, survey, clips),
        _store(sizing, measured, capacity),
    ]
    if sum(each.values()) < LEAST_COST_S:
        lines.append("plan: time: nothing says what such clips cost; --autotune always measures it")
        return 0.0, lines
    hours = clips / sizing.rate / 3600
    now = f"decode {sizing.plan.decode.workers} x, encode {sizing.plan.encode.workers} x"
    lines.append(
        f"plan: time: {_hours(hours)} at about {sizing.rate:.3g} clips/s ({now}; {sizing.limit})"
    )
    return hours, lines


def costs(job: StreamJob, survey: Survey, plan: Plan) -> tuple[Measured, str]:
    """Average cost of a clip on the workers of a plan, and where it is from."""
    found = _kept(job, survey, plan)
    if found is None:
        measured = _estimated(job, survey, plan)
        source, on_gpu = "estimates of the manifest and the encoders, not measured", False
    else:
        file, timed = found
        measured = averages(job, timed, survey)
        source, on_gpu = f"measured on {timed.device} ({file})", not _is_processor(timed)
    if plan.on_gpu and not on_gpu:
        faster = {name: seconds / GPU_SPEEDUP for name, seconds in measured.encode_s.items()}
        measured = replace(measured, encode_s=faster)
        source += f"; a GPU is taken to be {GPU_SPEEDUP:g} times a core, which is a guess"
    return measured, source


def _kept(job: StreamJob, survey: Survey, plan: Plan) -> tuple[str, Timed] | None:
    """A measurement of all models of a job; one of the kind of device that is planned for, if there is."""
    folder = layout.encodings_uri(job.root)
    found = []
    for name in storage.names(folder, ".json"):
        if name.startswith("autotune-"):
            timed = kept(storage.join(folder, name))
            halves = [half for half in timed.halves if half.encode_s] if timed else []
            if (
                timed
                and halves
                and all(set(survey.shares) <= set(half.encode_s) for half in halves)
            ):
                found.append((name, timed))
    found.sort(key=lambda item: _is_processor(item[1]) == plan.on_gpu)
    return found[0] if found else None


def _is_processor(timed: Timed) -> bool:
    """Whether it was measured on a CPU: GPUs are named by their maker, processors by /proc/cpuinfo."""
    gpu = re.search(r"NVIDIA|GeForce|Tesla|Quadro|AMD Instinct", timed.device)
    return timed.device == processor() or gpu is None


def _estimated(job: StreamJob, survey: Survey, plan: Plan) -> Measured:
    models = [*job.work.descriptors]
    if job.work.transcriber is not None:
        models.append(job.work.transcriber)
    encode_s: dict[str, float] = {}
    for item in models:
        share = survey.shares.get(item.folder, survey.shares.get(item.name, 0.0))
        seconds = share * item.spec.seconds_per_clip_second * survey.media_s
        encode_s[item.name] = encode_s.get(item.name, 0.0) + seconds / plan.encode.threads_each
    per_unit = survey.clips / survey.units
    return Measured(
        decode_s=survey.cost,
        encode_s=encode_s,
        actor_gb=plan.encode.memory_gb_each,
        decoder_gb=DECODER_GB,
        unit_gb=per_unit * _decoded_gb(job.work, survey.media_s),
        clips_per_unit=per_unit,
    )


def _decoded_gb(work: Work, media_s: float) -> float:
    """A decoded clip: its waveforms, and its frames at 16:9."""
    needs = work.needs(work.everything)
    wave = 4.0 * media_s * sum(needs.rates_hz)
    frames = 0.0
    for policy in needs.frames:
        by_time = min(policy.max_frames, media_s * policy.rate_hz)
        count = policy.count if policy.kind == "even" else by_time
        frames += count * 3 * policy.size * policy.size * 16 / 9
    return (wave + frames) / 1e9


def _data(work: Work, survey: Survey, clips: float) -> str:
    """How many files of what size come of it."""
    units = math.ceil(clips * survey.units / survey.clips)
    size_gb = clips * sum(_row_gb(item, survey.media_s) for item in work.descriptors)
    tables = len(work.descriptors) + (work.transcriber is not None)
    files = max(tables, math.ceil(size_gb / COMPACTED_GB))
    return (
        f"plan: files: {clips:,.0f} clips in {units:,} units, a file each in {tables} "
        f"table{'s' if tables > 1 else ''} while it runs; in the end about {files:,} "
        f"file{'s' if files > 1 else ''} of {_size(size_gb)} in all"
    )


def _row_gb(item: Descriptor, media_s: float) -> float:
    """A row of features, before compression."""
    steps, policy, pool = 1.0, item.frame_policy, item.options["pool"]
    if pool == "words" or (pool == "none" and item.spec.modality == "text"):
        steps = STEPS_PER_S * media_s
    elif pool == "none" and item.spec.hop_s:
        steps = media_s / item.spec.hop_s
    elif pool == "none" and policy is not None:
        by_time = min(policy.max_frames, media_s * policy.rate_hz)
        runs = 1 if item.inputs else policy.count  # pictures are published one by one
        steps = {"even": policy.count, "fps": by_time, "windows": by_time / runs}[policy.kind]
    return max(steps, 1.0) * item.dim * np.dtype(item.dtype).itemsize / 1e9


def _store(sizing: Sizing, measured: Measured, capacity: Capacity) -> str:
    plan = sizing.plan
    in_hand = plan.decode.workers + plan.encode.workers * plan.calls_per_actor
    return (
        f"plan: object store: {in_hand} units in hand of {_size(measured.unit_gb)} each, "
        f"{_size(in_hand * measured.unit_gb)} of the {_size(0.5 * capacity.object_store_gb)} "
        "that a stream may fill (half of it)"
    )


def _price(hours: float, capacity: Capacity, assumed: Assumed) -> list[str]:
    if assumed.price_per_hour is None or not hours:
        return []
    price = hours * capacity.nodes * assumed.price_per_hour
    return [
        f"plan: price: {price:,.2f} = {hours:.2f} h x {capacity.nodes} machines x "
        f"{assumed.price_per_hour:g}; machines that start and stop come on top"
    ]


def _hours(hours: float) -> str:
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    if hours >= 1:
        return f"{hours:.1f} hours"
    return f"{60 * hours:.1f} minutes" if hours >= 1 / 60 else f"{3600 * hours:.2g} seconds"


def _size(size_gb: float) -> str:
    for unit, of_one in (("TB", 1e3), ("GB", 1.0), ("MB", 1e-3)):
        if size_gb >= of_one:
            return f"{size_gb / of_one:.1f} {unit}"
    return f"{size_gb * 1e6:.1f} kB"
