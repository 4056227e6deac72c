"""The rows of `arrays`: one split of a file, labels and facts of every clip, every fault gathered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.errors import LabelTableError
from jobs.interop.arrays import (
    SPLIT_KEYS,
    as_text,
    beside,
    find_names,
    holds_one_each,
    items_of,
    names_of,
    near,
)
from jobs.interop.cells import NOT_A_NUMBER, NOTHING, is_whole, numbers
from jobs.interop.columns import asked_back, near_roles, unread_note
from jobs.preparing.adapter import Label, Row

PEOPLE = ("dialogue", "group", "speaker")
ROLES = ("text", "dialogue", "turn", "speaker", "group", "split", "fold")
NO_CLASS = frozenset(("", *NOTHING, *NOT_A_NUMBER))


@dataclass(frozen=True, kw_only=True)
class ArrayOptions:
    """Options of the arrays; the fields are those of `jobs.datasets.arrays.Config`."""

    source: str
    tasks: Mapping[str, str]
    keys: Mapping[str, tuple[str, int | None]]
    """Task -> its array, and the column of it."""

    classes: Mapping[str, str]
    names: tuple[str, ...]
    name_format: str
    columns: Mapping[str, str]
    as_is: tuple[str, ...]


class SplitArrays:
    """The clips of one split, or of a file without splits."""

    def __init__(
        self,
        options: ArrayOptions,
        content: Mapping[str, Any],
        split: str | None,
        faults: list[str],
        notes: list[str],
    ) -> None:
        self._options, self._content, self._split = options, content, split
        self._faults, self._notes = faults, notes
        keys = options.keys
        labels = {task: self._labels(task, *keys[task]) for task in options.tasks}
        counts = {len(column) for column in labels.values()}
        if len(counts) > 1:
            raise LabelTableError(f"{options.source}: the tasks have {sorted(counts)} rows")
        self._count = counts.pop()
        anchor = beside(content, keys[next(iter(keys))][0], "", split)
        assert anchor is not None
        self.names = names_of(
            content,
            options.names,
            options.name_format,
            anchor,
            split,
            self._count,
            where=options.source,
        )
        roles = self._roles(anchor, {key for key, _ in keys.values()})
        self.folds = {
            n: f for n, f in zip(self.names, roles.pop("fold"), strict=True) if f is not None
        }
        self.rows = [
            Row(
                name=name,
                **{role: values[index] for role, values in roles.items()},
                labels={task: column[index] for task, column in labels.items()},
            )
            for index, name in enumerate(self.names)
        ]

    # ---- facts of a clip

    def _roles(self, anchor: str, labels: set[str]) -> dict[str, Sequence[Any]]:
        """Every role with one value a clip; arrays with nearly such a name are faults."""
        found: dict[str, Sequence[Any]] = {}
        used = set(labels)
        for role in ROLES:
            key = self._options.columns.get(role)
            values = self._column(key) if key is not None else self._by_default(role, anchor)
            if values is not None:
                used.add(key or role)
                found[role] = values
        used |= {*find_names(self._content, self._options.names, anchor, self._split)}
        own = {key.removeprefix(f"{self._split}/") for key in self._content}
        unread = [key for key in own if key not in used]
        free = [role for role in ROLES if role not in found]
        near = near_roles([key for key in unread if key not in self._options.as_is], free)
        single = {
            role: [key for key in keys if self._by_default(key, anchor) is not None]
            for role, keys in near.items()
        }
        self._faults += asked_back(single, "array")
        self._notes += filter(None, [unread_note(sorted(unread))])
        return self._typed(found)

    def _by_default(self, role: str, anchor: str) -> Sequence[Any] | None:
        """An array by the role's own name, if it has one value a clip."""
        key = beside(self._content, role, anchor, self._split)
        if key is None or not holds_one_each(self._content, key, self._count):
            return None
        return items_of(self._content, key, self._options.source)

    def _column(self, key: str) -> Sequence[Any]:
        values = column_of(self._content, key, self._split, self._options.source)
        if len(values) != self._count:
            raise LabelTableError(
                f"{self._options.source}: {len(values)} values of {key!r}, {self._count} labels"
            )
        return values

    def _typed(self, found: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
        nothing: Sequence[Any] = [None] * self._count
        roles: dict[str, Sequence[Any]] = {
            role: [as_text(item) or None for item in found.get(role, nothing)]
            for role in ("text", *PEOPLE)
        }
        for role in PEOPLE:
            roles[role] = [None if word in NO_CLASS else word for word in roles[role]]
        for role in ("turn", "fold"):
            roles[role] = self._whole(role, found.get(role, nothing))
        splits = [as_text(item) for item in found.get("split", nothing)]
        for index, word in enumerate(splits):
            if word not in SPLIT_KEYS and word not in NO_CLASS:
                self._fault(index, f"split {word!r}; known: {', '.join(SPLIT_KEYS)}")
        own = SPLIT_KEYS.get(self._split or "")
        roles["split"] = [SPLIT_KEYS.get(word, own) for word in splits]
        return roles

    def _whole(self, role: str, values: Sequence[Any]) -> list[int | None]:
        found = numbers([as_text(value) for value in values])
        numbered: list[int | None] = []
        cells = zip(found.values, found.missing, is_whole(found.values), strict=True)
        for index, (number, nothing, fits) in enumerate(cells):
            if not nothing and not fits:
                self._fault(index, f"{role} {as_text(values[index])!r}; expected a whole number")
            numbered.append(int(number) if fits and not nothing else None)
        return numbered

    # ---- labels

    def _labels(self, task: str, key: str, column: int | None) -> list[Label]:
        array = _as_array(column_of(self._content, key, self._split, self._options.source))
        if column is not None:
            if array.ndim != 2 or column >= array.shape[1]:
                raise LabelTableError(f"{task}: no column {column} in an array of {array.shape}")
            array = array[:, column]
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        kind = self._options.tasks[task]
        if array.ndim != 1 and (kind == "regression" or array.ndim != 2):
            raise LabelTableError(
                f"{task}: expected one label a clip, came an array of {array.shape}"
            )
        if kind == "regression":
            return self._numbers(task, array)
        if kind == "multilabel":
            return self._several(task, array)
        return self._one_hot(task, array) if array.ndim == 2 else self._classes(task, array)

    def _numbers(self, task: str, array: np.ndarray) -> list[Label]:
        """Numbers; nan, null and nothing are no label."""
        found = numbers([as_text(item) for item in array])
        for index in np.flatnonzero(found.wrong | np.isinf(found.values)).tolist():
            self._fault(index, f"{task} {as_text(array[index])!r}; expected a number")
        return [float(number) if np.isfinite(number) else None for number in found.values]

    def _several(self, task: str, array: np.ndarray) -> list[Label]:
        """A 0 or 1 for each label; a row of nothing known is no label."""
        if array.ndim != 2 or array.dtype.kind not in "iufb":
            raise LabelTableError(
                f"{task}: expected a column of 0 and 1 for each label, came {array.shape}"
            )
        labels: list[Label] = []
        for index, row in enumerate(array.astype(np.float64)):
            known = row[~np.isnan(row)]
            if ((known < 0) | (known > 1)).any():
                self._fault(index, f"{task} {row.tolist()}; expected numbers from 0 to 1")
            labels.append(row.tolist() if len(known) else None)
        return labels

    def _one_hot(self, task: str, array: np.ndarray) -> list[Label]:
        """The column that is 1; a row of zeros or nan is no label, any other row a fault."""
        known = listed(self._options.classes.get(task, "")) or [
            str(k) for k in range(array.shape[1])
        ]
        if len(known) != array.shape[1] or array.dtype.kind not in "iufb":
            raise LabelTableError(
                f"{task}: {array.shape[1]} columns of {array.dtype}, one for each of {len(known)} classes?"
            )
        labels: list[Label] = []
        for index, row in enumerate(array.astype(np.float64)):
            places = np.flatnonzero(row == 1)
            nothing = not np.nan_to_num(row).any()
            if not nothing and (len(places) != 1 or np.nan_to_num(row).sum() != 1):
                self._fault(index, f"{task} {row.tolist()}; expected a single 1 among zeros")
            labels.append(known[places[0]] if len(places) == 1 and not nothing else None)
        return labels

    def _classes(self, task: str, array: np.ndarray) -> list[Label]:
        """Words as they are, numbers by `--classes`; nothing, nan and -1 are no label."""
        known = listed(self._options.classes.get(task, ""))
        array = array.astype(np.int8) if array.dtype.kind == "b" else array
        words = [as_text(item) for item in array]
        numbered = array.dtype.kind in "iuf" or all(isinstance(i, int | float) for i in array)
        labels: list[Label] = []
        for index, word in enumerate(words):
            label: str | None = word
            if (word in NO_CLASS and word not in known) or (numbered and word == "-1"):
                label = None
            elif numbered and not word.isdigit():
                self._fault(index, f"{task} {word}; expected the whole number of a class")
                label = None
            elif numbered and known and int(word) >= len(known):
                self._fault(index, f"{task}: class {word}; --classes names 0 to {len(known) - 1}")
                label = None
            elif numbered and known:
                label = known[int(word)]
            labels.append(label)
        return labels

    def _fault(self, index: int, text: str) -> None:
        part = "" if self._split is None else f"{self._split}, "
        self._faults.append(f"{part}row {index + 1}: {text}")


def column_of(content: Mapping[str, Any], key: str, split: str | None, where: str) -> Sequence[Any]:
    """An array by its key, of one split where the file has splits.

    Raises:
        LabelTableError: no such array; the nearest is named.
    """
    found = beside(content, key, "", split)
    if found is None:
        raise LabelTableError(f"{where}: no array {key!r}; {near(key, content)}")
    return items_of(content, found, where)


def listed(text: str) -> tuple[str, ...]:
    """The parts of a flag such as `low,high`."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _as_array(values: Sequence[Any]) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different length
        array = np.empty(len(values), object)
        array[:] = list(values)
    return array
