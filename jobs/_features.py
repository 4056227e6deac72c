"""Tables that are published a unit at a time: features and transcripts.

A unit's rows appear as `<table>/<unit>.parquet`, and that file is the commit. When a job is done it
gathers these files to larger ones (`jobs._compacting`). Either way the footer lists the units inside with
their number of rows, and a reader goes by the footer alone: a unit that is no longer in the manifest is
passed over, one that stands in two files counts once, by the file of its own, which mends a gathered one.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster import storage
from cluster.errors import ConfigError, NotPreparedError
from jobs._manifest import UnitRef, read_dataset, read_manifest, units
from jobs.catalog.missing_rows import rows_missing

PART = "part-"
UNITS_KEY = b"affuse.units"


@dataclass(frozen=True, kw_only=True)
class UnitRows:
    """Where the rows of one unit lie."""

    uri: str
    start: int
    count: int


def features_uri(root: str, folder: str = "") -> str:
    """Folder of one encoder's features, or of all."""
    return storage.join(root, "features", folder)


def transcripts_uri(root: str, folder: str = "") -> str:
    """Folder of one transcriber's transcripts, or of all."""
    return storage.join(root, "transcripts", folder)


def publish_unit(table_uri: str, unit: str, table: pa.Table) -> None:
    """Publish the rows of one unit; an equal twin is overwritten."""
    stamped = with_units(table, [(unit, table.num_rows)])
    storage.publish_table(stamped, storage.join(table_uri, f"{unit}.parquet"))


def published_units(table_uri: str) -> set[str]:
    """Units that need no more work: one listing, and the footers of compacted files."""
    done: set[str] = set()
    for name in storage.names(table_uri, ".parquet"):
        if name.startswith(PART):
            uri = storage.join(table_uri, name)
            done |= {unit for unit, _ in _units_inside(storage.open_parquet(uri).schema_arrow)}
        else:
            done.add(name.removesuffix(".parquet"))
    return done


def failed_rows(table_uri: str, current: Collection[str]) -> dict[str, set[int]]:
    """Current units that hold failed rows -> the clips of those rows."""
    tables: dict[str, pa.Table] = {}
    found: dict[str, set[int]] = {}
    for unit, at in locate(table_uri).items():
        if unit not in current:
            continue
        if at.uri not in tables:
            tables[at.uri] = storage.read_table(at.uri, ["clip_id", "status"])
        rows = tables[at.uri].slice(at.start, at.count)
        failed = rows.filter(pc.equal(rows["status"], "failed"))["clip_id"].to_pylist()
        if failed:
            found[unit] = set(failed)
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


class UnitIndex:
    """Finds and reads the rows of single units of one table."""

    def __init__(self, table_uri: str) -> None:
        self._where = locate(table_uri)

    def __contains__(self, unit: str) -> bool:
        return unit in self._where

    def read(self, unit: str) -> pa.Table:
        """The rows of one unit; only the row groups that hold them are read."""
        at = self._where[unit]
        parquet = storage.open_parquet(at.uri)
        groups, skipped, begin = [], 0, 0
        for group in range(parquet.num_row_groups):
            end = begin + parquet.metadata.row_group(group).num_rows
            if end <= at.start:
                skipped = end
            elif begin < at.start + at.count:
                groups.append(group)
            begin = end
        return parquet.read_row_groups(groups).slice(at.start - skipped, at.count)


def locate(table_uri: str) -> dict[str, UnitRows]:
    """Unit -> where its rows lie, read off the footers; each unit once."""
    return first_of(by_file(table_uri))


def by_file(table_uri: str) -> dict[str, dict[str, UnitRows]]:
    """Names of the files that list their units -> where the rows of each lie; unit files come first."""
    found = {n: _rows_of(storage.join(table_uri, n)) for n in _newest_first(table_uri)}
    return {name: inside for name, inside in found.items() if inside}


def first_of(files: Mapping[str, Mapping[str, UnitRows]]) -> dict[str, UnitRows]:
    """Unit -> its rows in the first file that has it."""
    found: dict[str, UnitRows] = {}
    for inside in files.values():
        for unit, at in inside.items():
            found.setdefault(unit, at)
    return found


def _rows_of(uri: str) -> dict[str, UnitRows]:
    """Unit -> where its rows lie in one file, read off its footer."""
    found = {}
    start = 0
    for unit, count in _units_inside(storage.open_parquet(uri).schema_arrow):
        found[unit] = UnitRows(uri=uri, start=start, count=count)
        start += count
    return found


