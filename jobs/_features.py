"""Tables that are published a unit at a time: features and transcripts.

A unit's rows appear as `<table>/<unit>.parquet`, and that file is the commit. When a job is done it
compacts these files to larger ones. Either way the footer lists the units inside with their number of
rows, and a reader goes by the footer alone: a unit that is no longer in the manifest is passed over, a
unit that stands in two files (a compaction was killed half-way) counts once.
"""

import hashlib
import io
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster import storage
from cluster.errors import ConfigError, NotPreparedError
from jobs._manifest import read_dataset, units

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
    stamped = _with_units(table, [(unit, table.num_rows)])
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


def forget_failed(table_uri: str, current: Collection[str]) -> set[str]:
    """Take out the current units that hold a failed row, so that they count as not published.

    Killed at any moment it leaves every other unit readable, as `compact` does.

    Returns:
        These units.
    """
    files = [storage.join(table_uri, name) for name in storage.names(table_uri, ".parquet")]
    places = {uri: _rows_of(uri) for uri in files}
    forgotten: set[str] = set()
    for uri, inside in places.items():
        failed = pc.equal(storage.read_table(uri, ["status"])["status"], "failed")
        forgotten |= {
            unit
            for unit, at in inside.items()
            if unit in current and pc.any(failed.slice(at.start, at.count)).as_py()
        }
    for uri, inside in places.items():
        kept = {unit: at for unit, at in inside.items() if unit not in forgotten}
        if len(kept) < len(inside):
            if kept:
                _write_part(table_uri, list(kept), kept)
            storage.remove(uri)
    return forgotten


class UnitIndex:
    """Finds and reads the rows of single units of one table."""

    def __init__(self, table_uri: str) -> None:
        self._where = locate(table_uri)

    def __contains__(self, unit: str) -> bool:
        return unit in self._where

    def read(self, unit: str) -> pa.Table:
        """The rows of one unit."""
        at = self._where[unit]
        return storage.read_table(at.uri).slice(at.start, at.count)


def locate(table_uri: str) -> dict[str, UnitRows]:
    """Unit -> where its rows lie, read off the footers; each unit once."""
    found: dict[str, UnitRows] = {}
    for name in storage.names(table_uri, ".parquet"):
        for unit, at in _rows_of(storage.join(table_uri, name)).items():
            found.setdefault(unit, at)
    return found


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
        if facts.get("name") == plain and "view" not in facts
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
    """Rows of one feature table for the clips of the current manifest.

    Args:
        root: the dataset.
        folder: as `resolve_features` gives it.
        clip_ids: only these clips; by default all.
        columns: only these columns; by default all.

    Raises:
        NotPreparedError: the table has no rows for this manifest.
    """
    current = {ref.unit for ref in units(root)}
    wanted = None if clip_ids is None else pa.array(sorted(clip_ids), pa.int64())
    kept = []
    for table in _current_rows(features_uri(root, folder), current, columns):
        if wanted is None:
            kept.append(table)
        else:
            kept.append(table.filter(pc.is_in(table["clip_id"], value_set=wanted)))
    if not kept:
        raise NotPreparedError(
            f"{features_uri(root, folder)} has no rows for this manifest; "
            f"type: affuse encode --root {root} --encoders {folder.rpartition('-')[0]}"
        )
    return pa.concat_tables(kept)


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


