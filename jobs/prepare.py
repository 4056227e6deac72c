"""Turn a source of clips and labels into a manifest: one row a clip, cut into units of work.

Reads:  the source's own files, through one adapter of jobs/datasets
Writes: <root>/manifest/<hash>/  (cluster.tables.MANIFEST, a unit a row group), folds/, dataset.json last

Laptop:  affuse prepare ravdess --source ravdess --root data/ravdess
Own:     affuse prepare folder --source clips --labels labels.csv --tasks mood=classification --root R
Cluster: affuse prepare folder --source s3://bucket/clips --labels l.csv --root s3://bucket/work

Faults of the label table are all listed and stop the job. Faults of media do not: such clips get their rows
from `encode`. Clips that are added later make new units; old ones stay as they are.
"""

import hashlib
import importlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster import settings, storage
from cluster.console import Table, readable, show
from cluster.errors import ConfigError, MediaError
from cluster.tables import SPLITS
from encoders.media import Probe
from fusion.tasks import Task
from jobs._cli import parse_config, take_config_flag
from jobs.catalog.manifest import manifest_files, read_folds
from jobs.catalog.names import checked_name
from jobs.catalog.outputs import publish_config
from jobs.datasets import DATASETS
from jobs.preparing import lengths, probing, units
from jobs.preparing.adapter import Collected, Preparation
from jobs.preparing.groups import Grouping
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

UNITS_PER_FILE = 2048
MOST_FAULTS_SHOWN = 5


def configure(argv: list[str]) -> Preparation:
    """`affuse prepare DATASET --flags`, or the resolved config of an earlier time by `--config`."""
    path, argv = take_config_flag(argv)
    values = {} if path is None else settings.read_mapping(path)
    name = str(values.pop("dataset", ""))
    if argv and not argv[0].startswith("-"):
        name, argv = argv[0], argv[1:]
    if not name and argv and argv[0] in ("-h", "--help"):
        print(overview())
        raise SystemExit(0)
    if name not in DATASETS:
        known = ", ".join(DATASETS)
        hint = settings.nearest(name, list(DATASETS)) if name else ""
        raise ConfigError(
            f"there is no dataset {name!r}; {hint}" if name else f"expected a dataset: {known}"
        )
    adapter = importlib.import_module(f"jobs.datasets.{name}")
    config = parse_config(
        f"affuse prepare {name}",
        adapter.Config,
        argv,
        description=adapter.__doc__ or "",
        given=values,
    )
    assert isinstance(config, Preparation)
    return config


def main(config: Preparation) -> None:
    """Collect, check, probe, split, cut into units, publish."""
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
    _summary(clips, collected, probes, grouping)
    for note in lengths.notes(measure(collected, stamps, probes), config.max_clip_s):
        print(readable(note))
    if facts == before.facts and all(_same_folds(root, *pair) for pair in folds.items()):
        print(f"nothing to do: {root} holds these {len(clips):,} clips already")
        return
    _publish(root, table, folds, facts, config)


def overview() -> str:
    """The list of datasets."""
    width = max(map(len, DATASETS))
    manual = (__doc__ or "").rstrip()
    lines = [f"  {name:<{width}}  {text}" for name, text in DATASETS.items()]
    usage = "usage: affuse prepare DATASET [options]   (affuse prepare DATASET --help lists them)"
    return "\n".join([usage, "", manual, "", "datasets:", *lines])


def _part(collected: Collected, part: str) -> Collected:
    if not part:
        return collected
    rows = [replace(row, split=None) for row in collected.rows if row.split == part]
    return replace(collected, rows=rows)


@dataclass(frozen=True, kw_only=True)
class _Before:
    """What an earlier run left at this root."""

    facts: Mapping[str, Any]
    config: Mapping[str, Any]
    units: Mapping[str, Sequence[int]]
    splits: Mapping[str, str]
    """Group -> split."""


def _before(root: str) -> _Before:
    uri = storage.join(root, "dataset.json")
    if not storage.exists(uri):
        return _Before(facts={}, config={}, units={}, splits={})
    facts = storage.read_json(uri)
    config = storage.read_json(storage.join(root, "manifest", facts["manifest"], "config.json"))
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
        "tasks": {name: _task_facts(task) for name, task in collected.tasks.items()},
        "profile": profile_fields(collected),
        "source": str(getattr(config, "source", "")),
    }


def _task_facts(task: Task) -> dict[str, Any]:
    bounds = None if task.range is None else list(task.range)
    return {"kind": task.kind, "classes": list(task.classes), "range": bounds}


def _same_folds(root: str, name: str, fold_of: Mapping[int, int]) -> bool:
    uri = storage.join(root, "folds", f"{name}.parquet")
    return storage.exists(uri) and read_folds(root, name) == dict(fold_of)


