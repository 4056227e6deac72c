"""Hugging Face datasets on disk: what `save_to_disk` wrote, or Parquet files as the hub holds them.

Class labels become tasks by the names that the dataset brings; films and sounds (columns of Audio or Video,
or of bytes) are read in place, or unpacked once below the root where their file is compressed. Splits are
those of the dataset, else of the names of files and folders. A clip is called by the column `name`, else by
the path of its film or sound where all differ, else by its split and place. Nothing but pyarrow is needed.

    affuse prepare huggingface --source crema --root R --columns text=sentence speaker=actor
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster import storage
from cluster.errors import ConfigError
from cluster.settings import Place, nearest
from fusion.tasks import Kind
from jobs.interop.tables import Table
from jobs.preparing.about import About
from jobs.preparing.adapter import Collected, Preparation, files_below, is_sound
from jobs.preparing.hub_files import (
    HubColumns,
    HubFile,
    class_names,
    header_of,
    hub_files,
    rows_of,
    type_of,
)
from jobs.preparing.hub_media import holds_media, media_places, paths_of
from jobs.preparing.kinds import check_kind
from jobs.preparing.label_parts import COLUMNS, LabelOptions
from jobs.preparing.label_rows import Reading

KINDS = {"Audio": "audio", "Video": "video"}
"""Type of a feature -> the modality whose media it holds."""

ABOUT = About(
    name="huggingface",
    licence="",
    citation="That of the data you bring; `datasets` is Lhoest et al. 2021, https://arxiv.org/abs/2109.02846",
    download="a dataset of your own: dataset.save_to_disk(FOLDER), or the Parquet files of a repository",
    layout=(
        "saved/",
        "  dataset_dict.json",
        "  train/state.json  train/dataset_info.json  train/data-00000-of-00001.arrow ...",
        "  test/..., or",
        "data/train-00000-of-00001.parquet  data/test-00000-of-00001.parquet",
    ),
    looked_for="a state.json with its Arrow files, or a .parquet",
    groups="the columns group, speaker or dialogue, else the clip",
    splits="those of the dataset",
    command="affuse prepare huggingface --source saved --root data/mine --columns text=sentence",
)


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """Hugging Face datasets on disk: saved folders or Parquet files with media inside."""

    source: Place
    """Folder or URI that `save_to_disk` wrote, or that holds Parquet files."""

    tasks: Mapping[str, str] = field(default_factory=dict)
    """Label columns and their kind (classification, multilabel, regression); by default every column of
    class labels."""

    classes: Mapping[str, str] = field(default_factory=dict)
    """Allowed classes of a task, in order: `mood=low,high`; by default the dataset's own names."""

    ranges: Mapping[str, str] = field(default_factory=dict)
    """Bounds of a regression task: `score=-3,3`."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Columns with other names, such as `text=sentence speaker=actor audio=speech`."""

    profile: tuple[str, ...] = ()
    """Columns about the speaker that nets may use, such as age and gender."""

    as_is: tuple[str, ...] = ()
    """Columns to take as they stand: an unread column named like one that is read, or words that differ in
    case only."""

    dataset_name: str = ""
    """Name of the dataset; by default the name of the source folder."""

    licence: str = ""
    """Licence of the data, recorded beside everything made from it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for column in self.columns:
            if column not in COLUMNS:
                raise ConfigError(f"--columns {column}=...: {nearest(column, list(COLUMNS))}")
        for task, kind in self.tasks.items():
            check_kind(task, kind, list(get_args(Kind)))

    def collect(self) -> Collected:
        """One clip a row of the dataset's files."""
        source = storage.absolute(self.source)
        files = hub_files(source, files_below(source))
        if not files:
            raise ABOUT.absent(self.source)
        media = _media_columns(files[0], self.columns)
        columns = HubColumns(files, leave_out=list(media.values()))
        tasks = self.tasks or _class_labels(columns, {*self.columns.values(), *self.profile})
        for option, given in (("classes", self.classes), ("ranges", self.ranges)):
            for task in given:
                if task not in tasks:
                    raise ConfigError(f"--{option} {task}=...: {nearest(task, list(tasks))}")
        named = {task: class_names(columns.features.get(task)) for task in tasks}
        options = LabelOptions(
            columns={role: name for role, name in self.columns.items() if role not in media},
            tasks=tasks,
            classes={**{task: names for task, names in named.items() if names}, **self.classes},
            ranges=self.ranges,
            profile=self.profile,
            as_is=self.as_is,
        )
        held = {kind: _places(files, name, self.root) for kind, name in media.items()}
        paths = {name: _paths(files, name) for name in media.values()}
        table = _table(source, columns, list(paths.values()), self.columns)
        table.faults += [
            f"{name}: {fault}"
            for kind, name in media.items()
            if (fault := _not_embedded(held[kind], paths[name]))
        ]
        reading = _Reading(options, table, held)
        return Collected(
            name=self.dataset_name or source.rstrip("/").rsplit("/", 1)[-1],
            licence=self.licence,
            tasks=reading.tasks,
            tables=reading.tables,
            profile=self.profile,
            folds={name: {} for name in reading.folds},
            faults=reading.faults,
            notes=reading.notes,
        )