def compact(
    table_uri: str, order: Sequence[str], *, target_mb: float = 256.0, least_mb: float = 128.0
) -> list[str]:
    """Gather unit files (and files smaller than `least_mb`) into files of about `target_mb`.

    Killed at any moment it leaves every unit readable: the large file appears first, then the small
    ones go.

    Args:
        table_uri: folder of the table.
        order: units in the order of the manifest; others follow.
        target_mb: size of a large file [MB].
        least_mb: files below this size are gathered again [MB].

    Returns:
        Names of the files written.
    """
    fs, _ = storage.filesystem(table_uri)
    sizes = {}
    for name in storage.names(table_uri, ".parquet"):
        path = storage.filesystem(storage.join(table_uri, name))[1]
        sizes[name] = int(fs.size(path))
    if all(name.startswith(PART) for name in sizes):
        return []
    large = {n for n, size in sizes.items() if n.startswith(PART) and size >= least_mb * 1e6}
    settled = _units_of(table_uri, large)
    loose = {
        unit: at
        for unit, at in locate(table_uri).items()
        if unit not in settled and at.uri.rsplit("/", 1)[-1] not in large
    }
    rank = {unit: index for index, unit in enumerate(order)}
    in_order = sorted(loose, key=lambda unit: (rank.get(unit, len(rank)), unit))
    written = [
        _write_part(table_uri, group, loose)
        for group in _groups(in_order, loose, sizes, target_mb * 1e6)
    ]
    for name in sizes:
        if name not in large and name not in written:
            storage.remove(storage.join(table_uri, name))
    return written


def _current_rows(
    table_uri: str, current: Collection[str], columns: list[str] | None
) -> Iterator[pa.Table]:
    """Rows of current units, each unit once; a file without units (an imported one) whole."""
    seen: set[str] = set()
    for name in storage.names(table_uri, ".parquet"):
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


def _rows_of(uri: str) -> dict[str, UnitRows]:
    """Unit -> where its rows lie in one file."""
    found = {}
    start = 0
    for unit, count in _units_inside(storage.open_parquet(uri).schema_arrow):
        found[unit] = UnitRows(uri=uri, start=start, count=count)
        start += count
    return found


def _units_of(table_uri: str, files: Collection[str]) -> set[str]:
    return {
        unit
        for name in files
        for unit, _ in _units_inside(
            storage.open_parquet(storage.join(table_uri, name)).schema_arrow
        )
    }


def _with_units(table: pa.Table, inside: Sequence[tuple[str, int]]) -> pa.Table:
    metadata = dict(table.schema.metadata or {})
    metadata[UNITS_KEY] = json.dumps(inside).encode()
    return table.replace_schema_metadata(metadata)


def _groups(
    in_order: Sequence[str],
    loose: Mapping[str, UnitRows],
    sizes: Mapping[str, int],
    target: float,
) -> Iterator[list[str]]:
    """Cut the units into files of about `target` bytes; a shared file's bytes count by rows."""
    rows: dict[str, int] = {}
    for at in loose.values():
        rows[at.uri] = max(rows.get(at.uri, 0), at.start + at.count)
    group: list[str] = []
    total = 0.0
    for unit in in_order:
        at = loose[unit]
        share = sizes[at.uri.rsplit("/", 1)[-1]] * at.count / max(1, rows[at.uri])
        if group and total + share > target:
            yield group
            group, total = [], 0.0
        group.append(unit)
        total += share
    if group:
        yield group


def _write_part(table_uri: str, group: Sequence[str], loose: Mapping[str, UnitRows]) -> str:
    """One file of several units, finished in memory and published in one step."""
    inside = [(unit, loose[unit].count) for unit in group]
    digest = hashlib.sha256(json.dumps(inside).encode()).hexdigest()[:16]
    name = f"{PART}{digest}.parquet"
    first = storage.open_parquet(loose[group[0]].uri).schema_arrow
    schema = _with_units(first.empty_table(), inside).schema
    buffer = io.BytesIO()
    cached: tuple[str, pa.Table] | None = None
    pending: list[pa.Table] = []
    with pq.ParquetWriter(buffer, schema, compression="zstd") as writer:
        for unit in group:
            at = loose[unit]
            if cached is None or cached[0] != at.uri:
                cached = (at.uri, storage.read_table(at.uri))
            rows = cached[1].slice(at.start, at.count).replace_schema_metadata(schema.metadata)
            pending.append(rows)
            if sum(table.num_rows for table in pending) >= 1024:
                writer.write_table(pa.concat_tables(pending))
                pending = []
        if pending:
            writer.write_table(pa.concat_tables(pending))
    storage.publish_bytes(buffer.getvalue(), storage.join(table_uri, name))
    return name
