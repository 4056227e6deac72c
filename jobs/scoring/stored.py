"""Stored features read for scoring: a span of units at a time, every row group once.

Units are taken in the order of the manifest, or in that of a table where this reads fewer row groups twice. A
table made elsewhere may list no units: its clip ids alone are held in memory.

What bounds the memory: three stacks (one is read and one written while another is scored) and a few row
groups a table. A stack is a span of about a thousand clips, or several where they are narrow and soon
scored. A bundle that reads whole dialogues (or a speaker's clips) needs all units that share one in a span:
that is bounded by the longest dialogue, or by the clips of the speakers who meet in units.
"""

import contextlib
import itertools
import time
from collections import OrderedDict
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster import storage
from cluster.unit_tables import Version, publish_units, published
from jobs.catalog.manifest import UnitRef, read_manifest
from jobs.scoring.bundle import Bundle, check_speakers
from jobs.scoring.scorer import Scorer
from jobs.scoring.stacks import STACK_SPANS, Stack, StackSize, stacks
from jobs.scoring.stored_table import KEPT_GROUPS, UnitTable
from jobs.scoring.versions import versions_of
from jobs.stream.progress import Progress

Item = TypeVar("Item")

SPAN_CLIPS = 1024
"""Clips of a span, where one unit or dialogue does not hold more."""

FILE_CLIPS = 16 * SPAN_CLIPS
"""Clips of a file of scores, where they do not take long."""

OPEN_FILES = 2
"""Files of the manifest: where a table stands in another order, two are read in turn."""

FILE_S = 10.0
"""Work that a kill may cost [s]."""


def score_stored(
    root: str, bundle: Bundle, judge: Scorer, refs: Sequence[UnitRef], uri: str
) -> int | None:
    """Score units from stored features, some at a time; whole dialogues or speakers where nets need them.

    Args:
        root: the dataset.
        bundle: what is to be scored together.
        judge: the bundle loaded.
        refs: all units of the manifest; those that are published are left out.
        uri: folder of the scores.

    Returns:
        How many groups there are; None where not all units were read.

    Raises:
        ConfigError: somebody has fewer clips than the bundle needs of everybody.
    """
    if bundle.clips_of_speaker:
        check_speakers(read_manifest(root, ["speaker"])["speaker"], bundle.clips_of_speaker)
    stored = {folder: UnitTable(root, bundle.table(folder)) for folder in bundle.folders}
    facts = StoredFacts(StoredFacts.all_columns if bundle.linked else ("clip_id", "name", "group"))
    ordered = reading_order(refs, [*stored.values()])
    versions, there = versions_of(root, bundle, refs), published(uri)
    done = {unit for unit, version in versions.items() if version in there}
    parts = [*spans(root, ordered, done, bundle.linked, SPAN_CLIPS)]
    size = StackSize(1 if bundle.linked else STACK_SPANS)
    reading = ahead(stacks((_read(part, facts, stored) for part in parts), size))
    with (
        Progress(sum(map(_clips, parts)), label="score") as progress,
        Gathering(uri) as out,
        contextlib.closing(reading),
    ):
        for stack in reading:
            begun = time.monotonic()
            scores = judge.scores_in_turn(stack.clips, stack.features, stack.counts)
            out.add([(versions[ref.unit], ref.num_clips) for ref in stack.refs], scores)
            progress.add(scores.num_rows, 0)
            size.took(time.monotonic() - begun, len(stack.counts))
    return len(facts.groups) if sum(map(len, parts)) == len(refs) else None


def _read(part: Sequence[UnitRef], facts: "StoredFacts", stored: Mapping[str, UnitTable]) -> Stack:
    """One span."""
    clips = facts.read(part)
    ids = clips["clip_id"].to_numpy()
    features = {folder: table.read(part, ids) for folder, table in stored.items()}
    return Stack(part, [len(ids)], clips, features)


def ahead(items: Iterable[Item]) -> Generator[Item, None, None]:
    """The same items, each made in a thread while the one before is in use."""
    left = iter(items)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(lambda: [*itertools.islice(left, 1)])
        while item := coming.result():
            coming = pool.submit(lambda: [*itertools.islice(left, 1)])
            yield item[0]


