"""Score clips with a bundle: of a dataset, or any files at all.

A dataset's clips are scored from their features where all are there, else straight from the raw clips, in
one stream that decodes, encodes and predicts and stores no features. Files need no manifest; up to 20 of
them are scored in this process and printed as a table, more in a folder beside --out, where the same command
goes on after a stop. A file can be scored window by window or sentence by sentence, in memory that does not
grow with its length. Rows are in the order of names, numbers in them by their value. Several bundles score
the same clips in one pass, which decodes and encodes each clip once (--also).

Reads:  <root>/manifest/, <root>/features/ or the media; <root>/bundles/<bundle>/
Writes: <root>/scores/<name>/   (cluster.tables.SCORES), or --out FILE for files without a manifest,
        with FILE.config.json
        FILE.affuse/            while many files are scored

Own video: affuse score clip.mp4 --bundle untrained
Over time: affuse score film.mp4 --by window --out windows.parquet
           affuse score --root data/talks --bundle best --by window --window-s 4 --step-s 2 --out w.parquet
Several:   affuse score --root data/ravdess --bundle ensemble --also first face_expression
Laptop:    affuse score holiday/ --bundle data/ravdess/bundles/ensemble --out scores.csv
Cluster:   affuse submit --address URL -- score --root s3://bucket/calls --bundle s3://bucket/b/bundles/best
"""

import functools
import time
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from cluster import storage
from cluster.errors import AffuseError, ConfigError, NotPreparedError
from cluster.unit_tables import Version
from fusion.tasks import Task
from jobs.catalog import layout
from jobs.catalog.bundles import asked_members
from jobs.catalog.compaction import compact
from jobs.catalog.manifest import read_manifest, units
from jobs.catalog.outputs import publish_config
from jobs.preparing.builder import build
from jobs.scoring import untrained, work_folder
from jobs.scoring.bundle import Bundle, from_features
from jobs.scoring.by_piece import PieceScorer, clips_of_dataset, clips_of_files, score_pieces
from jobs.scoring.claim import claim, claim_of, command_again
from jobs.scoring.config import ScoreConfig
from jobs.scoring.files import Files, check_out, found_files, in_order, show, write_out
from jobs.scoring.grouped import COLUMNS, GROUP_SCORES, answers_of, grouped
from jobs.scoring.in_process import OneByOne, score_here
from jobs.scoring.judges import NamedBundle, by_transcriber, open_judges
from jobs.scoring.outcome import conclude_files, rate_line, show_groups, show_pieces, summary
from jobs.scoring.outlook import show_outlook, show_result
from jobs.scoring.raw_clips import foreseen, score_clips, store_of, unscored, work_of
from jobs.scoring.scorer import Scorer
from jobs.scoring.stored import score_stored
from jobs.scoring.tally import tally_of, tally_of_scores
from jobs.scoring.versions import describe_scores, read_scores, versions_of
from jobs.stream.decode import decoder_of
from jobs.stream.progress import conclude

FEW = 20
"""Files that are scored in this process and printed."""


Config = ScoreConfig


def main(config: Config) -> None:
    """Score files, or the dataset."""
    config = replace(config, root=storage.absolute(config.root) if config.root else "")
    judges = open_judges(config)
    for judge in judges:
        if judge.bundle.uri is None:
            print("\n".join(untrained.notes(judge.bundle)))
    if not config.clips and config.by == "clip":
        judges = [judge.needed(config.root) for judge in judges]
    if config.server is not None and not config.dry_run:
        judges = [asked(config, config.server, judge) for judge in judges]
    if config.clips:
        score_files(config, judges)
    elif config.by != "clip":
        score_dataset_by_piece(config, judges)
    elif config.dry_run:
        print("\n".join(foreseen(config, judges)))
    else:
        begun = time.monotonic()
        scored, groups = score_dataset(config, judges)
        seconds = time.monotonic() - begun
        results = []
        for judge in judges:
            announce(judge, judges)
            results.append(show_judged(config, judge, groups.get(judge.name)))
        if scored:
            print(rate_line(scored, seconds))
        for reasons, clips in results:
            conclude(reasons, clips, config.max_failed_share)


def asked(config: Config, server: str, judge: NamedBundle) -> NamedBundle:
    """With what the large models among the members of a bundle say of the clips.

    Raises:
        ConfigError: the bundle notes no way of asking, the URL is none, or scores of that name were made
            otherwise.
    """
    facts = judge.bundle.facts
    runs = asked_members(facts) if facts else []
    if runs and not isinstance(facts["asked"], dict):
        raise ConfigError(
            f"{judge.bundle.name} does not say how {runs[0]} was asked; type affuse ensemble again"
        )
    from jobs.asking.members import publish_told  # importing it takes longer than small jobs

    told = {run: storage.join(judge.uri(config.root), "asked", f"{run}.parquet") for run in runs}
    judge = replace(judge, bundle=replace(judge.bundle, told=told))
    if told:
        begin(config, judge)  # before anybody is asked in vain
    stamps = [
        publish_told(
            config.root, server, facts["asked"][run], facts["task"], Task.from_json(facts), uri
        )
        for run, uri in told.items()
    ]
    return replace(judge, bundle=replace(judge.bundle, told_stamps=tuple(stamps)))


