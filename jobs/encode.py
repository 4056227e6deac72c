"""Turn the clips of a manifest into features with any number of pretrained encoders.

Every clip is decoded once for all encoders, and gets exactly one row per encoder whatever happens to it.
A unit that is published is not encoded again: the same command continues where it was stopped. Long jobs time
a few clips first, on the workers that they will have, and size their stages by that (`jobs.stream.autotune`).
`--views K` adds K tables to each encoder of sound or pictures, with augmented views (noise, speed, crop:
`encoders.views`) of every clip outside the test split; training draws its rows from them.

Reads:  <root>/manifest/                      (cluster.tables.MANIFEST)
Writes: <root>/features/<encoder>-<fingerprint>/        (cluster.tables.FEATURES)
        <root>/transcripts/<transcriber>-<fingerprint>/ (cluster.tables.TRANSCRIPTS)
        <root>/former/<table>/    rows of units that left the manifest (jobs.catalog.compaction)
        <root>/encodings/<hash>/  config.json and summary.json of the command
        <root>/encodings/autotune-<hash>.json  what a few clips took (jobs.stream.autotune)

Laptop:   affuse encode --root data/ravdess --encoders minilm whisper_tiny_en egemaps
One GPU:  affuse encode --root data/mosei --encoders wav2vec2_base:layers=all --workers.actors 1
Cluster:  affuse submit --address URL -- encode --root s3://bucket/mosei --encoders bert_base
"""

import functools
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow.compute as pc

from cluster import settings, storage
from cluster.errors import ConfigError
from cluster.growth import known_capacity, planned_capacity, requested
from cluster.resources import Plan, WorkersConfig, plan_stream
from cluster.session import Capacity, SessionConfig, ray_session
from cluster.settings import Place
from cluster.tracking import run_tracker
from cluster.unit_tables import Version
from encoders.spec import Descriptor
from jobs.catalog import layout
from jobs.catalog.compaction import compact
from jobs.catalog.features import current_rows, read_features
from jobs.catalog.layout import features_uri, former_uri, transcripts_uri
from jobs.catalog.manifest import Dataset, UnitRef, read_dataset, units
from jobs.catalog.outputs import publish_config
from jobs.stream.autotune import Autotune, autotuned
from jobs.stream.forecast import Assumed, forecast
from jobs.stream.gathering import by_tasks
from jobs.stream.job import STALL_LIMIT_S, DecodingConfig, StreamJob, UnitTask, Work
from jobs.stream.pending import (
    counted_before,
    in_order,
    missing_tasks,
    recall_former,
    restricted,
    table_uris,
    tasks_to_mend,
)
from jobs.stream.progress import Progress, check_early, clock, conclude
from jobs.stream.result_rows import failure_reasons
from jobs.stream.run import run_units
from jobs.stream.selection import chosen_store, chosen_work, encoder_table, models_gb
from jobs.stream.sink import FeatureSink
from jobs.stream.whereabouts import check_media

