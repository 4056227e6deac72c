"""Turn the clips of a manifest into features with any number of pretrained encoders.

Every clip is decoded once for all encoders, and gets exactly one row per encoder whatever happens to it.
A unit that is published is not encoded again: the same command goes on where it was stopped.

Reads:  <root>/manifest/                      (cluster.tables.MANIFEST)
Writes: <root>/features/<encoder>-<fingerprint>/        (cluster.tables.FEATURES)
        <root>/transcripts/<transcriber>-<fingerprint>/ (cluster.tables.TRANSCRIPTS)
        <root>/encodings/<hash>/  config.json and summary.json of the command

Laptop:   affuse encode --root data/ravdess --encoders minilm whisper_tiny_en egemaps
One GPU:  affuse encode --root data/mosei --encoders wav2vec2_base:layers=all --workers.actors 1
Cluster:  affuse submit --address URL -- encode --root s3://bucket/mosei --encoders bert_base clip_vit
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from cluster import settings, storage
from cluster.errors import AffuseError, ConfigError
from cluster.resources import Plan, WorkersConfig, plan_stream
from cluster.session import SessionConfig, cluster_capacity, local_capacity, ray_session
from cluster.tracking import run_tracker
from encoders import ENCODERS, TRANSCRIBERS
from encoders.spec import Descriptor, describe, find
from encoders.store import DEFAULT_STORE, local_paths
from jobs._features import (
    compact,
    features_uri,
    published_units,
    read_features,
    transcripts_uri,
)
from jobs._manifest import Dataset, UnitRef, read_dataset, read_manifest, units
from jobs._progress import Progress, clock
from jobs._rescue import rescue
from jobs._stream import stream
from jobs._work import DecodingConfig, StreamJob, UnitTask, Work


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which encoders run over which dataset."""

    root: str = ""
    """Folder or URI of one dataset."""

    encoders: tuple[str, ...] = ()
    """Encoders with their options, e.g. ``minilm whisper_tiny_en:layers=2,pool=mean_std``."""

    transcriber: str | None = None
    """Recogniser that fills in the text of clips that have none, e.g. ``whisper_tiny_en_asr``."""

    store: str = DEFAULT_STORE
    """Folder or bucket of the pretrained weights (``affuse models`` fills it)."""

    list: bool = False
    """Print the table of encoders and stop."""

    max_failed_share: float = 0.2
    """Stop when more than this share of the clips fails [0..1]; counted from 100 clips on."""

    stall_limit_s: float = 900.0
    """Stop when no unit has been finished for so long [s]."""

    tracking: bool = True
    """Record the job in MLflow."""

    workers: WorkersConfig = field(default_factory=WorkersConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    session: SessionConfig = field(default_factory=SessionConfig)

    def __post_init__(self) -> None:
        if not self.list and not self.root:
            raise ConfigError("which dataset? type: --root FOLDER")
        if not self.list and not (self.encoders or self.transcriber):
            raise ConfigError("which encoders? type: --encoders NAME ...; --list shows them")
        if not 0 <= self.max_failed_share <= 1:
            raise ConfigError(f"max_failed_share: expected 0 to 1, came {self.max_failed_share}")


def main(config: Config) -> None:
    """Encode whatever has no features yet."""
    if config.list:
        print(encoder_table())
        return
    root = storage.absolute(config.root)
    dataset = read_dataset(root)
    refs = units(root)
    work = chosen_work(config, root)
    tasks = missing_tasks(root, work, refs)
    if not tasks:
        print(f"nothing to do: all {_clips(refs)} clips of {dataset.name} are encoded")
        finish(config, root, dataset, refs, work)
        return
    say_todo(refs, tasks, dataset)
    models = models_gb(work)
    plan = None
    capacity = local_capacity(config.session)
    if capacity is not None:  # refuse before anything is started
        plan = plan_stream(models, capacity, config.workers)
    describe_tables(config, root, dataset, work)
    with recorded(config, root, dataset, work) as figures:
        with ray_session(config.session):
            plan = plan or plan_stream(models, cluster_capacity(), config.workers)
            print("\n".join(plan.lines()), flush=True)
            figures += run_passes(config, root, work, tasks, plan)
        finish(config, root, dataset, refs, work)


def encoder_table() -> str:
    """Encoders and transcribers with what one has to know before choosing."""
    rows = [("encoder", "reads", "dim", "layers", "size", "licence", "what it is")]
    for name in [*ENCODERS, *TRANSCRIBERS]:
        spec = find(name)
        size_mb = sum(item.size_mb for item in spec.weights)
        rows.append(
            (
                name,
                spec.modality,
                str(spec.dim) if name in ENCODERS else "text",
                str(spec.num_layers),
                f"{size_mb:.0f} MB" if size_mb else "-",
                spec.licence,
                spec.summary,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def check_context(root: str, descriptors: Sequence[Descriptor]) -> None:
    """Refuse a context of neighbours whose texts are not known before the stream starts.

    Raises:
        ConfigError: an encoder reads its neighbours, and some clips of the manifest have no text.
    """
    reading = [item.name for item in descriptors if item.options.get("context", "none") != "none"]
    wordless = read_manifest(root, ["text"])["text"].null_count if reading else 0
    if wordless:
        raise ConfigError(
            f"{', '.join(reading)}: context reads neighbouring texts, and {wordless} clips have none in "
            "the manifest; add the texts by `affuse prepare`, or leave context=none"
        )


def chosen_work(config: Config, root: str) -> Work:
    """The encoders of the command, their weights found; a transcriber only where text is missing.

    Raises:
        ConfigError: an unknown encoder or option, or one named twice.
        WeightsError: weights are not in the store.
    """
    transcriber = None
    if config.transcriber is not None:
        if config.transcriber.partition(":")[0] not in TRANSCRIBERS:
            raise ConfigError(
                f"there is no transcriber {config.transcriber!r}; known: {', '.join(TRANSCRIBERS)}"
            )
        transcriber = describe(config.transcriber)
        if read_manifest(root, ["text"])["text"].null_count == 0:
            print(f"{transcriber.name} is not needed: every clip has its text")
            transcriber = None
    upstream = () if transcriber is None else (transcriber.fingerprint,)
    descriptors = []
    for text in config.encoders:
        if text.partition(":")[0] not in ENCODERS:
            describe(text)  # names the nearest known one
            raise ConfigError(f"{text!r} is no encoder; type: --transcriber {text}")
        descriptors.append(describe(text, upstream=upstream if describe(text).reads_text else ()))
    check_context(root, descriptors)
    folders = [item.folder for item in descriptors]
    if len(set(folders)) < len(folders):
        raise ConfigError(f"--encoders {' '.join(config.encoders)}: one is named twice")
    store = storage.absolute(config.store)
    for item in [*descriptors, *([transcriber] if transcriber else [])]:
        local_paths(item.weights, store)
    return Work(descriptors=tuple(descriptors), transcriber=transcriber, store=store)


def missing_tasks(root: str, work: Work, refs: Sequence[UnitRef]) -> list[UnitTask]:
    """Units with at least one table that has no file for them."""
    done = [published_units(features_uri(root, item.folder)) for item in work.descriptors]
    heard: set[str] | None = None
    if work.transcriber is not None:
        heard = published_units(transcripts_uri(root, work.transcriber.folder))
    tasks = []
    for ref in refs:
        todo = tuple(i for i, units_done in enumerate(done) if ref.unit not in units_done)
        transcribe = heard is not None and ref.unit not in heard
        if todo or transcribe:
            tasks.append(UnitTask(ref=ref, todo=todo, transcribe=transcribe))
    return tasks


def say_todo(refs: Sequence[UnitRef], tasks: Sequence[UnitTask], dataset: Dataset) -> None:
    """What is there already and what is left."""
    left = sum(task.ref.num_clips for task in tasks)
    there = _clips(refs) - left
    print(
        f"{dataset.name}: {left} of {_clips(refs)} clips to encode in {len(tasks)} units"
        + (f"; {there} are done" if there else "")
    )


def models_gb(work: Work) -> dict[str, float]:
    """What the plan has to know of the models; the transcriber comes first, others may rest on it."""
    chosen = [*([work.transcriber] if work.transcriber else []), *work.descriptors]
    return {item.folder: item.spec.memory_gb for item in chosen}


@contextmanager
def recorded(
    config: Config, root: str, dataset: Dataset, work: Work
) -> Iterator[list[dict[str, float]]]:
    """Keep what the command was and what it measured, one mapping a pass; project it to MLflow."""
    folders = [item.folder for item, _ in _table_uris(root, work)]
    digest = hashlib.sha256(" ".join(folders).encode()).hexdigest()[:12]
    base = storage.join(root, "encodings", digest)
    storage.publish_json(settings.to_mapping(config), storage.join(base, "config.json"))
    passes: list[dict[str, float]] = []
    with run_tracker(root, base, enabled=config.tracking) as tracker:
        tags = {"affuse.manifest": dataset.manifest_hash, "affuse.features": " ".join(folders)}
        params = settings.to_mapping(config)
        tracker.start(f"encode {' '.join(config.encoders)}", params, kind="encode", tags=tags)
        yield passes
        summary = {"manifest": dataset.manifest_hash, "tables": folders, "passes": passes}
        storage.publish_json(summary, storage.join(base, "summary.json"))
        tracker.metrics([{"step": step, **figures} for step, figures in enumerate(passes)])
        tracker.artefacts(("config.json", "summary.json"))


def run_passes(
    config: Config, root: str, work: Work, tasks: Sequence[UnitTask], plan: Plan
) -> list[dict[str, float]]:
    """Run the stream once for each group of encoders that fit together."""
    figures = []
    for number, names in enumerate(plan.passes, start=1):
        part, part_tasks = restricted(work, tasks, names)
        if not part_tasks:
            continue
        if len(plan.passes) > 1:
            print(f"pass {number} of {len(plan.passes)}: {', '.join(names)}")
        job = StreamJob(
            root=root,
            work=replace(part, threads=plan.encode.threads_each),
            decoding=config.decoding,
            stall_limit_s=config.stall_limit_s,
        )
        figures.append(run_stream(job, part_tasks, plan, config.max_failed_share))
    return figures


def restricted(
    work: Work, tasks: Sequence[UnitTask], names: Sequence[str]
) -> tuple[Work, list[UnitTask]]:
    """The part of a job that concerns some encoders; a transcriber outside has published before."""
    kept = [i for i, item in enumerate(work.descriptors) if item.folder in names]
    transcribes = work.transcriber is not None and work.transcriber.folder in names
    part = replace(work, descriptors=tuple(work.descriptors[i] for i in kept))
    part_tasks = []
    for task in tasks:
        todo = tuple(kept.index(i) for i in task.todo if i in kept)
        if todo or (task.transcribe and transcribes):
            part_tasks.append(
                UnitTask(ref=task.ref, todo=todo, transcribe=task.transcribe and transcribes)
            )
    return part, part_tasks


def run_stream(
    job: StreamJob, tasks: Sequence[UnitTask], plan: Plan, max_failed_share: float
) -> dict[str, float]:
    """Stream all units, then rescue what the stream lost.

    Returns:
        Clips, failures, rates, and the seconds that decode and each model took, all workers together.

    Raises:
        AffuseError: more units were lost than can be rescued.
        TooManyFailuresError: too many clips failed.
    """
    total = sum(task.ref.num_clips for task in tasks)
    seconds: Counter[str] = Counter()
    with Progress(total, label="encode", max_failed_share=max_failed_share) as progress:
        for report in stream(job, tasks, plan):
            seconds.update({"decode": report.decode_s, **report.encode_s})
            progress.add(report.num_clips, report.failed)
        left = {task.ref.unit for task in missing_tasks(job.root, job.work, [t.ref for t in tasks])}
        lost = [task for task in tasks if task.ref.unit in left]
        if len(lost) > job.max_lost_units:
            raise AffuseError(
                f"{len(lost)} of {len(tasks)} units were lost to workers that died; "
                "give the actors more memory: --workers.actors 1"
            )
        if lost:
            print(f"\nencode: {len(lost)} units were lost with their workers; now clip by clip")
        for report in rescue(job, lost, plan):
            progress.add(report.num_clips, report.failed)
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


def describe_tables(config: Config, root: str, dataset: Dataset, work: Work) -> None:
    """Write what each table is, and with which config it was made, beside it."""
    for item, uri in _table_uris(root, work):
        facts = item.facts() | {"manifest": dataset.manifest_hash}
        storage.publish_json(facts, storage.join(uri, "descriptor.json"))
        storage.publish_json(settings.to_mapping(config), storage.join(uri, "config.json"))


def finish(
    config: Config, root: str, dataset: Dataset, refs: Sequence[UnitRef], work: Work
) -> None:
    """Compact, check that every clip has one row, and name what was written.

    Raises:
        AffuseError: a clip has no row or several.
    """
    describe_tables(config, root, dataset, work)
    for _, uri in _table_uris(root, work):
        compact(uri, [ref.unit for ref in refs])
    for item in work.descriptors:
        table = read_features(root, item.folder, columns=["clip_id", "status"])
        ids = table["clip_id"].unique()
        if not table.num_rows == len(ids) == _clips(refs):
            raise AffuseError(
                f"{item.folder}: {table.num_rows} rows, {len(ids)} clips; expected {_clips(refs)}"
            )
        counts = {v["values"]: v["counts"] for v in table["status"].value_counts().to_pylist()}
        said = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        print(f"wrote {features_uri(root, item.folder)}: {said}")
    if work.transcriber is not None:
        print(f"wrote {transcripts_uri(root, work.transcriber.folder)}")


def _table_uris(root: str, work: Work) -> list[tuple[Descriptor, str]]:
    found = [(item, features_uri(root, item.folder)) for item in work.descriptors]
    if work.transcriber is not None:
        found.append((work.transcriber, transcripts_uri(root, work.transcriber.folder)))
    return found


def _clips(refs: Sequence[UnitRef]) -> int:
    return sum(ref.num_clips for ref in refs)
