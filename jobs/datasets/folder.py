"""Any folder of media files or shards of them with a table of labels (CSV, TSV, JSON lines or Parquet).

The table is read strictly: the separator (comma, semicolon, tab, bar), the encoding and decimal commas are
detected and printed; every column is read or listed as not read; probable typing errors are faults.

A row is a clip. Its media are the columns `video` and `audio` (paths below the source, absolute paths or
URIs; a film for which no `audio` is named brings its own), or, where the table has neither, the file below
the source whose name or stem is the clip's name. Tars and uncompressed Parquet files below the source
count as folders of what they hold: their members are read in place. Without a table every media file is an
unlabelled clip. Columns go by these names unless flags say otherwise:
name, video, audio, text, start_s, end_s, dialogue, turn, speaker, group, split, fold. A table with media
columns needs no names: a clip is then called by its file, a segment also by its start.

    affuse prepare folder --source clips --labels labels.csv --root R --tasks mood=classification
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from cluster import storage
from cluster.errors import ConfigError
from cluster.settings import Place, nearest
from encoders.media import Source
from fusion.tasks import Kind
from jobs.interop.cells import composed
from jobs.interop.tables import read_table
from jobs.preparing.about import About
from jobs.preparing.adapter import (
    Collected,
    Preparation,
    Row,
    files_below,
    is_media,
    media,
    passed_over,
)
from jobs.preparing.files_by_name import File
from jobs.preparing.kinds import check_kind
from jobs.preparing.label_parts import COLUMNS, LabelOptions
from jobs.preparing.label_rows import Reading
from jobs.preparing.shards import inside_parquet, inside_tar

ABOUT = About(
    name="folder",
    licence="",
    citation="That of the data you bring.",
    download="files of your own",
    layout=(
        "clips/",
        "  any.mp4 ...  any.wav ...  shards.tar ...",
        "labels.csv: name, text, speaker, split, mood, ...",
    ),
    looked_for="media files",
    groups="the columns group, speaker or dialogue, else the file that segments share, else the clip",
    splits="the columns split and fold",
    command="affuse prepare folder --source clips --labels labels.csv --root data/mine "
    "--tasks mood=classification",
)


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """Media files of your own plus a table of labels."""

    source: Place
    """Folder or URI of the media files."""

    labels: Place = ""
    """Table with a row a clip; empty: every media file is a clip without labels."""

    dataset_name: str = ""
    """Name of the dataset; by default the name of the source folder."""

    licence: str = ""
    """Licence of the data, recorded beside everything made from it."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Columns with other names in the table, such as `name=clip text=transcript speaker=who`."""

    tasks: Mapping[str, str] = field(default_factory=dict)
    """Label columns and their kind: classification, multilabel or regression. The labels of a clip stand in a
    cell with `|`, `;` or `,` between them, or as a list of JSON or Parquet, whose words stay as they are. An
    empty cell is unlabelled; none of the labels is written `|` (or an empty list)."""

    classes: Mapping[str, str] = field(default_factory=dict)
    """Allowed classes of a task, in order: `mood=low,high`; by default the classes that occur, sorted."""

    ranges: Mapping[str, str] = field(default_factory=dict)
    """Bounds of a regression task: `score=-3,3`."""

    votes: Mapping[str, str] = field(default_factory=dict)
    """What raters chose: `mood=n_*`, a column of their number for each class, or `mood=raters`, a column that
    names a class for each rater (`low|low|high`)."""

    profile: tuple[str, ...] = ()
    """Columns about the speaker that nets may use, such as age and gender."""

    as_is: tuple[str, ...] = ()
    """Columns to take as they stand: an unread column named like one that is read, or words that differ in
    case only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for column, named in self.columns.items():
            if column in self.tasks and column not in COLUMNS:
                again = shlex.quote(f"{named}={self.tasks[column]}")
                raise ConfigError(
                    f"--columns {column}=...: a task is called as its column; type: --tasks {again}"
                )
            if column not in COLUMNS:
                raise ConfigError(f"--columns {column}=...: {nearest(column, list(COLUMNS))}")
        for task, kind in self.tasks.items():
            check_kind(task, kind, list(get_args(Kind)))
        for task in self.votes:
            if self.tasks.get(task) != "classification":
                raise ConfigError(
                    f"--votes {task}=...: expected a task with classes; type --tasks {task}=classification"
                )
        for option, given in (("classes", self.classes), ("ranges", self.ranges)):
            for task in given:
                if task not in self.tasks:
                    raise ConfigError(f"--{option} {task}=...: --tasks does not name {task!r}")

    def collect(self) -> Collected:
        """One clip a row of the table, or a media file where there is no table."""
        source = storage.absolute(self.source)
        files, others = _files(source, storage.absolute(self.labels) if self.labels else "")
        dataset = self.dataset_name or source.rstrip("/").rsplit("/", 1)[-1]
        if not self.labels:
            if self.tasks:
                raise ConfigError("--tasks needs --labels: the table that holds those columns")
            rows = [Row(name=composed(name), **media(name, place)) for name, place in files]
            notes = passed_over(others)
            return Collected(name=dataset, licence=self.licence, tasks={}, rows=rows, notes=notes)
        options = LabelOptions(
            columns=self.columns,
            tasks=self.tasks,
            classes=self.classes,
            ranges=self.ranges,
            profile=self.profile,
            as_is=self.as_is,
            votes=self.votes,
        )
        reading = Reading(options, read_table(storage.absolute(self.labels)), source, files)
        return Collected(
            name=dataset,
            licence=self.licence,
            tasks=reading.tasks,
            tables=reading.tables,
            profile=self.profile,
            votes=reading.votes,
            folds={name: {} for name in reading.folds},
            faults=reading.faults,
            notes=[*reading.notes, *passed_over(others)],
        )


def _files(source: str, labels: str) -> tuple[list[File], list[str]]:
    """Every media file below the source or inside its tars and Parquet files; and what else is there."""
    files: list[File] = []
    others: list[str] = []
    for uri in files_below(source):
        if uri == labels:
            continue
        if is_media(uri):
            files.append((uri.removeprefix(source.rstrip("/") + "/"), Source(uri)))
        elif uri.endswith(".tar"):
            files += inside_tar(uri)
        elif uri.endswith(".parquet"):
            files += inside_parquet(uri)
        else:
            others.append(uri)
    return files, others
