"""Whether a run or a bundle means the labels that its dataset has now.

Predictions name no class: they are numbers in the order that the classes had when they were made. `prepare`
may give the same clips other names, or another order, and the manifest keeps its hash. So where a run or a
bundle meets its dataset, the kind and the classes of the task are compared here, and nowhere else.

Reads:  <root>/runs/<run>/tasks.json; of runs of earlier versions summary.json, or model.json of a net
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cluster import storage
from cluster.errors import ConfigError
from fusion.tasks import Task
from jobs.catalog import layout
from jobs.catalog.manifest import read_dataset

SHOWN = 6
"""Classes that a message names."""


def note_tasks(root: str, run: str, tasks: Mapping[str, Task]) -> None:
    """Write down what a run is to predict, when it takes its name."""
    facts = {name: task.to_json() for name, task in tasks.items()}
    storage.publish_json(facts, layout.run_uri(root, run, layout.TASKS))


def tasks_of_run(root: str, run: str) -> dict[str, Task]:
    """What a run predicts, as its dataset was when it began; empty where nobody noted it."""
    facts = next(_noted(root, run), {})
    return {name: Task.from_json(task) for name, task in facts.items()}


def check_run(root: str, run: str) -> None:
    """Refuse a run whose labels are others than those that the dataset has now.

    Raises:
        ConfigError: a task that both have is of another kind, or has other classes or another order of them.
    """
    if not storage.exists(layout.dataset_uri(root)):
        return
    now = read_dataset(root).tasks
    for name, task in tasks_of_run(root, run).items():
        if name in now and is_other(task, now[name]):
            raise ConfigError(
                f"run {run!r} was made for {_differences(name, task, now[name])}; type affuse train (or "
                "ask, tune) with another --run, or affuse prepare with the former classes"
            )


def check_bundle(root: str, facts: Mapping[str, Any], uri: str | None = None) -> None:
    """Refuse a bundle of a dataset whose labels are others now.

    Args:
        root: of the dataset.
        facts: of the bundle.
        uri: its folder; None: it lies under the root. One that lies elsewhere and was made of other clips
            keeps its own names.

    Raises:
        ConfigError: the dataset has the task with another kind, other classes, or another order of them.
    """
    now = read_dataset(root)
    name = str(facts.get("task"))
    here = uri is None or uri == layout.bundle_uri(root, str(facts["name"]))
    is_ours = here or facts.get("manifest") == now.manifest_hash
    if name not in now.tasks or "kind" not in facts or not is_ours:
        return
    # Nets of the former labels may stand in a bundle that was fused under the new ones.
    cards = [member.get("card", {}).get("tasks", {}) for member in facts.get("members", ())]
    made_for = [facts, *(tasks[name] for tasks in cards if name in tasks)]
    others = (task for task in map(Task.from_json, made_for) if is_other(task, now.tasks[name]))
    if (task := next(others, None)) is not None:
        raise ConfigError(
            f"bundle {facts['name']!r} was made for {_differences(name, task, now.tasks[name])}; type "
            "affuse train with another --run, then affuse ensemble with another --bundle, or affuse prepare "
            "with the former classes"
        )


def predicts(root: str, run: str, named: Sequence[str] | None, name: str, task: Task) -> bool:
    """Whether a run has outputs for a task, with the labels that it has now.

    Args:
        root: of the dataset.
        run: the run.
        named: tasks in its config; none where it was trained on all.
        name: of the task.
        task: as the dataset has it.
    """
    if noted := tasks_of_run(root, run):
        return name in noted and not is_other(noted[name], task)
    return not named or name in named


def is_other(task: Task, now: Task) -> bool:
    """Whether outputs of one task mean something else in the other."""
    return (task.kind, task.classes) != (now.kind, now.classes)


def _noted(root: str, run: str) -> Iterator[Mapping[str, Any]]:
    """Tasks of a run, from the place that is surest."""
    base = layout.run_uri(root, run)
    if storage.exists(uri := storage.join(base, layout.TASKS)):
        yield storage.read_json(uri)
    if storage.exists(uri := storage.join(base, layout.SUMMARY)):
        yield from filter(None, [storage.read_json(uri).get("tasks")])
    for part in storage.names(base):
        folder = storage.join(base, part)
        seeds = storage.names(folder) if part.startswith(("fold=", layout.REFIT)) else []
        for seed in seeds:
            if storage.exists(uri := storage.join(folder, seed, layout.CARD)):
                yield from filter(None, [storage.read_json(uri).get("tasks")])
    if storage.exists(storage.join(base, layout.SPACE)):  # a search: its members have its tasks
        for member in layout.runs_there(root):
            if member.rpartition("-")[0] == run:
                yield from _noted(root, member)


def _differences(name: str, task: Task, now: Task) -> str:
    """What the task was and what it is, shortly."""
    if task.kind != now.kind:
        return f"{name} as a {task.kind}, and the dataset has it as a {now.kind}"
    pairs = enumerate(zip(task.classes, now.classes, strict=False))
    same = min(len(task.classes), len(now.classes))
    first = next((at for at, (old, new) in pairs if old != new), same)
    start = max(0, first - 1) if first >= SHOWN - 1 else 0
    before, after = _shortly(task.classes, start), _shortly(now.classes, start)
    return f"{name} of {before}, and the dataset has {after}"


def _shortly(classes: tuple[str, ...], start: int) -> str:
    """Some classes in a line."""
    some = ", ".join(classes[start : start + SHOWN])
    is_all = len(classes) <= SHOWN and not start
    return some if is_all else f"{'..., ' if start else ''}{some} ({len(classes)} classes)"
