"""What earlier searches of the same root found: where a new one begins to look.

The members of other searches for the same kind of label, judged by the same metric, say which values are
worth trying first. They are taken as far as the new space has them; what it asks for beside is drawn. The
list is written once, at the first start of a search, so that it goes on as it began.

Writes: <root>/runs/<run>/earlier.json
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cluster import storage
from jobs.catalog import layout
from jobs.catalog.manifest import read_dataset
from jobs.training.run import TrainConfig, run_uri
from jobs.tuning.space import BASELINE, Space

FEW = 5
"""Starts of a search over one set of inputs."""


def starts_of(
    base: TrainConfig,
    space: Space,
    turns: Sequence[Sequence[str]],
    *,
    score: str | None,
    fresh: bool,
) -> list[dict[str, Any]]:
    """What Optuna is told to draw first: parameters of the first trials after the baselines.

    Args:
        base: the search's config of train.
        space: what is searched.
        turns: sets of inputs in their turn.
        score: metric that was asked for.
        fresh: look at no earlier search.
    """
    uri = storage.join(run_uri(base), layout.EARLIER)
    if storage.exists(uri):
        return list(storage.read_json(uri)["starts"])
    found = [] if fresh else members_of_others(base, score)
    legal = [params for values in found if (params := params_of(values, space, base.net))]
    starts = _in_turn(legal, turns) if turns else legal[:FEW]
    storage.publish_json({"starts": starts}, uri)
    if starts:
        print(
            f"the first {len(starts)} nets begin where earlier searches ended (--fresh: anywhere)"
        )
    return starts


def members_of_others(base: TrainConfig, score: str | None) -> list[Mapping[str, Any]]:
    """Values of the members of other finished searches, best first; no baselines."""
    kind = _kind(base.root, base.tasks)
    found: list[tuple[float, Mapping[str, Any]]] = []
    for run in layout.runs_there(base.root):
        uris = [layout.run_uri(base.root, run, name) for name in (layout.CONFIG, layout.SUMMARY)]
        searched = storage.exists(layout.run_uri(base.root, run, layout.SPACE))
        if run == base.run or not searched or not all(map(storage.exists, uris)):
            continue
        config, summary = map(storage.read_json, uris)
        alike = config.get("score") == score and config.get("folds") == base.folds
        if alike and _kind(base.root, config["tasks"]) == kind:
            found += [
                (float(member["score"]), {"net": config["net"], **member["values"]})
                for member in summary["members"]
            ]
    found.sort(key=lambda item: item[0])
    return [values for _, values in found if values["net"] != BASELINE]


def params_of(values: Mapping[str, Any], space: Space, net: str) -> dict[str, Any]:
    """The values of a trial as Optuna takes them, as far as a space has them; empty without its net.

    Args:
        values: path -> value.
        space: what may be drawn.
        net: where the space does not choose one.
    """
    if values["net"] not in space.values_of("net", net):
        return {}
    return {
        dimension.path: dimension.as_drawn(values[dimension.path])
        for dimension in space.dimensions
        if dimension.net in (None, values["net"])
        and dimension.path in values
        and dimension.is_open
        and dimension.allows(values[dimension.path])
    }


def _in_turn(
    legal: Sequence[Mapping[str, Any]], turns: Sequence[Sequence[str]]
) -> list[dict[str, Any]]:
    """For each set of inputs the best that was found for it, else the best of all."""
    if not legal:
        return []
    starts = []
    for inputs in turns:
        text = json.dumps(list(inputs))
        same = [params for params in legal if params.get("inputs") == text]
        starts.append({**(same or legal)[0], "inputs": text})
    return starts


def _kind(root: str, names: Sequence[str]) -> str | None:
    """The kind of the first task; None where it is gone."""
    tasks = read_dataset(root).tasks
    name = next(iter(names or tasks))
    return tasks[name].kind if name in tasks else None