AGAIN = "; --retry-failed tries them again"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which encoders run over which dataset."""

    root: Place = ""
    """Folder or URI of one dataset."""

    encoders: tuple[str, ...] = ()
    """Encoders with their options, e.g. ``minilm whisper_tiny_en:layers=2,pool=mean_std``."""

    transcriber: str | None = None
    """Transcriber (speech recogniser) for clips that have no text, e.g. ``whisper_tiny_en_asr``."""

    views: int = 0
    """Number of augmented views of each clip outside the test split, for training (not of text)."""

    store: Place | None = None
    """Store of the weights; by default ~/.cache/affuse/store, or ROOT/../store where ROOT is remote."""

    list: bool = False
    """Print the table of encoders and stop."""

    max_failed_share: float = 0.2
    """Share of clips that may fail [0..1]. Above it the job ends with status 1, from 100 clips on at once."""

    retry_failed: bool = False
    """Encode clips with failed rows again, e.g. when a missing file is back; other rows stay."""

    autotune: Autotune = "auto"
    """Time a few clips first and size the stages by them: auto where the job is long enough to gain."""

    stall_limit_s: float = STALL_LIMIT_S
    """Time that a model may take for a clip beyond its usual pace [s]; after it the clip fails."""

    tracking: bool = True
    """Record the job in MLflow."""

    dry_run: bool = False
    """Print the plan, what it is made of and what the job would take, and stop before Ray starts."""

    assume: Assumed = field(default_factory=Assumed)
    """What a dry run plans for, where that is not what is there."""

    workers: WorkersConfig = field(default_factory=WorkersConfig)
    """Workers of the stream; what is left out is derived from the machine."""

    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    """Limits of decoding one clip."""

    session: SessionConfig = field(default_factory=SessionConfig)
    """Ray session: which cluster is joined, or what a local session may use."""

    def __post_init__(self) -> None:
        if not self.list and not self.root:
            raise ConfigError("which dataset? type: --root FOLDER")
        if not self.list and not (self.encoders or self.transcriber):
            raise ConfigError("which encoders? type: --encoders NAME ...; --list shows them")
        if self.views < 0:
            raise ConfigError(f"--views {self.views}: expected 0 or more")
        if self.stall_limit_s <= 0:
            raise ConfigError(f"stall_limit_s: expected more than 0, came {self.stall_limit_s:g}")
        if not 0 <= self.max_failed_share <= 1:
            raise ConfigError(f"max_failed_share: expected 0 to 1, came {self.max_failed_share}")
        self.assume.check(dry_run=self.dry_run)


def main(config: Config) -> None:
    """Encode whatever has no features yet."""
    if config.list:
        print(encoder_table())
        return
    root = storage.absolute(config.root)
    dataset = read_dataset(root)
    refs = units(root)
    store = chosen_store(config.store, root)
    names, views, needed = (config.encoders, config.transcriber), config.views, not config.dry_run
    work = chosen_work(root, *names, store, views=views, find_weights=needed)
    if config.dry_run:
        print("\n".join(foreseen(config, root, work, refs)))
        return
    recall_former(root, work, refs)
    tasks = missing_tasks(root, work, refs)
    if config.retry_failed:
        tasks = tasks_to_mend(root, work, refs, tasks)
    if not tasks:
        print(f"nothing to do: all {_clips(refs)} clips of {dataset.name} are encoded")
        reasons = finish(config, root, work)
        conclude(reasons, _clips(refs), config.max_failed_share, AGAIN)
        return
    check_media(root, work, {task.todo for task in tasks}, refs, config.session)
    say_todo(refs, tasks, dataset)
    before = counted_before(root, work, refs, tasks)
    check_early(*before, config.max_failed_share, advice=AGAIN)
    models = models_gb(work)
    capacity = known_capacity(config.session, config.workers.nodes)
    # What does not fit is refused before anything is started.
    plan = None if capacity is None else plan_stream(models, capacity, config.workers)
    describe_tables(config, root, dataset, work, tasks)
    with recorded(config, root, dataset, work) as figures:
        with ray_session(config.session):
            capacity = capacity or planned_capacity(config.workers.nodes)
            plan = plan or plan_stream(models, capacity, config.workers)
            print("\n".join(plan.lines()), flush=True)
            with requested(capacity):
                figures += run_passes(config, root, work, tasks, plan, capacity, before)
            reasons = finish(config, root, work)
    conclude(reasons, _clips(refs), config.max_failed_share, AGAIN)


def foreseen(config: Config, root: str, work: Work, refs: Sequence[UnitRef]) -> list[str]:
    """What is left to do would take so much; for another number of clips, all of it."""
    tasks = missing_tasks(root, work, refs)
    if config.assume.clips is not None:
        tasks = [UnitTask(ref=ref, todo=work.everything) for ref in refs]
    if not tasks:
        return [f"nothing to do: all {_clips(refs)} clips are encoded"]
    job = stream_job(config, root, work)
    return forecast(job, tasks, config.session, config.workers, config.assume)


def stream_job(config: Config, root: str, work: Work) -> StreamJob:
    """The stream of some encoders."""
    return StreamJob(
        root=root,
        work=work,
        decoding=config.decoding,
        sink=FeatureSink(),
        stall_limit_s=config.stall_limit_s,
    )


def say_todo(refs: Sequence[UnitRef], tasks: Sequence[UnitTask], dataset: Dataset) -> None:
    """Print how many units are encoded already, and how many are left."""
    left = sum(task.num_clips for task in tasks)
    there = _clips(refs) - left
    print(
        f"{dataset.name}: {left} of {_clips(refs)} clips to encode in {len(tasks)} units"
        + (f"; {there} are done" if there else "")
    )


@contextmanager
def recorded(
    config: Config, root: str, dataset: Dataset, work: Work
) -> Iterator[list[dict[str, float]]]:
    """Record the command and its measurements, one mapping a pass, and project them to MLflow."""
    folders = [item.folder for item, _ in table_uris(root, work)]
    digest = hashlib.sha256(" ".join(folders).encode()).hexdigest()[:12]
    base = layout.encodings_uri(root, digest)
    publish_config(config, base)
    passes: list[dict[str, float]] = []
    with run_tracker(root, base, enabled=config.tracking) as tracker:
        tags = {"affuse.manifest": dataset.manifest_hash, "affuse.features": " ".join(folders)}
        params = settings.to_mapping(config)
        tracker.start(f"encode {' '.join(config.encoders)}", params, kind="encode", tags=tags)
        yield passes
        summary = {"manifest": dataset.manifest_hash, "tables": folders, "passes": passes}
        storage.publish_json(summary, storage.join(base, layout.SUMMARY))
        tracker.metrics([{"step": step, **figures} for step, figures in enumerate(passes)])
        tracker.artefacts((layout.CONFIG, layout.SUMMARY))


def run_passes(
    config: Config,
    root: str,
    work: Work,
    tasks: Sequence[UnitTask],
    plan: Plan,
    capacity: Capacity,
    before: tuple[int, int],
) -> list[dict[str, float]]:
    """Size and run the stream once for each group of encoders that fit together."""
    figures = []
    for number, names in enumerate(in_order(plan.passes, work), start=1):
        part, part_tasks = restricted(work, tasks, names)
        if not part_tasks:
            continue
        if len(plan.passes) > 1:
            print(f"pass {number} of {len(plan.passes)}: {', '.join(names)}")
        job = stream_job(config, root, part)
        sized = autotuned(job, part_tasks, plan, capacity, config.workers, config.autotune)
        done = run_stream(sized.job, part_tasks, sized.plan, config.max_failed_share, before)
        figures.append(done | sized.figures())
    return figures


def run_stream(
    job: StreamJob,
    tasks: Sequence[UnitTask],
    plan: Plan,
    max_failed_share: float,
    before: tuple[int, int] = (0, 0),
) -> dict[str, float]:
    """Encode all units.

    Args:
        job: the stream.
        tasks: its units.
        plan: its workers.
        max_failed_share: more failures stop the job.
        before: clips of the tables that are done already, and how many of them failed.

    Returns:
        Clips, failures, rates, and the seconds that decode and each model took, all workers together.

    Raises:
        MachineError: a machine failed, and no clip.
        TooManyFailuresError: too many clips failed.
    """
    total = sum(task.num_clips for task in tasks)

    def unpublished(silent: Sequence[UnitTask]) -> list[UnitTask]:
        """Units without a report to encode again: all that are mended, others if rows are missing."""
        left = missing_tasks(job.root, job.work, [task.ref for task in silent])
        units_left = {task.ref.unit for task in left}
        return [task for task in silent if task.mend or task.ref.unit in units_left]

    with Progress(
        total, label="encode", max_failed_share=max_failed_share, before=before, advice=AGAIN
    ) as progress:
        seconds = run_units(job, tasks, plan, progress, unpublished)
    spent = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.most_common())
    print(
        f"encode: {total} clips in {clock(progress.elapsed_s)}, {progress.steady_rate:.2f} clips/s "
        f"once running; the workers' time: {spent}"
    )
    return {
        "clips": progress.done,
        "failed": progress.failed,
        "clips_per_s": progress.rate,
        "clips_per_s_steady": progress.steady_rate,
        **{f"seconds/{name}": value for name, value in seconds.items()},
    }


def describe_tables(
    config: Config, root: str, dataset: Dataset, work: Work, tasks: Sequence[UnitTask] = ()
) -> None:
    """Write what each table is beside it, and the config where some of its rows are still to be made."""
    made = {folder for task in tasks for folder in task.todo.encoders}
    for item, uri in table_uris(root, work):
        facts = item.facts() | {"manifest": dataset.manifest_hash}
        storage.publish_json(facts, storage.join(uri, layout.DESCRIPTOR))
        heard = item is work.transcriber and any(task.todo.transcribe for task in tasks)
        if heard or item.folder in made or not storage.exists(storage.join(uri, layout.CONFIG)):
            publish_config(config, uri)


def finish(config: Config, root: str, work: Work) -> dict[str, int]:
    """Compact, check that every clip has one row, and name what was written.

    The manifest is read again: where `prepare` ran meanwhile, clips may have come that have no rows yet.

    Returns:
        Why clips failed, and how many of them; a clip counts once.

    Raises:
        NotPreparedError: a clip has no row.
    """
    describe_tables(config, root, read_dataset(root), work)
    for item, uri in table_uris(root, work):
        wanted = functools.partial(_wanted, root, item)
        compact(uri, wanted, former=former_uri(uri), write=by_tasks)
    failed = []
    for item in work.descriptors:
        table = read_features(root, item.folder, columns=["clip_id", "status", "error"])
        failed.append(table.filter(pc.equal(table["status"], "failed")))
        states = table["status"].value_counts().sort(by="values").to_pylist()
        said = ", ".join(f"{each['counts']} {each['values']}" for each in states)
        seen = "" if item.view is None else f" (view {item.view.number})"
        print(f"wrote {features_uri(root, item.folder)}{seen}: {said}")
    if work.transcriber is not None:
        current_rows(root, work.transcriber.folder, "transcripts")
        print(f"wrote {transcripts_uri(root, work.transcriber.folder)}")
    return failure_reasons(failed)


def _wanted(root: str, table: Descriptor) -> list[Version]:
    """Versions that a table should hold, in the order of the present manifest."""
    return [ref.version(table.reads) for ref in units(root)]


def _clips(refs: Sequence[UnitRef]) -> int:
    return sum(ref.num_clips for ref in refs)
