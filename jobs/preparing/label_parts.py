"""A part of a table of labels as rows: every cell that is not right is a fault."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from cluster.settings import nearest
from encoders.media import Source
from fusion.tasks import Task
from jobs.interop.arrays import SPLIT_KEYS
from jobs.interop.cells import (
    CommaStyle,
    is_text,
    is_whole,
    name_of,
    numbers,
    texts,
    words,
)
from jobs.interop.columns import alike, meant, same_but_case
from jobs.interop.several import several
from jobs.interop.tables import Faults, Table
from jobs.preparing.adapter import Label
from jobs.preparing.label_votes import Ballot
from jobs.preparing.row_tables import NO_TEXT, Shape, label_fault

PEOPLE = ("dialogue", "group", "speaker")
NUMBERS = ("end_s", "fold", "start_s", "turn")
COLUMNS = ("name", "video", "audio", "text", *NUMBERS, *PEOPLE, "split")


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Options of the table; the fields are those of `jobs.datasets.folder.Config`."""

    columns: Mapping[str, str]
    tasks: Mapping[str, str]
    classes: Mapping[str, str | Sequence[str]]
    """Task -> its classes, as typed or one by one."""

    ranges: Mapping[str, str]
    profile: tuple[str, ...]
    as_is: tuple[str, ...]
    votes: Mapping[str, str] = field(default_factory=dict)

    def hint(self, name: str, header: Sequence[str]) -> str:
        """What to type in place of a column that is not there, where one is spelt nearly so."""
        hint = meant(name, header)
        same = same_but_case(name, header)
        if same is None:
            return hint
        flags = [
            f"--tasks {shlex.quote(f'{same}={kind}')}" for kind in [self.tasks.get(name)] if kind
        ]
        flags += [
            f"--columns {shlex.quote(f'{role}={same}')}"
            for role, column in self.columns.items()
            if column == name
        ]
        flags += [f"--profile {shlex.quote(same)}"] if name in self.profile else []
        flags += [f"--as-is {shlex.quote(same)}"] if name in self.as_is else []
        return f"{hint} type: {' '.join(flags)}"


class WholeTable(Protocol):
    """What is known of the whole table: see `jobs.preparing.label_rows.Reading`."""

    options: LabelOptions

    @property
    def ballots(self) -> Sequence[Ballot]:
        """Where raters' votes stand."""

    @property
    def names_media(self) -> bool:
        """Whether rows have files."""

    def column(self, role: str) -> str | None:
        """The column that has a role, if there is one."""

    def style(self, column: str) -> CommaStyle:
        """What commas mean in a column of numbers."""

    def media(
        self, name: str, video: str | None, audio: str | None
    ) -> tuple[dict[str, Source | None], str | None]:
        """The files of a clip, and what is wrong with them."""

    def held(self, start: int, count: int) -> dict[str, list[dict[str, Any] | None]] | None:
        """The media of some rows, where the table itself holds them."""


