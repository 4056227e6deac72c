"""What earlier jobs left for a report: learning curves, figures by role, trials of a search, tests."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from cluster import storage
from fusion.late.members import probabilities
from fusion.metrics import FIGURES, metric
from fusion.tasks import Task
from jobs.catalog import layout
from jobs.catalog.manifest import read_dataset
from jobs.catalog.predictions import (
    align,
    folds_and_seeds,
    read_predictions,
    seeds_averaged,
    with_priors,
)
from jobs.evaluation.cross_fitting import SELECTION_METRICS
from jobs.evaluation.results_table import Results, from_facts

FEWEST_LETTERS = 4
"""Of the name of an input in a label."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The history of one training."""

    fold: int
    seed: int
    records: Sequence[Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class PastSearch:
    """The trials of a search that were finished."""

    columns: Mapping[str, Sequence[Any]]
    """Setting -> its value in each trial; only settings that differ."""

    score: Sequence[float]
    metric: str
    importance: Mapping[str, float]
    ended: bool = True
    """Whether it came to its end: one that was stopped may have no table of trials yet."""


def evaluated(root: str, name: str) -> Results | None:
    """The figures of an evaluation that was made; the test rows themselves stay closed."""
    uri = layout.evaluation_uri(root, name, layout.RESULTS)
    return from_facts(storage.read_json(uri)) if storage.exists(uri) else None


def searches(root: str, runs: Sequence[str]) -> dict[str, PastSearch]:
    """The searches of `affuse tune` whose trials became some of the runs, by name."""
    found = {}
    for name in dict.fromkeys(run.rpartition("-")[0] for run in runs):
        folder = layout.run_uri(root, name)
        trials, space, config = (
            storage.join(folder, file) for file in (layout.TRIALS, layout.SPACE, layout.CONFIG)
        )
        if name and storage.exists(trials):
            found[name] = _search(root, folder, storage.read_table(trials).to_pylist())
        elif name and storage.exists(space) and storage.exists(config):
            found[name] = _search(root, folder, ())
    return found


def _search(root: str, folder: str, trials: Sequence[Mapping[str, Any]]) -> PastSearch:
    done = [row for row in trials if row["state"] == "finished" and row["score"] is not None]
    columns = {
        key.removeprefix("value/"): as_labels([row[key] for row in done])
        for key in (done[0] if done else {})
        if key.startswith("value/")
    }
    uri = storage.join(folder, layout.SUMMARY)
    ended = storage.exists(uri)
    return PastSearch(
        columns={key: each for key, each in columns.items() if len({*map(str, each)}) > 1},
        score=[row["score"] for row in done],
        metric=_score_of(root, storage.read_json(storage.join(folder, layout.CONFIG))),
        importance=storage.read_json(uri).get("importance", {}) if ended else {},
        ended=ended,
    )


def _score_of(root: str, config: Mapping[str, Any]) -> str:
    """What the trials of a search were scored by; all scores are such that lower is better."""
    tasks = read_dataset(root).tasks
    first = next(iter(config["tasks"] or tasks))
    name = config["score"] or SELECTION_METRICS[tasks[first].kind]
    return f"{'-' if metric(name).higher_is_better else ''}{name} (lower is better)"


def as_labels(values: Sequence[Any]) -> list[Any]:
    """A setting's value in each trial as a label: a list as the beginnings of its names.

    They are as short as they can be while names that differ stay different, and no shorter than four letters.

    >>> as_labels(['["whisper_tiny", "minilm"]', '["whisper_small"]', 0.1])
    ['whisper_t+mini', 'whisper_s', 0.1]
    """
    lists = [
        json.loads(value) if isinstance(value, str) and value.startswith("[") else None
        for value in values
    ]
    names = {str(item) for each in lists for item in each or ()}
    short = {name: _beginning(name, names) for name in names}
    return [
        value if each is None else "+".join(short[str(item)] for item in each)
        for value, each in zip(values, lists, strict=True)
    ]


def _beginning(name: str, names: Collection[str]) -> str:
    """The first letters of a name that no other name has, four or more; all of it where there are none."""
    others = [other for other in names if other != name]
    lengths = range(FEWEST_LETTERS, len(name))
    unlike = (n for n in lengths if not any(other[:n] == name[:n] for other in others))
    return name[: next(unlike, len(name))]


def curves(root: str, run: str) -> list[Curve]:
    """The histories of a run that were kept, by fold and seed."""
    found = []
    for fold, seed in folds_and_seeds(root, run):
        uri = layout.part_uri(root, run, fold, seed, layout.HISTORY)
        if storage.exists(uri):
            lines = storage.read_bytes(uri).decode().splitlines()
            found.append(Curve(fold=fold, seed=seed, records=[json.loads(line) for line in lines]))
    return found


def role_figures(root: str, run: str, name: str, task: Task) -> dict[str, float]:
    """The first figure on rows that were fitted on, that chose the epoch, and that were held out."""
    table = read_predictions(root, run)
    table = with_priors(table.filter(pc.equal(table["task"], name)), task)
    found: dict[str, float] = {}
    for role in ("train", "valid", "oof"):
        values = []
        rows = table.filter(pc.equal(table["role"], role))
        for fold in rows["fold"].unique().to_pylist():
            part = seeds_averaged(rows.filter(pc.equal(rows["fold"], fold)), task)
            if len(part.clip_id):
                held = align({run: part}, task)
                prediction = probabilities(task.kind, held.members.scores[0])
                values.append(metric(FIGURES[task.kind][0])(prediction, held.target))
        if values:
            found[role] = float(np.mean(values))
    return found
