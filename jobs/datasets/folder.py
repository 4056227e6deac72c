"""Any folder of media files or shards of them with a table of labels (CSV, TSV, JSON lines or Parquet).

A row is a clip. Its media are the columns `video` and `audio` (paths below the source, absolute paths or
URIs), or, where the table has neither, the file below the source whose name or stem is the clip's name.
Tars and uncompressed Parquet files below the source count as folders of what they hold: their members are
read in place. Without a table every media file is an unlabelled clip. Columns go by these names unless
flags say otherwise:
name, video, audio, text, start_s, end_s, dialogue, turn, speaker, group, split, fold.

    affuse prepare folder --source clips --labels labels.csv --root R --tasks mood=classification
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, get_args

from cluster import storage
from cluster.errors import ConfigError, LabelTableError
from cluster.settings import nearest
from cluster.tables import SPLITS
from encoders.media import Source
from fusion.tasks import Kind, Task
from jobs.datasets._adapter import (
    Collected,
    Label,
    Preparation,
    Row,
    files_below,
    is_media,
    media,
    read_rows,
)
from jobs.datasets._shards import inside_parquet, inside_tar

COLUMNS = (
    "name", "video", "audio", "text", "start_s", "end_s", "dialogue", "turn", "speaker", "group",
    "split", "fold",
)  # fmt: skip

File = tuple[str, Source]
"""Name below the source (or inside its shard), and where the bytes lie."""


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """Media files of your own plus a table of labels."""

    source: str
    """Folder or URI of the media files."""

    labels: str = ""
    """Table with a row a clip; empty: every media file is a clip without labels."""

    dataset_name: str = ""
    """By default the name of the source folder."""

    licence: str = ""
    """Of the data, noted beside everything made of it."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Columns that go by other names, such as `name=clip text=transcript speaker=who`."""

    tasks: Mapping[str, str] = field(default_factory=dict)
    """Label columns and their kind: classification, multilabel (`a|b` in a cell) or regression."""

    classes: Mapping[str, str] = field(default_factory=dict)
    """Allowed classes of a task, in order: `mood=low,high`; by default those that occur, sorted."""

    ranges: Mapping[str, str] = field(default_factory=dict)
    """Bounds of a regression task: `score=-3,3`."""

    profile: tuple[str, ...] = ()
    """Columns about the speaker that nets may use, such as age and gender."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for column in self.columns:
            if column not in COLUMNS:
                raise ConfigError(f"--columns {column}=...: {nearest(column, list(COLUMNS))}")
        for task, kind in self.tasks.items():
            if kind not in get_args(Kind):
                raise ConfigError(f"--tasks {task}={kind}: {nearest(kind, list(get_args(Kind)))}")
        for option, given in (("classes", self.classes), ("ranges", self.ranges)):
            for task in given:
                if task not in self.tasks:
                    raise ConfigError(f"--{option} {task}=...: --tasks does not name {task!r}")

    def collect(self) -> Collected:
        """One clip a row of the table, or a media file where there is no table."""
        source = storage.absolute(self.source)
        files = _files(source, storage.absolute(self.labels) if self.labels else "")
        dataset = self.dataset_name or source.rstrip("/").rsplit("/", 1)[-1]
        if not self.labels:
            if self.tasks:
                raise ConfigError("--tasks needs --labels: the table that holds those columns")
            rows = [Row(name=name, **media(name, place)) for name, place in files]
            return Collected(name=dataset, licence=self.licence, tasks={}, rows=rows)
        reading = _Reading(self, source, files)
        return Collected(
            name=dataset,
            licence=self.licence,
            tasks=reading.tasks,
            rows=reading.rows,
            folds={"table": reading.folds} if reading.folds else {},
            faults=reading.faults,
        )


class _Reading:
    """One pass over the table, gathering rows and every fault."""

    def __init__(self, config: Config, source: str, files: Sequence[File]) -> None:
        self.faults: list[str] = []
        self.rows: list[Row] = []
        self.folds: dict[str, int] = {}
        self._config = config
        self._source = source
        self._table = read_rows(config.labels)
        self._header = list(dict.fromkeys(key for row in self._table for key in row))
        self._check_columns()
        self._by_stem: dict[str, list[File]] = defaultdict(list)
        for file in files:
            path = PurePosixPath(file[0])
            for key in {str(path), str(path.with_suffix("")), path.name, path.stem}:
                self._by_stem[key].append(file)
        self.tasks = {task: self._task(task) for task in config.tasks}
        for number, row in enumerate(self._table, 1):
            self._read(number, row)

    def _column(self, role: str) -> str:
        return self._config.columns.get(role, role)

    def _check_columns(self) -> None:
        config = self._config
        wanted = [self._column("name"), *config.columns.values(), *config.tasks, *config.profile]
        missing = [column for column in dict.fromkeys(wanted) if column not in self._header]
        if missing:
            lines = [f"no column {column!r}; {nearest(column, self._header)}" for column in missing]
            raise LabelTableError(f"{config.labels}: " + "; ".join(lines))

    def _task(self, task: str) -> Task:
        config = self._config
        kind = config.tasks[task]
        if kind == "regression":
            bounds = config.ranges.get(task)
            return Task(kind="regression", range=None if bounds is None else _bounds(task, bounds))
        if task in config.classes:
            classes = tuple(part.strip() for part in config.classes[task].split(","))
        else:
            cells = [_text(row.get(task)) for row in self._table]
            several = kind == "multilabel"
            found = {part for cell in cells for part in (_parts(cell) if several else [cell or ""])}
            classes = tuple(sorted(found - {""}))
        return Task(
            kind="multilabel" if kind == "multilabel" else "classification", classes=classes
        )

    def _read(self, number: int, cells: Mapping[str, Any]) -> None:
        name = _text(cells.get(self._column("name")))
        if name is None:
            self.faults.append(f"row {number}: has no name")
            return
        where = f"row {number} ({name})"
        split = _text(cells.get(self._column("split")))
        if split is not None and split not in SPLITS:
            self.faults.append(f"{where}: split {split!r}; {nearest(split, list(SPLITS))}")
            split = None
        fold = self._number(cells, "fold", where)
        if fold is not None:
            self.folds[name] = int(fold)
        turn = self._number(cells, "turn", where)
        start_s, end_s = (self._number(cells, role, where) for role in ("start_s", "end_s"))
        if end_s is not None and end_s <= (start_s or 0.0):
            self.faults.append(f"{where}: end_s {end_s:g} is not after start_s {start_s or 0.0:g}")
        self.rows.append(
            Row(
                name=name,
                **self._media(name, cells, where),
                text=_text(cells.get(self._column("text"))),
                start_s=start_s,
                end_s=end_s,
                turn=None if turn is None else int(turn),
                split=split,
                dialogue=_text(cells.get(self._column("dialogue"))),
                speaker=_text(cells.get(self._column("speaker"))),
                group=_text(cells.get(self._column("group"))),
                labels={task: self._label(task, cells, where) for task in self.tasks},
                profile={column: _text(cells.get(column)) for column in self._config.profile},
            )
        )

    def _media(self, name: str, cells: Mapping[str, Any], where: str) -> dict[str, Any]:
        if not {self._column("video"), self._column("audio")} & set(self._header):
            found = self._by_stem.get(name, [])
            if len(found) > 1:
                self.faults.append(f"{where}: several files go by this name: {_names(found)}")
            if not found and not self._by_stem:
                return {}  # a folder without media: a corpus of texts
            return media(*found[0]) if found else media(storage.join(self._source, name))
        given = {role: _text(cells.get(self._column(role))) for role in ("video", "audio")}
        sources: dict[str, Any] = {
            role: None if path is None else Source(self._resolved(path))
            for role, path in given.items()
        }
        if sources["audio"] is None and self._column("audio") not in self._header:
            sources["audio"] = sources["video"]  # the film's own sound
        return sources

    def _resolved(self, path: str) -> str:
        if "://" in path or path.startswith("/"):
            return path
        return storage.join(self._source, path)

    def _number(self, cells: Mapping[str, Any], role: str, where: str) -> float | None:
        value = _text(cells.get(self._column(role)))
        try:
            number = None if value is None else float(value)
        except ValueError:
            number = math.nan
        whole = role in ("turn", "fold")
        if number is not None and (not math.isfinite(number) or (whole and number % 1)):
            self.faults.append(f"{where}: {role} {value!r}; expected a {'whole ' * whole}number")
            return None
        return number

    def _label(self, task: str, cells: Mapping[str, Any], where: str) -> Label:
        value = _text(cells.get(task))
        if value is None:
            return None
        kind, classes = self.tasks[task].kind, self.tasks[task].classes
        if kind == "regression":
            return self._number({self._column(task): value}, task, where)
        if kind == "classification":
            return value
        parts = _parts(value)
        for part in parts:
            if part not in classes:
                self.faults.append(f"{where}: {task} {part!r}; {nearest(part, list(classes))}")
        return [float(label in parts) for label in classes]


def _files(source: str, labels: str) -> list[File]:
    """Every media file below the source, and those inside its tars and Parquet files."""
    files: list[File] = []
    for uri in files_below(source):
        if uri == labels:
            continue
        if is_media(uri):
            files.append((uri.removeprefix(source.rstrip("/") + "/"), Source(uri)))
        elif uri.endswith(".tar"):
            files += inside_tar(uri)
        elif uri.endswith(".parquet"):
            files += inside_parquet(uri)
    return files


def _names(files: Sequence[File]) -> str:
    return ", ".join(
        name if place.offset is None else f"{place.uri}::{name}" for name, place in files
    )


def _text(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, list | tuple):
        return "|".join(map(str, value))
    return str(value).strip() or None


def _parts(cell: str | None) -> list[str]:
    return [part.strip() for part in re.split(r"[|;,]", cell or "") if part.strip()]


def _bounds(task: str, text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--ranges {task}={text}: expected two numbers such as -3,3") from error
    return low, high