class PartRows:
    """A part of the table as rows."""

    def __init__(self, reading: WholeTable, part: Table, start: int, faults: Faults) -> None:
        self._reading, self._part, self._start, self._faults = reading, part, start, faults
        self._names = self._read_names()
        self._known = [name is not None for name in self._names]

    def table(self, shape: Shape) -> pa.Table:
        """The rows that have a name."""
        columns: dict[str, Sequence[Any]] = {"words": [None] * len(self._names)}
        numbers = {role: self._numbers(role) for role in NUMBERS}
        labels = {name: self._labels(name, task) for name, task in shape.tasks.items()}
        columns |= {"name": self._names, "text": self._cells("text")}
        columns |= {role: self._words(role) for role in PEOPLE}
        columns |= {role: numbers[role] for role in ("start_s", "end_s")}
        columns["turn"] = [None if turn is None else int(turn) for turn in numbers["turn"]]
        columns["split"] = self._splits()
        columns |= self._media()
        self._check_times(columns["start_s"], columns["end_s"])
        for k, name in enumerate(shape.tasks):
            columns[f"label{k}"] = labels[name]
        for k, name in enumerate(shape.profile):
            columns[f"profile{k}"] = words(self._part.columns[name])[0]
        for k, ballot in enumerate(self._reading.ballots):
            columns[f"votes{k}"] = self._votes(ballot)
        if shape.folds:
            columns["fold0"] = [None if fold is None else int(fold) for fold in numbers["fold"]]
        self._leave_out_what_is_no_text(columns)
        table = pa.table([pa.array(columns[f.name], f.type) for f in shape.schema], shape.schema)
        return table if all(self._known) else table.filter(pa.array(self._known))

    def _leave_out_what_is_no_text(self, columns: dict[str, Sequence[Any]]) -> None:
        """Rows of JSON may hold halves of letters, which no file of ours can."""
        for name, cells in columns.items():
            wrong = [
                k for k, cell in enumerate(cells) if isinstance(cell, str) and not is_text(cell)
            ]
            for index in wrong:
                if self._known[index]:
                    self._known[index] = False
                    self._faults.append(f"{self._names[index]}: {NO_TEXT}")
            if wrong:
                columns[name] = [None if k in wrong else cell for k, cell in enumerate(cells)]

    def _where(self, index: int) -> str:
        name = self._names[index]
        return f"row {self._start + index + 1}" + (f" ({name})" if name else "")

    def _fault(self, index: int, text: str) -> None:
        self._faults.append(f"{self._where(index)}: {text}")

    def _cells(self, role: str) -> list[str | None]:
        column = self._reading.column(role)
        return texts(self._part.columns[column]) if column else [None] * self._part.num_rows

    def _words(self, role: str) -> list[str | None]:
        column = self._reading.column(role)
        return words(self._part.columns[column])[0] if column else [None] * self._part.num_rows

    def _read_names(self) -> list[str | None]:
        """The clips' names; where no column says so, the file's stem and where the segment begins."""
        if self._reading.column("name"):
            names = [name_of(cell) for cell in self._cells("name")]
        else:
            files = map(self._words, ("video", "audio"))
            cells = zip(*files, self._cells("start_s"), strict=True)
            names = [_name_by_file(video or audio or "", start) for video, audio, start in cells]
        for index, name in enumerate(names):
            if name is None:
                self._faults.append(f"row {self._start + index + 1}: has no name")
        return names

    def _numbers(self, role: str) -> list[float | None]:
        column = self._reading.column(role)
        if column is None:
            return [None] * self._part.num_rows
        return self._finite(column, role, whole=role in ("turn", "fold"))

    def _finite(self, column: str, role: str, *, whole: bool = False) -> list[float | None]:
        """A column of numbers; everything else that stands there is a fault."""
        found = numbers(self._part.columns[column], style=self._reading.style(column))
        wrong = ~found.missing & ~np.isfinite(found.values)
        if whole:
            wrong |= ~found.missing & ~is_whole(found.values)
        expected = (
            f"expected a {'whole number' if whole else 'number'}, or nothing where none is known"
        )
        if found.doubtful:
            expected += "; write thousands without commas, or fractions behind points"
        cells = texts(self._part.columns[column]) if wrong.any() else []
        for index in np.flatnonzero(wrong).tolist():
            self._fault(index, f"{role} {cells[index]!r}; {expected}")
        nothing = wrong | found.missing
        return [None if no else float(v) for v, no in zip(found.values, nothing, strict=True)]

    def _labels(self, name: str, task: Task) -> list[Label]:
        """The labels of a task; those with faults are none."""
        if task.kind == "regression":
            return self._right(name, task, self._finite(name, name))
        given = given_classes(self._reading.options, name)
        if task.kind == "classification":
            return self._right(name, task, words(self._part.columns[name], given)[0])
        parts = self._several(name, given)
        for index, cell in enumerate(parts):
            for part in cell or ():
                if part not in task.classes:
                    self._fault(index, f"{name} {part!r}; {nearest(part, list(task.classes))}")
        return [
            None if cell is None else [float(each in cell) for each in task.classes]
            for cell in parts
        ]

    def _several(self, column: str, keep: Sequence[str]) -> list[list[str] | None]:
        """The words of each cell; those that only look like a list were found when all was looked through."""
        as_is = column in self._reading.options.as_is
        return several(self._part.columns[column], keep, as_is=as_is)[0]

    def _votes(self, ballot: Ballot) -> list[list[list[float]] | None]:
        """What each rater of a clip chose."""
        if not ballot.counted:
            return [
                ballot.of_choices(cell) for cell in self._several(ballot.columns[0], ballot.classes)
            ]
        found: list[list[list[float]] | None] = []
        counts = [self._finite(column, column, whole=True) for column in ballot.columns]
        for index, row in enumerate(zip(*counts, strict=True)):
            found.append(None)
            try:
                found[-1] = ballot.of_counts(row)
            except ValueError as error:
                self._fault(index, str(error))
        return found

    def _right(self, name: str, task: Task, labels: Sequence[Label]) -> list[Label]:
        right = set(task.classes) if task.kind == "classification" else set()
        kept: list[Label] = []
        for index, label in enumerate(labels):
            fault = None if label in right else label_fault(label, task)
            if fault and self._known[index]:
                self._faults.append(f"{self._names[index]}: {name} {fault}")
            kept.append(None if fault else label)
        return kept

    def _splits(self) -> list[str | None]:
        cells = self._words("split")
        for index, split in enumerate(cells):
            if split is not None and split not in SPLIT_KEYS and self._known[index]:
                self._fault(index, f"split {split!r}; {_split_meant(split)}")
        return [SPLIT_KEYS.get(split or "") for split in cells]

    def _check_times(self, starts: Sequence[float | None], ends: Sequence[float | None]) -> None:
        for index, (start_s, end_s) in enumerate(zip(starts, ends, strict=True)):
            if not self._known[index]:
                continue
            if start_s is not None and start_s < 0:
                self._fault(index, f"start_s {start_s:g} is below 0")
            elif end_s is not None and end_s <= (start_s or 0.0):
                self._fault(index, f"end_s {end_s:g} is not after start_s {start_s or 0.0:g}")

    def _media(self) -> dict[str, list[dict[str, Any] | None]]:
        count = self._part.num_rows
        held = self._reading.held(self._start, count)
        if held is not None:
            return held
        found: dict[str, list[dict[str, Any] | None]] = {
            kind: [None] * count for kind in ("video", "audio")
        }
        if not self._reading.names_media:
            return found
        cells = zip(self._names, self._words("video"), self._words("audio"), strict=True)
        for index, (name, video, audio) in enumerate(cells):
            if name is None:
                continue
            sources, fault = self._reading.media(name, video, audio)
            if fault:
                self._fault(index, fault)
            for kind, source in sources.items():
                if source is not None and not is_text(source.uri):
                    self._faults.append(f"{name}: {NO_TEXT}")
                elif source is not None:
                    found[kind][index] = vars(source)
        return found


def given_classes(options: LabelOptions, task: str) -> tuple[str, ...]:
    """The classes that are allowed, in order; none where those that occur are."""
    given = options.classes.get(task, "")
    return tuple(
        filter(None, map(str.strip, given.split(",") if isinstance(given, str) else given))
    )


def _name_by_file(path: str, start: str | None) -> str | None:
    stem = name_of(PurePosixPath(path.replace("\\", "/")).stem)
    return f"{stem}@{start}" if stem and start else stem


def _split_meant(split: str) -> str:
    same = [known for known in SPLIT_KEYS if alike(known) == alike(split)]
    return f"did you mean {same[0]!r}?" if same else nearest(split, list(SPLIT_KEYS))
