"""Verify that everything under a root is whole: each clip once, footers, checksums, values, nets.

Every table is read: each clip of the manifest has exactly one row, current for what was read of it; columns
and types are those of `cluster.tables`; values are finite, and steps, times and flags agree; status and error
fit; pages have their checksums; predictions stand in the fold that held them out; nets load, and are those
that the bundle names. It is read a file at a time, and nothing is written but --json. Predictions of the test
split are not read. Exit status 0: sound; 1: faults, each kind with what to type.

`--gc` removes what killed writers left (temporary files, bundles and runs without results), once it is old
enough that no running job can be at it.

`--data` checks what the clips say instead: no face, silence, no words, labels that cannot be, and twins, near
twins and people on both sides of a split. It is exit status 0 with findings too, but for --strict.

Reads:  everything under <root> but media and evaluations; with --data the media of equal size, too
Writes: nothing; with --json FILE what was found, and FILE.config.json; with --data <root>/checks/

Laptop:   affuse verify --root data/ravdess
Data:     affuse verify --root data/ravdess --data
Clean up: affuse verify --root data/ravdess --gc --dry-run
Cluster:  affuse submit --address URL -- verify --root s3://bucket/mosei --json s3://bucket/mosei.verified.json
"""

import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cluster import console, storage
from cluster.errors import AffuseError, ConfigError, UnsoundError
from cluster.redaction import redacted
from cluster.settings import Place
from jobs.catalog import layout
from jobs.catalog.manifest import Dataset, read_dataset
from jobs.catalog.outputs import check_outputs, publish_outputs, record_of
from jobs.catalog.run_names import holds_results
from jobs.reporting import data_page
from jobs.verification.data_checks import data_findings
from jobs.verification.described import NotATableError, score_table, stream_table
from jobs.verification.findings import KINDS, UNREADABLE, Findings
from jobs.verification.leftovers import Leftover, leftovers, remove, unended_encodes
from jobs.verification.nets import check_bundle, check_run
from jobs.verification.root_tables import Manifest, check_folds, check_manifest
from jobs.verification.unit_files import check_unit_table
from jobs.verification.unit_table import check_units

