"""The rows of `folder`: a table of labels read strictly, every fault gathered."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from cluster.errors import ConfigError
from cluster.settings import nearest
from encoders.media import Source
from fusion.tasks import Task
from jobs.interop.arrays import SPLIT_KEYS
from jobs.interop.cells import is_whole, name_of
from jobs.interop.columns import (
    alike,
    asked_back,
    meant,
    near_roles,
    spelt_differently,
    unread_note,
)
from jobs.interop.tables import Table
from jobs.preparing.adapter import Label, Row, is_media, media

File = tuple[str, Source]
"""Name below the source (or inside its shard), and where the bytes lie."""

PEOPLE = ("dialogue", "group", "speaker")
NUMBERS = ("end_s", "fold", "start_s", "turn")
COLUMNS = ("name", "video", "audio", "text", *NUMBERS, *PEOPLE, "split")


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Options of the table; the fields are those of `jobs.datasets.folder.Config`."""

    columns: Mapping[str, str]
    tasks: Mapping[str, str]
    classes: Mapping[str, str]
    ranges: Mapping[str, str]
    profile: tuple[str, ...]
    as_is: tuple[str, ...]


class Reading:
    """One pass over the table, gathering rows and every fault."""

    def __init__(
        self, options: LabelOptions, table: Table, source: str, files: Sequence[File]
    ) -> None:
        self.faults = list(table.faults)
        self.rows: list[Row] = []
        self.folds: dict[str, int] = {}
        self.tasks: dict[str, Task] = {}
        self.notes: list[str] = []
        self._options, self._table, self._source = options, table, source
        self._files = _by_key(files)
        if self._columns_are_there():
            self._names = self._read_names()
            self._ask_for_media()
            self._words = {role: self._read_words(role) for role in (*PEOPLE, "split")}
            self._numbers = {role: self._read_numbers(role) for role in NUMBERS}
            self._labels = {task: self._read_task(task) for task in options.tasks}
            self._read_rows()
        self.notes += filter(None, [table.note])

    # ---- columns

    def _column(self, role: str) -> str | None:
        """The column that has a role, if there is one."""
        name = self._options.columns.get(role, role)
        return name if name in self._table.columns else None

    def _columns_are_there(self) -> bool:
        """Whether the rows can be read; absent columns and probable typing errors are listed all at once."""
        options, header = self._options, list(self._table.columns)
        wanted = dict.fromkeys([*options.columns.values(), *options.tasks, *options.profile])
        absent = [name for name in [*wanted, *options.as_is] if name not in header]
        self.faults += [f"no column {name!r}; {meant(name, header)}" for name in absent]
        used = {*wanted, *filter(None, map(self._column, COLUMNS))}
        unread = [name for name in header if name not in used]
        self.notes += filter(None, [unread_note(unread)])
        named = any(self._column(role) for role in ("name", "video", "audio"))
        free = [
            role for role in COLUMNS if self._column(role) is None and role not in options.columns
        ]
        near = near_roles([name for name in unread if name not in options.as_is], free)
        for_name = near.pop("name", [])
        if not named and "name" not in options.columns:
            hint = f"type: --columns name={for_name[0]}" if for_name else meant("name", header)
            self.faults.append(
                f"no column 'name', and no 'video' or 'audio' to name clips by; {hint}"
            )
        self.faults += asked_back(near)
        self._unread = [name for name in unread if name not in options.as_is]
        return named and not absent

    def _ask_for_media(self) -> None:
        """Ask back columns that hold media files, where none has that role and names find no file."""
        named = self._column("video") or self._column("audio")
        if named or all(name in self._files for name in self._names if name is not None):
            return
        for column in self._unread:
            cells = [cell for cell in self._table.texts(column) if cell is not None]
            if cells and all(map(is_media, cells)):
                sound = all("video" not in media(cell) for cell in cells)
                self.faults += asked_back({"audio" if sound else "video": [column]})

    def _cells(self, role: str) -> list[str | None]:
        column = self._column(role)
        return self._table.texts(column) if column else [None] * self._table.num_rows

    def _read_names(self) -> list[str | None]:
        """The clips' names; where no column says so, the file's stem and where the segment begins."""
        if self._column("name"):
            return [name_of(cell) for cell in self._cells("name")]
        self.notes.append("clips are named by their files, segments also by their start")
        names = []
        cells = zip(*map(self._cells, ("video", "audio", "start_s")), strict=True)
        for video, audio, start in cells:
            path = (video or audio or "").replace("\\", "/")
            stem = name_of(PurePosixPath(path).stem)
            names.append(f"{stem}@{start}" if stem and start else stem)
        return names

    def _read_words(self, role: str) -> list[str | None]:
        column = self._column(role)
        if column is None:
            return [None] * self._table.num_rows
        words = self._table.words(column)
        if role in PEOPLE and column not in self._options.as_is:
            self.faults += spelt_differently(column, words)
        return words

    def _read_numbers(self, role: str) -> list[float | None]:
        column = self._column(role)
        if column is None:
            return [None] * self._table.num_rows
        return self._finite(column, role, whole=role in ("turn", "fold"))

    def _finite(self, column: str, role: str, *, whole: bool = False) -> list[float | None]:
        """A column of numbers; everything else that stands there is a fault."""
        found = self._table.numbers(column)
        wrong = ~found.missing & ~np.isfinite(found.values)
        if whole:
            wrong |= ~found.missing & ~is_whole(found.values)
        expected = (
            f"expected a {'whole number' if whole else 'number'}, or nothing where none is known"
        )
        if found.doubtful:
            expected += "; write thousands without commas, or fractions behind points"
        cells = self._table.texts(column) if wrong.any() else []
        for index in np.flatnonzero(wrong).tolist():
            self.faults.append(f"{self._where(index)}: {role} {cells[index]!r}; {expected}")
        nothing = wrong | found.missing
        return [None if no else float(v) for v, no in zip(found.values, nothing, strict=True)]

    # ---- labels

    def _read_task(self, name: str) -> list[Label]:
        """The labels of a task; the task itself goes into `tasks`."""
        options, kind = self._options, self._options.tasks[name]
        if kind == "regression":
            bounds = options.ranges.get(name)
            self.tasks[name] = Task(
                kind="regression", range=None if bounds is None else _bounds(name, bounds)
            )
            numbers: list[Label] = list(self._finite(name, name))
            return numbers
        given = tuple(filter(None, map(str.strip, options.classes.get(name, "").split(","))))
        words = self._table.words(name, keep=given)
        parts = [None if word is None else _parts(word) for word in words]
        if kind == "classification":
            parts = [None if word is None else [word] for word in words]
        found = [part for cell in parts for part in cell or ()]
        if not given and name not in options.as_is:
            self.faults += spelt_differently(name, found)
        classes = given or tuple(sorted(set(found)))
        if kind == "classification":
            self.tasks[name] = Task(kind="classification", classes=classes)
            return list(words)
        self.tasks[name] = Task(kind="multilabel", classes=classes)
        for index, cell in enumerate(parts):
            self.faults += [
                f"{self._where(index)}: {name} {part!r}; {nearest(part, list(classes))}"
                for part in cell or ()
                if part not in classes
            ]
        return [
            None if cell is None else [float(each in cell) for each in classes] for cell in parts
        ]

    # ---- rows

    def _where(self, index: int) -> str:
        name = self._names[index]
        return f"row {index + 1}" + (f" ({name})" if name else "")

    def _read_rows(self) -> None:
        profiles = {name: self._table.words(name) for name in self._options.profile}
        texts, *media_cells = map(self._cells, ("text", "video", "audio"))
        for index, name in enumerate(self._names):
            where = self._where(index)
            if name is None:
                self.faults.append(f"{where}: has no name")
                continue
            words: dict[str, Any] = {role: cells[index] for role, cells in self._words.items()}
            numbers: dict[str, Any] = {role: cells[index] for role, cells in self._numbers.items()}
            split = words.pop("split")
            if split is not None and split not in SPLIT_KEYS:
                self.faults.append(f"{where}: split {split!r}; {_split_meant(split)}")
            if (fold := numbers.pop("fold")) is not None:
                self.folds[name] = int(fold)
            self._check_times(numbers, where)
            turn = numbers.pop("turn")
            video, audio = (cells[index] for cells in media_cells)
            self.rows.append(
                Row(
                    name=name,
                    **self._media(name, video, audio, where),
                    text=texts[index],
                    turn=None if turn is None else int(turn),
                    split=SPLIT_KEYS.get(split or ""),
                    labels={task: labels[index] for task, labels in self._labels.items()},
                    profile={column: cells[index] for column, cells in profiles.items()},
                    **words,
                    **numbers,
                )
            )

    def _check_times(self, numbers: Mapping[str, float | None], where: str) -> None:
        start_s, end_s = numbers["start_s"], numbers["end_s"]
        if start_s is not None and start_s < 0:
            self.faults.append(f"{where}: start_s {start_s:g} is below 0")
        elif end_s is not None and end_s <= (start_s or 0.0):
            self.faults.append(f"{where}: end_s {end_s:g} is not after start_s {start_s or 0.0:g}")

    # ---- media

    def _media(self, name: str, video: str | None, audio: str | None, where: str) -> dict[str, Any]:
        if self._column("video") is None and self._column("audio") is None:
            found = self._files.get(name, [])
            if len(found) > 1:
                self.faults.append(f"{where}: several files go by this name: {_names(found)}")
            if not found and not self._files:
                return {}  # a folder without media: a corpus of texts
            return media(*found[0]) if found else media(self._below(name))
        film = None if video is None else self._source_of(video)
        sound = None if audio is None else self._source_of(audio)
        if sound is None and self._column("audio") is None:
            sound = film  # the film's own sound
        return {"video": film, "audio": sound}

    def _source_of(self, path: str) -> Source:
        """A file by its path; below the source also where its name is spelt in the other normal form."""
        if "://" in path or path.startswith("/"):
            return Source(path)
        found = self._files.get(name_of(path) or "", [])
        whole = [place for key, place in found if name_of(key) == name_of(path)]
        return whole[0] if len(whole) == 1 else Source(self._below(path))

    def _below(self, path: str) -> str:
        """A path of the table, which may lead elsewhere as an absolute one may."""
        return f"{self._source.rstrip('/')}/{path.strip('/')}"


def _by_key(files: Sequence[File]) -> dict[str, list[File]]:
    """Files by path and by name, each with and without its suffix."""
    found: dict[str, list[File]] = defaultdict(list)
    for file in files:
        path = PurePosixPath(name_of(file[0]) or file[0])
        for key in {str(path), str(path.with_suffix("")), path.name, path.stem}:
            found[key].append(file)
    return found


def _split_meant(split: str) -> str:
    same = [known for known in SPLIT_KEYS if alike(known) == alike(split)]
    return f"did you mean {same[0]!r}?" if same else nearest(split, list(SPLIT_KEYS))


def _names(files: Sequence[File]) -> str:
    return ", ".join(
        name if place.offset is None else f"{place.uri}::{name}" for name, place in files
    )


def _parts(cell: str) -> list[str]:
    return [part.strip() for part in re.split(r"[|;,]", cell) if part.strip()]


def _bounds(task: str, text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--ranges {task}={text}: expected two numbers such as -3,3") from error
    return low, high
