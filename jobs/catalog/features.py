"""Feature and transcript tables under a root: the folder of a name, and the rows of the present manifest.

A table's `descriptor.json` says what its rows depend on; with the manifest's hashes of that, every unit has
one version that is current (`cluster.unit_tables`). Rows are read for the whole manifest or not at all: a
clip without a row would look like a clip without that modality.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster import storage
from cluster.errors import AbsentError, ConfigError
from cluster.unit_tables import (
    ATTEMPTS,
    UnitRows,
    Version,
    best_of,
    by_file,
    ranges_of,
    unmoved,
)
from jobs.catalog import layout
from jobs.catalog.manifest import UnitRef, read_dataset, read_manifest, units
from jobs.catalog.missing_rows import rows_missing, table_missing

LISTINGS = 2
"""A listing that overlaps a gathering may miss a file that is there; the next one does not."""


def feature_folders(root: str, kind: layout.TableKind = "features") -> dict[str, dict[str, Any]]:
    """Every table of a kind under a root: folder name -> its `descriptor.json`."""
    folders = {}
    for folder in storage.names(layout.tables_uri(root, kind)):
        uri = layout.tables_uri(root, kind, folder, layout.DESCRIPTOR)
        if storage.exists(uri):
            folders[folder] = dict(storage.read_json(uri))
    return folders


def resolve_features(root: str, name: str) -> str:
    """The folder that a name means: `minilm`, `minilm:pool=mean`, an imported table, or the folder itself.

    Raises:
        NotPreparedError: nothing of that name has been encoded or imported.
        ConfigError: several tables fit; the message lists them.
    """
    return _resolved(root, "features", name)


def resolve_transcripts(root: str, transcriber: str) -> str:
    """The folder that the name of a transcriber means; raises as `resolve_features`."""
    return _resolved(root, "transcripts", transcriber)


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
        NotPreparedError: clips of the manifest have no row, whether they were asked for or not.
    """
    return unmoved(lambda: _read(root, "features", folder, clip_ids, columns))


class FeatureReader:
    """Reads one feature table for the clips of the current manifest, a few MB at a time.

    Args:
        root: the dataset.
        folder: as `resolve_features` gives it.

    Raises:
        NotPreparedError: clips of the manifest have no row.
    """

    def __init__(self, root: str, folder: str) -> None:
        self.root, self.folder = root, folder
        self._files, self.schema = unmoved(self._opened)

    def _opened(self) -> tuple[list[tuple[str, list[tuple[int, int]] | None]], pa.Schema]:
        files = current_rows(self.root, self.folder)
        return files, storage.open_parquet(files[0][0]).schema_arrow

    def pieces(
        self, clip_ids: np.ndarray, columns: Sequence[str], *, lean: bool = False
    ) -> Iterator[pa.Table]:
        """Rows of some clips, in the order of the files; of the rest where a file is gathered meanwhile.

        Args:
            clip_ids: only these clips [clip].
            columns: only these columns, clip_id among them.
            lean: through a small buffer: slower, and little memory for large files.
        """
        left = np.sort(clip_ids)
        for attempt in range(ATTEMPTS + 1):
            wanted = pa.array(left, pa.int64())
            done: list[np.ndarray] = []
            try:
                for uri, ranges in self._files:
                    for piece in storage.table_pieces(uri, ranges, columns, lean=lean):
                        kept = piece.filter(pc.is_in(piece["clip_id"], value_set=wanted))
                        done.append(kept["clip_id"].to_numpy())
                        yield kept
                return
            except (AbsentError, FileNotFoundError):
                if attempt == ATTEMPTS:
                    raise
                left = np.setdiff1d(left, np.concatenate([left[:0], *done]))
                self._files = current_rows(self.root, self.folder)


def read_transcripts(root: str, transcriber: str) -> pa.Table:
    """Transcripts of the clips of the current manifest; a clip with a text of its own keeps that.

    Args:
        root: the dataset.
        transcriber: its name, with its options where several have run, or its folder.

    Raises:
        NotPreparedError: it has not run, or not on all clips.
        ConfigError: several tables fit; the message lists them.
    """
    folder = resolve_transcripts(root, transcriber)
    table = unmoved(lambda: _read(root, "transcripts", folder, None, None))
    given = read_manifest(root, ["clip_id", "text"])
    place = pc.index_in(table["clip_id"], value_set=given["clip_id"].combine_chunks())
    text = pc.coalesce(given["text"].take(place), table["text"])
    return table.set_column(table.column_names.index("text"), "text", text)


