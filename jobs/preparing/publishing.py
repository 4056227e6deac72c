"""The manifest from the plan: keys, hash and files, some thousand clips at a time."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from cluster import storage
from cluster.tables import MANIFEST
from jobs.catalog import layout, unit_rows
from jobs.preparing.json_text import json_texts, objects
from jobs.preparing.keys import Dialogues, Said, Stamps, keyed, unit_ranges
from jobs.preparing.row_tables import Shape
from jobs.preparing.workplace import Workplace

UNITS_PER_FILE = 2048
WRITERS = 2
"""Files that are written at once."""


def write_manifest(place: Workplace, shape: Shape, stamps: Stamps) -> tuple[str, list["NewFile"]]:
    """Write the clips of `planned` in the order of their units, a unit a row group.

    Returns:
        The manifest's hash over all rows, and its files in the workplace.
    """
    digest = hashlib.sha256()
    dialogues = cut_dialogues(place)
    with _Parts(place.folder) as parts:
        for clips in whole_units(place.in_order("select * from planned", "place", "placed")):
            table = manifest_table(keyed(clips, stamps, dialogues), shape)
            texts = {name: json_texts(table[name]) for name in table.column_names}
            digest.update("".join(f"{row}\n" for row in objects(texts)).encode())
            for start, stop in unit_ranges(table):
                parts.add(table.slice(start, stop - start))
    return digest.hexdigest()[:12], parts.written


def whole_units(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables that end with a unit."""
    held: list[pa.Table] = []
    for table in tables:
        last = table["unit"][-1].as_py()
        cut = table["unit"].index(last).as_py()
        if cut or (held and held[-1]["unit"][-1].as_py() != last):
            yield pa.concat_tables([*held, table.slice(0, cut)]).combine_chunks()
            held = []
        held.append(table.slice(cut))
    if held:
        yield pa.concat_tables(held).combine_chunks()


def manifest_table(clips: pa.Table, shape: Shape) -> pa.Table:
    """Columns by their names, with one per task, the profile and raters' votes."""
    columns = {name: clips[name] for name in MANIFEST.schema.names}
    for k, name in enumerate(shape.tasks):
        columns[name] = clips[f"label{k}"]
    if shape.profile:
        facts = [clips[f"profile{k}"].combine_chunks() for k in range(len(shape.profile))]
        columns["profile"] = pa.StructArray.from_arrays(facts, list(shape.profile))
    if shape.votes:
        votes = [clips[f"votes{k}"].combine_chunks() for k in range(len(shape.votes))]
        columns["votes"] = pa.StructArray.from_arrays(votes, list(shape.votes))
    return MANIFEST.conform(pa.table(columns))


def cut_dialogues(place: Workplace) -> Dialogues:
    """The turns of the dialogues of `planned` that lie in several units."""
    place.run(
        """
        create table turns as select dialogue, coalesce(turn, -1) as turn, name, clip_id, text from clips
        where dialogue in (select dialogue from planned where dialogue is not null
            group by dialogue having count(distinct unit) > 1)
        order by dialogue, turn, name
        """
    )
    cut = {name for (name,) in place.run("select distinct dialogue from turns")}

    @lru_cache(2)
    def turns_of(name: str) -> list[Said]:
        rows = place.run(
            "select clip_id, text from turns where dialogue = ? order by turn, name", [name]
        )
        return [Said(*row) for row in rows]

    return lambda name: turns_of(name) if name in cut else None


class NewFile(NamedTuple):
    """A file of a manifest that is not published yet."""

    path: str
    units: pa.Table
    """Their rows as `jobs.catalog.unit_rows` makes them."""


class _Parts:
    """Files of a manifest, written in threads while the next rows are made.

    Args:
        folder: on local disk.
    """

    def __init__(self, folder: str) -> None:
        self.written: list[NewFile] = []
        self._folder = folder
        self._units: list[pa.Table] = []
        self._pool = ThreadPoolExecutor(WRITERS)
        self._count = 0
        self._writing: list[Future[NewFile]] = []

    def __enter__(self) -> "_Parts":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
                self._wait(0)
        finally:
            self._pool.shutdown(cancel_futures=True)

    def add(self, unit: pa.Table) -> None:
        """The clips of the next unit."""
        self._units.append(unit)
        if len(self._units) == UNITS_PER_FILE:
            self._flush()

    def _flush(self) -> None:
        if self._units:
            path = os.path.join(self._folder, f"part-{self._count:05d}.parquet")
            self._count += 1
            self._writing.append(self._pool.submit(_write, path, self._units))
            self._units = []
            self._wait(WRITERS)

    def _wait(self, most: int) -> None:
        while len(self._writing) > most:
            self.written.append(self._writing.pop(0).result())


def _write(path: str, units: list[pa.Table]) -> NewFile:
    schema = units[0].schema
    with pq.ParquetWriter(path, schema, **storage.parquet_options(schema)) as writer:
        for unit in units:
            writer.write_table(unit, row_group_size=unit.num_rows)
    clips = pa.concat_tables([unit.select(list(unit_rows.COLUMNS)) for unit in units])
    counts = [unit.num_rows for unit in units]
    return NewFile(path, unit_rows.unit_rows(clips, counts, path))


def publish_parts(parts: Sequence[NewFile], root: str, digest: str) -> None:
    """Make the files of a manifest appear in its folder, and the rows of its units beside it."""
    folder = layout.manifest_uri(root, digest)
    sizes = {}
    for part in parts:
        name = os.path.basename(part.path)
        sizes[name] = os.path.getsize(part.path)
        storage.publish_file(part.path, storage.join(folder, name))
    unit_rows.publish([part.units for part in parts], sizes, layout.units_uri(root, digest))


def facts_of(
    name: str, licence: str, manifest: str, shape: Shape, source: str
) -> Mapping[str, object]:
    """The content of dataset.json."""
    return {
        "name": name,
        "licence": licence,
        "manifest": manifest,
        "tasks": {name: task.to_json() for name, task in shape.tasks.items()},
        "profile": list(shape.profile),
        **({"votes": list(shape.votes)} if shape.votes else {}),
        "source": source,
    }