class _Reading(Reading):
    """The rows of the dataset, whose media lie in its own files."""

    def __init__(
        self, options: LabelOptions, table: Table, held: Mapping[str, pa.ChunkedArray]
    ) -> None:
        self._held = held
        super().__init__(options, table, table.where, [])

    def held(self, start: int, count: int) -> dict[str, list[dict[str, Any] | None]] | None:
        """The media of some rows; None where none has any, and columns of paths may name them."""
        if not self._held:
            return None
        found = {
            kind: column.slice(start, count).to_pylist() for kind, column in self._held.items()
        }
        video = found.get("video", [None] * count)
        audio = found.get("audio", video)
        # A clip without a sound of its own has that of its film.
        own = [film if sound is None else sound for film, sound in zip(video, audio, strict=True)]
        return {"video": video, "audio": own}

    def _ask_for_media(self) -> None:
        if not self._held:
            super()._ask_for_media()


def _class_labels(columns: HubColumns, others: set[str]) -> dict[str, str]:
    """Every column of class labels that has no other role -> the kind of its task."""
    found = {}
    for name, feature in columns.features.items():
        if name in columns and name not in others and name not in COLUMNS and class_names(feature):
            single = isinstance(feature, Mapping) and feature.get("_type") == "ClassLabel"
            found[name] = "classification" if single else "multilabel"
    return found


def _media_columns(file: HubFile, columns: Mapping[str, str]) -> dict[str, str]:
    """Modality (video, audio) -> the column of bytes that holds it.

    Bare bytes of which neither feature, name nor path says what they are count where no others are there.

    Raises:
        ConfigError: several columns hold one modality, and none was named.
    """
    found: dict[str, list[str]] = {}
    unsaid = []
    for name in header_of(file.uri):
        feature = file.features.get(name)
        said = KINDS.get(feature.get("_type", "")) if isinstance(feature, Mapping) else None
        other = isinstance(feature, Mapping) and feature.get("_type") not in (None, "Value", *KINDS)
        if holds_media(type_of(file.uri, name)) and not other:
            asked = next((role for role in KINDS.values() if columns.get(role) == name), None)
            kind = asked or said or (name if name in KINDS.values() else _kind_by_path(file, name))
            if kind is None:
                unsaid.append(name)
            elif kind not in columns or asked:
                found.setdefault(kind, []).append(name)
    if unsaid and not found and "video" not in columns:
        found["video"] = unsaid
    for kind, names in found.items():
        if len(names) > 1:
            raise ConfigError(
                f"{', '.join(names)} all hold {kind}; which one? type: --columns {kind}={names[0]}"
            )
    return {kind: names[0] for kind, names in found.items()}


def _kind_by_path(file: HubFile, name: str) -> str | None:
    """What the first path says of a column whose feature and name say nothing; None without a path."""
    path = next((path for path in paths_of(file.uri, name).to_pylist() if path), None)
    return None if path is None else "audio" if is_sound(path) else "video"


def _places(files: Sequence[HubFile], name: str, root: str) -> pa.ChunkedArray:
    return pa.chunked_array([media_places(file.uri, name, root) for file in files])


def _paths(files: Sequence[HubFile], name: str) -> pa.ChunkedArray:
    return pa.chunked_array([paths_of(file.uri, name) for file in files])


def _not_embedded(places: pa.ChunkedArray, paths: pa.ChunkedArray) -> str:
    """What is wrong where rows name a file and do not hold it."""
    lacking = paths.filter(pc.and_(pc.is_null(places), pc.is_valid(paths)))
    if not len(lacking):
        return ""
    return (
        f"{len(lacking):,} rows name a file whose bytes are not in the dataset, such as "
        f"{lacking[0].as_py()!r}; save_to_disk embeds them"
    )


def _table(
    source: str, columns: HubColumns, paths: Sequence[pa.ChunkedArray], given: Mapping[str, str]
) -> Table:
    """The columns, and `name` and `split` where the dataset has no such columns."""
    counts = [rows_of(file.uri) for file in columns.files]
    table = Table(where=source, columns=columns, num_rows=sum(counts))
    splits = pa.chunked_array(
        [
            pa.repeat(pa.scalar(file.split, pa.string()), count)
            for file, count in zip(columns.files, counts, strict=True)
        ]
    )
    if "split" not in columns and "split" not in given and splits.null_count < len(splits):
        columns.add("split", splits)
    if "name" not in columns and "name" not in given:
        named = _names_by_path(paths)
        table.notes.append(f"clips are named by {'their files' if named else 'split and place'}")
        columns.add("name", named or _names_by_place(splits))
    return table


def _names_by_path(paths: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray | None:
    """The names of the files that the clips were; None where some lack or are alike."""
    for column in paths:
        names = pc.replace_substring_regex(column, r"^.*[/\\]", "")
        if not names.null_count and pc.count_distinct(names).as_py() == len(names):
            return names
    return None


def _names_by_place(splits: pa.ChunkedArray) -> pa.ChunkedArray:
    """Split and number inside it, such as train-0000012."""
    words = pc.fill_null(splits, "row").combine_chunks()
    said = np.asarray(words.dictionary_encode().indices)
    numbers = np.zeros(len(said), np.int64)
    for code in np.unique(said):
        numbers[said == code] = np.arange(np.count_nonzero(said == code))
    padded = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 7, "0")
    return pa.chunked_array([pc.binary_join_element_wise(words, padded, "-")])
