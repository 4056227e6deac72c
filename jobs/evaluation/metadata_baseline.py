"""The metadata baseline: how well do length, order and speaker alone predict the labels?

It reads the manifest without content and labels: the length of the clip, its turn in the dialogue, which
modalities it has, and the profile of the speaker. A word counts only where at least
two groups of the training rows share it: the name of a speaker is thereby used where speakers talk in
several groups, and never where folds are by speaker. Classes and labels by logistic regression, values by
ridge regression; both from scikit-learn, on scaled columns, penalty 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from fusion.tasks import Task
from jobs.catalog.groups import group_names
from jobs.catalog.manifest import read_dataset, read_manifest
from jobs.catalog.predictions import HeldOut
from jobs.training.targets import encode_targets

LENGTH, CURVE = "length", "length squared"
MODALITIES = ("video", "audio", "text")
FLOOR = 1e-4
"""Probability of a class that the training rows do not have."""


@dataclass(frozen=True, kw_only=True)
class Guess:
    """Predictions of the baseline for some rows."""

    scores: Tensor
    """[row outputs], of the kind that members have."""

    facts: tuple[str, ...]
    """Columns of the manifest that it used."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The metadata of the manifest, one entry a clip."""

    clip_id: np.ndarray
    group: np.ndarray
    numbers: Mapping[str, np.ndarray]
    """float64, NaN where unknown."""

    words: Mapping[str, np.ndarray]
    """object, None where unknown."""

    target: Tensor
    known: Tensor


def metadata_out_of_fold(
    root: str, held: HeldOut, folds: np.ndarray, name: str, task: Task
) -> Guess | None:
    """Predict each held-out row by a model of the rows outside its fold.

    Args:
        root: of the dataset; its test rows are left out.
        held: the rows to predict; other rows of the manifest are for training only.
        folds: fold of each row.
        name: of the task.
        task: its kind.

    Returns:
        None where no column of the manifest differs from clip to clip.
    """
    facts = read_facts(root, name, task, test=False)
    used = _used(facts)
    if not used:
        return None
    rows = _places(facts, held.clip_id)
    judged = np.isin(facts.clip_id, held.clip_id)
    scores = torch.zeros(len(rows), task.outputs, dtype=torch.float64)
    for fold in np.unique(folds):
        at = folds == fold
        # Predicted rows follow their folds; of the other rows, those of the same groups are left out.
        train = judged | ~np.isin(facts.group, facts.group[rows[at]])
        train[rows[at]] = False
        scores[torch.from_numpy(at)] = _fitted(task, facts, train, facts, rows[at])
    return Guess(scores=scores, facts=used)


def metadata_of_test(root: str, clip_id: np.ndarray, name: str, task: Task) -> Guess | None:
    """Predict test rows by a model of all others; for `evaluate` alone."""
    facts, test = (read_facts(root, name, task, test=flag) for flag in (False, True))
    used, everyone = _used(facts), np.ones(len(facts.clip_id), bool)
    if not used:
        return None
    scores = _fitted(task, facts, everyone, test, _places(test, clip_id))
    return Guess(scores=scores, facts=used)


def read_facts(root: str, name: str, task: Task, *, test: bool) -> Facts:
    """The manifest's rows outside the test split, or of it alone."""
    columns = ["clip_id", "split", "group", "duration_s", "turn", "speaker", *MODALITIES, name]
    profile = ["profile"] if read_dataset(root).profile else []
    table = read_manifest(root, [*columns, *profile])
    is_test = np.array([split == "test" for split in table["split"].to_pylist()], bool)
    table = table.filter(pa.array(is_test if test else ~is_test))

    def column(key: str) -> list[Any]:
        return list(table[key].to_pylist())

    length, turn = (np.array(column(key), np.float64) for key in ("duration_s", "turn"))
    numbers = {LENGTH: np.log1p(length), CURVE: np.log1p(length) ** 2}
    numbers["turn"] = np.log1p(np.maximum(turn, 0.0))
    there = [[value is not None for value in column(key)] for key in MODALITIES]
    words: dict[str, list[Any]] = {
        "modalities": ["+".join(compress(MODALITIES, row)) for row in zip(*there, strict=True)],
        "speaker": column("speaker"),
    }
    people = [person or {} for person in column("profile")] if profile else []
    for key in sorted({key for person in people for key in person}):
        values = [person.get(key) for person in people]
        if (found := _as_numbers(values)) is None:
            words[key] = values
        else:
            numbers[key] = found
    target, known = encode_targets(table[name], task)
    return Facts(
        clip_id=table["clip_id"].to_numpy(),
        group=group_names(column("group"), table["clip_id"].to_numpy()),
        numbers=numbers,
        words={key: np.array(values, object) for key, values in words.items()},
        target=target,
        known=known,
    )