def _publish(
    root: str, table: pa.Table, folds: Folds, facts: Mapping[str, Any], config: Preparation
) -> None:
    """Write everything, and dataset.json last: it names the manifest that holds."""
    folder = storage.join(root, "manifest", facts["manifest"])
    groups = _unit_slices(table)
    for number, first in enumerate(range(0, len(groups), UNITS_PER_FILE)):
        buffer = io.BytesIO()
        with pq.ParquetWriter(buffer, table.schema, compression="zstd") as writer:
            for start, length in groups[first : first + UNITS_PER_FILE]:
                writer.write_table(table.slice(start, length), row_group_size=length)
        storage.publish_bytes(buffer.getvalue(), storage.join(folder, f"part-{number:05d}.parquet"))
    name = type(config).__module__.rsplit(".", 1)[-1]
    publish_config(config, folder, dataset=name)
    publish_folds(root, folds, facts["manifest"], config.seed)
    storage.publish_json(facts, storage.join(root, "dataset.json"))
    print(f"wrote {folder}: {table.num_rows:,} clips in {len(groups):,} units")


def _unit_slices(table: pa.Table) -> list[tuple[int, int]]:
    starts: dict[str, list[int]] = {}
    for row, unit in enumerate(table["unit"].to_pylist()):
        starts.setdefault(unit, []).append(row)
    return [(rows[0], len(rows)) for rows in starts.values()]


def _summary(
    clips: Sequence[units.Clip],
    collected: Collected,
    probes: Mapping[str, probing.Outcome],
    grouping: Grouping,
) -> None:
    """What was found: clips, hours and modalities per split, classes per task, files with faults."""
    grid = Table(title=f"{collected.name} ({collected.licence or 'no licence given'})")
    for column in ("split", "clips", "hours", "groups", "video", "audio", "text", "units"):
        grid.add_column(column, justify="left" if column == "split" else "right")
    parts = {split: [c for c in clips if c["split"] == split] for split in (*SPLITS, None)}
    for split, part in {**parts, "all": list(clips)}.items():
        if part and not (split is None and len(part) == len(clips)):
            grid.add_row(split or "(none)", *_counts(part))
    show(grid)
    print(grouping)
    if grouping.warning and collected.tasks:
        print(grouping.warning)
    for name, task in collected.tasks.items():
        show(f"{name} ({task.kind}): {_labels(clips, name, task)}")
    kinds = Counter(_kind(probe) for probe in probes.values() if not isinstance(probe, MediaError))
    for kind, count in kinds.most_common(MOST_FAULTS_SHOWN):
        show(f"{count:,} files: {kind}")
    faults = [str(outcome) for outcome in probes.values() if isinstance(outcome, MediaError)]
    if faults:
        show(f"{len(faults)} files cannot be opened; encode gives their clips error rows:")
        for line in faults[:MOST_FAULTS_SHOWN]:
            show(f"  {line}")
        if len(faults) > MOST_FAULTS_SHOWN:
            show(f"  and {len(faults) - MOST_FAULTS_SHOWN} more")


def _kind(probe: Probe) -> str:
    picture = f"{probe.video_codec} {probe.width} x {probe.height}, {probe.fps or 0:.3g} frames/s"
    sound = f"{probe.audio_codec} {probe.rate_hz} Hz, {probe.channels} channels"
    parts = [
        picture if probe.has_video else "no pictures",
        sound if probe.has_audio else "no sound",
    ]
    return "; ".join(parts)


def _counts(part: Sequence[units.Clip]) -> list[str]:
    hours = sum(clip["duration_s"] or 0.0 for clip in part) / 3600
    kinds = [sum(clip[kind] is not None for clip in part) for kind in ("video", "audio", "text")]
    groups, cuts = (len({clip[key] for clip in part}) for key in ("group", "unit"))
    return [f"{len(part):,}", f"{hours:.2f}", *(f"{n:,}" for n in (groups, *kinds, cuts))]


def _labels(clips: Sequence[units.Clip], name: str, task: Task) -> str:
    values = [clip["labels"].get(name) for clip in clips]
    known = [value for value in values if value is not None]
    missing = f"; {len(values) - len(known):,} without" if len(known) < len(values) else ""
    if task.kind == "classification":
        counts = Counter(known)
        return ", ".join(f"{label} {counts[label]:,}" for label in task.classes) + missing
    if task.kind == "multilabel":
        sums = [int(sum(row[k] for row in known)) for k in range(len(task.classes))]
        pairs = zip(task.classes, sums, strict=True)
        return ", ".join(f"{label} {count:,}" for label, count in pairs) + missing
    mean = sum(known) / len(known) if known else float("nan")
    low, high = (min(known), max(known)) if known else (mean, mean)
    return f"{len(known):,} values, {low:g} to {high:g}, mean {mean:.3g}" + missing
