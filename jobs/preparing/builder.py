"""From an adapter to a manifest: `affuse prepare`, and files that are scored without a dataset."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster import storage
from cluster.console import readable
from jobs.catalog import layout
from jobs.catalog.manifest import manifest_files, read_folds
from jobs.catalog.names import checked_name
from jobs.catalog.outputs import publish_config
from jobs.preparing import lengths, probing, units
from jobs.preparing.adapter import Collected, Preparation
from jobs.preparing.keys import keyed
from jobs.preparing.packing import packed
from jobs.preparing.rows import (
    checked,
    clips_of,
    grouped,
    manifest_table,
    measure,
    profile_fields,
    sources_of,
)
from jobs.preparing.splitting import Folds, cut_folds, cut_splits, publish_folds
from jobs.preparing.summary import show_summary

UNITS_PER_FILE = 2048


def build(config: Preparation) -> None:
    """Collect, check, probe, split, cut into units, publish under the config's root."""
    root = storage.absolute(config.root)
    collected, grouping = grouped(_part(config.collect(), config.part), config)
    for note in collected.notes:
        print(readable(note))
    for name in (*collected.tasks, *collected.folds):
        checked_name(name, "the task or fold")
    rows = checked(collected)
    before = _before(root)
    stamps = probing.stamps_of((source.uri for source in sources_of(rows)), config.workers)
    if config.pack:
        rows = packed(rows, stamps, root, config.shard_mb)
        collected = replace(collected, rows=rows)
        stamps |= probing.stamps_of((s.uri for s in sources_of(rows)), config.workers)
    sources = sources_of(rows)
    known = probing.read_probes(root)
    probes = probing.probe_all(sources, stamps, known, config.workers, root)
    probing.gather_probes(probes, known, root)
    clips = clips_of(collected, stamps, probes, config.max_clip_s)
    clips = cut_splits(clips, config, grouping, before.config, before.splits)
    clips = units.cut(
        clips, before.units.values(), most_clips=config.unit_clips, most_s=config.unit_s
    )
    clips = keyed(clips, stamps)
    folds = cut_folds(clips, collected, config, grouping, root)
    table = manifest_table(clips, collected)
    facts = _facts(table, collected, config)
    show_summary(clips, collected, probes, grouping)
    for note in lengths.notes(measure(collected, stamps, probes), config.max_clip_s):
        print(readable(note))
    if facts == before.facts and all(_same_folds(root, *pair) for pair in folds.items()):
        print(f"nothing to do: {root} holds these {len(clips):,} clips already")
        return
    _publish(root, table, folds, facts, config)


def _part(collected: Collected, part: str) -> Collected:
    if not part:
        return collected
    rows = [replace(row, split=None) for row in collected.rows if row.split == part]
    return replace(collected, rows=rows)


@dataclass(frozen=True, kw_only=True)
class _Before:
    """Results of an earlier run at this root."""

    facts: Mapping[str, Any]
    config: Mapping[str, Any]
    units: Mapping[str, Sequence[int]]
    splits: Mapping[str, str]
    """Group -> split."""


def _before(root: str) -> _Before:
    uri = layout.dataset_uri(root)
    if not storage.exists(uri):
        return _Before(facts={}, config={}, units={}, splits={})
    facts = storage.read_json(uri)
    config = storage.read_json(layout.manifest_uri(root, facts["manifest"], layout.CONFIG))
    members: dict[str, list[int]] = {}
    splits: dict[str, str] = {}
    for file in manifest_files(root):
        table = storage.read_table(file, ["clip_id", "unit", "group", "split"])
        for row in table.to_pylist():
            members.setdefault(row["unit"], []).append(row["clip_id"])
            if row["split"] is not None:
                splits[row["group"]] = row["split"]
    return _Before(facts=facts, config=config, units=members, splits=splits)


def _facts(table: pa.Table, collected: Collected, config: Preparation) -> dict[str, Any]:
    """The content of dataset.json; the manifest's hash is over all rows."""
    digest = hashlib.sha256()
    for row in table.to_pylist():
        digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return {
        "name": collected.name,
        "licence": collected.licence,
        "manifest": digest.hexdigest()[:12],
        "tasks": {name: task.to_json() for name, task in collected.tasks.items()},
        "profile": profile_fields(collected),
        "source": str(getattr(config, "source", "")),
    }


def _same_folds(root: str, name: str, fold_of: Mapping[int, int]) -> bool:
    uri = layout.folds_uri(root, name)
    return storage.exists(uri) and read_folds(root, name) == dict(fold_of)


def _publish(
    root: str, table: pa.Table, folds: Folds, facts: Mapping[str, Any], config: Preparation
) -> None:
    """Write everything, and dataset.json last: it names the manifest that holds."""
    folder = layout.manifest_uri(root, facts["manifest"])
    groups = _unit_slices(table)
    for number, first in enumerate(range(0, len(groups), UNITS_PER_FILE)):
        buffer = io.BytesIO()
        with pq.ParquetWriter(
            buffer, table.schema, **storage.parquet_options(table.schema)
        ) as writer:
            for start, length in groups[first : first + UNITS_PER_FILE]:
                writer.write_table(table.slice(start, length), row_group_size=length)
        storage.publish_bytes(buffer.getvalue(), storage.join(folder, f"part-{number:05d}.parquet"))
    name = type(config).__module__.rsplit(".", 1)[-1]
    publish_config(config, folder, dataset=name)
    publish_folds(root, folds, facts["manifest"], config.seed)
    storage.publish_json(facts, layout.dataset_uri(root))
    print(f"wrote {folder}: {table.num_rows:,} clips in {len(groups):,} units")


def _unit_slices(table: pa.Table) -> list[tuple[int, int]]:
    starts: dict[str, list[int]] = {}
    for row, unit in enumerate(table["unit"].to_pylist()):
        starts.setdefault(unit, []).append(row)
    return [(rows[0], len(rows)) for rows in starts.values()]