def _places(facts: Facts, clip_id: np.ndarray) -> np.ndarray:
    """Rows of some clips."""
    place = {clip: row for row, clip in enumerate(facts.clip_id.tolist())}
    return np.array([place[clip] for clip in clip_id.tolist()], np.int64)


def _as_numbers(values: Sequence[str | None]) -> np.ndarray | None:
    """A profile field such as an age; None where it holds words."""
    try:
        return np.array([np.nan if value is None else float(value) for value in values])
    except ValueError:
        return None


def _used(facts: Facts) -> tuple[str, ...]:
    """Columns that differ between clips."""
    everyone = np.ones(len(facts.clip_id), bool)
    numbers = [key for key, values in facts.numbers.items() if key != CURVE and _varies(values)]
    return (*numbers, *(key for key in facts.words if _shared(facts, key, everyone)))


def _varies(values: np.ndarray) -> bool:
    known = values[~np.isnan(values)]
    return bool(len(known) and known.min() < known.max())


def _shared(facts: Facts, key: str, train: np.ndarray) -> list[str]:
    """Words of a column that several groups of the training rows have; none where all are alike."""
    pairs = zip(facts.words[key][train], facts.group[train], strict=True)
    groups: dict[str, set[str]] = {}
    for word, group in pairs:
        if word is not None:
            groups.setdefault(str(word), set()).add(group)
    shared = sorted(word for word, of in groups.items() if len(of) > 1)
    return shared if len(groups) > 1 or None in facts.words[key][train] else []


def _columns(facts: Facts, train: np.ndarray, of: Facts, rows: np.ndarray) -> np.ndarray:
    """Scaled columns [row column] of some rows; what scales them is taken from the training rows."""
    found = []
    for key, numbers in facts.numbers.items():
        if key in of.numbers and _varies(numbers[train]):
            scaled = (of.numbers[key][rows] - np.nanmean(numbers[train])) / np.nanstd(
                numbers[train]
            )
            found += [np.nan_to_num(scaled), np.isnan(scaled).astype(float)]
    for key in facts.words:
        mine = of.words.get(key, np.full(len(of.clip_id), None, object))[rows]
        found += [
            np.array([str(word) == each for word in mine], float)
            for each in _shared(facts, key, train)
        ]
    return np.stack(found, 1) if found else np.zeros((len(rows), 1))


def _fitted(task: Task, facts: Facts, train: np.ndarray, of: Facts, rows: np.ndarray) -> Tensor:
    """Scores [row outputs] of some rows by a model of the training rows."""
    known = facts.known.numpy()
    train = train & (known.any(1) if known.ndim > 1 else known)
    x = _columns(facts, train, facts, np.flatnonzero(train))
    asked = _columns(facts, train, of, rows)
    target = facts.target.numpy()[train]
    if task.kind == "regression":
        return torch.from_numpy(_ridge(x, target, asked)[:, None])
    if task.kind == "classification":
        return torch.from_numpy(np.log(_shares(x, target, asked, task.outputs)))
    columns = []
    for label in range(task.outputs):
        sure = known[train, label]
        share = _shares(x[sure], target[sure, label].round().astype(int), asked, 2)
        columns.append(np.log(share[:, 1]) - np.log(share[:, 0]))
    return torch.from_numpy(np.stack(columns, 1))


def _shares(x: np.ndarray, target: np.ndarray, asked: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities [row class] by logistic regression."""
    from sklearn.linear_model import LogisticRegression

    seen = np.unique(target)
    shares = np.full((len(asked), classes), FLOOR)
    if len(seen) > 1:
        model = LogisticRegression(max_iter=1000).fit(x, target)
        shares[:, seen] += model.predict_proba(asked)
    else:
        shares[:, seen] += 1.0
    return np.asarray(shares / shares.sum(1, keepdims=True))


def _ridge(x: np.ndarray, target: np.ndarray, asked: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import Ridge

    return np.asarray(Ridge().fit(x, target).predict(asked), np.float64)
