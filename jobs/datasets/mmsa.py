"""Pickles of the MMSA family: a dict by split of `id`, `raw_text`, features and labels.

CMU-MOSI, CMU-MOSEI and CH-SIMS are handed round so (`aligned_50.pkl`, `unaligned_50.pkl`), and programs
built upon MMSA keep the layout, some without `id` and `raw_text`. Clips have no media; their features come
from the same file.

    affuse prepare mmsa --source aligned_50.pkl --root R --range -3 3
    affuse features import --root R --file aligned_50.pkl --array vision --name facet --modality video

An id such as `video$_$7` says that the clip is the seventh of that video; clips of one video stay together.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster import storage
from cluster.errors import ConfigError, LabelTableError, NotPreparedError
from cluster.settings import Place
from fusion.tasks import Task
from jobs.interop.arrays import SPLIT_KEYS, Arrays, as_text, open_arrays, positional_name
from jobs.preparing.about import About
from jobs.preparing.adapter import Collected, Label, Preparation, Row, files_below

LABEL_KEYS = ("regression_labels", "labels", "label")
CLASSES = "classification_labels"
"""Read where no numbers are: the index of a class, which `class_names` or `annotations` name."""

FEATURES = ("text", "audio", "vision")
UNIMODAL = {"T": "text", "A": "audio", "V": "video"}
"""CH-SIMS labels each modality by itself: `regression_labels_T` and so on."""

ABOUT = About(
    name="mmsa",
    licence="",
    citation="Mao et al. 2022, M-SENA: An Integrated Platform for Multimodal Sentiment Analysis, ACL, "
    "https://doi.org/10.18653/v1/2022.acl-demo.20",
    download="https://github.com/thuiar/MMSA (Processed/*.pkl of MOSI, MOSEI and SIMS), or your own",
    layout=(
        "aligned_50.pkl: {train, valid, test} of id, raw_text, text, audio, vision, regression_labels",
    ),
    looked_for="a pickle with regression_labels or labels",
    groups="videos, where ids are such as video$_$7",
    splits="the levels train, valid, test of the file",
    command="affuse prepare mmsa --source aligned_50.pkl --root data/mine --range -3 3",
)


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """Pickles of the MMSA family (MOSI, MOSEI, SIMS and their like): features and labels."""

    source: Place
    """File of the pickle, or a folder that holds one; only arrays and plain containers are read from it."""

    task: str = "sentiment"
    """Name of the task that the numbers or classes label."""

    range: tuple[float, float] | None = None
    """Bounds of the numbers, such as -3 3 (MOSI, MOSEI) or -1 1 (SIMS)."""

    dataset_name: str = ""
    """Name of the dataset; by default the file's name."""

    licence: str = ""
    """Licence of the data, recorded beside everything made from it."""

    def collect(self) -> Collected:
        """One clip a row of each split."""
        source = pickle_of(self.source, ABOUT)
        with open_arrays(source) as content:
            return self.read(content, source)

    def read(self, content: Mapping[str, Any], source: str) -> Collected:
        """One clip a row of each split of an open file.

        Raises:
            NotPreparedError: a split without labels.
            LabelTableError: arrays of different length.
        """
        rows: list[Row] = []
        tasks: dict[str, Task] = {}
        for key, part in splits_of(content):
            columns = self._labels(part, tasks)
            if not columns:
                raise NotPreparedError(
                    f"{source}: expected one of {', '.join((*LABEL_KEYS, CLASSES))} in each split; "
                    f"came {', '.join(sorted({name.rpartition('/')[2] for name in content}))}"
                )
            rows += self._rows(part, key, columns, feature_counts(content, key))
        name = source.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        return Collected(
            name=self.dataset_name or name, licence=self.licence, tasks=tasks, rows=rows
        )

    def _rows(
        self,
        part: Mapping[str, Any],
        split: str | None,
        columns: Mapping[str, Sequence[Label]],
        features: Mapping[str, int],
    ) -> list[Row]:
        """The clips of one split.

        Raises:
            LabelTableError: arrays of different length.
        """
        count = len(columns[self.task])
        kept = {key: part[key] for key in ("id", "raw_text") if key in part}
        sizes = {key: len(values) for key, values in {**columns, **kept}.items()}
        sizes |= features
        if set(sizes.values()) != {count}:
            each = ", ".join(f"{key} {size}" for key, size in sizes.items())
            raise LabelTableError(f"{self.source}: {split or 'the file'} has rows of {each}")
        return [_row(part, split, index, columns) for index in range(count)]

    def _labels(
        self, part: Mapping[str, Any], tasks: dict[str, Task]
    ) -> dict[str, Sequence[Label]]:
        columns: dict[str, Sequence[Label]] = {}
        key = next((key for key in LABEL_KEYS if key in part), None)
        if key is None:
            return self._classes(part, tasks) if CLASSES in part else columns
        columns[self.task] = _numbers(part[key])
        tasks[self.task] = Task(kind="regression", range=self.range)
        for letter, modality in UNIMODAL.items():
            if (single := f"{key}_{letter}") in part:
                columns[f"{self.task}_{modality}"] = _numbers(part[single])
                tasks[f"{self.task}_{modality}"] = Task(kind="regression", range=self.range)
        words = [as_text(item) for item in part.get("annotations", ())]
        if any(word and not _is_number(word) for word in words):
            columns["polarity"] = [word or None for word in words]
            known = tasks["polarity"].classes if "polarity" in tasks else ()
            classes = tuple(sorted({*known, *words} - {""}))
            tasks["polarity"] = Task(kind="classification", classes=classes)
        return columns

    def _classes(
        self, part: Mapping[str, Any], tasks: dict[str, Task]
    ) -> dict[str, Sequence[Label]]:
        """Labels by the names of their classes; a negative index is no label.

        Raises:
            LabelTableError: an index that is no whole number, or that no class has.
        """
        codes = [-1.0 if np.isnan(code) else code for code in _array(part[CLASSES]).tolist()]
        known = {int(code) for code in codes if code >= 0 and code.is_integer()}
        names = dict(enumerate(map(as_text, part.get("class_names", ()))))
        if not names:
            words = map(as_text, part.get("annotations", ()))
            named = {code: word for code, word in zip(codes, words, strict=False) if word}
            names = {code: named.get(code, str(code)) for code in sorted(known)}
        if not all(code.is_integer() for code in codes) or known - names.keys():
            raise LabelTableError(
                f"{self.source}: {CLASSES} has {sorted(set(codes))[:10]}, expected the indices of "
                f"{', '.join(names.values())}"
            )
        before = tasks[self.task].classes if self.task in tasks else ()
        classes = tuple(dict.fromkeys([*before, *names.values()]))
        tasks[self.task] = Task(kind="classification", classes=classes)
        return {self.task: [names[int(code)] if code >= 0 else None for code in codes]}


