"""Which of a dataset's tasks is meant: the one that was named, or the only one."""

from collections.abc import Sequence

from cluster.errors import ConfigError
from cluster.settings import nearest
from fusion.tasks import Task
from jobs.catalog.manifest import Dataset


def pick_task(
    dataset: Dataset, name: str | None, among: Sequence[str] | None = None
) -> tuple[str, Task]:
    """One task.

    Args:
        dataset: whose.
        name: as typed; None: the only one.
        among: those that come into question where none is typed; by default all.

    Raises:
        ConfigError: the dataset has none, none of that name, or several and none was named.
    """
    known = list(pick_tasks(dataset, (among or ()) if name is None else (name,)))
    if len(known) > 1:
        raise ConfigError(f"which task? type: --task NAME; there are: {', '.join(sorted(known))}")
    return known[0], dataset.tasks[known[0]]


def pick_tasks(dataset: Dataset, names: Sequence[str]) -> dict[str, Task]:
    """Some tasks; all where none is named.

    Raises:
        ConfigError: the dataset has none at all, or an unknown one was named.
    """
    if not dataset.tasks:
        raise ConfigError(
            f"{dataset.name} has no labels, so there is no task; name the label columns: "
            "affuse prepare folder --labels FILE --tasks COLUMN=classification ..."
        )
    for name in names:
        if name not in dataset.tasks:
            raise ConfigError(f"there is no task {name!r}; {nearest(name, list(dataset.tasks))}")
    return {name: dataset.tasks[name] for name in (names or dataset.tasks)}
