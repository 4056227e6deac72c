"""Features, labels and splits of a dataset as arrays for other tools."""

import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.errors import ConfigError
from cluster.tables import lengths_of, scalars_of, vectors_of
from fusion.tasks import Task
from jobs.catalog.features import (
    feature_folders,
    read_features,
    read_transcripts,
    resolve_features,
)
from jobs.catalog.manifest import read_dataset, read_manifest
from jobs.catalog.tasks import pick_task

MMSA_KEYS = {"text": "text", "audio": "audio", "video": "vision"}
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, kw_only=True)
class ExportedClips:
    """Clips in the order of the manifest, padded to the longest."""

    names: tuple[str, ...]
    texts: tuple[str, ...]
    """Words of each clip, its own or those that a transcriber heard; empty where there are none."""

    splits: tuple[str, ...]
    """A clip without a split counts as train."""

    task: str
    kind: Task
    labels: tuple[str | float | tuple[float, ...] | None, ...]
    values: Mapping[str, np.ndarray]
    """Modality -> float32, clips x steps x dim."""

    lengths: Mapping[str, np.ndarray]
    """Modality -> int64, real steps a clip."""

    whole: Mapping[str, np.ndarray]
    """Modality -> int64, steps a clip that its table has: more where it was cut."""


def select(
    root: str, inputs: Mapping[str, str], task: str | None, *, max_steps: int
) -> ExportedClips:
    """Read the tables of some inputs and one task of a dataset.

    Args:
        root: the dataset.
        inputs: modality -> table.
        task: by default the only one.
        max_steps: longer sequences are cut.

    Raises:
        ConfigError: no such task, or several and none was named; or a table of another modality.
        NotPreparedError: no such table.
    """
    dataset = read_dataset(root)
    name, kind = pick_task(dataset, task)
    check_modalities(root, inputs)
    manifest = read_manifest(root)
    clip_ids = manifest["clip_id"].to_pylist()
    values, lengths, whole = {}, {}, {}
    for modality, table in sorted(inputs.items()):
        values[modality], whole[modality] = padded(root, table, clip_ids, max_steps)
        lengths[modality] = np.minimum(whole[modality], max_steps)
    return ExportedClips(
        names=tuple(manifest["name"].to_pylist()),
        texts=texts_of(root, manifest, [inputs[m] for m in sorted(inputs, key="text".__ne__)]),
        splits=tuple(split or "train" for split in manifest["split"].to_pylist()),
        task=name,
        kind=kind,
        labels=tuple(manifest[name].to_pylist()),
        values=values,
        lengths=lengths,
        whole=whole,
    )


def check_modalities(root: str, inputs: Mapping[str, str]) -> None:
    """Refuse a table under a modality that it was not computed from: others would take it for that.

    Raises:
        ConfigError: naming what it is, and what to type.
        NotPreparedError: no such table.
    """
    tables = feature_folders(root)
    for modality, name in sorted(inputs.items()):
        folder = resolve_features(root, name)
        is_of = tables[folder].get("modality")
        if is_of != modality:
            fitting = sorted(
                {str(f["name"]) for f in tables.values() if f.get("modality") == modality}
            )
            others = f"; tables of {modality}: {', '.join(fitting)}" if fitting else ""
            raise ConfigError(
                f"--inputs {modality}={name}: {folder} is of {is_of}, not of {modality}; type: "
                f"{is_of}={name}{others}"
            )


def texts_of(root: str, manifest: pa.Table, inputs: Sequence[str]) -> tuple[str, ...]:
    """The words of every clip: its own, or else those that the first table which read any has read.

    Args:
        root: the dataset.
        manifest: its clips.
        inputs: the tables, those of text first.

    Raises:
        NotPreparedError: clips have no row in the table of transcripts.
    """
    own = manifest["text"].to_pylist()
    heard: dict[int, str | None] = {}
    if None in own:
        tables = feature_folders(root)
        read = [each for name in inputs for each in upstream(tables[resolve_features(root, name)])]
        transcripts = feature_folders(root, "transcripts")
        made_of = {str(facts.get("fingerprint")): folder for folder, facts in transcripts.items()}
        for folder in [made_of[each] for each in read if each in made_of][:1]:
            rows = read_transcripts(root, folder)
            pairs = zip(rows["clip_id"].to_pylist(), rows["text"].to_pylist(), strict=True)
            heard = dict(pairs)
    clips = manifest["clip_id"].to_pylist()
    return tuple(text or heard.get(clip) or "" for clip, text in zip(clips, own, strict=True))


def upstream(facts: Mapping[str, Any]) -> list[str]:
    """Fingerprints of what a table was made from besides media: its transcriber's."""
    return [str(each) for each in facts.get("upstream", ())]


