"""Join features of a file to the clips of a manifest: by name, never by position."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from cluster import storage
from cluster.errors import ConfigError, TableError
from jobs.catalog import layout
from jobs.interop.cells import composed
from jobs.interop.columns import plain
from jobs.interop.import_features import Ready

TAKE = re.compile(r"\d\d(-\d\d){6}")
"""How RAVDESS and its copies name a take; the first number is the channel: film, silent film or sound."""

FEWEST_JUDGED = 20
"""A column that agrees with the labels of so many clips is taken for the labels; with fewer it may not be."""


def match_names(
    ready: Ready, rename: Mapping[str, str], manifest: Sequence[str], file: str
) -> tuple[dict[str, int], list[str]]:
    """Clip's name in the manifest -> row of the file, and notes to print.

    Args:
        ready: the file's features.
        rename: regular expression -> what to put in its place in the file's names.
        manifest: the names of all clips.
        file: for messages.

    Raises:
        ConfigError: a rename that makes one name of several.
        TableError: the file names none of the clips.
    """
    names = list(map(composed, ready.names))
    for pattern, text in rename.items():
        names = [re.sub(pattern, text, name) for name in names]
    rows = {name: index for index, name in enumerate(names)}
    if len(rows) < len(names):
        raise ConfigError("rename makes one name of several; make the pattern narrower")
    clips = {composed(name): name for name in manifest}
    said = []
    if not clips.keys() & rows.keys():
        channel = _other_channel(names, list(clips))
        if channel is None:
            raise TableError(_none_of(names, list(clips), file))
        rows = {channel + name[2:]: row for name, row in rows.items()}
        said.append(
            f"names: takes {names[0][:2]}-... are {channel}-... in the manifest, as RAVDESS counts"
        )
    extra = [name for name in rows if name not in clips]
    if extra:
        some = ", ".join(extra[:10]) + (", ..." if len(extra) > 10 else "")
        said.append(f"{len(extra)} names of the file are no clips of the manifest: {some}")
    return {clips[name]: row for name, row in rows.items() if name in clips}, said


def check_named(ready: Ready, file: str, source: str) -> None:
    """Refuse rows without names, unless the clips themselves were made from the positions in this file.

    Args:
        ready: the file's features.
        file: where they were read.
        source: what the manifest was made of.

    Raises:
        TableError: another file.
    """
    if ready.named or PurePosixPath(source).name == PurePosixPath(file).name:
        return
    raise TableError(
        f"{file}: has no names of clips, and rows are never joined by their place; type: --names KEY"
        f" (the manifest was made of {PurePosixPath(source).name or 'another source'})"
    )


def without_labels(
    ready: Ready, rows: Mapping[str, int], manifest: pa.Table, tasks: Sequence[str]
) -> tuple[Ready, list[str]]:
    """The features without columns that are labels of the dataset, by name or by value.

    Args:
        ready: the file's features.
        rows: clip's name -> row of the file.
        manifest: `name` and a column a task.
        tasks: its tasks.

    Raises:
        TableError: nothing is left.
    """
    labels: set[int] = set()
    notes = []
    for task in tasks:
        named = [k for k, column in enumerate(ready.columns) if plain(column) == plain(task)]
        same = _same_values(ready, rows, manifest["name"].to_pylist(), manifest[task].to_pylist())
        for k in sorted({*named, *same} - labels):
            what = ready.columns[k] if ready.columns else f"number {k}"
            notes.append(f"not read: column {what}, because it is the label {task!r}")
        labels |= {*named, *same}
    if not labels:
        return ready, []
    kept = [k for k in range(ready.dim) if k not in labels]
    if not kept:
        raise TableError(f"{'; '.join(notes)}; no features are left")
    columns = tuple(ready.columns[k] for k in kept) if ready.columns else ()
    values = tuple(np.ascontiguousarray(array[:, kept]) for array in ready.values)
    return replace(ready, values=values, columns=columns), notes


def _other_channel(names: Sequence[str], clips: Sequence[str]) -> str | None:
    """The channel of the manifest, where both sides are takes of one channel each and all names fit."""
    if not all(TAKE.fullmatch(name) for name in (*names, *clips)):
        return None
    ours, theirs = ({name[:2] for name in side} for side in (names, clips))
    if len(ours) > 1 or len(theirs) > 1:
        return None
    channel = theirs.pop()
    return channel if {channel + name[2:] for name in names} <= set(clips) else None


def _none_of(names: Sequence[str], clips: Sequence[str], file: str) -> str:
    if {PurePosixPath(name).stem for name in names} & set(clips):
        what = r"--rename '\.[A-Za-z0-9]+$=' (its names end in the suffix of a file)"
    else:
        what = "--rename PATTERN=TEXT, or other --names"
    return f"{file} names none of the clips: it has {names[0]!r}, the manifest {clips[0]!r}; type: {what}"


def _same_values(
    ready: Ready, rows: Mapping[str, int], clips: Sequence[str], labels: Sequence[Any]
) -> list[int]:
    """Columns that are constant in every clip and tell the label of each without an exception."""
    known = [
        (rows[name], label)
        for name, label in zip(clips, labels, strict=True)
        if name in rows and isinstance(label, str | float) and len(ready.values[rows[name]])
    ]
    if len(known) < FEWEST_JUDGED or len({label for _, label in known}) < 2:
        return []
    firsts = np.stack([ready.values[row][0] for row, _ in known])
    constant = np.all([(ready.values[r] == ready.values[r][0]).all(0) for r, _ in known], axis=0)
    if isinstance(known[0][1], float):
        target = np.array([label for _, label in known], np.float32)
        return np.flatnonzero(constant & (firsts == target[:, None]).all(0)).tolist()
    classes, codes = np.unique([label for _, label in known], return_inverse=True)
    return [
        k
        for k in np.flatnonzero(constant).tolist()
        if _one_to_one(firsts[:, k], codes, len(classes))
    ]


def _one_to_one(values: np.ndarray, codes: np.ndarray, classes: int) -> bool:
    found, places = np.unique(values, return_inverse=True)
    return len(found) == classes == len({*zip(places.tolist(), codes.tolist(), strict=True)})


def source_of(root: str) -> str:
    """Source that the dataset at a root was made from."""
    return str(storage.read_json(layout.dataset_uri(root)).get("source", ""))
