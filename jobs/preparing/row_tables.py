"""Rows of a source as Arrow tables: what an adapter for many clips yields, and `Row`s are turned into.

Labels, facts about speakers and folds have columns by their place (`label0`, `profile0`, `fold0`): tasks may
be called as any other column is.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.settings import nearest
from cluster.tables import MANIFEST
from fusion.tasks import Task
from jobs.interop.cells import is_text
from jobs.interop.tables import Faults
from jobs.preparing.adapter import Collected, Label, Row
from jobs.preparing.workplace import BATCH_ROWS

COLUMNS = pa.schema(
    [
        MANIFEST.schema.field(name)
        for name in (
            "name", "video", "audio", "text", "words", "start_s", "end_s",
            "dialogue", "turn", "speaker", "group", "split",
        )
    ]
)  # fmt: skip

NO_TEXT = "holds bytes that are no text; rename it, or mend the table"

LABEL_TYPES = {
    "classification": pa.string(),
    "regression": pa.float64(),
    "multilabel": pa.list_(pa.float64()),
}

VOTES = pa.list_(pa.list_(pa.float64()))
"""What each rater of a clip chose: a share of each class."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Columns of the rows of one dataset beside `COLUMNS`."""

    tasks: Mapping[str, Task]
    profile: tuple[str, ...]
    folds: tuple[str, ...]
    votes: tuple[str, ...] = ()
    """Tasks of which raters' votes are known."""

    @property
    def more(self) -> list[pa.Field]:
        """Labels, facts about speakers, folds."""
        kinds = [LABEL_TYPES[task.kind] for task in self.tasks.values()]
        return [
            *(pa.field(f"label{k}", kind) for k, kind in enumerate(kinds)),
            *(pa.field(f"profile{k}", pa.string()) for k in range(len(self.profile))),
            *(pa.field(f"fold{k}", pa.int64()) for k in range(len(self.folds))),
            *(pa.field(f"votes{k}", VOTES) for k in range(len(self.votes))),
        ]

    @property
    def schema(self) -> pa.Schema:
        """All columns of a row."""
        return pa.schema([*COLUMNS, *self.more])


def of_part(collected: Collected, part: str) -> Collected:
    """The clips of one split alone, which have no split then; all where none is named."""
    if not part:
        return collected
    rows = [replace(row, split=None) for row in collected.rows if row.split == part]
    tables = collected.tables
    if tables is None:
        return replace(collected, rows=rows)

    def kept(faults: Faults) -> Iterator[pa.Table]:
        for table in tables(faults):
            inside = table.filter(pc.equal(table["split"], part))
            place = table.column_names.index("split")
            yield inside.set_column(place, "split", pa.nulls(inside.num_rows, pa.string()))

    return replace(collected, tables=kept)


def shape_of(collected: Collected) -> Shape:
    """The columns of a source."""
    names = {name for row in collected.rows for name in row.profile}
    profile = sorted({*collected.profile, *names})
    votes = sorted({*collected.votes, *(name for row in collected.rows for name in row.votes)})
    return Shape(
        tasks=collected.tasks,
        profile=tuple(profile),
        folds=tuple(collected.folds),
        votes=tuple(votes),
    )


def row_tables(collected: Collected, shape: Shape, faults: Faults) -> Iterator[pa.Table]:
    """The rows as tables; those with faults too, so that all are found.

    Args:
        collected: the source.
        shape: its columns.
        faults: gets those of the labels.
    """
    faults += [
        f"{name}: the class {label!r} is named twice"
        for name, task in collected.tasks.items()
        for label, count in Counter(task.classes).items()
        if count > 1
    ]
    if collected.tables is not None:
        yield from (table for table in collected.tables(faults) if table.num_rows)
        return
    rows = iter(collected.rows)
    while batch := list(islice(rows, BATCH_ROWS)):
        kept = []
        for row in batch:
            if not all(is_text(word) for word in _words_of(row) if word):
                faults.append(f"{row.name}: {NO_TEXT}")
                continue
            kept.append(_checked(row, collected.tasks, faults))
        if kept:
            yield _table(kept, collected, shape)


def clip_ids(names: pa.ChunkedArray) -> pa.Array:
    """The stable id of every name: see `jobs.preparing.adapter.clip_id`."""
    digests = [hashlib.sha256(name.encode()).digest()[:8] for name in names.to_pylist()]
    numbers = np.frombuffer(b"".join(digests), ">u8") >> np.uint64(1)
    return pa.array(numbers.astype(np.int64), pa.int64())


def label_fault(label: Label, task: Task) -> str | None:
    """What is wrong with the label of a clip."""
    if label is None:
        return None
    if task.kind == "classification":
        if label in task.classes:
            return None
        return f"{label!r} is not among its classes; {nearest(str(label), list(task.classes))}"
    if task.kind == "multilabel":
        if isinstance(label, Sequence) and len(label) == len(task.classes):
            return None
        return f"{label!r}: expected {len(task.classes)} numbers"
    if not isinstance(label, int | float) or not math.isfinite(label):
        return f"{label!r}: expected a number"
    if task.range is not None and not task.range[0] <= label <= task.range[1]:
        return f"{label:g} lies outside {task.range[0]:g} to {task.range[1]:g}"
    return None


def _checked(row: Row, tasks: Mapping[str, Task], faults: Faults) -> Row:
    """The row without the labels that have faults."""
    faults += [
        f"{row.name}: votes of {name}: {list(vote)}; expected a share of each of {len(tasks[name].classes)} "
        "classes, one in all"
        for name, votes in row.votes.items()
        for vote in votes
        if not _is_vote(vote, tasks[name])
    ]
    found = {name: label_fault(label, tasks[name]) for name, label in row.labels.items()}
    wrong = {name: fault for name, fault in found.items() if fault}
    if not wrong:
        return row
    faults += [f"{row.name}: {name} {fault}" for name, fault in wrong.items()]
    return replace(row, labels={k: v for k, v in row.labels.items() if k not in wrong})


def _is_vote(vote: Sequence[float], task: Task) -> bool:
    whole = len(vote) == len(task.classes) and all(share >= 0 for share in vote)
    return whole and math.isclose(sum(vote), 1.0, abs_tol=1e-6)


def _table(rows: Sequence[Row], collected: Collected, shape: Shape) -> pa.Table:
    columns: dict[str, Sequence[Any]] = {
        name: [getattr(row, name) for row in rows] for name in COLUMNS.names
    }
    for kind in ("video", "audio"):
        columns[kind] = [None if source is None else vars(source) for source in columns[kind]]
    columns["words"] = [
        None if words is None else [vars(word) for word in words] for words in columns["words"]
    ]
    for k, name in enumerate(shape.tasks):
        columns[f"label{k}"] = [row.labels.get(name) for row in rows]
    for k, name in enumerate(shape.profile):
        columns[f"profile{k}"] = [row.profile.get(name) for row in rows]
    for k, name in enumerate(shape.folds):
        fold_of = collected.folds[name]
        columns[f"fold{k}"] = [fold_of.get(row.name) for row in rows]
    for k, name in enumerate(shape.votes):
        columns[f"votes{k}"] = [row.votes.get(name) or None for row in rows]
    return pa.table([pa.array(columns[f.name], f.type) for f in shape.schema], shape.schema)


def _words_of(row: Row) -> list[str | None]:
    """All text of a row that the manifest stores."""
    uris = [source.uri for source in (row.video, row.audio) if source is not None]
    labels = [label for label in row.labels.values() if isinstance(label, str)]
    said = [row.name, row.text, row.speaker, row.dialogue, row.group]
    return [*said, *uris, *labels, *row.profile.values()]
