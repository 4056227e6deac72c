"""Checks of what a dataset says, not of how it is stored: what makes a figure of it untrue.

Clips without a face, silent, wordless; labels that cannot be; the same clip, nearly the same clip or the same
person on both sides of a split. What a table of features knows is asked of it; what none knows is said.
"""

import hashlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster import storage
from cluster.errors import NotPreparedError
from cluster.tables import vectors_of
from fusion.tasks import Task
from jobs.catalog.features import FeatureReader, feature_folders
from jobs.catalog.manifest import Dataset, read_manifest
from jobs.verification.near_twins import near_twins
from jobs.verification.rows import wrong_labels

MOST_NAMED = 10_000
"""Clips that are named of one finding; all are counted."""

BLOCK = 1 << 24
"""Bytes of a file that are read at once."""

WIDEST = 16_384
"""Numbers a step of features that are compared; wider ones are pictures, no features."""

SILENT = 0.02
"""Mean loudness of eGeMAPS below which nothing can be heard [sone]."""

LOUDNESS = 10
"""Place of `loudness_sma3_amean` among the functionals of eGeMAPS."""

Place = tuple[str, int, int]
"""URI, offset and size."""

COLUMNS = ("clip_id", "name", "split", "speaker", "text", "video", "audio", "start_s", "end_s")

MEANING = {
    "no clip content": "neither film, sound nor words: nothing can be said of it but the prior",
    "empty text": "no words though other clips have some: a net of words answers by the prior here",
    "no face": "no face was found in any frame: a net of faces answers by the prior here",
    "silence": "nothing can be heard: a net of the voice answers by the prior here",
    "failed": "could not be encoded: its error stands in the table of features",
    "label out of range": "a label that the task does not allow; it would be refused or learned wrongly",
    "twins across splits": "the same content on both sides of a split: its label was learned by heart",
    "twins": "the same content twice in one split: it counts twice",
    "near twins across splits": "features that are almost equal on both sides of a split: probably one "
    "recording, cut, copied or encoded again",
    "speakers across splits": "a person on both sides of a split: figures are not of unseen people",
}
"""Finding -> what it means."""


ASKED = {"no face": "face_expression", "silence": "egemaps"}
"""Finding -> the encoder whose features know it."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found of one kind."""

    check: str
    where: str
    """Table or column that it was found in."""

    count: int
    """Clips concerned."""

    clips: Sequence[str]
    """Their names, the first of them."""

    others: Sequence[str] = ()
    """Of each named clip what it goes with: its twin, or why."""

    @property
    def meaning(self) -> str:
        """What it means."""
        return MEANING[self.check]


def data_findings(root: str, dataset: Dataset, notes: list[str]) -> Iterator[Finding]:
    """Everything that is found of the clips of a root.

    Args:
        root: of the dataset.
        dataset: its facts.
        notes: gets what could not be looked for, and what to type.
    """
    table = read_manifest(root, [*COLUMNS, *dataset.tasks]).combine_chunks()
    yield from _contents(table)
    yield from _labels(table, dataset.tasks)
    yield from _twins(table)
    yield from _speakers(table)
    asked = set()
    for folder, facts in feature_folders(root).items():
        if "view" in facts:
            continue
        try:
            yield from _features(root, folder, facts, table)
            asked.add(str(facts.get("name")))
        except NotPreparedError as error:
            notes.append(f"{folder} was not looked at: {error}")
    notes += [
        f"{check}: not looked for; type: affuse encode --root {shlex.quote(root)} --encoders {encoder}"
        for check, encoder in ASKED.items()
        if encoder not in asked
    ]


def _found(
    check: str, where: str, table: pa.Table, marked: np.ndarray, others: Sequence[str] = ()
) -> Iterator[Finding]:
    """A finding of the clips that are marked; none where there are none."""
    count = int(marked.sum())
    if count:
        rows = pa.array(np.flatnonzero(marked)[:MOST_NAMED])
        names = table["name"].take(rows).to_pylist()
        yield Finding(
            check=check, where=where, count=count, clips=names, others=others[:MOST_NAMED]
        )


def _contents(table: pa.Table) -> Iterator[Finding]:
    words = pc.utf8_length(pc.utf8_trim_whitespace(pc.fill_null(table["text"], "")))
    silent = np.asarray(pc.equal(words, 0))
    bare = np.asarray(pc.and_(pc.is_null(table["video"]), pc.is_null(table["audio"])))
    yield from _found("no clip content", "manifest", table, silent & bare)
    if not silent.all():
        yield from _found("empty text", "manifest", table, silent & ~bare)


def _labels(table: pa.Table, tasks: Mapping[str, Task]) -> Iterator[Finding]:
    for name, task in tasks.items():
        yield from _found("label out of range", name, table, wrong_labels(table[name], task))


def _speakers(table: pa.Table) -> Iterator[Finding]:
    told = table.filter(pc.and_(pc.is_valid(table["speaker"]), pc.is_valid(table["split"])))
    each = told.group_by(["speaker"]).aggregate([("split", "count_distinct")])
    shared = each["speaker"].filter(pc.greater(each["split_count_distinct"], 1))
    there = np.asarray(pc.and_(pc.is_in(table["speaker"], shared), pc.is_valid(table["split"])))
    people = table["speaker"].filter(pa.array(there)).slice(0, MOST_NAMED).to_pylist()
    yield from _found("speakers across splits", "manifest", table, there, people)


# ---- the same content


