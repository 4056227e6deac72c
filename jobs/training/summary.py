"""Summary of a run: figures by role, seed and fold, beside the majority baseline."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from cluster import console, storage
from cluster.console import Table
from fusion.late.members import probabilities
from fusion.metrics import FIGURES, metric
from fusion.number_format import figure_text
from fusion.tasks import Task
from jobs.catalog import layout
from jobs.catalog.predictions import (
    as_target,
    matrix,
    read_predictions,
    seeds_averaged,
    with_priors,
)
from jobs.training.parts import Part


def summarise(root: str, run: str, parts: Sequence[Part]) -> dict[str, Any]:
    """The content of `summary.json`.

    The figures of a role are computed per seed over the rows of all folds together; their mean and spread
    (standard deviation) are over the seeds. They are of all clips of the role: the prior of the training rows
    answers for a clip that has none of the inputs.
    """
    cards = {
        part: storage.read_json(storage.join(part.folder(root, run), layout.CARD)) for part in parts
    }
    first = cards[parts[0]]
    tasks = {name: Task.from_json(task) for name, task in first["tasks"].items()}
    said = read_predictions(root, run)
    table = pa.concat_tables(
        [
            with_priors(said.filter(pc.equal(said["task"], name)), task)
            for name, task in tasks.items()
        ]
    )
    roles = {role: figures_of_role(table, role, tasks) for role in ("train", "valid", "oof")}
    return {
        "run": run,
        "net": first["net"],
        "inputs": {name: facts["features"] for name, facts in first["inputs"].items()},
        "tasks": first["tasks"],
        "pool": first["pool"],
        "normalise": first["normalise"],
        "manifest": first["facts"]["manifest"],
        "judged": "oof" if roles["oof"] else "valid",
        "rows": {role: rows_of_role(said, role, tasks) for role, found in roles.items() if found},
        "roles": {role: found for role, found in roles.items() if found},
        "averaged": averaged(table, "oof" if roles["oof"] else "valid", tasks),
        "majority": majority(table, "oof" if roles["oof"] else "valid", tasks),
        "parts": [part_facts(part, card, table, tasks) for part, card in cards.items()],
    }


def figures_of_role(
    table: pa.Table, role: str, tasks: Mapping[str, Task]
) -> dict[str, dict[str, Any]]:
    """``task/metric`` -> mean and spread over seeds, and the figure of each seed."""
    rows = table.filter(pc.equal(table["role"], role))
    found: dict[str, dict[int, float]] = {}
    for seed in sorted(set(rows["seed"].to_pylist())):
        of_seed = rows.filter(pc.equal(rows["seed"], seed))
        for name, value in figures(of_seed, tasks).items():
            found.setdefault(name, {})[seed] = value
    return {
        name: {
            "mean": statistics.fmean(values.values()),
            "spread": statistics.stdev(values.values()) if len(values) > 1 else 0.0,
            "seeds": {str(seed): value for seed, value in values.items()},
        }
        for name, values in found.items()
    }


def rows_of_role(table: pa.Table, role: str, tasks: Mapping[str, Task]) -> dict[str, list[int]]:
    """Task -> clips of a role, and how many of them the nets answer themselves."""
    found = {}
    rows = table.filter(pc.equal(table["role"], role))
    for name in tasks:
        part = rows.filter(pc.equal(rows["task"], name))
        known = part.filter(pc.is_valid(part["scores"]))
        found[name] = [pc.count_distinct(each["clip_id"]).as_py() for each in (part, known)]
    return found


def averaged(table: pa.Table, role: str, tasks: Mapping[str, Task]) -> dict[str, float]:
    """``task/metric`` -> figure of the mean prediction over the seeds: the run as a member."""
    found = {}
    of_role = table.filter(pc.equal(table["role"], role))
    for name, task in tasks.items():
        rows = of_role.filter(pc.equal(of_role["task"], name))
        if not rows.num_rows:
            continue
        member = seeds_averaged(rows, task)
        prediction = probabilities(task.kind, torch.tensor(member.scores))
        target = as_target(member.target.copy(), task.kind)
        for each in FIGURES[task.kind]:
            value = metric(each)(prediction, target)
            if np.isfinite(value):
                found[f"{name}/{each}"] = value
    return found


def figures(table: pa.Table, tasks: Mapping[str, Task]) -> dict[str, float]:
    """``task/metric`` -> figure over some rows, each with scores; undefined figures are left out."""
    found = {}
    for name, task in tasks.items():
        rows = table.filter(pc.equal(table["task"], name))
        if not rows.num_rows:
            continue
        scores = torch.tensor(matrix(rows["scores"], task.outputs))
        width = task.outputs if task.kind == "multilabel" else 1
        target = as_target(matrix(rows["target"], width).copy(), task.kind)
        if task.kind == "classification":
            scores = torch.log_softmax(scores, -1)
        prediction = probabilities(task.kind, scores)
        for each in FIGURES[task.kind]:
            value = metric(each)(prediction, target)
            if np.isfinite(value):
                found[f"{name}/{each}"] = value
    return found


def majority(table: pa.Table, role: str, tasks: Mapping[str, Task]) -> dict[str, float]:
    """Figures of the majority baseline: most frequent class, label by label, or median of the train rows."""
    found = {}
    for name, task in tasks.items():
        if task.kind == "multilabel":
            continue
        rows = table.filter(pc.equal(table["task"], name))
        fold = rows["fold"].to_numpy()
        target = matrix(rows["target"], 1)[:, 0]
        of_role = np.array(rows["role"].to_pylist())
        said = np.zeros(len(target))
        for each in np.unique(fold):
            train = target[(fold == each) & (of_role == "train")]
            if not len(train):
                continue
            values, counts = np.unique(train, return_counts=True)
            common = values[counts.argmax()] if task.kind == "classification" else np.median(train)
            said[fold == each] = common
        at = of_role == role
        if at.any() and task.kind == "classification":
            found[f"{name}/accuracy"] = float((said[at] == target[at]).mean())
        elif at.any():
            found[f"{name}/mae"] = float(np.abs(said[at] - target[at]).mean())
    return found


def part_facts(
    part: Part, card: Mapping[str, Any], table: pa.Table, tasks: Mapping[str, Task]
) -> dict[str, Any]:
    """One net: where it stopped, how long it took, its figures by role."""
    facts = {**card["facts"], "config": card["config"]}
    if part.fold is None:
        return facts
    mine = pc.and_(pc.equal(table["fold"], part.fold), pc.equal(table["seed"], part.seed))
    rows = table.filter(mine)
    roles = sorted(set(rows["role"].to_pylist()))
    facts["roles"] = {
        role: figures(rows.filter(pc.equal(rows["role"], role)), tasks) for role in roles
    }
    return facts


def show(summary: Mapping[str, Any]) -> None:
    """Print the figures of held-out rows, beside those of the other roles."""
    table = Table(title=f"{summary['run']}: {summary['net']} on {', '.join(summary['inputs'])}")
    table.add_column("")
    columns = list(summary["roles"])
    for role in columns:
        table.add_column(role, justify="right")
    table.add_column("mean of seeds", justify="right")
    table.add_column("majority", justify="right")
    judged = summary["judged"]
    rows = summary["rows"].get(judged, {})  # none has a label
    for task, (clips, _) in rows.items():
        counts = [str(summary["rows"][role][task][0]) for role in columns]
        table.add_row(f"{task}/n", *counts, str(clips), str(clips))
    for name in summary["roles"].get(judged, {}):
        cells = [_cell(summary["roles"][role].get(name)) for role in columns]
        base = summary["majority"].get(name)
        mean = summary["averaged"].get(name, float("nan"))
        table.add_row(name, *cells, figure_text(mean), "-" if base is None else figure_text(base))
    console.show(table)
    for task, (clips, own) in rows.items():
        if own < clips:
            console.show(
                f"{task}: {clips - own} of {clips} {judged} clips have none of the inputs; the prior of "
                "the training rows answers for them"
            )


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "-"
    spread = f" +- {figure_text(figure['spread'])}" if len(figure["seeds"]) > 1 else ""
    return f"{figure_text(figure['mean'])}{spread}"
