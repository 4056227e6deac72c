"""Unit files gathered to large ones that hold the present manifest's rows and no others.

Clips that were moved, changed or left out make versions that the manifest no longer asks for. Their rows
would stand in a table beside the new ones, and who reads its files without us would see those clips twice.
They are not deleted: a root may be prepared again as it was (a narrower manifest, then the wide one), other
manifests' runs name their hash, and features cost GPU hours. So they are moved to `<root>/former/`, which no
reader of a table opens, and come back from there when they are wanted again.

Several jobs may do this on one table at once, each killed at any moment, without a lock. Three rules hold:
a file is removed only by who listed it, and after its rows were published in a file whose name nobody can
have listed before, or stand in a listed one that every job would read in its place; a unit's own file is
removed only while it is still the one that was listed; `former/` gives its rows up only to a table. So the
newest file with a version is removed by nobody.
"""

import functools
import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster import stamps, storage
from cluster.errors import AbsentError
from cluster.unit_tables import (
    ATTEMPTS,
    PART,
    Files,
    UnitRows,
    Version,
    best_of,
    by_file,
    failures,
    locate,
    mended,
    new_part,
    rows_at,
    unmoved,
    with_versions,
)
from jobs.catalog import layout

TARGET_MB = 256.0
ROWS_A_GROUP = 1024

MOST_ROUNDS = 2
"""A second look finds what twins wrote at the same time; what comes later is gathered by the next job."""


Writer = Callable[[Iterable["LargeFile"]], list[str]]
"""Writes large files, each wherever and whenever it likes; returns their names in order."""


def in_turn(files: Iterable["LargeFile"]) -> list[str]:
    """Write large files here, one after another."""
    return [file.write() for file in files]


def recall(table_uri: str, current: Collection[Version]) -> int:
    """Take back what is kept of versions that are wanted again.

    Returns:
        How many versions the table did not have, or only with failed rows.
    """
    return unmoved(lambda: _recalled(table_uri, layout.former_uri(table_uri), current))


def _recalled(table_uri: str, former: str, current: Collection[Version]) -> int:
    old = _listed(former)
    back = [version for version in old.best if version in current]
    if not back:
        return 0
    here = locate(table_uri)
    wanted = [version for version in back if version not in here or here[version].failed]
    in_turn(_large_files(table_uri, wanted, old, TARGET_MB * 1e6))
    touched = {name for name, inside in old.files.items() if not inside.keys().isdisjoint(back)}
    _rewrite(old, touched, without=current)
    return len(wanted)


def compact(
    table_uri: str,
    wanted: Callable[[], Sequence[Version]],
    *,
    former: str | None = None,
    target_mb: float = TARGET_MB,
    least_mb: float = 128.0,
    write: Writer = in_turn,
) -> list[str]:
    """Gather unit files (and files smaller than `least_mb`) into files of about `target_mb`.

    Afterwards the folder holds every published version that is wanted once, and nothing else. Killed at any
    moment it leaves every version readable. Where other jobs gather the same table it is begun anew, a few
    times, and left to them at last.

    Args:
        table_uri: folder of the table.
        wanted: gives the versions of the present manifest, in its order; asked again before anything goes.
        former: folder for the rows of all other versions; None: they go.
        target_mb: size of a large file [MB].
        least_mb: files below this size are gathered again [MB].
        write: writes the large files.

    Returns:
        Names of the files written.
    """
    written: list[str] = []
    rounds = 0
    for _ in range(ATTEMPTS):
        try:
            again = _compacted(table_uri, wanted, former, (target_mb * 1e6, least_mb * 1e6), write)
        except (AbsentError, FileNotFoundError, _ManifestChangedError):
            continue
        written += again
        rounds += 1
        if not again or rounds == MOST_ROUNDS:
            break
    return written


class _ManifestChangedError(Exception):
    """`prepare` ran while a table was read."""


def _compacted(
    table_uri: str,
    wanted: Callable[[], Sequence[Version]],
    former: str | None,
    bounds: tuple[float, float],
    write: Writer,
) -> list[str]:
    target, least = bounds
    order = wanted()
    rank = {version: index for index, version in enumerate(order)}
    there = _listed(table_uri)

    def clean(name: str) -> bool:
        """Whether it is a gathered file whose versions are all current and stand in no other file's stead."""
        return name.startswith(PART) and all(
            version in rank and there.best[version].name == name and not there.mendable(version)
            for version in there.files[name]
        )

    if all(map(clean, there.files)):
        return []
    settled = {name for name in there.files if clean(name) and there.stamps[name].size >= least}
    loose = [version for version, at in there.best.items() if at.name not in settled]
    gone = sorted(version for version in loose if version not in rank)
    if gone and wanted() != order:
        raise _ManifestChangedError
    if former is not None and gone:
        write(_large_files(former, gone, there, target))
        _drop_doubles(former)
    kept = sorted((version for version in loose if version in rank), key=rank.__getitem__)
    written = write(_large_files(table_uri, kept, there, target))
    if gone and wanted() != order:
        raise _ManifestChangedError
    there.remove(there.files.keys() - settled)
    return written