DAY_S = 86400.0


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which root is verified, and whether leftovers go."""

    root: Place
    """Folder or URI of the dataset."""

    json: Place | None = None
    """File for what was found, as JSON."""

    overwrite: bool = False
    """Replace a --json that no earlier run made."""

    data: bool = False
    """Check the content of the clips, and write a table and a page of the findings."""

    strict: bool = False
    """Exit with 1 where something is found (with --data)."""

    gc: bool = False
    """Remove what killed writers left behind."""

    former: bool = False
    """Remove rows of clips that left the manifest too, which would come back with them (with --gc)."""

    older_than_s: float = DAY_S
    """Time since the last change of what is removed [s] (with --gc); shorter only where no job runs."""

    dry_run: bool = False
    """Print what would be removed, and remove nothing (with --gc)."""

    def __post_init__(self) -> None:
        if self.older_than_s < 0:
            raise ConfigError(f"--older-than-s {self.older_than_s:g}: expected 0 or more")
        given = [name for name in ("former", "dry_run") if getattr(self, name)]
        if given and not self.gc:
            raise ConfigError(f"--{given[0].replace('_', '-')} belongs to --gc; type both")
        if self.strict and not self.data:
            raise ConfigError("--strict belongs to --data; type both")
        if self.data and (self.gc or self.json is not None):
            raise ConfigError("--data neither removes leftovers nor writes --json; type it alone")


def main(config: Config) -> None:
    """Check every table, then the leftovers; say what was found.

    Raises:
        UnsoundError: there are faults.
    """
    start = time.monotonic()
    root = storage.absolute(config.root)
    dataset = dataset_of(root)
    if config.data:
        check_data(config, root, dataset)
        return
    if config.json is not None:
        out = storage.absolute(config.json)
        check_outputs([out], record_of(out), overwrite=config.overwrite)
    found = []
    for each in verified(root, dataset):
        show(each)
        found.append(each)
    left = list(leftovers(root, former=config.former))
    clear(left, config)
    lacking = any(fault.kind == "missing" for each in found for fault in each.faults)
    for uri in unended_encodes(root) if lacking else ():
        say(
            "note: an encode has begun and not ended; until it ends its rows are missing; where it does not "
            f"run any more, type: affuse encode --config {shlex.quote(uri)}"
        )
    for uri in () if config.former else layout.former_there(root):
        print(
            f"note: {uri} keeps rows of clips that left; they come back with them, or go by --gc --former"
        )
    if config.json is not None:
        write_json(config, found, left)
    conclude(root, found, time.monotonic() - start)


def check_data(config: Config, root: str, dataset: Dataset) -> None:
    """Check what the clips say; a table and a page of it go below the root.

    Raises:
        UnsoundError: something was found, and --strict was typed.
    """
    notes: list[str] = []
    findings = list(data_findings(root, dataset, notes))
    for each in findings:
        say(f"{each.check} ({each.where}): {each.count:,} clips, such as {each.clips[0]}")
    for line in notes:
        say(f"note: {line}")
    files = data_page.files_of(dataset, findings, notes)
    contents = {layout.checks_uri(root, name): content for name, content in files.items()}
    publish_outputs(config, contents, layout.checks_uri(root, layout.CONFIG))
    say(f"wrote {layout.checks_uri(root, layout.REPORT)}: {len(findings)} findings")
    if findings and config.strict:
        raise UnsoundError(f"{root}: {', '.join(dict.fromkeys(f.check for f in findings))}")


def dataset_of(root: str) -> Dataset:
    """The facts of the root.

    Raises:
        UnsoundError: they cannot be read.
    """
    try:
        return read_dataset(root)
    except UNREADABLE as error:
        if isinstance(error, AffuseError):
            raise
        where = layout.dataset_uri(root)
        why = str(error) or type(error).__name__
        raise UnsoundError(
            f"{where} is broken ({why}); remove it, then type: affuse prepare DATASET --source ... "
            f"--root {shlex.quote(root)}"
        ) from error


def verified(root: str, dataset: Dataset) -> Iterator[Findings]:
    """Findings of each table, as it has been read."""
    manifest = check_manifest(root, dataset)
    yield manifest.found
    if manifest.clips is None:
        return
    # Beside a spoilt manifest, which is named, the table of units says nothing more.
    listed = None if manifest.found.faults else check_units(root, dataset)
    if listed is not None:
        yield listed
    for name in layout.folds_there(root):
        yield check_folds(root, name, dataset, manifest.clips)
    yield from unit_tables(root, manifest, dataset)
    for run in layout.runs_there(root):
        if holds_results(layout.run_uri(root, run)):
            yield check_run(root, run, manifest.clips, dataset.manifest_hash)
    for bundle in layout.bundles_there(root):
        if storage.exists(layout.bundle_uri(root, bundle, layout.BUNDLE)):
            yield check_bundle(root, bundle, dataset.manifest_hash)


def unit_tables(root: str, manifest: Manifest, dataset: Dataset) -> Iterator[Findings]:
    """Findings of features, transcripts and scores."""
    assert manifest.clips is not None
    places = [("features", folder) for folder in storage.names(layout.features_uri(root))]
    places += [("transcripts", folder) for folder in storage.names(layout.transcripts_uri(root))]
    places += [("scores", name) for name in layout.scores_there(root)]
    for kind, folder in places:
        try:
            if kind == "scores":
                table = score_table(root, folder, manifest.refs, dataset.manifest_hash)
            else:
                table = stream_table(root, kind, folder, manifest.refs)
        except NotATableError as error:
            yield error.found
            continue
        yield check_unit_table(table, manifest.clips)


def show(found: Findings) -> None:
    """One line a table, and one a kind of fault."""
    kinds = "1 kind of fault" if len(found.faults) == 1 else f"{len(found.faults)} kinds of fault"
    files = "1 file" if found.files == 1 else f"{found.files:,} files"
    size = f"{found.size / 1e6:,.1f} MB"
    say(
        f"{found.table}: {found.rows:,} rows, {files}, {size}: {kinds if found.faults else 'sound'}"
    )
    for fault in found.faults:
        say(f"  {fault.line()}")
    for note in found.notes:
        say(f"  note: {note}")


def clear(left: Sequence[Leftover], config: Config) -> None:
    """Say what was left behind; with --gc remove what is old enough."""
    for what in dict.fromkeys(each.what for each in left):
        all_of = [each for each in left if each.what == what]
        if not config.gc:
            size = sum(each.size for each in all_of) / 1e6
            say(
                f"note: {len(all_of)} {what}, {size:,.1f} MB; once no job is at them, type: affuse verify "
                f"--root {shlex.quote(config.root)} --gc"
            )
            continue
        gone = [each for each in all_of if goes(each, config)]
        size, kept = sum(each.size for each in gone), len(all_of) - len(gone)
        young = f"; {kept} younger than {config.older_than_s:g} s stay" if kept else ""
        say(f"{what}: {len(gone)} {removed(config)}, {size:,} bytes{young}")


def goes(leftover: Leftover, config: Config) -> bool:
    """Remove what is old enough, or say that it would be; whether it is."""
    if leftover.age_s is None or leftover.age_s < config.older_than_s:
        return False
    if not config.dry_run and not remove(leftover, config.older_than_s):
        return False
    say(f"{removed(config)}: {leftover.uri}, {leftover.size:,} bytes")
    return True


def removed(config: Config) -> str:
    """What is said of what goes."""
    return "would be removed" if config.dry_run else "removed"


def say(text: str) -> None:
    """Print a line; names are shown letter by letter, URIs without their secrets."""
    print(console.readable(redacted(text)))


def write_json(config: Config, found: Sequence[Findings], left: Sequence[Leftover]) -> None:
    """Write what was found."""
    out = storage.absolute(str(config.json))
    facts = {
        "root": storage.absolute(config.root),
        "sound": not any(each.faults for each in found),
        "tables": [each.to_json() for each in found],
        "leftovers": [vars(each) for each in left],
        "kinds": KINDS,
    }
    publish_outputs(config, {out: storage.json_bytes(facts)}, record_of(out))
    say(f"wrote {out}")


def conclude(root: str, found: Sequence[Findings], seconds: float) -> None:
    """Say whether the root is sound.

    Raises:
        UnsoundError: it is not.
    """
    rows, size = sum(each.rows for each in found), sum(each.size for each in found)
    read = f"{len(found)} tables, {rows:,} rows, {size / 1e6:,.1f} MB read in {seconds:.1f} s"
    faulty = [each for each in found if each.faults]
    if faulty:
        kinds = sorted({fault.kind for each in faulty for fault in each.faults})
        raise UnsoundError(
            f"{root}: faults ({', '.join(kinds)}) in {len(faulty)} of {read}; each is listed above, with "
            "what to type"
        )
    print(f"sound: {read}")
