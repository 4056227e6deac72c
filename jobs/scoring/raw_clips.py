"""Scoring raw clips in one stream, which decodes and encodes each clip once for all bundles of a command."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from cluster import storage
from cluster.growth import known_capacity, planned_capacity, requested
from cluster.resources import Plan
from cluster.session import Capacity, ray_session
from cluster.settings import is_place
from cluster.unit_tables import published
from encoders.store import local_paths
from jobs.catalog.manifest import UnitRef, units
from jobs.scoring.bundle import Bundle, from_features
from jobs.scoring.config import ScoreConfig
from jobs.scoring.in_process import work_of_bundles
from jobs.scoring.judges import NamedBundle, by_transcriber, passes, work_of_judges
from jobs.scoring.outcome import cost_line
from jobs.scoring.sink import ScoreSink, ScoreSinks
from jobs.scoring.versions import versions_of
from jobs.stream.autotune import autotuned
from jobs.stream.forecast import forecast, planned_for
from jobs.stream.job import StreamJob, Todo, UnitTask, Work
from jobs.stream.progress import Progress
from jobs.stream.run import run_units
from jobs.stream.selection import chosen_store
from jobs.stream.whereabouts import check_media


def unscored(root: str, judge: NamedBundle, refs: Sequence[UnitRef]) -> list[UnitRef]:
    """The units that a bundle has still to score."""
    versions, done = versions_of(root, judge.bundle, refs), published(judge.uri(root))
    return [ref for ref in refs if versions[ref.unit] not in done]


def tasks_of(root: str, judges: Sequence[NamedBundle], refs: Sequence[UnitRef]) -> list[UnitTask]:
    """The units that some bundle has still to score, each with what those bundles read."""
    lacking: dict[str, list[Bundle]] = {}
    for judge in judges:
        for ref in unscored(root, judge, refs):
            lacking.setdefault(ref.unit, []).append(judge.bundle)
    return [
        UnitTask(ref=ref, todo=todo_of(lacking[ref.unit])) for ref in refs if ref.unit in lacking
    ]


def todo_of(bundles: Sequence[Bundle]) -> Todo:
    """What some bundles read of a clip, each encoder once."""
    folders = dict.fromkeys(item.folder for bundle in bundles for item in bundle.encoders)
    hears = any(bundle.transcriber is not None for bundle in bundles)
    return Todo(encoders=tuple(folders), transcribe=hears)


def foreseen(config: ScoreConfig, judges: Sequence[NamedBundle]) -> Iterator[str]:
    """What is left to score would take so much; for another number of clips, all of it."""
    raw = []
    for judge in judges:
        if from_features(config.root, judge.bundle, config.source):
            yield "source: stored features, because every clip has them; there is no stream to plan"
        else:
            judge.bundle.refuse_stream(config.root)
            raw.append(judge)
    if not raw:
        return
    config = replace(config, store=storage.absolute(store_of(config)))
    capacity = planned_for(config.session, config.workers, config.assume)
    refs = units(config.root)
    for group, _ in passes(raw, str(config.store), capacity, config.workers):
        job = stream_job(config, group)
        if config.assume.clips is None:
            tasks = tasks_of(config.root, group, refs)
        else:
            tasks = [UnitTask(ref=ref, todo=job.work.everything) for ref in refs]
        if tasks:
            yield from forecast(job, tasks, config.session, config.workers, config.assume)
        for judge in () if tasks else group:
            yield f"nothing to do: all clips are scored in {judge.uri(config.root)}"


def stream_job(config: ScoreConfig, judges: Sequence[NamedBundle]) -> StreamJob:
    """The stream of some bundles."""
    sinks = [
        ScoreSink(bundle=judge.bundle, root=config.root, uri=judge.uri(config.root))
        for judge in judges
    ]
    return StreamJob(
        root=config.root,
        work=work_of_judges(judges, str(config.store)),
        decoding=config.decoding,
        sink=ScoreSinks(sinks=tuple(sinks)),
        stall_limit_s=config.stall_limit_s,
    )


def score_clips(
    config: ScoreConfig, judges: Sequence[NamedBundle], refs: Sequence[UnitRef]
) -> None:
    """Decode, encode and predict in one stream, or in as many as there have to be."""
    config = replace(config, store=storage.absolute(store_of(config)))

    def planned(capacity: Capacity) -> list[tuple[list[NamedBundle], Plan]]:
        return [*passes(judges, str(config.store), capacity, config.workers)]

    for group in by_transcriber(judges):
        # Weights and media are found before Ray starts.
        work = work_of(config, *(judge.bundle for judge in group))
        check_media(config.root, work, [work.everything], refs, config.session)
    capacity = known_capacity(config.session, config.workers.nodes)
    plans = None if capacity is None else planned(capacity)
    with ray_session(config.session):
        capacity = capacity or planned_capacity(config.workers.nodes)
        for group, plan in plans or planned(capacity):
            run_pass(config, group, refs, plan, capacity)


def run_pass(
    config: ScoreConfig,
    judges: Sequence[NamedBundle],
    refs: Sequence[UnitRef],
    plan: Plan,
    capacity: Capacity,
) -> None:
    """One stream over the clips that some of the bundles have not scored."""
    job, tasks = stream_job(config, judges), tasks_of(config.root, judges, refs)
    if not tasks:
        return
    print("\n".join(plan.lines()), flush=True)
    begun = time.monotonic()

    def unpublished(silent: Sequence[UnitTask]) -> list[UnitTask]:
        left = {task.ref.unit for task in tasks_of(config.root, judges, [t.ref for t in silent])}
        return [task for task in silent if task.ref.unit in left]

    with requested(capacity):
        sized = autotuned(job, tasks, plan, capacity, config.workers, config.autotune)
        total = sum(task.num_clips for task in tasks)
        with Progress(total, label="score", max_failed_share=config.max_failed_share) as progress:
            run_units(sized.job, tasks, sized.plan, progress, unpublished)
    print(cost_line(capacity, time.monotonic() - begun))


def work_of(config: ScoreConfig, *bundles: Bundle) -> Work:
    """The encoders of bundles that share a pass; their weights are found before anything starts."""
    work = work_of_bundles(bundles, storage.absolute(store_of(config)))
    models = (*work.descriptors, work.transcriber)
    for item in () if config.dry_run else filter(None, models):
        local_paths(item.weights, work.store)
    return work


def store_of(config: ScoreConfig) -> str:
    """Store of the weights; files have no root, so that of the bundle says which store all machines see."""
    of_bundle = config.bundle.partition("/bundles/")[0] if is_place(config.bundle) else ""
    return chosen_store(config.store, config.root or of_bundle)