def announce(judge: NamedBundle, judges: Sequence[NamedBundle]) -> None:
    """Say of which bundle the next lines are, where there are several."""
    if len(judges) > 1:
        print(f"bundle {judge.bundle.name}:")


def show_judged(
    config: Config, judge: NamedBundle, num_groups: int | None
) -> tuple[dict[str, int], int]:
    """Print what the scores of a dataset by one bundle say; groups are written beside them.

    Returns:
        Why clips failed, with their numbers, and how many rows there are.
    """
    tally = tally_of_scores(config.root, judge.name)
    show_result(judge.bundle, tally, config.root, judge.name, num_groups)
    where = layout.scores_uri(config.root, judge.name, layout.SUMMARY)
    storage.publish_json(summary(tally), where)
    for per in dict.fromkeys(config.per):
        uri = layout.group_scores_uri(config.root, judge.name, per)
        clips = read_manifest(config.root, list(COLUMNS))
        answers = answers_of(judge.bundle, config.root)
        whole = read_scores(config.root, judge.name)
        parts = [*grouped([clips], [whole], per, answers, config.pooling)]
        nothing = GROUP_SCORES.schema.empty_table()
        groups = GROUP_SCORES.conform(pa.concat_tables(parts) if parts else nothing)
        storage.publish_table(groups, uri)
        show_groups(groups, per, tally.rows)
        print(f"wrote {uri}: {groups.num_rows} rows")
    return dict(tally.failures), tally.rows


def score_files(config: Config, judges: Sequence[NamedBundle]) -> None:
    """Few files here; many through the stream, in a folder beside --out that outlives a stop."""
    files = found_files(config.clips)
    refuse_alone(judges)
    if len(files) > FEW and config.out is None:
        raise ConfigError(f"{len(files)} files: where to? type: --out scores.csv")
    check_out(config.out, files, overwrite=config.overwrite)
    if config.by != "clip":
        score_by_piece(config, judges, files)
        return
    if len(files) > FEW:
        score_many(config, judges, files)
        return
    parts = []
    for group in by_transcriber(judges):
        work = work_of(config, *(judge.bundle for judge in group))
        encoder = OneByOne(work, config.decoding, config.stall_limit_s)
        parts.append(score_here(files, encoder, *scorers_of(group, config.root)))
    table = in_order(pa.concat_tables(parts))
    show(table)
    for judge in judges:
        announce(judge, judges)
        show_outlook(judge.bundle, tally_of([rows_of(judge, table)]))
    if config.out is not None:
        write_out(config, config.out, files, table)
    conclude_files(table, config.max_failed_share)


def refuse_alone(judges: Sequence[NamedBundle]) -> None:
    """Refuse bundles that cannot score a clip by itself."""
    for judge in judges:
        judge.bundle.refuse_alone()


def score_dataset_by_piece(config: Config, judges: Sequence[NamedBundle]) -> None:
    """Score windows or sentences of every clip of a dataset, into --out."""
    refuse_alone(judges)
    tracks = read_manifest(config.root, ["video", "audio"])
    places = [pc.struct_field(tracks[track], "uri").drop_null() for track in ("video", "audio")]
    files = pc.unique(pa.chunked_array([c for place in places for c in place.chunks], pa.string()))
    check_out(config.out, files.to_pylist(), overwrite=config.overwrite)
    score_by_piece(config, judges, files.to_pylist())


def score_by_piece(config: Config, judges: Sequence[NamedBundle], files: Sequence[str]) -> None:
    """Score windows or sentences of files or else of a dataset, in this process, clip after clip.

    Args:
        config: of the command.
        judges: the bundles.
        files: that are read, and never replaced.

    Raises:
        ConfigError: the bundles read the words of different transcribers.
    """
    work = work_of(config, *(judge.bundle for judge in judges))
    if len(by_transcriber(judges)) > 1:
        raise ConfigError(
            "the bundles read words of different transcribers: score them one after the other"
        )
    encoder = OneByOne(work, config.decoding, config.stall_limit_s)
    pieces = PieceScorer(encoder, scorers_of(judges, config.root), config.by, config.size)
    first, *others = [claim_of(judge.bundle, "clips", config.decoding) for judge in judges]
    made_with = first | {"by": config.by, **vars(config.size), "also": others or None}
    again = command_again(config, config.bundle, out="OTHER")
    folder = None if config.out is None else work_folder.begun(config.out, made_with, again)
    decoder = decoder_of(config.decoding)
    clips = clips_of_files(files, decoder) if config.clips else clips_of_dataset(config.root)
    table = pa.concat_tables([*score_pieces(clips, pieces, folder)])
    show_pieces(table)
    if config.out is not None:
        write_out(config, config.out, files, table)
        work_folder.put_away(work_folder.work_root(config.out))
    conclude_files(table, config.max_failed_share)


