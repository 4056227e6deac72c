"""WebDataset: tars in which the files of one key (`0001.mp4`, `0001.json`, `0001.txt`) are one clip.

Nothing is unpacked: films and sounds are read in place by their byte ranges. A clip's facts are the keys of
its `.json`; its words are its `.txt`, its class is its `.cls` (a name, or a number into `--classes`). The
split is that of the tar's name or folder (`train-000000.tar`, `val/000000.tar`). Columns of the JSON go by
the names text, speaker, group, dialogue, turn and split unless `--columns` says otherwise.

    affuse prepare webdataset --source shards --root R --tasks emotion=classification --columns speaker=actor
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, get_args

from cluster import storage
from cluster.errors import ConfigError
from cluster.settings import Place, nearest
from encoders.media import Source
from fusion.tasks import Kind, Task
from jobs.interop.arrays import SPLIT_KEYS
from jobs.preparing.about import About
from jobs.preparing.adapter import (
    AUDIO_SUFFIXES,
    Collected,
    Label,
    Preparation,
    Row,
    decoded,
    files_below,
    is_media,
)
from jobs.preparing.kinds import check_kind
from jobs.preparing.shards import opened_tar

MOST_BYTES = 1 << 20
"""A file of facts that is larger is a fault: it would be held in memory."""
FACTS = ("json", "txt", "cls")
ROLES = ("text", "speaker", "group", "dialogue", "turn", "split")
SPLIT = re.compile(rf"(?:^|[^a-z])({'|'.join(SPLIT_KEYS)})(?:$|[^a-z])")

ABOUT = About(
    name="webdataset",
    licence="",
    citation="That of the data you bring.",
    download="tars of your own, uncompressed",
    layout=(
        "shards/",
        "  train-000000.tar: 0001.mp4 0001.json 0001.txt 0002.mp4 ...",
        "  test-000000.tar ...",
    ),
    looked_for="a .tar",
    groups="the key group, speaker or dialogue of the JSON, else the clip",
    splits="by the names of tars or their folders, or the key split",
    command="affuse prepare webdataset --source shards --root data/mine --tasks emotion=classification",
)


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """WebDataset tars: films and sounds read in place, facts from the JSON beside them."""

    source: Place
    """Folder or URI of the tars."""

    tasks: Mapping[str, str] = field(default_factory=dict)
    """Tasks and their kind (classification or regression): keys of the JSON, or one task of `.cls` files."""

    classes: Mapping[str, str] = field(default_factory=dict)
    """Allowed classes of a task, in the order of their numbers: `mood=low,high`."""

    ranges: Mapping[str, str] = field(default_factory=dict)
    """Bounds of a regression task: `score=-3,3`."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Keys of the JSON with other names, such as `text=transcript speaker=who`."""

    dataset_name: str = ""
    """Name of the dataset; by default the name of the source folder."""

    licence: str = ""
    """Licence of the data, recorded beside everything made from it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for role in self.columns:
            if role not in ROLES:
                raise ConfigError(f"--columns {role}=...: {nearest(role, list(ROLES))}")
        kinds = [kind for kind in get_args(Kind) if kind != "multilabel"]
        for task, kind in self.tasks.items():
            check_kind(task, kind, kinds)
        for option, given in (("classes", self.classes), ("ranges", self.ranges)):
            for task in given:
                if task not in self.tasks:
                    raise ConfigError(f"--{option} {task}=...: --tasks does not name {task!r}")
        for task, text in self.ranges.items():
            if not re.fullmatch(r"[^,]+,[^,]+", text):
                raise ConfigError(f"--ranges {task}={text}: expected LOW,HIGH")

    def collect(self) -> Collected:
        """One clip a key of a tar that has a film or a sound."""
        source = storage.absolute(self.source)
        tars = [uri for uri in files_below(source) if uri.lower().endswith(".tar")]
        if not tars:
            raise ABOUT.absent(self.source)
        rows: list[Row] = []
        faults: list[str] = []
        for uri in tars:
            for key, sample in _samples(uri, faults):
                if sample.media:
                    rows.append(
                        self._row(uri.removeprefix(source.rstrip("/") + "/"), key, sample, faults)
                    )
        if not rows and not faults:
            raise ABOUT.absent(self.source, why="with films or sounds, found none")
        return Collected(
            name=self.dataset_name or source.rstrip("/").rsplit("/", 1)[-1],
            licence=self.licence,
            tasks={task: self._task(task, rows) for task in self.tasks},
            rows=rows,
            faults=faults,
        )

    def _task(self, task: str, rows: list[Row]) -> Task:
        if self.tasks[task] == "regression":
            low, _, high = self.ranges.get(task, "").partition(",")
            return Task(kind="regression", range=(float(low), float(high)) if high else None)
        found = {str(row.labels[task]) for row in rows if row.labels[task] is not None}
        return Task(kind="classification", classes=self._classes(task) or tuple(sorted(found)))

    def _classes(self, task: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.classes.get(task, "").split(",") if part.strip())

    def _row(self, tar: str, key: str, sample: "_Sample", faults: list[str]) -> Row:
        facts = sample.facts
        said = {role: facts.get(self.columns.get(role, role)) for role in ROLES}
        labels: dict[str, Label] = {}
        for task in self.tasks:
            value = facts.get(task, sample.label if len(self.tasks) == 1 else None)
            try:
                labels[task] = self._label(task, value)
            except (IndexError, TypeError, ValueError):
                faults.append(f"{tar}: {key}: {task} {value!r} is not a {self.tasks[task]} label")
                labels[task] = None
        named = SPLIT.search(tar.lower())
        split = said["split"] if said["split"] is not None else named and named[1]
        if split is not None and str(split).lower() not in SPLIT_KEYS:
            faults.append(f"{tar}: {key}: split {split!r}; {nearest(str(split), list(SPLIT_KEYS))}")
            split = None
        words = said["text"] if sample.text is None else sample.text
        return Row(
            name=key,
            video=sample.media.get("video"),
            audio=sample.media.get("audio", sample.media.get("video")),
            text=None if words is None else str(words).strip() or None,
            dialogue=_word(said["dialogue"]),
            turn=said["turn"] if isinstance(said["turn"], int) else None,
            speaker=_word(said["speaker"]),
            group=_word(said["group"]),
            split=None if split is None else SPLIT_KEYS[str(split).lower()],
            labels=labels,
        )

    def _label(self, task: str, value: Any) -> Label:
        if value is None or value == "":
            return None
        if isinstance(value, dict | list | bool):
            raise TypeError
        if self.tasks[task] == "regression":
            return float(value)
        classes, text = self._classes(task), str(value).strip()
        if classes and text.isdecimal() and text not in classes:
            return classes[int(text)]
        return text


@dataclass
class _Sample:
    """What a tar holds of one key."""

    media: dict[str, Source] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    text: str | None = None
    label: str | None = None
    seen: set[str] = field(default_factory=set)


def _samples(uri: str, faults: list[str]) -> Iterator[tuple[str, _Sample]]:
    """The keys of a tar with what belongs to each, in order."""
    samples: dict[str, _Sample] = {}
    with opened_tar(uri) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            stem, _, ending = path.name.partition(".")
            if not member.isreg() or not stem or path.name.startswith("."):
                continue
            sample = samples.setdefault((path.parent / stem).as_posix(), _Sample())
            ending = ending.lower()
            if ending in sample.seen:
                faults.append(f"{uri}: {member.name} stands twice")
            elif is_media(path.name) and not member.issparse():
                sound = "." + ending.rsplit(".", 1)[-1] in AUDIO_SUFFIXES
                place = Source(uri, member.offset_data, member.size)
                sample.media.setdefault("audio" if sound else "video", place)
            elif ending in FACTS and member.size > MOST_BYTES:
                faults.append(
                    f"{uri}: {member.name} has {member.size:,} bytes, at most {MOST_BYTES:,}"
                )
            elif ending in FACTS:
                content = tar.extractfile(member)
                assert content is not None  # of a regular file
                if fault := _add_fact(sample, ending, content.read()):
                    faults.append(f"{uri}: {member.name}: {fault}")
            sample.seen.add(ending)
        fs, place_of_tar = storage.filesystem(uri)
        if fs.size(place_of_tar) <= tar.offset:
            faults.append(f"{uri}: cut off: it has no end mark, and members may be missing")
    yield from samples.items()


def _add_fact(sample: _Sample, ending: str, content: bytes) -> str:
    text = decoded(content)
    if ending == "txt":
        sample.text = text
    elif ending == "cls":
        sample.label = text.strip()
    else:
        try:
            sample.facts = json.loads(text)
        except (RecursionError, ValueError) as error:
            return f"not JSON: {error}"
        if not isinstance(sample.facts, dict):
            sample.facts = {}
            return "expected an object of keys and values"
    return ""


def _word(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)
