"""Tables that are published a unit at a time: features, transcripts and scores.

A unit's rows appear as `<table>/<unit>-<key>.parquet`, and that file is the commit. `unit` says which clips
it holds, `key` what their rows were made of, so that (unit, key), a *version*, is done or not done. When a
job is done it gathers these files to larger ones (`jobs.catalog.compaction`). Either way the footer lists the
versions inside with their numbers of rows and of failed rows, and a reader goes by the footers alone.

A version may stand in several files: twins of two jobs, a gathered file whose sources are not yet removed,
rows that were mended. Whoever reads takes the one with the fewest failed rows, of equals that of a file of
its own, then the first by name: all readers the same one. No name but a unit's own is ever used twice.
"""

import itertools
import json
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster import storage
from cluster.errors import AbsentError

PART = "part-"
UNITS_KEY = b"affuse.units"
ATTEMPTS = 10
"""How often a reading is begun anew when another job gathers the files under it."""

FOOTERS_AT_ONCE = 16

Read = TypeVar("Read")


class Version(NamedTuple):
    """The rows of one unit as they follow from what was read of its clips."""

    unit: str
    key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitRows:
    """Where the rows of one version lie."""

    uri: str
    start: int
    count: int
    failed: int = 0

    @property
    def name(self) -> str:
        """The file's name."""
        return self.uri.rsplit("/", 1)[-1]

    @property
    def rank(self) -> tuple[int, bool, str]:
        """Rank among copies of a version; the lowest is read."""
        return self.failed, self.name.startswith(PART), self.name


Files = Mapping[str, Mapping[Version, UnitRows]]
"""Name of a file -> what its footer lists; nothing of a file that is none of ours."""


def publish_unit(
    table_uri: str, version: Version, table: pa.Table, *, mended: bool = False
) -> None:
    """Publish the rows of one unit.

    Args:
        table_uri: folder of the table.
        version: the unit, and the key of what its rows were made of.
        table: one row a clip.
        mended: the rows stand beside older ones under a name of their own, so that no other job that
            gathers the older file can take them for it. Otherwise an equal twin is overwritten, but not
            one with fewer failed rows.
    """
    failed = failures(table)
    name = "-".join([*version, uuid.uuid4().hex[:12]] if mended else version)
    uri = storage.join(table_uri, f"{name}.parquet")
    if failed and not mended and storage.exists(uri) and _fewer_failed(uri, version, failed):
        return
    storage.publish_table(with_versions(table, [(version, table.num_rows, failed)]), uri)


def publish_units(table_uri: str, inside: Sequence[tuple[Version, int]], rows: pa.Table) -> None:
    """Publish the rows of several units as one file under a new name; those of a single one as its own.

    Args:
        table_uri: folder of the table.
        inside: versions in the order of their rows, and how many rows each has.
        rows: of all of them.
    """
    starts = [0, *itertools.accumulate(count for _, count in inside)]
    assert starts[-1] == rows.num_rows, f"{rows.num_rows} rows of units of {starts[-1]}"
    if len(inside) == 1:
        publish_unit(table_uri, inside[0][0], rows)
        return
    ends = np.concatenate([[0], np.cumsum(_failed(rows))])[starts]
    listed = [
        (version, count, failed)
        for (version, count), failed in zip(inside, np.diff(ends).tolist(), strict=True)
    ]
    storage.publish_table(with_versions(rows, listed), storage.join(table_uri, new_part()))


def new_part() -> str:
    """A name for a file of several units that nobody has used before."""
    return f"{PART}{uuid.uuid4().hex[:16]}.parquet"


def _fewer_failed(uri: str, version: Version, failed: int) -> bool:
    """Whether the rows of a twin have fewer failures."""
    try:
        there = units_in(uri)
    except AbsentError:
        return False
    return version in there and there[version].failed < failed


def published(table_uri: str) -> set[Version]:
    """Versions that need no work: one listing, and the footers of gathered files."""

    def listed() -> set[Version]:
        done: set[Version] = set()
        for name in storage.names(table_uri, ".parquet"):
            if name.startswith(PART):
                done |= units_in(storage.join(table_uri, name)).keys()
            else:
                unit, _, rest = name.removesuffix(".parquet").partition("-")
                done.add(Version(unit, rest.partition("-")[0]))
        return done

    return unmoved(listed)


def unmoved(read: Callable[[], Read]) -> Read:
    """`read`, begun anew where a file was gathered under it into another.

    Raises:
        AbsentError: files vanish each time.
    """
    for attempt in range(ATTEMPTS):
        try:
            return read()
        except (AbsentError, FileNotFoundError):
            time.sleep(0.02 * attempt)
    return read()