def scorers_of(judges: Sequence[NamedBundle], root: str) -> list[Scorer]:
    """The bundles, loaded."""
    return [Scorer(judge.bundle, root) for judge in judges]


def rows_of(judge: NamedBundle, table: pa.Table) -> pa.Table:
    """The rows of one bundle."""
    return table.filter(pc.equal(table["bundle"], judge.bundle.name))


def score_many(config: Config, judges: Sequence[NamedBundle], files: Sequence[str]) -> None:
    """Score files as a dataset of their own, which is gone when --out is written.

    Raises:
        ConfigError: the folder beside --out is of a command with other settings.
    """
    out = str(config.out)
    root = work_folder.work_root(out)
    again = command_again(config, config.bundle, out="OTHER")
    made_with = claim_of(judges[0].bundle, "clips", config.decoding)
    begun = work_folder.take_up(root, made_with, again)
    how = f"{len(files)} files: {'goes on' if begun else 'works'} in {root}"
    print(f"{how}; after a stop the same command goes on from there")
    here = replace(
        config, root=root, clips=(), out=None, name=None, store=store_of(config), source="clips"
    )
    inside = [
        replace(judge, name=f"{work_folder.SCORES}-{number}" if number else work_folder.SCORES)
        for number, judge in enumerate(judges)
    ]
    try:
        build(Files(root=root, files=tuple(files)))
        score_dataset(here, [judge.needed(root) for judge in inside])
        parts = [read_scores(root, judge.name) for judge in inside]
        for part in parts:
            if part.num_rows != len(files):
                raise NotPreparedError(
                    f"{root} holds scores of {part.num_rows} of {len(files)} files"
                )
        table = in_order(pa.concat_tables(parts))
    except (AffuseError, OSError):
        # A twin that was faster has written the scores and takes the folder away.
        if not (work_folder.is_leaving(root) and storage.exists(storage.absolute(out))):
            raise
        work_folder.put_away(root)
        print(f"nothing left to do: another command has written {out}")
        return
    for judge, part in zip(judges, parts, strict=True):
        announce(judge, judges)
        show_result(judge.bundle, tally_of([part]))
    write_out(config, out, files, table)
    work_folder.put_away(root)
    conclude_files(table, config.max_failed_share)


def score_dataset(
    config: Config, judges: Sequence[NamedBundle]
) -> tuple[int, dict[str, int | None]]:
    """Score the units of a dataset that have no scores yet by some bundle.

    Returns:
        How many clips were scored; and name of scores -> groups, where a pass over all clips counted them.

    Raises:
        ConfigError: scores of that name were made otherwise, or a bundle needs features.
    """
    refs = units(config.root)
    total = sum(ref.num_clips for ref in refs)
    for judge in judges:
        begin(config, judge)
    left = {judge.name: unscored(config.root, judge, refs) for judge in judges}
    for judge in judges:
        if left[judge.name]:
            count = sum(ref.num_clips for ref in left[judge.name])
            print(f"{count} of {total} clips to score with {judge.bundle.name}")
        else:
            print(f"nothing to do: all {total} clips are scored in {judge.uri(config.root)}")
    judges = [judge for judge in judges if left[judge.name]]
    raw, groups = [], {}
    for judge in judges:
        if from_features(config.root, judge.bundle, config.source):
            print("source: stored features, because every clip has them")
            scorer, uri = Scorer(judge.bundle, config.root), judge.uri(config.root)
            groups[judge.name] = score_stored(config.root, judge.bundle, scorer, refs, uri)
        else:
            judge.bundle.refuse_stream(config.root)
            raw.append(judge)
    if raw:
        print("source: raw clips; no features are stored")
        score_clips(config, raw, refs)
    for judge in judges:
        uri = judge.uri(config.root)
        compact(uri, functools.partial(current, config.root, judge.bundle))
        print(f"wrote {uri}: {total} clips")
    scored = sum({ref.unit: ref.num_clips for todo in left.values() for ref in todo}.values())
    return scored, groups


def begin(config: Config, judge: NamedBundle) -> None:
    """Write beside the scores of a bundle what they are made with.

    Raises:
        ConfigError: they were made otherwise.
    """
    uri = judge.uri(config.root)
    again = command_again(config, judge.typed, name="OTHER")
    claim(uri, claim_of(judge.bundle, config.source, config.decoding), again)
    publish_config(config, uri)
    describe_scores(uri, judge.bundle)


def current(root: str, bundle: Bundle) -> list[Version]:
    """The versions of a bundle's scores that hold now."""
    return [*versions_of(root, bundle, units(root)).values()]