def current_rows(
    root: str, folder: str, kind: layout.TableKind = "features"
) -> list[tuple[str, list[tuple[int, int]] | None]]:
    """Where the rows of the present manifest lie: files, and first and number of rows; each clip once.

    None in place of numbers: a file that lists no units, of which the manifest's clips are to be taken.

    Raises:
        NotPreparedError: clips of the manifest have no row; told from the footers, a unit at a time.
    """
    uri = layout.tables_uri(root, kind, folder)
    refs = units(root)
    reads = reads_of(uri)
    versions = [ref.version(reads) for ref in refs]
    for _ in range(LISTINGS):
        files = unmoved(lambda: by_file(uri))
        found = best_of(files)
        lacking = [ref for ref, v in zip(refs, versions, strict=True) if not _whole(ref, v, found)]
        if not lacking:
            return list(ranges_of(found, versions))
    loose = [storage.join(uri, name) for name, inside in files.items() if not inside]
    missing = _missing(root, lacking, loose)
    if missing:
        old = any(version.key == "" for version in found)
        note = "rows of an older version do not say what they were made of" if old else ""
        total = sum(ref.num_clips for ref in refs)
        raise rows_missing(root, uri, missing, total, note)
    unread = {ref.unit for ref in lacking}
    kept = [version for version in versions if version.unit not in unread]
    return [*ranges_of(found, kept), *((each, None) for each in loose)]


def reads_of(table_uri: str) -> tuple[str, ...]:
    """Parts of `cluster.tables.KEY_PARTS` on which the rows of a table depend; none for imported tables."""
    uri = storage.join(table_uri, layout.DESCRIPTOR)
    facts = storage.read_json(uri) if storage.exists(uri) else {}
    return tuple(facts.get("reads", ()))


def _whole(ref: UnitRef, version: Version, found: dict[Version, UnitRows]) -> bool:
    return version in found and found[version].count == ref.num_clips


def _missing(root: str, lacking: Sequence[UnitRef], loose: Sequence[str]) -> int:
    """Clips of some units that stand in none of the files that list no units.

    Raises:
        ConfigError: a clip stands there twice.
    """
    if not loose:
        return sum(ref.num_clips for ref in lacking)
    rows = read_manifest(root, ["clip_id", "unit"])
    unread = pa.array(sorted({ref.unit for ref in lacking}), pa.string())
    wanted = rows.filter(pc.is_in(rows["unit"], value_set=unread))["clip_id"]
    columns = [storage.read_table(uri, ["clip_id"])["clip_id"] for uri in loose]
    there = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.int64())
    found = there.filter(pc.is_in(there, value_set=wanted.combine_chunks()))
    if len(found) > len(found.unique()):
        raise ConfigError(
            f"{len(found) - len(found.unique())} clips have several rows in {', '.join(loose)}; "
            "expected one a clip"
        )
    return len(wanted) - len(found)


def _read(
    root: str,
    kind: layout.TableKind,
    folder: str,
    clip_ids: Collection[int] | None,
    columns: list[str] | None,
) -> pa.Table:
    wanted = None if clip_ids is None else pa.array(sorted(clip_ids), pa.int64())
    known = None
    kept = []
    for uri, ranges in current_rows(root, folder, kind):
        names = columns if columns is None or "clip_id" in columns else [*columns, "clip_id"]
        table = storage.read_table(uri, names).replace_schema_metadata(None)
        if ranges is None:
            if known is None:
                known = read_manifest(root, ["clip_id"])["clip_id"].combine_chunks()
            table = table.filter(pc.is_in(table["clip_id"], value_set=known))
        for piece in _slices(table, ranges):
            part = piece
            if wanted is not None:
                part = piece.filter(pc.is_in(piece["clip_id"], value_set=wanted))
            kept.append(part if columns is None else part.select(columns))
    return pa.concat_tables(kept)


def _slices(table: pa.Table, ranges: Sequence[tuple[int, int]] | None) -> Iterator[pa.Table]:
    for start, count in [(0, table.num_rows)] if ranges is None else ranges:
        yield table.slice(start, count)


def _resolved(root: str, kind: layout.TableKind, name: str) -> str:
    """The one folder of a kind that a name means."""
    folders = feature_folders(root, kind)
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
        raise table_missing(root, kind, name, folders.values())
    if len(fitting) > 1:
        current = read_dataset(root).manifest_hash
        fitting = [f for f in fitting if folders[f].get("manifest") == current] or fitting
    if len(fitting) > 1:
        raise ConfigError(f"{name!r} means several tables; type one of: {', '.join(fitting)}")
    return fitting[0]


def _options_of(name: str) -> dict[str, Any] | None:
    """The options that a text names, defaults filled in; None for a name without meaning for an encoder."""
    from encoders import ENCODERS, TRANSCRIBERS
    from encoders.registry import describe

    plain, colon, _ = name.partition(":")
    if plain in ENCODERS or (plain in TRANSCRIBERS and colon):
        return dict(describe(name).options)
    return None