def with_units(table: pa.Table, inside: Sequence[tuple[str, int]]) -> pa.Table:
    """The table with its units listed in its footer."""
    metadata = dict(table.schema.metadata or {})
    metadata[UNITS_KEY] = json.dumps(inside).encode()
    return table.replace_schema_metadata(metadata)


def feature_folders(root: str) -> dict[str, dict[str, Any]]:
    """Every feature table under a root: folder name -> its `descriptor.json`."""
    folders = {}
    for folder in storage.names(features_uri(root)):
        uri = storage.join(features_uri(root, folder), "descriptor.json")
        if storage.exists(uri):
            folders[folder] = dict(storage.read_json(uri))
    return folders


def resolve_features(root: str, name: str) -> str:
    """The folder that a name means: `minilm`, `minilm:pool=mean`, an imported table, or the folder itself.

    Raises:
        NotPreparedError: nothing of that name has been encoded or imported.
        ConfigError: several tables fit; the message lists them.
    """
    folders = feature_folders(root)
    if name in folders:
        return name
    plain, _, _ = name.partition(":")
    fitting = [
        folder
        for folder, facts in folders.items()
        if facts.get("name") == plain and not {"view", "superseded"} & facts.keys()
    ]
    if (options := _options_of(name)) is not None:
        fitting = [f for f in fitting if dict(folders[f].get("options", {})) == options]
    if not fitting:
        there = ", ".join(sorted(folders)) or "none"
        raise NotPreparedError(
            f"no features {name!r} under {root} (there: {there}); "
            f"type: affuse encode --root {root} --encoders {name}"
        )
    if len(fitting) > 1:
        current = read_dataset(root).manifest_hash
        fitting = [f for f in fitting if folders[f].get("manifest") == current] or fitting
    if len(fitting) > 1:
        raise ConfigError(f"{name!r} means several tables; type one of: {', '.join(fitting)}")
    return fitting[0]


def read_features(
    root: str,
    folder: str,
    clip_ids: Collection[int] | None = None,
    columns: list[str] | None = None,
) -> pa.Table:
    """Rows of one feature table for the clips of the current manifest; each has exactly one.

    Args:
        root: the dataset.
        folder: as `resolve_features` gives it.
        clip_ids: only these clips; by default all.
        columns: only these columns; by default all.

    Raises:
        NotPreparedError: clips of the manifest have no row, whether they were asked for or not: half a
            table would be read as clips without that modality.
    """
    refs = units(root)
    check_complete(root, folder, refs)
    current = {ref.unit for ref in refs}
    wanted = None if clip_ids is None else pa.array(sorted(clip_ids), pa.int64())
    kept = []
    for table in _current_rows(features_uri(root, folder), current, columns):
        if wanted is None:
            kept.append(table)
        else:
            kept.append(table.filter(pc.is_in(table["clip_id"], value_set=wanted)))
    return pa.concat_tables(kept)


def check_complete(root: str, folder: str, refs: Sequence[UnitRef]) -> None:
    """Refuse a feature table that has no row for some clips of the manifest.

    Told from the footers, a unit at a time; a file that lists no units is read for its clip ids.

    Raises:
        NotPreparedError: with the number of clips and the command to type.
    """
    uri = features_uri(root, folder)
    files = {name: _rows_of(storage.join(uri, name)) for name in _newest_first(uri)}
    where = first_of(files)
    lacking = [
        ref for ref in refs if ref.unit not in where or where[ref.unit].count < ref.num_clips
    ]
    missing = sum(ref.num_clips for ref in lacking)
    loose = [name for name, inside in files.items() if not inside]
    if missing and loose:
        unread = {ref.unit for ref in lacking}
        rows = read_manifest(root, ["clip_id", "unit"])
        rows = rows.filter(pc.is_in(rows["unit"], value_set=pa.array(sorted(unread), pa.string())))
        found = [
            storage.read_table(storage.join(uri, name), ["clip_id"])["clip_id"] for name in loose
        ]
        there = pa.concat_arrays([chunk for column in found for chunk in column.chunks])
        missing = pc.sum(pc.invert(pc.is_in(rows["clip_id"], value_set=there))).as_py() or 0
    if missing:
        raise rows_missing(root, folder, missing, sum(ref.num_clips for ref in refs))


