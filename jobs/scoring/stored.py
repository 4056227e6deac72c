"""Stored features read for scoring: a span of units at a time, every row group once.

Units are taken in the order of the manifest, or in that of a table where this reads fewer row groups twice. A
table keeps its last few row groups in hand, so that its units may be interleaved in a few files. A table made
elsewhere may list no units: its clip ids alone are held in memory, its rows are read where they lie.

What bounds the memory: a span of about a thousand clips and a few row groups a table. A bundle that reads
whole dialogues (or a speaker's clips) needs all units that share one in a span: that is bounded by the
longest dialogue, or by the clips of the speakers who meet in units.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cluster import storage
from cluster.errors import AbsentError, NotPreparedError
from cluster.unit_tables import (
    UnitRows,
    best_of,
    by_file,
    publish_unit,
    published,
    unmoved,
)
from jobs.catalog.features import reads_of
from jobs.catalog.layout import features_uri
from jobs.catalog.manifest import UnitRef, read_manifest
from jobs.scoring.bundle import Bundle, check_speakers
from jobs.scoring.scorer import Scorer
from jobs.scoring.versions import versions_of
from jobs.stream.progress import Progress

SPAN_CLIPS = 1024
"""Clips of a span, where one unit or dialogue does not hold more."""

KEPT_GROUPS = 4
"""Row groups of a table that stay in hand: one of each file that units alternate between."""

OPEN_FILES = 16

UNREAD = ("step_start_s", "step_end_s")
"""Columns that no net reads."""


def score_stored(
    root: str, bundle: Bundle, judge: Scorer, refs: Sequence[UnitRef], uri: str
) -> None:
    """Score units from stored features, some at a time; whole dialogues or speakers where nets need them.

    Args:
        root: the dataset.
        bundle: what is to be scored together.
        judge: the bundle loaded.
        refs: all units of the manifest; those that are published are left out.
        uri: folder of the scores.

    Raises:
        ConfigError: somebody has fewer clips than the bundle needs of everybody.
    """
    if bundle.clips_of_speaker:
        check_speakers(read_manifest(root, ["speaker"])["speaker"], bundle.clips_of_speaker)
    stored = {folder: UnitTable(root, folder) for folder in bundle.folders}
    facts = StoredFacts()
    ordered = reading_order(refs, [*stored.values()])
    versions, there = versions_of(root, bundle, refs), published(uri)
    done = {unit for unit, version in versions.items() if version in there}
    parts = [*spans(root, ordered, done, bundle.linked)]
    with Progress(sum(map(_clips, parts)), label="score") as progress:
        for part in parts:
            rows = {ref.unit: facts.read(ref).to_pylist() for ref in part}
            ids = {unit: np.array([clip["clip_id"] for clip in rows[unit]]) for unit in rows}
            features = {
                folder: pa.concat_tables([table.read(ref, ids[ref.unit]) for ref in part])
                for folder, table in stored.items()
            }
            clips = [clip for unit in rows.values() for clip in unit]
            for unit, scores in by_unit(judge.scores(clips, features), ids):
                publish_unit(uri, versions[unit], scores)
            progress.add(len(clips), 0)


def by_unit(scores: pa.Table, ids: Mapping[str, np.ndarray]) -> Iterator[tuple[str, pa.Table]]:
    """The scores cut into units again, by the clip ids of each."""
    clip_id = scores["clip_id"].to_numpy()
    order = np.argsort(clip_id)
    for unit, wanted in ids.items():
        yield unit, scores.take(pa.array(order[np.searchsorted(clip_id[order], wanted)]))


class StoredFacts:
    """Manifest columns of a unit's clips that nets read beside features."""

    columns = ("clip_id", "name", "dialogue", "turn", "speaker", "group")

    def __init__(self) -> None:
        # A footer of two thousand units takes longer to read than a unit.
        self._open = lru_cache(KEPT_GROUPS)(storage.open_parquet)

    def read(self, ref: UnitRef) -> pa.Table:
        """The clips of a unit."""
        return self._open(ref.file).read_row_group(ref.row_group, columns=list(self.columns))