def padded(
    root: str, table: str, clip_ids: list[int], max_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """The valid steps of every clip, zero-padded behind: clips x steps x dim, and their number uncut."""
    rows = read_features(
        root, resolve_features(root, table), columns=["clip_id", "values", "valid"]
    )
    dim = rows.schema.field("values").type.value_type.list_size
    sequences: dict[int, np.ndarray] = {}
    whole: dict[int, int] = {}
    for batch in rows.to_batches(max_chunksize=256):
        values, valid = vectors_of(batch["values"]), scalars_of(batch["valid"]).astype(bool)
        ends = np.cumsum(lengths_of(batch["valid"]))
        starts = ends - lengths_of(batch["valid"])
        for clip, start, end in zip(batch["clip_id"].to_pylist(), starts, ends, strict=True):
            steps = values[start:end][valid[start:end]]
            whole[clip] = len(steps)
            sequences[clip] = steps[:max_steps].astype(np.float32)
    lengths = np.array([len(sequences.get(clip, ())) for clip in clip_ids], np.int64)
    out = np.zeros((len(clip_ids), max(1, int(lengths.max(initial=0))), dim), np.float32)
    for index, clip in enumerate(clip_ids):
        if clip in sequences:
            out[index, : lengths[index]] = sequences[clip]
    return out, np.array([whole.get(clip, 0) for clip in clip_ids], np.int64)


def cuts(selection: ExportedClips, max_steps: int) -> list[str]:
    """A line for each modality whose clips were cut: how many, to what, and what keeps them whole."""
    lines = []
    for modality, whole in selection.whole.items():
        if count := int((whole > max_steps).sum()):
            longest = int(whole.max())
            have = "clip has" if len(whole) == 1 else "clips have"
            lines.append(
                f"{modality}: {count} of {len(whole)} {have} more than {max_steps} steps and were cut to the "
                f"first {max_steps}, the longest has {longest}; to keep all, type: --max-steps {longest}"
            )
    return lines


def mmsa_bytes(selection: ExportedClips) -> bytes:
    """A pickle of the layout that MMSA and its family read: a dict by split.

    The keys of a split: `id`, `raw_text`, one array a modality (`text`, `audio`, `vision`), its
    `<modality>_lengths`, `annotations` (the label as text, empty where there is none), and
    `regression_labels`; of classes in its place `classification_labels` (their indices, -1 where there is
    none) and `class_names`, which MMSA does not read and `affuse prepare mmsa` does.
    """
    kind = selection.kind
    content = {}
    splits = np.array(selection.splits)
    for split in SPLITS:
        rows = np.flatnonzero(splits == split)
        if len(rows) == 0:
            continue
        part: dict[str, object] = {
            "id": [selection.names[row] for row in rows],
            "raw_text": [selection.texts[row] for row in rows],
        }
        labels = [selection.labels[row] for row in rows]
        part["annotations"] = ["" if label is None else str(label) for label in labels]
        numbers = np.array([number(label, kind) for label in labels], np.float32)
        if kind.kind == "classification":
            part["classification_labels"] = np.nan_to_num(numbers, nan=-1).astype(np.int64)
            part["class_names"] = list(kind.classes)
        else:
            part["regression_labels"] = numbers
        for modality, array in selection.values.items():
            key = MMSA_KEYS[modality]
            part[key] = array[rows]
            part[f"{key}_lengths"] = selection.lengths[modality][rows]
        content[split] = part
    return pickle.dumps(content, protocol=4)


def npz_bytes(selection: ExportedClips) -> bytes:
    """Arrays of names, splits, words, labels, and a modality's values and lengths; no pickles inside.

    `name`, `split`, `transcript`, `label` (of several labels clips x classes), `classes` where there are
    some, `<modality>`, `<modality>_lengths`.
    """
    arrays: dict[str, np.ndarray] = {
        "name": np.array(selection.names),
        "split": np.array(selection.splits),
        "transcript": np.array(selection.texts),
    }
    if selection.kind.kind == "classification":
        arrays["label"] = np.array([label or "" for label in selection.labels])
    else:
        arrays["label"] = np.array(
            [number(label, selection.kind) for label in selection.labels], np.float32
        )
    if selection.kind.classes:
        arrays["classes"] = np.array(selection.kind.classes)
    for modality, array in selection.values.items():
        arrays[modality] = array
        arrays[f"{modality}_lengths"] = selection.lengths[modality]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def number(label: object, task: Task) -> object:
    """A label as numbers: a class becomes its index, a missing one nan."""
    if label is None:
        return np.nan if task.kind != "multilabel" else [np.nan] * len(task.classes)
    if task.kind == "classification":
        return task.classes.index(str(label))
    return label