def _twins(table: pa.Table) -> Iterator[Finding]:
    """Clips of equal content: of equal bytes and times, or of equal words where they have no media."""
    key = np.array(_content_keys(table), dtype=object)
    split = np.array(table["split"].to_pylist(), dtype=object)
    names = table["name"]
    first: dict[str, int] = {}
    across, inside = np.zeros(len(key), bool), np.zeros(len(key), bool)
    others: dict[bool, list[str]] = {True: [], False: []}
    for row, content in enumerate(key):
        if content is None:
            continue
        before = first.setdefault(content, row)
        if before != row:
            apart = split[before] != split[row]
            (across if apart else inside)[row] = True
            others[apart].append(f"{names[before].as_py()} ({split[before]})")
    yield from _found("twins across splits", "manifest", table, across, others[True])
    yield from _found("twins", "manifest", table, inside, others[False])


def _content_keys(table: pa.Table) -> list[str | None]:
    """What tells the content of a clip from that of others; None of one without any, or of a few words alone.

    A file is read only where another has its very size.
    """
    source = pc.coalesce(table["video"], table["audio"]).combine_chunks()
    places = [_place(each) for each in source.to_pylist()]
    alike: dict[int, set[Place]] = {}
    for place in places:
        if place is not None:
            alike.setdefault(place[2], set()).add(place)
    digest = {place: _digest(*place) for same in alike.values() if len(same) > 1 for place in same}
    keys: list[str | None] = []
    columns = (table[name].to_pylist() for name in ("start_s", "end_s", "text"))
    for place, start, end, text in zip(places, *columns, strict=True):
        if place is not None:
            keys.append(f"{digest.get(place, place)} {start} {end}")
        else:
            said = " ".join((text or "").lower().split())
            keys.append(said if said.count(" ") > 2 else None)
    return keys


def _place(source: Mapping[str, Any] | None) -> Place | None:
    """Where the bytes lie and how many there are; None of nothing, and of what is not there."""
    if source is None:
        return None
    if source["offset"] is not None:
        return source["uri"], source["offset"], source["size"]
    fs, path = storage.filesystem(source["uri"])
    try:
        size = int(fs.size(path) or 0)
    except OSError:
        return None
    return (source["uri"], 0, size) if size else None


def _digest(uri: str, offset: int, size: int) -> str:
    """The hash of a file's part; of one that cannot be read its place, which is like no other."""
    fs, path = storage.filesystem(uri)
    found = hashlib.sha256()
    try:
        with fs.open(path, "rb") as file:
            file.seek(offset)
            left = size
            while left > 0 and (content := file.read(min(BLOCK, left))):
                found.update(content)
                left -= len(content)
    except OSError:
        return f"{uri}:{offset}"
    return found.hexdigest()


# ---- what features know


def _features(
    root: str, folder: str, facts: Mapping[str, object], table: pa.Table
) -> Iterator[Finding]:
    """What one table of features says of the clips."""
    pooled, status, errors, valid = _pooled(root, folder, table["clip_id"].to_numpy())
    failed = status == "failed"
    said = [str(error) for error in errors[failed]]
    yield from _found("failed", folder, table, failed, said)
    there = (status == "ok") | (status == "partial")
    name, modality = str(facts.get("name")), facts.get("modality")
    if modality == "video" and name.startswith("face"):
        has_film = np.asarray(pc.is_valid(table["video"]))
        yield from _found("no face", folder, table, there & ~valid & has_film)
    if modality == "audio":
        quiet = there & ~valid
        if name == "egemaps" and pooled.shape[1] == 88:
            quiet |= there & valid & (pooled[:, LOUDNESS] < SILENT)
        yield from _found("silence", folder, table, quiet)
    if modality in ("audio", "video"):
        split = np.array(table["split"].to_pylist(), dtype=object)
        # One number that is none would spoil the scale of its column, for all clips.
        sound = there & valid & np.isfinite(pooled).all(1)
        one, other = near_twins(pooled, np.flatnonzero(sound), split)
        marked = np.zeros(len(table), bool)
        marked[one] = True
        goes_with = dict(zip(one.tolist(), other.tolist(), strict=True))
        names = table["name"]
        others = [
            f"{names[goes_with[row]].as_py()} ({split[goes_with[row]]})"
            for row in np.flatnonzero(marked)[:MOST_NAMED].tolist()
        ]
        yield from _found("near twins across splits", folder, table, marked, others)


def _pooled(
    root: str, folder: str, clip_id: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean of the valid steps [clip dim], status, error, and whether there is a valid step [clip]."""
    reader = FeatureReader(root, folder)
    width = reader.schema.field("values").type.value_type.list_size
    compared = width <= WIDEST
    columns = ["clip_id", "valid", "status", "error", *(["values"] if compared else [])]
    order = np.argsort(clip_id)
    sums = np.zeros((len(clip_id), width if compared else 0), np.float32)
    counts = np.zeros(len(clip_id), np.int64)
    status, error = np.full(len(clip_id), "", object), np.full(len(clip_id), "", object)
    for piece in reader.pieces(clip_id, columns):
        at = order[np.searchsorted(clip_id[order], piece["clip_id"].to_numpy())]
        status[at] = piece["status"].to_pylist()
        error[at] = piece["error"].to_pylist()
        lists = piece["valid"].combine_chunks()
        flags = pc.list_flatten(lists).to_numpy(zero_copy_only=False).astype(bool)
        owner = at[pc.list_parent_indices(lists).to_numpy()][flags]
        np.add.at(counts, owner, 1)
        if compared:
            values = vectors_of(piece["values"]).astype(np.float32)
            np.add.at(sums, owner, values[flags])
    return sums / np.maximum(counts, 1)[:, None], status, error, counts > 0
