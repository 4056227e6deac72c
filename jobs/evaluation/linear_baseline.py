"""The linear baseline: what a linear model says that reads the same features as the members of a table.

It is a run of the net `linear`, or a trial of the search that the members came from: every search tries it
first on each set of inputs. Where neither is there, the commands are named that make one. Of a member that
trains its encoders it reads the states that these give as they were pretrained.
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster import console, storage
from cluster.errors import ConfigError, NotPreparedError, WeightsError
from encoders import ENCODERS
from fusion.tasks import Task
from jobs.catalog import layout
from jobs.catalog.branches import publishes_inputs, states_of
from jobs.catalog.features import feature_folders, resolve_features
from jobs.catalog.label_names import predicts
from jobs.catalog.missing_rows import heard_by, typed
from jobs.catalog.predictions import HeldOut, MemberRows, held_out_rows, seeds_averaged
from jobs.evaluation.results_table import TITLES
from jobs.evaluation.sibling_runs import Configs, is_complete

LINEAR = "linear"
"""Key of fusion.nets.NETS."""

TITLE = TITLES["linear"]

OF_STATES = "linear on the states of the same encoders"
"""The same beside members that train encoders."""

SAME: Mapping[str, Any] = {"folds": None, "normalise": "none", "share": 1.0}
"""Fields of a run's config that are alike where figures are comparable, with their defaults."""


@dataclass(frozen=True, kw_only=True)
class LinearBaseline:
    """A linear model beside the members of a table."""

    source: str
    """The run or trial, in words; empty where there is none."""

    scores: Tensor | None
    """[row outputs] on the rows of the table, NaN where it says nothing."""

    command: str
    """What makes a run of it; empty where one stands in the table already."""

    title: str = TITLE
    """What it is, in words."""

    @property
    def said(self) -> str:
        """A sentence below the table; empty where nothing is to be said."""
        if self.source:
            return f"{self.title}: {self.source}"
        return f"no {self.title} is there; type: {self.command}" if self.command else ""

    def show(self) -> None:
        """Print the sentence."""
        if self.said:
            print(console.readable(self.said))  # in one line, so that the command can be copied


def linear_on(
    root: str, configs: Configs, runs: Sequence[str], held: HeldOut, name: str, task: Task
) -> LinearBaseline:
    """The linear baseline on held-out rows.

    Args:
        root: of the dataset.
        configs: of all runs.
        runs: those that stand in the table.
        held: their predictions, or those of some of them.
        name: of the task.
        task: the task.
    """
    for source, rows in _candidates(root, configs, runs, name, task):
        if (scores := on_rows(rows, held, task)) is not None:
            return found_as(source, scores, root, configs, runs)
    return to_be_made(root, configs, runs, name)


def found_as(
    source: str, scores: Tensor, root: str, configs: Configs, runs: Sequence[str]
) -> LinearBaseline:
    """One that is there, beside some runs."""
    title = _title(root, configs, runs)
    return LinearBaseline(source=source, scores=scores, command="", title=title)


def to_be_made(root: str, configs: Configs, runs: Sequence[str], name: str) -> LinearBaseline:
    """One that is not there: what makes it."""
    command = linear_command(root, configs, runs, name)
    title = _title(root, configs, runs)
    return LinearBaseline(source="", scores=None, command=command, title=title)


def on_rows(rows: MemberRows, held: HeldOut, task: Task) -> Tensor | None:
    """Scores on the rows of a table; None where it says nothing there, or was held out by other folds."""
    shared, at, there = np.intersect1d(held.clip_id, rows.clip_id, return_indices=True)
    if not len(shared) or (held.fold[at] != rows.fold[there]).any():
        return None
    scores = torch.full((len(held.clip_id), task.outputs), torch.nan, dtype=torch.float64)
    scores[torch.from_numpy(at)] = torch.from_numpy(rows.scores[there])
    return scores


def linear_runs(
    root: str, configs: Configs, runs: Sequence[str], name: str, task: Task
) -> list[str]:
    """The complete linear runs of a task that read what some runs read together, on the same folds."""
    like = _common(root, configs, runs)
    return sorted(
        run
        for run, config in configs.items()
        if like is not None
        and config.get("net") == LINEAR
        and _common(root, configs, [run]) == like
        and is_complete(root, run)
        and predicts(root, run, config.get("tasks"), name, task)
    )


def linear_command(root: str, configs: Configs, runs: Sequence[str], name: str) -> str:
    """What trains one; empty where one of the runs is it, or they have nothing in common.

    Where an encoder has no table of states, as it has none that only published what a net trains it on, the
    command that makes it comes before, joined by `&&`.

    Args:
        root: of the dataset.
        configs: of all runs.
        runs: those that stand in a table.
        name: of the task; it is typed where a run was trained on some tasks alone.
    """
    like = _common(root, configs, runs)
    if like is None or any(
        configs[run].get("net") == LINEAR and _common(root, configs, [run]) == like
        for run in runs
        if run in configs
    ):
        return ""
    inputs, shape = like
    words = ["affuse", "train", "--root", root, "--net", LINEAR, "--inputs", *sorted(inputs)]
    for field, value in shape.items():
        words += [f"--{field}", str(value)] if value != SAME[field] else []
    if any(configs[run].get("tasks") for run in runs if run in configs):
        words += ["--tasks", name]
    return " && ".join([*_encode_commands(root, configs, runs), shlex.join(words)])