class UnitIndex:
    """Finds and reads the rows of single units of one table."""

    def __init__(self, table_uri: str) -> None:
        self.uri = table_uri
        self._load()

    def _load(self) -> None:
        self.files: Files = unmoved(lambda: by_file(self.uri))
        self._where = best_of(self.files)

    def __contains__(self, version: Version) -> bool:
        return version in self._where

    def at(self, version: Version) -> UnitRows:
        """Where the rows of a version lie."""
        return self._where[version]

    def read(self, version: Version, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of one unit; only the row groups that hold them are read."""

        def read() -> pa.Table:
            try:
                return rows_at(self._where[version], columns)
            except (AbsentError, FileNotFoundError):
                self._load()
                raise

        return unmoved(read)


def rows_at(at: UnitRows, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of one version, of the row groups that hold them alone; by default all columns."""
    parquet = storage.open_parquet(at.uri)
    groups, skipped, begin = [], 0, 0
    for group in range(parquet.num_row_groups):
        end = begin + parquet.metadata.row_group(group).num_rows
        if end <= at.start:
            skipped = end
        elif begin < at.start + at.count:
            groups.append(group)
        begin = end
    names = None if columns is None else list(columns)
    return parquet.read_row_groups(groups, columns=names).slice(at.start - skipped, at.count)


def locate(table_uri: str) -> dict[Version, UnitRows]:
    """Version -> where its rows lie, read off the footers; each once."""
    return best_of(unmoved(lambda: by_file(table_uri)))


def by_file(table_uri: str, names: Collection[str] | None = None) -> Files:
    """Versions that each file of a table lists in its footer; none for files without units.

    Args:
        table_uri: folder of the table.
        names: of its files, where they have been listed already.

    Raises:
        AbsentError: a file was listed, and is gone.
    """
    names = storage.names(table_uri, ".parquet") if names is None else names
    uris = [storage.join(table_uri, name) for name in names]
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        return dict(zip(names, pool.map(units_in, uris), strict=True))


def best_of(files: Files) -> dict[Version, UnitRows]:
    """Version -> the rows to read."""
    found: dict[Version, UnitRows] = {}
    for inside in files.values():
        for version, at in inside.items():
            if version not in found or at.rank < found[version].rank:
                found[version] = at
    return found


def ranges_of(
    found: Mapping[Version, UnitRows], wanted: Collection[Version]
) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """URIs of files -> first and number of the rows of wanted versions in them, ascending, joined."""
    files: dict[str, list[tuple[int, int]]] = {}
    for version in wanted:
        at = found[version]
        files.setdefault(at.uri, []).append((at.start, at.count))
    for uri, ranges in sorted(files.items()):
        yield uri, _joined(sorted(ranges))


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges of rows, those that follow one another as one: a gathered file holds thousands of units."""
    found: list[tuple[int, int]] = []
    for start, count in ranges:
        if found and sum(found[-1]) == start:
            found[-1] = (found[-1][0], found[-1][1] + count)
        else:
            found.append((start, count))
    return found


def failed_rows(table_uri: str, current: Collection[Version]) -> dict[str, set[int]]:
    """Units of current versions that hold failed rows -> the clips of those rows."""
    index = UnitIndex(table_uri)
    found: dict[str, set[int]] = {}
    for version in current:
        if version in index and index.at(version).failed:
            rows = index.read(version, ["clip_id", "status"])
            failed = rows.filter(pc.equal(rows["status"], "failed"))["clip_id"].to_pylist()
            found[version.unit] = set(failed)
    return found


def mended(rows: pa.Table, again: pa.Table) -> pa.Table:
    """The rows of a unit, a failed one replaced where it was done again; the others bit by bit."""
    place = {clip_id: number for number, clip_id in enumerate(again["clip_id"].to_pylist())}
    states = zip(rows["clip_id"].to_pylist(), rows["status"].to_pylist(), strict=True)
    pieces = [
        again.slice(place[clip_id], 1)
        if status == "failed" and clip_id in place
        else rows.slice(number, 1)
        for number, (clip_id, status) in enumerate(states)
    ]
    plain = [piece.replace_schema_metadata(None) for piece in pieces]
    return pa.concat_tables(plain).replace_schema_metadata(again.schema.metadata)


def with_versions(table: pa.Table, inside: Sequence[tuple[Version, int, int]]) -> pa.Table:
    """The table with its versions, and their numbers of rows and of failed rows, listed in its footer."""
    metadata = dict(table.schema.metadata or {})
    listed = [[*version, count, failed] for version, count, failed in inside]
    metadata[UNITS_KEY] = json.dumps(listed).encode()
    return table.replace_schema_metadata(metadata)


def failures(rows: pa.Table) -> int:
    """How many rows have failed."""
    return int(_failed(rows).sum())


def _failed(rows: pa.Table) -> np.ndarray:
    """Whether each row has failed, bool [row]."""
    if "status" not in rows.column_names:
        return np.zeros(rows.num_rows, bool)
    failed = pc.equal(rows["status"], "failed").fill_null(fill_value=False)
    return np.asarray(failed.to_numpy())


def units_in(uri: str) -> dict[Version, UnitRows]:
    """Version -> where its rows lie in one file. Rows of an older layout have no key, and suit nothing.

    Raises:
        AbsentError: there is no such file.
    """
    metadata = storage.open_parquet(uri).schema_arrow.metadata or {}
    found: dict[Version, UnitRows] = {}
    start = 0
    for entry in json.loads(metadata.get(UNITS_KEY, b"[]")):
        unit, key, count, failed = entry if len(entry) == 4 else (entry[0], "", entry[1], 0)
        at = UnitRows(uri=uri, start=start, count=int(count), failed=int(failed))
        found[Version(str(unit), str(key))] = at
        start += int(count)
    return found