class UnitTable:
    """One feature table, read unit after unit.

    Args:
        root: the dataset.
        folder: of the table.
    """

    def __init__(self, root: str, folder: str) -> None:
        self._uri = features_uri(root, folder)
        self._reads = reads_of(self._uri)
        self._open: Callable[[str], tuple[pq.ParquetFile, np.ndarray]] = lru_cache(OPEN_FILES)(
            _opened
        )
        self._locate()

    def _locate(self) -> None:
        inside = unmoved(lambda: by_file(self._uri))
        self._where = best_of(inside)
        self._alone = {
            storage.join(self._uri, name) for name, units in inside.items() if len(units) == 1
        }
        self._unlisted = [storage.join(self._uri, name) for name in inside if not inside[name]]
        self._groups: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()
        self._loose: _Loose | None = None

    def _at(self, ref: UnitRef) -> UnitRows | None:
        return self._where.get(ref.version(self._reads))

    def place(self, ref: UnitRef) -> tuple[str, int]:
        """Where a unit stands; in this order every row group of this table is read once."""
        at = self._at(ref)
        return ("", 0) if at is None else (at.uri, at.start)

    def groups(self, ref: UnitRef) -> list[tuple[str, int]]:
        """Row groups that hold a unit; none of a file with one unit, which is read once in any order."""
        at = self._at(ref)
        if at is None or at.uri in self._alone:
            return []
        return [(at.uri, group) for group in self._span(at)]

    def read(self, ref: UnitRef, clip_ids: np.ndarray) -> pa.Table:
        """The rows of a unit.

        Args:
            ref: the unit.
            clip_ids: int64, its clips.

        Raises:
            NotPreparedError: a clip has no row any more; all had when the job began.
        """
        return unmoved(lambda: self._read(ref, clip_ids))

    def _read(self, ref: UnitRef, clip_ids: np.ndarray) -> pa.Table:
        at = self._at(ref)
        if at is not None:
            try:
                return self._range(at)
            except (AbsentError, FileNotFoundError):  # another job has gathered the file
                self._locate()
                raise
        if self._loose is None:
            self._loose = _Loose(self._unlisted)
        parts = [
            self._group(uri, group).take(pa.array(rows))
            for uri, group, rows in self._loose.places(clip_ids, self._open)
        ]
        return pa.concat_tables(parts)

    def _range(self, at: UnitRows) -> pa.Table:
        _, ends = self._open(at.uri)
        stop = at.start + at.count
        parts = []
        for group in self._span(at):
            begin = int(ends[group - 1]) if group else 0
            start = max(at.start, begin)
            parts.append(
                self._group(at.uri, group).slice(start - begin, min(stop, int(ends[group])) - start)
            )
        return pa.concat_tables(parts)

    def _span(self, at: UnitRows) -> range:
        """Row groups of some rows."""
        _, ends = self._open(at.uri)
        first, last = np.searchsorted(ends, (at.start, at.start + at.count - 1), side="right")
        return range(int(first), int(last) + 1)

    def _group(self, uri: str, group: int) -> pa.Table:
        """A row group, from hand or from its file."""
        key = (uri, group)
        if key not in self._groups:
            parquet, _ = self._open(uri)
            columns = [name for name in parquet.schema_arrow.names if name not in UNREAD]
            table = parquet.read_row_group(group, columns=columns)
            self._groups[key] = table.replace_schema_metadata(None)
            while len(self._groups) > KEPT_GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]