def pickle_of(source: str, about: About) -> str:
    """The file that a source means: itself, or the one pickle below a folder.

    Raises:
        NotPreparedError: a folder without any.
        ConfigError: a folder with several.
    """
    source = storage.absolute(source)
    fs, path = storage.filesystem(source)
    if not fs.isdir(path):
        return source
    found = [uri for uri in files_below(source) if uri.endswith((".pkl", ".pickle"))]
    if not found:
        raise about.absent(source)
    if len(found) > 1:
        raise ConfigError(f"--source {source}: holds several pickles; name one: {', '.join(found)}")
    return found[0]


def splits_of(content: Mapping[str, Any]) -> list[tuple[str | None, dict[str, Any]]]:
    """(split as the file calls it, its arrays of one dimension); one without where there is no such level.

    Features lie there too, and may be large: only what can say something of a clip is loaded.
    """
    found: list[tuple[str | None, dict[str, Any]]] = []
    for key in SPLIT_KEYS:
        prefix = f"{key}/"
        names = [name.removeprefix(prefix) for name in content if name.startswith(prefix)]
        if names:
            found.append((key, {name: content[prefix + name] for name in names if _is_read(name)}))
    return found or [(None, {name: content[name] for name in content if _is_read(name)})]


def feature_counts(content: Mapping[str, Any], key: str | None) -> dict[str, int]:
    """The clips that each array of features of a split holds; arrays on disk are not read for it."""
    counts = {}
    for name in FEATURES:
        path = name if key is None else f"{key}/{name}"
        if path in content:
            counts[name] = shape_of(content, path)[0]
    return counts


def shape_of(content: Mapping[str, Any], path: str) -> tuple[int, ...]:
    """The shape of an array; of what is no array, one dimension."""
    known = content.shape(path) if isinstance(content, Arrays) else None
    if known is None:
        value = content[path]
        known = value.shape if isinstance(value, np.ndarray) else (len(value),)
    return known or (0,)


def _is_read(name: str) -> bool:
    labels = {f"{key}{suffix}" for key in LABEL_KEYS for suffix in ("", "_T", "_A", "_V")}
    return name in labels | {"id", "raw_text", "annotations", CLASSES, "class_names"}


def _row(
    part: Mapping[str, Any], key: str | None, index: int, columns: Mapping[str, Sequence[Label]]
) -> Row:
    name = as_text(part["id"][index]) if "id" in part else positional_name(key, index)
    parts = re.fullmatch(r"(.+)\$_\$(\d+)", name)
    text = as_text(part["raw_text"][index]) if "raw_text" in part else ""
    return Row(
        name=name,
        text=text or None,
        dialogue=None if parts is None else parts[1],
        turn=None if parts is None else int(parts[2]),
        split=None if key is None else SPLIT_KEYS[key],
        labels={task: column[index] for task, column in columns.items()},
    )


def _numbers(values: Any) -> list[Label]:
    return [None if np.isnan(value) else float(value) for value in _array(values)]


def _array(values: Any) -> np.ndarray:
    try:
        return np.asarray(values, np.float64).reshape(len(values))
    except (TypeError, ValueError) as error:
        raise LabelTableError(f"the labels are not one number a clip: {error}") from error


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