def _drop_doubles(former: str) -> None:
    """Leave one copy of each version in a folder, e.g. after a gathering that was killed half way."""
    there = _listed(former)
    doubled = {
        name
        for name, inside in there.files.items()
        if any(there.best[version].name != name for version in inside)
    }
    _rewrite(there, doubled)


def _rewrite(
    there: "_Listing", names: Collection[str], without: Collection[Version] = frozenset()
) -> None:
    """Put files in order: what is read from them goes into new ones, but for some versions."""
    rest = [v for v, at in there.best.items() if at.name in names and v not in without]
    in_turn(_large_files(there.uri, rest, there, TARGET_MB * 1e6))
    there.remove(names)


@dataclass(frozen=True, kw_only=True)
class _Listing:
    """The unit and gathered files of a folder as they were at one moment; others are left alone."""

    uri: str
    files: Files
    best: Mapping[Version, UnitRows]
    stamps: Mapping[str, stamps.FileStamp]

    @functools.cached_property
    def copies(self) -> Mapping[Version, list[UnitRows]]:
        """All rows of a version, those to read first."""
        found: dict[Version, list[UnitRows]] = {}
        for inside in self.files.values():
            for version, at in inside.items():
                found.setdefault(version, []).append(at)
        return {version: sorted(rows, key=lambda at: at.rank) for version, rows in found.items()}

    def mendable(self, version: Version) -> bool:
        """Whether rows that have failed in the best copy may be whole in another."""
        return self.best[version].failed > 0 and len(self.copies[version]) > 1

    def remove(self, names: Collection[str]) -> None:
        """Delete files that are still those that were listed; gathered ones first, which may be older."""
        for name in sorted(names, key=lambda name: (not name.startswith(PART), name)):
            uri = storage.join(self.uri, name)
            if stamps.stamp_of(uri) == self.stamps[name]:
                storage.remove(uri)


def _listed(uri: str) -> _Listing:
    there = stamps.of_folder(uri, ".parquet")
    files = {name: inside for name, inside in by_file(uri, there).items() if inside}
    return _Listing(uri=uri, files=files, best=best_of(files), stamps=there)


def _groups(in_order: Sequence[Version], there: _Listing, target: float) -> Iterator[list[Version]]:
    """Cut the versions into files of about `target` bytes; a shared file's bytes count by rows."""
    group: list[Version] = []
    total = 0.0
    for version in in_order:
        at = there.best[version]
        rows = sum(other.count for other in there.files[at.name].values())
        share = there.stamps[at.name].size * at.count / max(1, rows)
        if group and total + share > target:
            yield group
            group, total = [], 0.0
        group.append(version)
        total += share
    if group:
        yield group


@dataclass(frozen=True)
class LargeFile:
    """A large file to be written: all that is needed for it, so that any process can."""

    folder: str
    rows: Mapping[Version, UnitRows]
    """Versions in their order -> the rows to read."""

    copies: Mapping[Version, Sequence[UnitRows]]
    """Versions of which a copy may mend rows that have failed -> all copies, those to read first."""

    def write(self) -> str:
        """Publish the file under a name that nobody has used before, and return the name."""
        return _write_large(self)


def _large_files(
    folder: str, in_order: Sequence[Version], there: _Listing, target: float
) -> Iterator[LargeFile]:
    for group in _groups(in_order, there, target):
        copies = {v: there.copies[v] for v in group if there.mendable(v)}
        yield LargeFile(folder, {v: there.best[v] for v in group}, copies)


def _write_large(file: LargeFile) -> str:
    """One file of several versions, finished in memory and published in one step under a new name."""
    name = new_part()
    merged = {version: _merged(copies) for version, copies in file.copies.items()}
    inside = [
        (v, at.count, failures(merged[v]) if v in merged else at.failed)
        for v, at in file.rows.items()
    ]
    first = storage.open_parquet(next(iter(file.rows.values())).uri).schema_arrow
    schema = with_versions(first.empty_table(), inside).schema
    buffer = io.BytesIO()
    cached: tuple[str, pa.Table] | None = None
    pending: list[pa.Table] = []
    with pq.ParquetWriter(buffer, schema, **storage.parquet_options(schema)) as writer:
        for version, at in file.rows.items():
            if cached is None or cached[0] != at.uri:
                cached = (at.uri, storage.read_table(at.uri))
            rows = merged.get(version, cached[1].slice(at.start, at.count))
            pending.append(rows.replace_schema_metadata(schema.metadata))
            if sum(table.num_rows for table in pending) >= ROWS_A_GROUP:
                writer.write_table(pa.concat_tables(pending))
                pending = []
        if pending:
            writer.write_table(pa.concat_tables(pending))
    storage.publish_bytes(buffer.getvalue(), storage.join(file.folder, name))
    return name


def _merged(copies: Sequence[UnitRows]) -> pa.Table:
    """The rows of a version; one that has failed is taken from a copy in which it has not."""
    rows = rows_at(copies[0])
    for other in map(rows_at, copies[1:]):
        rows = mended(rows, other.filter(pc.not_equal(other["status"], "failed")))
    return rows
