"""Autotuning of a stream: a few of its clips are timed first, and its stages are sized by that.

Eight clips at even steps of the order by cost are decoded and encoded on the workers that the stream will
have (`jobs.stream.clip_timing`); a line through the shorter and the longer half of them gives the mean
over the job, and `cluster.sizing` the stages. What was measured stays under the root, by the encoders'
fingerprints, the manifest, the kind of machine and the plan's workers: a resumed job starts at once.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

from cluster import storage
from cluster.resources import Plan, WorkersConfig
from cluster.session import Capacity, node_kind
from cluster.sizing import Measured, Sizing, size_stream
from encoders.spec import Descriptor
from jobs.catalog import layout
from jobs.catalog.manifest import read_columns
from jobs.preparing.units import media_s
from jobs.stream.clip_timing import Drawn, Half, Timed, time_clips
from jobs.stream.job import StreamJob, Todo, UnitTask
from jobs.stream.progress import clock

Autotune = Literal["auto", "always", "never"]

CLIPS = 8
"""Clips to measure with."""

LEAST_JOB_S = 180.0
"""Shorter jobs are not autotuned: starting an actor and timing the clips takes about 10 s."""

BUDGET_S = 10.0
BUDGET_SHARE = 0.03
"""Timing may take so long once the models are loaded, or that share of the job where that is more."""

GPU_SPEEDUP = 20.0
"""Rough speed of a model on a GPU over one core, to tell small jobs before anything is measured."""

SAMPLED_UNITS = 1000
"""Units whose rows are read to draw the clips."""


@dataclass(frozen=True, kw_only=True)
class Sized:
    """A stream with its stages sized."""

    job: StreamJob
    plan: Plan
    rate: float | None = None
    """Clips a second to expect; None where nothing was measured."""

    def figures(self) -> dict[str, float]:
        """Figures to record."""
        return {} if self.rate is None else {"clips_per_s_expected": self.rate}


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Facts of the manifest on the clips of a job."""

    drawn: tuple[Drawn, ...]
    """Clips to measure with, the cheapest first."""

    clips: int
    units: int
    cost: float
    """Estimated decoding of a clip, on average [s]."""

    media_s: float
    """Length of a clip, on average [s]."""

    shares: Mapping[str, float]
    """Encoder or transcriber -> share of the clips that it has yet to do."""


def autotuned(
    job: StreamJob,
    tasks: Sequence[UnitTask],
    plan: Plan,
    capacity: Capacity,
    overrides: WorkersConfig,
    mode: Autotune,
) -> Sized:
    """Size the stages of a stream by what its clips take, and print what was decided.

    Args:
        job: the stream.
        tasks: what is to be done.
        plan: the plan by rule.
        capacity: what it was made for.
        overrides: workers that the user set; they are never autotuned.
        mode: always measures anew; auto leaves small jobs alone and goes by what is kept.
    """
    job = _with_threads(job, plan)
    if mode == "never":
        return Sized(job=job, plan=plan)
    survey = survey_of(job, tasks)
    length_s = estimated_s(job, survey, plan)
    if mode == "auto" and length_s < LEAST_JOB_S:
        print(
            f"autotune: none; by the manifest the job takes about {clock(length_s)}, and it pays "
            f"from {clock(LEAST_JOB_S)} on (--autotune always)"
        )
        return Sized(job=job, plan=plan)
    place = layout.encodings_uri(job.root, f"autotune-{key(job, tasks, plan)}.json")
    timed = None if mode == "always" else kept(place)
    how = "measured before"
    if timed is None:
        budget_s = max(BUDGET_S, BUDGET_SHARE * length_s)
        outcome = time_clips(job, survey.drawn, plan, budget_s=budget_s)
        if isinstance(outcome, str):
            print(f"autotune: {outcome}; the plan stays as it is")
            return Sized(job=job, plan=plan)
        timed, how = outcome, f"in {outcome.seconds:.0f} s"
        storage.publish_json(asdict(timed), place)
    measured = averages(job, timed, survey)
    sizing = size_stream(plan, measured, capacity, overrides)
    print("\n".join(lines(timed, measured, sizing, plan, survey.clips, how)), flush=True)
    return Sized(job=_with_threads(job, sizing.plan), plan=sizing.plan, rate=sizing.rate)