class _Loose:
    """Where the clips of files lie that list no units."""

    def __init__(self, files: Sequence[str]) -> None:
        self._files = files
        columns = [
            storage.read_table(uri, ["clip_id"])["clip_id"].to_numpy() for uri in self._files
        ]
        counts = [len(column) for column in columns]
        clip_id = np.concatenate([np.empty(0, np.int64), *columns])
        order = np.argsort(clip_id, kind="stable")
        self._clip_id = clip_id[order]
        self._file = np.repeat(np.arange(len(counts)), counts)[order]
        self._row = np.concatenate([np.empty(0, np.int64), *map(np.arange, counts)])[order]

    def places(
        self, clip_ids: np.ndarray, opened: Callable[[str], tuple[pq.ParquetFile, np.ndarray]]
    ) -> Iterator[tuple[str, int, np.ndarray]]:
        """(file, row group, rows inside it) of some clips."""
        wanted = np.unique(clip_ids)
        at = np.searchsorted(self._clip_id, wanted)
        there = at < len(self._clip_id)
        there[there] = self._clip_id[at[there]] == wanted[there]
        if not there.all():
            raise NotPreparedError(f"clip {wanted[~there][0]} has lost its features meanwhile")
        for number in np.unique(self._file[at]):
            uri = self._files[number]
            _, ends = opened(uri)
            rows = np.sort(self._row[at[self._file[at] == number]])
            groups = np.searchsorted(ends, rows, side="right")
            for group in np.unique(groups):
                begin = int(ends[group - 1]) if group else 0
                yield uri, int(group), rows[groups == group] - begin


def _opened(uri: str) -> tuple[pq.ParquetFile, np.ndarray]:
    """A file, and the row at which each of its row groups ends."""
    parquet = storage.open_parquet(uri)
    counts = [parquet.metadata.row_group(g).num_rows for g in range(parquet.num_row_groups)]
    return parquet, np.cumsum(counts, dtype=np.int64)


def reading_order(refs: Sequence[UnitRef], tables: Sequence[UnitTable]) -> list[UnitRef]:
    """The units in the order, of the manifest's and the tables' own, that reads the fewest row groups."""
    orders = [list(refs), *(sorted(refs, key=table.place) for table in tables)]
    return min(orders, key=lambda order: sum(_reads(order, table) for table in tables))


def _reads(refs: Sequence[UnitRef], table: UnitTable) -> int:
    """Row groups that are read where the last few stay in hand."""
    held: OrderedDict[tuple[str, int], None] = OrderedDict()
    count = 0
    for ref in refs:
        for key in table.groups(ref):
            count += key not in held
            held[key] = None
            held.move_to_end(key)
            if len(held) > KEPT_GROUPS:
                held.popitem(last=False)
    return count


def spans(
    root: str,
    refs: Sequence[UnitRef],
    done: Collection[str],
    linked: Sequence[str],
) -> Iterator[list[UnitRef]]:
    """Units that are to be scored, some at a time.

    Args:
        root: the dataset.
        refs: all units of its manifest, in the order in which they are read.
        done: units that are scored.
        linked: columns (dialogue, speaker) whose clips have to come together: units that share a value stay
            in one span, and are scored again together where one of them is not done.
    """
    parts = _linked(root, refs, linked) if linked else [[ref] for ref in refs]
    todo = [part for part in parts if any(ref.unit not in done for ref in part)]
    span: list[UnitRef] = []
    for part in todo:
        if span and _clips([*span, *part]) > SPAN_CLIPS:
            yield span
            span = []
        span += part
    if span:
        yield span


def _clips(refs: Sequence[UnitRef]) -> int:
    return sum(ref.num_clips for ref in refs)


def _linked(root: str, refs: Sequence[UnitRef], columns: Sequence[str]) -> list[list[UnitRef]]:
    """The units in groups that share no value of the columns."""
    table = read_manifest(root, ["unit", *columns])
    place = pa.array([ref.unit for ref in refs], pa.string())
    unit = pc.index_in(table["unit"], value_set=place).to_numpy()
    edges = [np.empty((2, 0), np.int64)]
    nodes = len(refs)
    for name in columns:
        code = pc.dictionary_encode(table[name].combine_chunks())
        known = code.is_valid().to_numpy(zero_copy_only=False)
        value = code.indices.fill_null(0).to_numpy().astype(np.int64)
        edges.append(np.stack([unit[known], nodes + value[known]]))
        nodes += len(code.dictionary)
    first, second = np.concatenate(edges, axis=1)
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(nodes, nodes))
    _, label = connected_components(graph, directed=False)
    parts: dict[int, list[UnitRef]] = {}
    for ref, of in zip(refs, label[: len(refs)].tolist(), strict=True):
        parts.setdefault(of, []).append(ref)
    return [*parts.values()]
