"""Labels and facts that stand as arrays in an npz, HDF5 or pickle file, beside features or alone.

Many corpora are handed round as features and labels only. A clip then has no media: its row says who, where
and what, and `affuse features import` brings the features from the same file under the same names.

    affuse prepare arrays --source pom.npz --root R --tasks mood=regression --labels mood=y_{split}:0
    affuse features import --root R --file pom.npz --array audio_{split} --name covarep --modality audio
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from cluster import storage
from cluster.errors import ConfigError, LabelTableError
from cluster.settings import Place, nearest
from fusion.tasks import Kind, Task
from jobs.interop.arrays import SPLIT_KEYS, beside, near, open_arrays
from jobs.interop.columns import spelt_differently
from jobs.preparing.about import About
from jobs.preparing.adapter import Collected, Preparation, Row
from jobs.preparing.array_rows import PEOPLE, ROLES, ArrayOptions, SplitArrays, listed
from jobs.preparing.kinds import check_kind

ABOUT = About(
    name="arrays",
    licence="",
    citation="That of the data you bring.",
    download="a file of your own",
    layout=(
        "features.npz: one array a fact, in the order of the clips; levels or names for train, valid, test",
    ),
    looked_for="an npz, HDF5 or pickle file of arrays",
    groups="the arrays group, speaker or dialogue, else the clip",
    splits="levels of the file, or the array split",
    command="affuse prepare arrays --source pom.npz --root data/pom --tasks mood=regression",
)


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """Labels in arrays (npz, HDF5, pickle), for clips whose features are ready."""

    source: Place
    """File of the arrays."""

    tasks: Mapping[str, str] = field(default_factory=dict)
    """Tasks and their kind: classification, multilabel or regression."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """Array that holds a task, TASK=KEY or TASK=KEY:COLUMN; by default the task's own name. `{split}` in it
    stands for train, valid and test."""

    classes: Mapping[str, str] = field(default_factory=dict)
    """Names of the classes in the order of their numbers: `mood=low,high`."""

    ranges: Mapping[str, str] = field(default_factory=dict)
    """Bounds of a regression task: `score=-3,3`."""

    names: tuple[str, ...] = ()
    """Keys of the clips' names; by default `name`, `id` and the like, else their place in the file."""

    name_format: str = ""
    """Format that joins several names to one, e.g. `dia{}_utt{}`; by default they are joined by
    underscores."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Arrays with further columns, COLUMN=KEY for text, dialogue, turn, speaker, group, split and fold; by
    default the arrays of these names with one value a clip."""

    as_is: tuple[str, ...] = ()
    """Arrays and tasks to take as they stand: an unread array named like one that is read, or words that
    differ in case only."""

    dataset_name: str = ""
    """Name of the dataset; by default the file's name."""

    licence: str = ""
    """Licence of the data, recorded beside everything made from it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for column in self.columns:
            if column not in ROLES:
                raise ConfigError(f"--columns {column}=...: {nearest(column, list(ROLES))}")
        for task, kind in self.tasks.items():
            check_kind(task, kind, list(get_args(Kind)))
        if not self.tasks:
            raise ConfigError("which labels? type: --tasks NAME=classification|regression")
        for option in (self.labels, self.classes, self.ranges):
            for task in option:
                if task not in self.tasks:
                    raise ConfigError(f"{task}=...: --tasks does not name {task!r}")

    def collect(self) -> Collected:
        """One clip a row of the arrays."""
        faults: list[str] = []
        notes: list[str] = []
        rows: list[Row] = []
        folds: dict[str, int] = {}
        with open_arrays(storage.absolute(self.source)) as content:
            options = self._options()
            for split in splits_inside(content, options.keys):
                part = SplitArrays(options, content, split, faults, notes)
                rows += part.rows
                folds |= part.folds
        for task in self.tasks:
            if self.tasks[task] == "classification" and task not in {*self.as_is, *self.classes}:
                words = (row.labels[task] for row in rows)
                faults += spelt_differently(task, (w for w in words if isinstance(w, str)))
        for role in PEOPLE:
            if self.columns.get(role, role) not in self.as_is:
                faults += spelt_differently(role, (getattr(row, role) for row in rows))
        name = self.source.rstrip("/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
        return Collected(
            name=self.dataset_name or name,
            licence=self.licence,
            tasks={task: self._task(task, rows) for task in self.tasks},
            rows=rows,
            folds={"table": folds} if folds else {},
            faults=faults,
            notes=list(dict.fromkeys(notes)),
        )

    def _options(self) -> ArrayOptions:
        return ArrayOptions(
            source=self.source,
            tasks=self.tasks,
            keys=self._label_keys(),
            classes=self.classes,
            names=self.names,
            name_format=self.name_format,
            columns=self.columns,
            as_is=self.as_is,
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

    def _task(self, task: str, rows: Sequence[Row]) -> Task:
        kind = self.tasks[task]
        if kind == "regression":
            bounds = listed(self.ranges.get(task, ""))
            if bounds and len(bounds) != 2:
                raise ConfigError(f"--ranges {task}={self.ranges[task]}: expected LOW,HIGH")
            return Task(
                kind="regression", range=(float(bounds[0]), float(bounds[1])) if bounds else None
            )
        classes = listed(self.classes.get(task, ""))
        if kind == "multilabel":
            if not classes:
                raise ConfigError(f"--classes {task}=...: a multilabel task needs its label names")
            return Task(kind="multilabel", classes=classes)
        found = {str(row.labels[task]) for row in rows if row.labels[task] is not None}
        return Task(kind="classification", classes=classes or tuple(sorted(found)))


def splits_inside(
    content: Mapping[str, Any], keys: Mapping[str, tuple[str, int | None]]
) -> list[str | None]:
    """The splits that a file has levels for; one None where it has none."""
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
