"""Sibling runs: runs whose configs differ in one field alone, so that a comparison shows its effect."""

from collections.abc import Mapping, Sequence
from typing import Any

from cluster import storage
from jobs.catalog import layout
from jobs.catalog.label_names import tasks_of_run
from jobs.catalog.manifest import read_dataset
from jobs.training.run import ELSEWHERE

Configs = Mapping[str, Mapping[str, Any]]


def run_configs(root: str) -> Configs:
    """Run -> its config; runs made elsewhere have none."""
    uris = {name: layout.run_uri(root, name, layout.CONFIG) for name in layout.runs_there(root)}
    return {name: storage.read_json(uri) for name, uri in uris.items() if storage.exists(uri)}


def common_tasks(root: str, runs: Sequence[str], bundles: Sequence[str] = ()) -> list[str]:
    """Those of a dataset's tasks that some runs were all trained on and bundles are of.

    A run whose config names no task, or that was made elsewhere and has no config, may have any.
    """
    tasks = read_dataset(root).tasks
    there = set(runs).intersection(layout.runs_there(root))
    configs = [layout.run_uri(root, run, layout.CONFIG) for run in there]
    known = [storage.read_json(uri).get("tasks") or tasks for uri in configs if storage.exists(uri)]
    fused = set(bundles).intersection(layout.bundles_there(root))
    facts = [layout.bundle_uri(root, bundle, layout.BUNDLE) for bundle in fused]
    known += [[storage.read_json(uri)["task"]] for uri in facts if storage.exists(uri)]
    return [name for name in tasks if all(name in some for some in known)]


def siblings(root: str, configs: Configs, run: str, field: str, default: Any) -> dict[Any, str]:
    """A run and the complete runs that share all but one field with it, by that field's value.

    Args:
        root: of the dataset.
        configs: of all runs.
        run: where to start from.
        field: of `jobs.training.run.TrainConfig`.
        default: its value where a config does not say.
    """
    if run not in configs:
        return {}
    own, tasks = _shape(configs[run], field), tasks_of_run(root, run)
    found = {configs[run].get(field, default): run}
    for name, config in configs.items():
        value = config.get(field, default)
        alike = value not in found and _shape(config, field) == own and is_complete(root, name)
        if alike and tasks_of_run(root, name) == tasks:
            found[value] = name
    return found


def _shape(config: Mapping[str, Any], field: str) -> dict[str, Any]:
    """All that shapes a run's result but one field."""
    return {key: value for key, value in config.items() if key not in (*ELSEWHERE, field)}


def is_complete(root: str, run: str) -> bool:
    """Whether a run has ended."""
    return storage.exists(layout.run_uri(root, run, layout.SUMMARY))