def survey_of(job: StreamJob, tasks: Sequence[UnitTask], count: int = CLIPS) -> Survey:
    """Draw clips at even steps of the order by cost, so that their mean is about that of all."""
    clips = sum(task.num_clips for task in tasks)
    missing = {folder for task in tasks for folder in task.todo.encoders}
    todo = Todo(
        encoders=tuple(sorted(missing)),
        transcribe=any(task.todo.transcribe for task in tasks),
    )
    some = tasks[:: -(-len(tasks) // SAMPLED_UNITS)]
    columns = read_columns([task.ref for task in some], ["cost", "duration_s", "video", "audio"])
    found = [
        Drawn(
            task=replace(task, todo=todo, clips=()),
            row=number,
            cost=row["cost"] or 0.0,
            media_s=media_s(row),
        )
        for task, rows in zip(some, columns, strict=True)
        for number, row in enumerate(rows.to_pylist())
    ]
    found.sort(key=lambda item: (item.cost, item.media_s))
    middles = (np.arange(min(count, len(found))) + 0.5) * len(found) / min(count, len(found))
    shares = {
        folder: _share([task for task in tasks if folder in task.todo.encoders], clips)
        for folder in todo.encoders
    }
    if todo.transcribe and job.work.transcriber is not None:
        heard = [task for task in tasks if task.todo.transcribe]
        shares[job.work.transcriber.name] = _share(heard, clips)
    return Survey(
        drawn=tuple(found[int(middle)] for middle in middles),
        clips=clips,
        units=len(tasks),
        cost=float(np.mean([item.cost for item in found])),
        media_s=float(np.mean([item.media_s for item in found])),
        shares=shares,
    )


def estimated_s(job: StreamJob, survey: Survey, plan: Plan) -> float:
    """Rough length of the job, by the manifest's costs and the encoders' own estimates [s]."""
    models_s = survey.media_s * sum(
        item.spec.seconds_per_clip_second * survey.shares.get(name, 0.0)
        for name, item in _models(job).items()
    )
    if plan.on_gpu:
        models_s /= GPU_SPEEDUP * plan.encode.workers
        return survey.clips * max(survey.cost / plan.decode.workers, models_s)
    return survey.clips * (survey.cost + models_s) / plan.decode.workers


def key(job: StreamJob, tasks: Sequence[UnitTask], plan: Plan) -> str:
    """Key of a measurement: encoders, manifest, machines, and the plan's workers."""
    facts = {
        "models": sorted(_models(job)),
        "manifest": sorted({task.ref.file.split("/")[-2] for task in tasks}),
        "machines": node_kind(),
        "actor": [plan.encode.cpus_each, plan.encode.gpus_each, plan.encode.threads_each],
        "decoding": vars(job.decoding),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def kept(place: str) -> Timed | None:
    """The measurement of an earlier command; None where there is none."""
    if not storage.exists(place):
        return None
    found = storage.read_json(place)
    return Timed(**{**found, "halves": tuple(Half(**half) for half in found["halves"])})


def averages(job: StreamJob, timed: Timed, survey: Survey) -> Measured:
    """Average cost of a clip of the job; a model counts for the clips that it has yet to encode."""
    names = _names(job)
    timed_halves = [half for half in timed.halves if half.encode_s]
    encode_s: dict[str, float] = {}
    for model, share in survey.shares.items():
        points = [(h.media_s, h.encode_s.get(model, 0.0), h.clips) for h in timed_halves]
        value = share * at_mean(points, survey.media_s)
        encode_s[names[model]] = encode_s.get(names[model], 0.0) + value
    decode = [(half.cost, half.decode_s, half.clips) for half in timed.halves]
    clips_per_unit = survey.clips / survey.units
    return Measured(
        decode_s=at_mean(decode, survey.cost),
        encode_s=encode_s,
        actor_gb=timed.actor_gb,
        decoder_gb=timed.decoder_gb,
        unit_gb=timed.clip_gb * clips_per_unit,
        clips_per_unit=clips_per_unit,
    )


def at_mean(points: Sequence[tuple[float, float, int]], mean: float) -> float:
    """The value at `mean` of a rising line, from nothing at the least, through weighted points (x, y, n)."""
    total = sum(count for _, _, count in points)
    x = sum(at * count for at, _, count in points) / total
    y = sum(value * count for _, value, count in points) / total
    spread = sum(count * (at - x) ** 2 for at, _, count in points)
    if not x or not y:
        return y
    slope = y / x
    if spread > 1e-4 * total * x * x:
        slope = sum(count * (at - x) * (value - y) for at, value, count in points) / spread
    elif len(points) > 1:
        return y  # all of one length: nothing is known of others
    return y + min(max(slope, 0.0), y / x) * (mean - x)


def lines(
    timed: Timed, measured: Measured, sizing: Sizing, before: Plan, clips: int, how: str
) -> list[str]:
    """Lines to print: what was measured, and what follows from it."""
    count = sum(half.clips for half in timed.halves)
    lost = f", {timed.unreadable} more could not be read" if timed.unreadable else ""
    each = {"decode": measured.decode_s, **measured.encode_s}
    said = ", ".join(f"{name} {seconds:.2g} s" for name, seconds in each.items())
    plan = sizing.plan
    stages = [
        f"{now.name} {now.workers} x"
        + (f" (of {then.workers})" if now.workers < then.workers else "")
        for now, then in ((plan.decode, before.decode), (plan.encode, before.encode))
    ]
    same = [plan.decode.workers, plan.encode.workers] == [
        before.decode.workers,
        before.encode.workers,
    ]
    left_s = clips / sizing.rate
    ends = time.strftime("%H:%M", time.localtime(time.time() + left_s))
    return [
        f"autotune: {count} clips {how} on {timed.device}{lost}: a clip takes {said}; "
        f"an actor holds {measured.actor_gb:.1f} GB, a decode task {measured.decoder_gb:.1f} GB",
        *(f"autotune: {change}" for change in sizing.notes),
        f"autotune: -> {', '.join(stages)}{' as planned' if same else ''}"
        f"{f', {plan.calls_per_actor} units in hand' if plan.on_gpu else ''}; {sizing.limit}; "
        f"about {sizing.rate:.3g} clips/s, {clock(left_s)}, until {ends}",
    ]


def _with_threads(job: StreamJob, plan: Plan) -> StreamJob:
    return replace(job, work=replace(job.work, threads=plan.encode.threads_each))


def _models(job: StreamJob) -> dict[str, Descriptor]:
    """All models by the name under which their time is reported."""
    found = {item.folder: item for item in job.work.descriptors}
    if job.work.transcriber is not None:
        found[job.work.transcriber.name] = job.work.transcriber
    return found


def _names(job: StreamJob) -> dict[str, str]:
    """Printed name of each model: its name, or its folder where two models share a name."""
    models = _models(job)
    bases = {item.base.folder: item.name for item in models.values()}
    names = list(bases.values())
    return {
        key: item.name if names.count(item.name) == 1 else item.base.folder
        for key, item in models.items()
    }


def _share(tasks: Sequence[UnitTask], clips: int) -> float:
    return sum(task.num_clips for task in tasks) / clips
