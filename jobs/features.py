"""Import ready-made features into a dataset, or export a dataset's features for other tools.

Reads:  npz, npy, HDF5, pickles (arrays and containers only), CSV, TSV, JSON lines, Parquet, folders
Writes: <root>/features/<name>-<fingerprint>/ (cluster.tables.FEATURES); export: one npz or pkl file, and
        <it>.config.json

Import:  affuse features import --root R --file au.npz --array au_mean --name au --modality video
Pickle:  affuse features import --root R --file aligned_50.pkl --array vision --name facet --modality video
Export:  affuse features export --root R --inputs text=minilm audio=egemaps --out features.pkl
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from cluster import storage
from cluster.console import readable
from cluster.errors import ConfigError
from cluster.settings import Place
from cluster.tables import features as features_table
from cluster.tables import scalar_lists, vector_lists
from cluster.unit_tables import publish_unit, published
from encoders import ENCODERS
from jobs.catalog import layout
from jobs.catalog.compaction import compact, recall
from jobs.catalog.layout import features_uri, former_uri
from jobs.catalog.manifest import read_dataset, read_manifest, read_unit, units
from jobs.catalog.names import check_names
from jobs.catalog.outputs import check_outputs, publish_config, publish_outputs, record_of
from jobs.catalog.tasks import pick_task
from jobs.interop.export_features import ExportedClips, cuts, mmsa_bytes, npz_bytes, select
from jobs.interop.import_features import Layout, Ready, read_ready
from jobs.interop.imported import fingerprint, supersede
from jobs.interop.joining import check_named, match_names, source_of, without_labels

KNOWN_WIDTHS: Mapping[tuple[str, int], str] = {
    ("text", 300): "GloVe vectors",
    ("text", 768): "BERT or RoBERTa base",
    ("audio", 74): "COVAREP",
    ("audio", 88): "eGeMAPS functionals",
    ("video", 35): "Facet, or action units of OpenFace 2",
    ("video", 709): "OpenFace 2, all columns",
}
"""What features of a modality and width usually are; said, never relied upon."""


@dataclass(frozen=True, kw_only=True)
class Import:
    """Read features of named clips from a file into a dataset."""

    root: Place
    """Folder or URI of the dataset."""

    file: Place
    """File to import, or a folder with one npy or csv a clip."""

    name: str
    """Name of the table, as `train --inputs` takes it."""

    modality: Literal["audio", "text", "video"]
    """Modality that the features were computed from."""

    array: str | None = None
    """Key of the array, dataset, list column or pickle entry; `{split}` stands for train, valid, test."""

    names: tuple[str, ...] = ()
    """Keys of the clips' names; by default `name`, `id` and the like."""

    name_format: str = ""
    """Format that joins several names to one, e.g. `dia{}_utt{}`; by default they are joined by
    underscores."""

    rename: Mapping[str, str] = field(default_factory=dict)
    """Regular expressions to replace in the names, PATTERN=TEXT, e.g. `^01-=03-`."""

    lengths: str | None = None
    """Key of the number of real steps of each clip; by default `<array>_lengths` where it is there."""

    columns: tuple[str, ...] = ()
    """Columns of a table, wildcards allowed, e.g. `AU*_r`; by default all numbers but index and labels."""

    padding: Literal["none", "zeros"] = "none"
    """How the file marks padding. zeros: leading and trailing steps of zeros alone are padding."""

    hop_s: float | None = None
    """Time from one step to the next [s], where it is known."""

    licence: str = "unknown"
    """Licence of the features."""

    def __post_init__(self) -> None:
        check_names(name=self.name)
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", self.name):
            raise ConfigError(f"name {self.name!r}: expected letters, digits and underscores")
        if self.name in ENCODERS:
            raise ConfigError(f"name {self.name!r} is an encoder's; choose another")
        if self.hop_s is not None and self.hop_s <= 0:
            raise ConfigError(f"hop_s is a time above 0; came {self.hop_s}")


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write features, labels and splits of a dataset into one file."""

    root: Place
    """Folder or URI of the dataset."""

    inputs: Mapping[str, str]
    """Table of each modality, MODALITY=TABLE, e.g. `text=minilm audio=egemaps video=au`; a table as `train
    --inputs` takes it."""

    out: Place
    """File to write: a `.pkl` in the layout of MMSA (a dict by split), or an `.npz`, which holds labels of
    every kind."""

    overwrite: bool = False
    """Replace a file that no earlier run made; an input is never replaced."""

    task: str | None = None
    """Task whose labels are written; by default the only one."""

    max_steps: int = 512
    """Largest number of steps; of longer sequences the first ones are kept."""

    def __post_init__(self) -> None:
        if not self.out.endswith((".pkl", ".npz")):
            raise ConfigError(f"out {self.out!r}: expected a name that ends in .pkl or .npz")
        unknown = sorted(set(self.inputs) - {"audio", "text", "video"})
        if unknown or not self.inputs:
            raise ConfigError(f"inputs {unknown}: expected audio=, text= or video= and a table")
        if self.max_steps < 1:
            raise ConfigError(f"max_steps is 1 or more; came {self.max_steps}")


COMMANDS = {"export": Export, "import": Import}


def main(config: Import | Export) -> None:
    """Import or export features."""
    if isinstance(config, Import):
        import_features(config)
    else:
        export_features(config)


# ---- import


def import_features(config: Import) -> None:
    """Publish the features of every unit that has none of this file and these flags yet."""
    root = storage.absolute(config.root)
    dataset = read_dataset(root)
    ready = read_ready(config.file, layout_of(config))
    table = read_manifest(root, columns=["name", *dataset.tasks])
    manifest = table["name"].to_pylist()
    check_named(ready, config.file, source_of(root))
    rows, said = match_names(ready, config.rename, manifest, config.file)
    ready, left_out = without_labels(ready, rows, table, list(dataset.tasks))
    for note in [*ready.notes, *said, *left_out, width_note(config.modality, ready.dim)]:
        print(readable(note))
    made_of = fingerprint(
        ready, rows, modality=config.modality, padding=config.padding, hop_s=config.hop_s
    )
    folder = f"{config.name}-{made_of}"
    uri = features_uri(root, folder)
    refs = units(root)
    recall(uri, {ref.version(()) for ref in refs})
    done = published(uri)
    missing = [ref for ref in refs if ref.version(()) not in done]
    table = features_table(ready.dim, "float32")
    for ref in missing:
        clips = read_unit(ref).select(["clip_id", "name"])
        publish_unit(uri, ref.version(()), table.conform(unit_rows(clips, rows, ready, config)))
    facts = {**descriptor(config, ready, made_of), "manifest": dataset.manifest_hash}
    storage.publish_json(facts, storage.join(uri, layout.DESCRIPTOR))
    publish_config(config, uri)
    for older in supersede(root, folder):
        print(f"{config.name} means {folder} from now on; the import before goes by {older}")
    if not missing:
        print(f"nothing to do: {uri} has all {len(manifest)} clips")
        return
    compact(uri, lambda: [ref.version(()) for ref in units(root)], former=former_uri(uri))
    with_features = sum(name in rows for name in manifest)
    rest = ", the rest are status missing" if with_features < len(manifest) else ""
    print(f"{with_features} of {len(manifest)} clips have features{rest}")
    used = {rows[name] for name in manifest if name in rows}
    if odd := sum(not np.isfinite(ready.values[index]).all() for index in used):
        print(f"{odd} of them hold values that are not finite: these are 0, and status is partial")
    print(f"wrote {uri}")


def layout_of(config: Import) -> Layout:
    """The flags that say where in the file things stand."""
    return Layout(
        array=config.array,
        names=config.names,
        name_format=config.name_format,
        lengths=config.lengths,
        columns=config.columns,
    )


def width_note(modality: str, dim: int) -> str:
    """Note on the features that usually have this width."""
    usual = KNOWN_WIDTHS.get((modality, dim))
    return f"{modality}, {dim} wide" + (f": usually {usual}" if usual else "")


def unit_rows(clips: pa.Table, rows: Mapping[str, int], ready: Ready, config: Import) -> pa.Table:
    """One row a clip of a unit, whatever the file has."""
    results = [steps_of(rows.get(name), ready, config) for name in clips["name"].to_pylist()]
    there = [None if result.status == "missing" else result for result in results]
    values = [None if clip is None else clip.steps for clip in there]
    times = [None if clip is None else clip.times for clip in there]
    start, end = ([None if t is None else t[:, side] for t in times] for side in (0, 1))
    valid = [None if steps is None else np.ones(len(steps), bool) for steps in values]
    return pa.table(
        {
            "clip_id": clips["clip_id"],
            "values": vector_lists(values, ready.dim, np.float32),
            "step_start_s": scalar_lists(start, np.float32, nan_is_null=True),
            "step_end_s": scalar_lists(end, np.float32, nan_is_null=True),
            "valid": scalar_lists(valid, np.bool_),
            "status": pa.array([result.status for result in results], pa.string()),
            "error": pa.array([result.error for result in results], pa.string()),
        }
    )


@dataclass(frozen=True)
class ClipSteps:
    """The steps of one clip, with status and error."""

    steps: np.ndarray
    """float32, steps x dim."""

    times: np.ndarray
    """float32, steps x 2 [s]; nan where it is not known."""

    status: str
    error: str | None = None


def steps_of(index: int | None, ready: Ready, config: Import) -> ClipSteps:
    """The steps of one row of the file; values that are not finite become 0, and the status says so."""
    nothing = np.zeros((0, ready.dim), np.float32)
    if index is None:
        error = "missing: the imported file has no such clip"
        return ClipSteps(nothing, np.zeros((0, 2), np.float32), "missing", error)
    values = ready.values[index]
    times = step_times(index, ready, config.hop_s)
    if config.padding == "zeros":
        kept = np.flatnonzero(np.any(values != 0, axis=1))
        window = slice(kept[0], kept[-1] + 1) if len(kept) else slice(0, 0)
        values, times = values[window], times[window]
    if len(values) == 0:
        return ClipSteps(values, times, "missing", "missing: the imported file has no steps of it")
    finite = np.isfinite(values)
    if finite.all():
        return ClipSteps(values, times, "ok")
    error = f"partial: {(~finite).sum()} of {values.size} values were not finite and are 0"
    return ClipSteps(np.where(finite, values, np.float32(0)), times, "partial", error)


def step_times(index: int, ready: Ready, hop_s: float | None) -> np.ndarray:
    """Start and end of each step [s], steps x 2; nan where neither file nor flags say."""
    steps = len(ready.values[index])
    if ready.intervals is not None:
        return ready.intervals[index]
    if hop_s is None:
        return np.full((steps, 2), np.nan, np.float32)
    edges = (np.arange(steps + 1) * hop_s).astype(np.float32)
    return np.stack([edges[:-1], edges[1:]], axis=1)


def descriptor(config: Import, ready: Ready, made_of: str) -> dict[str, Any]:
    """The facts an encoder's `descriptor.json` has, for a table that no encoder made."""
    return {
        "name": config.name,
        "modality": config.modality,
        "dim": ready.dim,
        "layers": [0],
        "layer_dim": ready.dim,
        "hop_s": config.hop_s,
        "dtype": "float32",
        "options": {},
        "fingerprint": made_of,
        "upstream": [],
        "reads": [],
        "weights": [],
        "licence": config.licence,
        "side": {},
        "columns": list(ready.columns),
        "imported": {
            "file": config.file.rstrip("/").rsplit("/", 1)[-1],
            "array": config.array,
            "content": ready.content_hash,
        },
    }


# ---- export


def export_features(config: Export) -> None:
    """Write the features of all clips and the labels of one task."""
    out = storage.absolute(config.out)
    record = record_of(out)
    check_outputs([out], record, overwrite=config.overwrite)
    root = storage.absolute(config.root)
    name, task = pick_task(read_dataset(root), config.task)
    if out.endswith(".pkl") and task.kind == "multilabel":
        raise ConfigError(
            f"--out {config.out}: {name!r} has several labels a clip, and a pickle of MMSA's layout holds "
            f"one; type: --out {config.out.removesuffix('.pkl')}.npz"
        )
    selection = select(root, config.inputs, name, max_steps=config.max_steps)
    as_bytes = mmsa_bytes if out.endswith(".pkl") else npz_bytes
    publish_outputs(config, {out: as_bytes(selection)}, record)
    print(summary(selection))
    for line in cuts(selection, config.max_steps):
        print(line)
    print(f"wrote {out}")


def summary(selection: ExportedClips) -> str:
    """One line about the written table."""
    widths = ", ".join(
        f"{modality} {array.shape[1]} x {array.shape[2]}"
        for modality, array in selection.values.items()
    )
    return f"{len(selection.names)} clips, steps x dim: {widths}; labels of {selection.task}"