class Gathering:
    """Publishes several spans at a time: of ten million clips there are no 160,000 files to gather again.

    A file is written in a thread while the next rows are made. Leaving the block publishes what is in hand,
    also after a stop: those rows are whole.

    Args:
        uri: folder of the scores.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._pool = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._begin()

    def _begin(self) -> None:
        self._inside: list[tuple[Version, int]] = []
        self._rows: list[pa.Table] = []
        self._since = time.monotonic()

    def __enter__(self) -> "Gathering":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._publish()
            self._written()
        finally:
            self._pool.shutdown()

    def add(self, inside: Sequence[tuple[Version, int]], scores: pa.Table) -> None:
        """Take the scores of a span, and publish where they are many or the first has waited long.

        Args:
            inside: versions in the order of their rows, and how many rows each has.
            scores: of their clips.
        """
        self._inside += inside
        self._rows.append(scores)
        many = sum(count for _, count in self._inside) >= FILE_CLIPS
        if many or time.monotonic() - self._since > FILE_S:
            self._publish()

    def _publish(self) -> None:
        self._written()
        if self._rows:
            rows = pa.concat_tables(self._rows)
            self._writing = self._pool.submit(publish_units, self._uri, self._inside, rows)
        self._begin()

    def _written(self) -> None:
        """Wait for the file that is being written.

        Raises:
            OSError: it could not be written; kinds of it as of `publish_units`.
        """
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()


class StoredFacts:
    """Manifest columns of clips that are read beside features; the groups among them are counted.

    Args:
        columns: which; nets that see each clip by itself read no more than its id and name.
    """

    all_columns = ("clip_id", "name", "dialogue", "turn", "speaker", "group")

    def __init__(self, columns: Sequence[str] = all_columns) -> None:
        self._columns = list(columns)
        self.groups = Distinct()
        # A footer of two thousand units takes longer to read than a unit, and 80 MB.
        self._open = lru_cache(OPEN_FILES)(storage.open_parquet)

    def read(self, refs: Sequence[UnitRef]) -> pa.Table:
        """The clips of some units, in their order."""
        parts = []
        for file, units in itertools.groupby(refs, key=lambda ref: ref.file):
            groups = [ref.row_group for ref in units]
            parts.append(self._open(file).read_row_groups(groups, columns=self._columns))
        clips = pa.concat_tables(parts)
        self.groups.add(clips["group"])
        # Of one clip by itself nothing asks whose it is.
        return clips if "speaker" in self._columns else clips.drop_columns("group")


class Distinct:
    """Counts texts that are different; null is none."""

    def __init__(self) -> None:
        self._seen = pa.chunked_array([], pa.string())
        self._known = 0

    def add(self, texts: pa.ChunkedArray) -> None:
        """Some more; those of many calls are compared at once."""
        self._seen = pa.chunked_array([*self._seen.chunks, texts.unique().drop_null()])
        if len(self._seen) > max(65536, 2 * self._known):
            self._settle()

    def _settle(self) -> None:
        self._seen = pa.chunked_array([self._seen.unique()])
        self._known = len(self._seen)

    def __len__(self) -> int:
        self._settle()
        return self._known


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
    most: int,
) -> Iterator[list[UnitRef]]:
    """Units that are to be scored, some at a time.

    Args:
        root: the dataset.
        refs: all units of its manifest, in the order in which they are read.
        done: units that are scored.
        linked: columns (dialogue, speaker) whose clips have to come together: units that share a value stay
            in one span, and are scored again together where one of them is not done.
        most: clips of a span.
    """
    parts = _linked(root, refs, linked) if linked else [[ref] for ref in refs]
    todo = [part for part in parts if any(ref.unit not in done for ref in part)]
    span: list[UnitRef] = []
    count = 0
    for part in todo:
        more = _clips(part)
        if span and count + more > most:
            yield span
            span, count = [], 0
        span += part
        count += more
    if span:
        yield span


def _clips(refs: Sequence[UnitRef]) -> int:
    return sum(ref.num_clips for ref in refs)


def _linked(root: str, refs: Sequence[UnitRef], columns: Sequence[str]) -> list[list[UnitRef]]:
    """The units in groups that share no value of the columns."""
    from scipy.sparse import coo_array  # importing it takes longer than small jobs
    from scipy.sparse.csgraph import connected_components

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