class FeatureReader:
    """Reads one feature table for the clips of the current manifest, a few MB at a time.

    Args:
        root: the dataset.
        folder: as `resolve_features` gives it.

    Raises:
        NotPreparedError: clips of the manifest have no row.
    """

    def __init__(self, root: str, folder: str) -> None:
        refs = units(root)
        check_complete(root, folder, refs)
        self.folder = folder
        self._files = list(_current_rows_of(features_uri(root, folder), {r.unit for r in refs}))

    @property
    def schema(self) -> pa.Schema:
        """The columns of the table."""
        return storage.open_parquet(self._files[0][0]).schema_arrow

    def pieces(
        self, clip_ids: np.ndarray, columns: Sequence[str], *, lean: bool = False
    ) -> Iterator[pa.Table]:
        """Rows of some clips, in the order of the files.

        Args:
            clip_ids: only these clips [clip].
            columns: only these columns, clip_id among them.
            lean: through a small buffer: slower, and little memory for large files.
        """
        wanted = pa.array(np.sort(clip_ids), pa.int64())
        for uri, ranges in self._files:
            for piece in storage.table_pieces(uri, ranges, columns, lean=lean):
                yield piece.filter(pc.is_in(piece["clip_id"], value_set=wanted))


def _current_rows_of(
    table_uri: str, current: Collection[str]
) -> Iterator[tuple[str, list[tuple[int, int]] | None]]:
    """Files -> first and number of the rows of current units, each unit once; None: the file whole."""
    seen: set[str] = set()
    for name in _newest_first(table_uri):
        uri = storage.join(table_uri, name)
        schema = storage.open_parquet(uri).schema_arrow
        if UNITS_KEY not in (schema.metadata or {}):
            yield uri, None
            continue
        ranges, start = [], 0
        for unit, count in _units_inside(schema):
            if unit in current and unit not in seen:
                seen.add(unit)
                ranges.append((start, count))
            start += count
        if ranges:
            yield uri, ranges


def read_transcripts(root: str, transcriber: str) -> pa.Table:
    """What a transcriber heard in the clips of the current manifest.

    Raises:
        NotPreparedError: it has not run.
    """
    folders = storage.names(transcripts_uri(root))
    fitting = [folder for folder in folders if folder.rpartition("-")[0] == transcriber]
    current = {ref.unit for ref in units(root)}
    kept = [
        table
        for folder in fitting[:1]
        for table in _current_rows(transcripts_uri(root, folder), current, None)
    ]
    if not kept:
        raise NotPreparedError(
            f"no transcripts of {transcriber} under {root}; "
            f"type: affuse encode --root {root} --transcriber {transcriber}"
        )
    return pa.concat_tables(kept)


def _current_rows(
    table_uri: str, current: Collection[str], columns: list[str] | None
) -> Iterator[pa.Table]:
    """Rows of current units, each unit once; a file without units (an imported one) whole."""
    seen: set[str] = set()
    for name in _newest_first(table_uri):
        uri = storage.join(table_uri, name)
        schema = storage.open_parquet(uri).schema_arrow
        if UNITS_KEY not in (schema.metadata or {}):
            yield storage.read_table(uri, columns)
            continue
        inside = _units_inside(schema)
        if not any(unit in current and unit not in seen for unit, _ in inside):
            continue
        table = storage.read_table(uri, columns).replace_schema_metadata(None)
        start = 0
        for unit, count in inside:
            if unit in current and unit not in seen:
                seen.add(unit)
                yield table.slice(start, count)
            start += count


def _newest_first(table_uri: str) -> list[str]:
    """Unit files before gathered ones, whose rows of the same unit they mend."""
    return sorted(storage.names(table_uri, ".parquet"), key=lambda name: name.startswith(PART))


def _options_of(name: str) -> dict[str, Any] | None:
    """The options that a text names, defaults filled in; None for a name that is no encoder's."""
    from encoders import ENCODERS
    from encoders.spec import describe

    if name.partition(":")[0] not in ENCODERS:
        return None
    return dict(describe(name).options)


def _units_inside(schema: pa.Schema) -> list[tuple[str, int]]:
    text = (schema.metadata or {}).get(UNITS_KEY, b"[]")
    return [(str(unit), int(count)) for unit, count in json.loads(text)]
