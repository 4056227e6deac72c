"""Score clips with a bundle: of a dataset, or any files at all.

A dataset's clips are scored from their features where all are there, else straight from the raw clips, in
one stream that decodes, encodes and predicts and stores no features. Files need no manifest; up to 20 of
them are scored in this process and printed as a table, more in a folder beside --out, where the same command
goes on after a stop. A file can be scored window by window or sentence by sentence, in memory that does not
grow with its length. Rows are in the order of names, numbers in them by their value.

Reads:  <root>/manifest/, <root>/features/ or the media; <root>/bundles/<bundle>/
Writes: <root>/scores/<name>/   (cluster.tables.SCORES), or --out FILE for files without a manifest,
        with FILE.config.json
        FILE.affuse/            while many files are scored

Own video: affuse score clip.mp4 --bundle face_expression
Over time: affuse score film.mp4 --by window --out windows.parquet
Laptop:    affuse score holiday/ --bundle data/ravdess/bundles/ensemble --out scores.csv
Cluster:   affuse submit --address URL -- score --root s3://bucket/calls --bundle s3://bucket/b/bundles/best
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from cluster import storage
from cluster.errors import AffuseError, ConfigError, NotPreparedError
from cluster.growth import known_capacity, planned_capacity, requested
from cluster.resources import plan_stream
from cluster.session import ray_session
from cluster.settings import is_place
from cluster.unit_tables import published
from encoders.store import local_paths
from jobs.catalog import layout
from jobs.catalog.compaction import compact
from jobs.catalog.manifest import UnitRef, units
from jobs.catalog.outputs import publish_config
from jobs.preparing.builder import build
from jobs.scoring import work_folder
from jobs.scoring.bundle import Bundle, as_needed, check_speakers, from_features
from jobs.scoring.by_piece import PieceScorer, score_pieces
from jobs.scoring.claim import claim, claim_of, command_of
from jobs.scoring.config import ScoreConfig
from jobs.scoring.files import Files, check_out, found_files, in_order, show, write_out
from jobs.scoring.in_process import OneByOne, score_here, work_of_bundles
from jobs.scoring.opening import open_bundle
from jobs.scoring.outcome import rate_line, show_pieces
from jobs.scoring.outlook import show_outlook, show_result
from jobs.scoring.scorer import Scorer
from jobs.scoring.sink import ScoreSink, check_one_pass, plan_of_stream
from jobs.scoring.stored import score_stored
from jobs.scoring.versions import describe_scores, read_scores, reads_of, versions_of
from jobs.stream.autotune import autotuned
from jobs.stream.job import StreamJob, UnitTask, Work
from jobs.stream.progress import Progress, conclude
from jobs.stream.result_rows import failure_reasons
from jobs.stream.run import run_units
from jobs.stream.selection import chosen_store, models_gb

FEW = 20
"""Files that are scored in this process and printed."""


Config = ScoreConfig


def main(config: Config) -> None:
    """Score files, or the dataset."""
    config = replace(config, root=storage.absolute(config.root) if config.root else "")
    bundle = open_bundle(config.bundle, config.root, config.transcriber, config.store).promising(
        config.coverage
    )
    if bundle.uri is None:
        print("face_expression: the 7 classes of an expression net trained on posed pictures")
    if config.clips:
        score_files(config, bundle)
    elif config.dry_run:
        print("\n".join(foreseen(config, as_needed(config.root, bundle))))
    else:
        begun = time.monotonic()
        scored = score_dataset(config, bundle)
        seconds = time.monotonic() - begun
        table = read_scores(config.root, config.name or bundle.name)
        show_result(bundle, table, config.root, config.name or bundle.name)
        if scored:
            print(rate_line(scored, seconds))
        conclude(failure_reasons([table]), table.num_rows, config.max_failed_share)


def score_files(config: Config, bundle: Bundle) -> None:
    """Few files here; many through the stream, in a folder beside --out that outlives a stop."""
    bundle.refuse_raw()
    files = found_files(config.clips)
    if bundle.clips_of_speaker:
        check_speakers(pa.chunked_array([[None] * len(files)]), bundle.clips_of_speaker)
    if len(files) > FEW and config.out is None:
        raise ConfigError(f"{len(files)} files: where to? type: --out scores.csv")
    check_out(config.out, files, overwrite=config.overwrite)
    if config.by != "clip":
        score_by_piece(config, bundle, files)
        return
    if len(files) > FEW:
        score_many(config, bundle, files)
        return
    encoder = OneByOne(work_of(config, bundle), config.decoding, config.stall_limit_s)
    table = in_order(score_here(files, encoder, Scorer(bundle, config.root)))
    show(table)
    show_outlook(bundle, table)
    if config.out is not None:
        write_out(config, config.out, files, table)


def score_by_piece(config: Config, bundle: Bundle, files: Sequence[str]) -> None:
    """Score windows or sentences of files, in this process and file after file."""
    encoder = OneByOne(work_of(config, bundle), config.decoding, config.stall_limit_s)
    pieces = PieceScorer(encoder, [Scorer(bundle, config.root)], config.by, config.size)
    made_with = claim_of(bundle, "clips", config.decoding) | {"by": config.by, **vars(config.size)}
    again = command_of("score FILES", bundle=config.bundle, by=config.by, out="OTHER")
    folder = None if config.out is None else work_folder.begun(config.out, made_with, again)
    table = pa.concat_tables([*score_pieces(files, pieces, folder)])
    show_pieces(table)
    if config.out is not None:
        write_out(config, config.out, files, table)
        work_folder.put_away(work_folder.work_root(config.out))


def score_many(config: Config, bundle: Bundle, files: Sequence[str]) -> None:
    """Score files as a dataset of their own, which is gone when --out is written.

    Raises:
        ConfigError: the folder beside --out is of a command with other settings.
    """
    out = str(config.out)
    root = work_folder.work_root(out)
    again = command_of("score FILES", bundle=config.bundle, out="OTHER")
    begun = work_folder.take_up(root, claim_of(bundle, "clips", config.decoding), again)
    how = f"{len(files)} files: {'goes on' if begun else 'works'} in {root}"
    print(f"{how}; after a stop the same command goes on from there")
    here = replace(
        config,
        root=root,
        clips=(),
        out=None,
        name=work_folder.SCORES,
        bundle=config.bundle if bundle.uri is None else bundle.uri,
        store=store_of(config),
        source="clips",
    )
    try:
        build(Files(root=root, files=tuple(files)))
        score_dataset(here, bundle)
        table = in_order(read_scores(root, work_folder.SCORES))
        if table.num_rows != len(files):
            raise NotPreparedError(f"{root} holds scores of {table.num_rows} of {len(files)} files")
    except (AffuseError, OSError):
        # A twin that was faster has written the scores and takes the folder away.
        if not (work_folder.is_leaving(root) and storage.exists(storage.absolute(out))):
            raise
        work_folder.put_away(root)
        print(f"nothing left to do: another command has written {out}")
        return
    show_result(bundle, table)
    write_out(config, out, files, table)
    work_folder.put_away(root)


def score_dataset(config: Config, bundle: Bundle) -> int:
    """Score the units of a dataset that have no scores yet.

    Returns:
        How many clips were scored.

    Raises:
        ConfigError: scores of that name were made otherwise, or the bundle needs features.
    """
    refs, bundle = units(config.root), as_needed(config.root, bundle)
    uri = layout.scores_uri(config.root, config.name or bundle.name)
    again = command_of(
        "score", root=config.root, bundle=config.bundle, transcriber=config.transcriber,
        source=None if config.source == "auto" else config.source, name="OTHER",
    )  # fmt: skip
    claim(uri, claim_of(bundle, config.source, config.decoding), again)
    publish_config(config, uri)
    describe_scores(uri, bundle)
    versions = versions_of(config.root, bundle, refs)
    done = published(uri)
    todo = [ref for ref in refs if versions[ref.unit] not in done]
    total = sum(ref.num_clips for ref in refs)
    if not todo:
        print(f"nothing to do: all {total} clips are scored in {uri}")
        return 0
    left = sum(ref.num_clips for ref in todo)
    print(f"{left} of {total} clips to score with {bundle.name}")
    if from_features(config.root, bundle, config.source):
        print("source: stored features, because every clip has them")
        score_stored(config.root, bundle, Scorer(bundle, config.root), refs, uri)
    else:
        bundle.refuse_stream(config.root)
        print("source: raw clips; no features are stored")
        score_clips(config, bundle, todo, uri)
    compact(uri, lambda: [*versions_of(config.root, bundle, units(config.root)).values()])
    print(f"wrote {uri}: {total} clips")
    return left


def foreseen(config: Config, bundle: Bundle) -> list[str]:
    """What is left to score would take so much; for another number of clips, all of it."""
    if from_features(config.root, bundle, config.source):
        return ["source: stored features, because every clip has them; there is no stream to plan"]
    bundle.refuse_stream(config.root)
    uri = layout.scores_uri(config.root, config.name or bundle.name)
    job = stream_job(config, bundle, uri)
    return plan_of_stream(job, bundle, config.session, config.workers, config.assume)


def stream_job(config: Config, bundle: Bundle, uri: str) -> StreamJob:
    """The stream of a bundle."""
    return StreamJob(
        root=config.root,
        work=work_of(config, bundle),
        decoding=config.decoding,
        sink=ScoreSink(bundle=bundle, root=config.root, uri=uri),
        stall_limit_s=config.stall_limit_s,
    )


def score_clips(config: Config, bundle: Bundle, todo: Sequence[UnitRef], uri: str) -> None:
    """Decode, encode and predict in one stream."""
    job = stream_job(config, bundle, uri)
    models = models_gb(job.work)
    capacity = known_capacity(config.session, config.workers.nodes)
    plan = None if capacity is None else plan_stream(models, capacity, config.workers)
    with ray_session(config.session):
        capacity = capacity or planned_capacity(config.workers.nodes)
        plan = plan or plan_stream(models, capacity, config.workers)
        check_one_pass(plan)
        print("\n".join(plan.lines()), flush=True)
        tasks = [UnitTask(ref=ref, todo=job.work.everything) for ref in todo]
        total = sum(ref.num_clips for ref in todo)

        def unpublished(silent: Sequence[UnitTask]) -> list[UnitTask]:
            done, reads = published(uri), reads_of(bundle)
            return [task for task in silent if task.ref.version(reads) not in done]

        with requested(capacity):
            sized = autotuned(job, tasks, plan, capacity, config.workers, config.autotune)
            with Progress(
                total, label="score", max_failed_share=config.max_failed_share
            ) as progress:
                run_units(sized.job, tasks, sized.plan, progress, unpublished)


def work_of(config: Config, bundle: Bundle) -> Work:
    """The encoders of the bundle; their weights are found before anything starts."""
    work = work_of_bundles([bundle], storage.absolute(store_of(config)))
    models = (*work.descriptors, work.transcriber)
    for item in () if config.dry_run else filter(None, models):
        local_paths(item.weights, work.store)
    return work


def store_of(config: Config) -> str:
    """Store of the weights; files have no root, so that of the bundle says which store all machines see."""
    of_bundle = config.bundle.partition("/bundles/")[0] if is_place(config.bundle) else ""
    return chosen_store(config.store, config.root or of_bundle)
