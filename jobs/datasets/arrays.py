"""Labels and facts that stand as arrays in an npz, HDF5 or pickle file, beside features or alone.

Many corpora are handed round as features and labels only. A clip then has no media: its row says who, where
and what, and `affuse features import` brings the features from the same file under the same names.

    affuse prepare arrays --source pom.npz --root R --tasks mood=regression --labels mood=y_{split}:0
    affuse features import --root R --file pom.npz --array audio_{split} --name covarep --modality audio
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np

from cluster import storage
from cluster.errors import ConfigError, LabelTableError
from cluster.settings import nearest
from fusion.tasks import Kind, Task
from jobs._arrays import SPLIT_KEYS, as_text, beside, names_of, near, read_mapping
from jobs.datasets._adapter import Collected, Label, Preparation, Row

ROLES = ("text", "dialogue", "turn", "speaker", "group", "split", "fold")


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """Labels in arrays (npz, HDF5, pickle), for clips whose features are ready."""

    source: str
    """The file."""

    tasks: Mapping[str, str] = field(default_factory=dict)
    """Tasks and their kind: classification, multilabel or regression."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """Array of a task, TASK=KEY or TASK=KEY:COLUMN; by default the task's own name. `{split}` in it
    stands for train, valid and test."""

    classes: Mapping[str, str] = field(default_factory=dict)
    """Names of the classes in the order of their numbers: `mood=low,high`."""

    ranges: Mapping[str, str] = field(default_factory=dict)
    """Bounds of a regression task: `score=-3,3`."""

    names: tuple[str, ...] = ()
    """Keys of the clips' names; by default `name`, `id` and the like, else their place in the file."""

    name_format: str = ""
    """How several names make one, e.g. `dia{}_utt{}`; by default joined by underscores."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Arrays that tell more of a clip: text, dialogue, turn, speaker, group, split, fold = KEY."""

    dataset_name: str = ""
    """By default the file's name."""

    licence: str = ""
    """Of the data, noted beside everything made of it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for column in self.columns:
            if column not in ROLES:
                raise ConfigError(f"--columns {column}=...: {nearest(column, list(ROLES))}")
        for task, kind in self.tasks.items():
            if kind not in get_args(Kind):
                raise ConfigError(f"--tasks {task}={kind}: {nearest(kind, list(get_args(Kind)))}")
        if not self.tasks:
            raise ConfigError("which labels? type: --tasks NAME=classification|regression")
        for option in (self.labels, self.classes, self.ranges):
            for task in option:
                if task not in self.tasks:
                    raise ConfigError(f"{task}=...: --tasks does not name {task!r}")

    def collect(self) -> Collected:
        """One clip a row of the arrays."""
        content = read_mapping(storage.absolute(self.source))
        faults: list[str] = []
        rows: list[Row] = []
        folds: dict[str, int] = {}
        for split in splits_inside(content, self._label_keys()):
            part, part_folds = self._rows(content, split, faults)
            rows += part
            folds |= part_folds
        name = self.source.rstrip("/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
        return Collected(
            name=self.dataset_name or name,
            licence=self.licence,
            tasks={task: self._task(task, rows) for task in self.tasks},
            rows=rows,
            folds={"table": folds} if folds else {},
            faults=faults,
        )

    def _label_keys(self) -> dict[str, tuple[str, int | None]]:
        """Task -> its array, and the column of it."""
        keys = {}
        for task in self.tasks:
            key, _, column = self.labels.get(task, task).partition(":")
            if column and not column.isdigit():
                raise ConfigError(
                    f"--labels {task}={key}:{column}: expected the number of a column"
                )
            keys[task] = (key, int(column) if column else None)
        return keys

    def _rows(
        self, content: Mapping[str, Any], split: str | None, faults: list[str]
    ) -> tuple[list[Row], dict[str, int]]:
        labels = {
            task: self._labels(task, column_of(content, key, split, self.source), column, faults)
            for task, (key, column) in self._label_keys().items()
        }
        counts = {len(column) for column in labels.values()}
        if len(counts) > 1:
            raise LabelTableError(f"{self.source}: the tasks have {sorted(counts)} rows")
        count = counts.pop()
        first_key = next(iter(self._label_keys().values()))[0]
        anchor = beside(content, first_key, "", split) or first_key
        names = names_of(
            content, self.names, self.name_format, anchor, split, count, where=self.source
        )
        roles = {
            role: [as_text(item) for item in column_of(content, key, split, self.source)]
            for role, key in self.columns.items()
        }
        for role, values in roles.items():
            if len(values) != count:
                raise LabelTableError(f"{self.source}: {len(values)} of {role}, {count} labels")
        rows = [
            Row(
                name=name,
                text=_at(roles, "text", index),
                dialogue=_at(roles, "dialogue", index),
                turn=None if "turn" not in roles else int(roles["turn"][index]),
                speaker=_at(roles, "speaker", index),
                group=_at(roles, "group", index),
                split=SPLIT_KEYS.get(_at(roles, "split", index) or split or "", None),
                labels={task: column[index] for task, column in labels.items()},
            )
            for index, name in enumerate(names)
        ]
        folds = dict(zip(names, map(int, roles.get("fold", [])), strict=False))
        return rows, folds

    def _labels(
        self, task: str, values: Sequence[Any], column: int | None, faults: list[str]
    ) -> list[Label]:
        array = np.asarray(values)
        if column is not None:
            if array.ndim != 2 or column >= array.shape[1]:
                raise LabelTableError(f"{task}: no column {column} in an array of {array.shape}")
            array = array[:, column]
        kind = self.tasks[task]
        if kind == "regression":
            numbers = array.astype(np.float64).reshape(len(array))
            return [None if np.isnan(number) else float(number) for number in numbers]
        if kind == "multilabel":
            return [list(map(float, row)) for row in array]
        if array.ndim == 2:  # one-hot
            array = array.argmax(axis=1)
        known = _listed(self.classes.get(task, ""))
        if array.dtype.kind in "iufb" and known:
            return [_class(number, known, task, faults) for number in array]
        return [as_text(item) for item in array]

    def _task(self, task: str, rows: Sequence[Row]) -> Task:
        kind = self.tasks[task]
        if kind == "regression":
            bounds = _listed(self.ranges.get(task, ""))
            if bounds and len(bounds) != 2:
                raise ConfigError(f"--ranges {task}={self.ranges[task]}: expected LOW,HIGH")
            return Task(
                kind="regression", range=(float(bounds[0]), float(bounds[1])) if bounds else None
            )
        classes = _listed(self.classes.get(task, ""))
        if kind == "multilabel":
            if not classes:
                raise ConfigError(f"--classes {task}=...: a multilabel task needs its label names")
            return Task(kind="multilabel", classes=classes)
        found = {str(row.labels[task]) for row in rows if row.labels[task] is not None}
        return Task(kind="classification", classes=classes or tuple(sorted(found)))


def splits_inside(
    content: Mapping[str, Any], keys: Mapping[str, tuple[str, int | None]]
) -> list[str | None]:
    """The splits that a file keeps apart; one None where it does not."""
    wanted = [key for key, _ in keys.values()]
    if all(key in content for key in wanted):
        return [None]
    found: list[str | None] = [
        split for split in SPLIT_KEYS if all(beside(content, key, "", split) for key in wanted)
    ]
    if not found:
        lacking = next((key for key in wanted if key not in content), wanted[0])
        raise LabelTableError(f"no array {lacking!r}; {near(lacking, content)}")
    return found


def column_of(content: Mapping[str, Any], key: str, split: str | None, where: str) -> Sequence[Any]:
    """An array by its key, of one split where the file keeps splits apart.

    Raises:
        LabelTableError: no such array; the nearest is named.
    """
    found = beside(content, key, "", split)
    if found is None:
        raise LabelTableError(f"{where}: no array {key!r}; {near(key, content)}")
    column: Sequence[Any] = content[found]
    return column


def _class(number: Any, known: Sequence[str], task: str, faults: list[str]) -> str | None:
    index = int(number)
    if index == -1:
        return None
    if not 0 <= index < len(known):
        faults.append(f"{task}: class {index}; --classes names 0 to {len(known) - 1}")
        return None
    return known[index]


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _at(roles: Mapping[str, Sequence[str]], role: str, index: int) -> str | None:
    return roles[role][index] or None if role in roles else None
