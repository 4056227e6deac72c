"""Sibling runs: runs whose configs differ in one field alone, so that a comparison shows its effect."""

from collections.abc import Mapping, Sequence
from typing import Any

from cluster import storage
from cluster.errors import ConfigError
from fusion.tasks import Task
from jobs.catalog import layout
from jobs.catalog.label_names import tasks_of_run
from jobs.catalog.manifest import read_dataset
from jobs.catalog.tasks import pick_task
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
    known = _tasks_of(root, runs, bundles).values()
    return [name for name in read_dataset(root).tasks if all(name in some for some in known)]


def chosen_task(
    root: str,
    typed: str | None,
    runs: Sequence[str],
    bundles: Sequence[str] = (),
    *,
    first: bool = False,
) -> tuple[str, Task]:
    """The task of a table: the one that was typed, or the one that all its runs and bundles have.

    Args:
        root: of the dataset.
        typed: its name; None: it was left out.
        runs: of the table.
        bundles: of the table, each of which has one task.
        first: take the first where they have several in common.

    Raises:
        ConfigError: there is no such task, one of them was not made for it, they have none in common, or
            several and none was typed.
    """
    dataset, known = read_dataset(root), _tasks_of(root, runs, bundles)
    is_known = typed is not None and typed in dataset.tasks
    if is_known and (lacking := {one: some for one, some in known.items() if typed not in some}):
        raise ConfigError(
            f"{in_words(lacking)}: nothing there is of the task {typed}; type another --task, leave it away, "
            "or name other runs and bundles"
        )
    among = common_tasks(root, runs, bundles)
    if typed is None and known and not among:
        raise ConfigError(
            f"{in_words(known)} have no task in common; name runs and bundles of one task"
        )
    return pick_task(dataset, typed, among[:1] if first else among)


def in_words(known: Mapping[str, Sequence[str]]) -> str:
    """Runs and bundles, each with its tasks."""
    return ", ".join(f"{one} (of {', '.join(tasks)})" for one, tasks in known.items())


def _tasks_of(root: str, runs: Sequence[str], bundles: Sequence[str]) -> dict[str, Sequence[str]]:
    """Those of some runs and bundles of which it is known -> their tasks."""
    tasks, known = list(read_dataset(root).tasks), {}
    runs_there, bundles_there = layout.runs_there(root), layout.bundles_there(root)
    for run in (run for run in runs if run in runs_there):
        if storage.exists(uri := layout.run_uri(root, run, layout.CONFIG)):
            noted = list(tasks_of_run(root, run))
            known[f"run {run}"] = noted or storage.read_json(uri).get("tasks") or tasks
    for bundle in (bundle for bundle in bundles if bundle in bundles_there):
        if storage.exists(uri := layout.bundle_uri(root, bundle, layout.BUNDLE)):
            known[f"bundle {bundle}"] = [storage.read_json(uri)["task"]]
    return known


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