def _encode_commands(root: str, configs: Configs, runs: Sequence[str]) -> list[str]:
    """What makes the tables of states that are not there, a command for each transcriber of theirs."""
    tables = feature_folders(root)
    wanted: dict[str, list[str]] = {}
    for text, name in sorted(_read_by(root, configs, runs).items()):
        if name.partition(":")[0] not in ENCODERS or _is_there(root, name):
            continue
        facts = tables.get(_folder(root, text), {})
        heard = heard_by(root, facts)
        wanted.setdefault(typed(heard) if heard else "", []).append(name)
    return [
        shlex.join(["affuse", "encode", "--root", root, "--encoders", *dict.fromkeys(names)])
        + (f" --transcriber {ear}" if ear else "")
        for ear, names in sorted(wanted.items())
    ]


def _is_there(root: str, name: str) -> bool:
    """Whether a table has a name; several may."""
    try:
        resolve_features(root, name)
    except NotPreparedError:
        return False
    except (ConfigError, WeightsError):  # several, or one whose weights have changed since
        return True
    return True


def _folder(root: str, text: str) -> str:
    """Folder of an input as it was typed; empty where it is gone or several have that name."""
    try:
        return resolve_features(root, text)
    except (ConfigError, NotPreparedError, WeightsError):
        return ""


def _title(root: str, configs: Configs, runs: Sequence[str]) -> str:
    """What a linear model beside some runs is."""
    read = _read_by(root, configs, runs)
    return TITLE if all(text == name for text, name in read.items()) else OF_STATES


def _read_by(root: str, configs: Configs, runs: Sequence[str]) -> dict[str, str]:
    """Inputs of some runs as they were typed, and what a linear model reads of each."""
    texts = {text for run in runs for text in configs.get(run, {}).get("inputs", ())}
    return {text: _states(root, text) for text in texts}


def _states(root: str, text: str) -> str:
    """What a linear model reads of an input: of published inputs, also by their folder, the states."""
    uri = layout.features_uri(root, text, layout.DESCRIPTOR)
    if ":" not in text and storage.exists(uri):
        facts = storage.read_json(uri)
        return states_of(*shlex.split(typed(facts))) if publishes_inputs(facts) else text
    return states_of(text)


def _common(
    root: str, configs: Configs, runs: Sequence[str]
) -> tuple[frozenset[str], Mapping[str, Any]] | None:
    """What some runs read together, and how their rows are cut; None where they differ in that."""
    known = [configs[run] for run in runs if "inputs" in configs.get(run, {})]
    shapes = [{key: config.get(key, default) for key, default in SAME.items()} for config in known]
    if not known or any(shape != shapes[0] for shape in shapes):
        return None
    names = (_states(root, name) for config in known for name in config["inputs"])
    return frozenset(names), shapes[0]


def _candidates(
    root: str, configs: Configs, runs: Sequence[str], name: str, task: Task
) -> Iterator[tuple[str, MemberRows]]:
    """(in words, predictions) of linear models of the same features, the preferred ones first."""
    like = _common(root, configs, runs)
    found = linear_runs(root, configs, runs, name, task)
    if like is None or not set(found).isdisjoint(runs):
        return
    for run in found:
        yield f"run {run}", seeds_averaged(held_out_rows(root, run, name), task)
    for search in dict.fromkeys(run.rpartition("-")[0] for run in runs):
        for number in _trials(root, configs, search, like[0]):
            table = storage.read_table(layout.trials_uri(root, search, f"{number:05d}.parquet"))
            kept = [value == name for value in table["task"].to_pylist()]
            yield f"trial {number} of {search}", seeds_averaged(table.filter(kept), task)


def _trials(root: str, configs: Configs, search: str, inputs: frozenset[str]) -> list[int]:
    """Finished trials of a search with the linear net on some inputs."""
    uri = layout.run_uri(root, search, layout.TRIALS)
    if not search or not storage.exists(uri):
        return []
    fixed = configs.get(search, {})

    def value(row: Mapping[str, Any], key: str) -> Any:
        found = row.get(f"value/{key}")
        return fixed.get(key) if found is None else found

    def read(row: Mapping[str, Any]) -> frozenset[str]:
        found = value(row, "inputs") or ()
        return frozenset(json.loads(found) if isinstance(found, str) else found)

    return [
        row["number"]
        for row in storage.read_table(uri).to_pylist()
        if row["state"] == "finished" and value(row, "net") == LINEAR and read(row) == inputs
    ]
