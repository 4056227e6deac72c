"""Names of runs: a start that fails before it has results leaves its name free."""

from pathlib import Path
from typing import Any

from cluster import storage
from cluster.errors import ConfigError
from cluster.one_step import in_one_step
from cluster.refusals import asking
from jobs.catalog import layout

RESULTS = {layout.CHECKPOINT, layout.WEIGHTS, layout.PREDICTIONS}
"""Files of a part that are results."""


def holds_results(run_uri: str) -> bool:
    """Whether the folder of a run holds a net, predictions, a checkpoint or a trial of a search."""
    for name in storage.names(run_uri):
        folder = storage.join(run_uri, name)
        if name == "trials" and storage.names(folder, ".json"):
            return True
        if name == layout.REFIT or name.startswith("fold="):
            seeds = (storage.join(folder, seed) for seed in storage.names(folder))
            if any(RESULTS.intersection(storage.names(seed)) for seed in seeds):
                return True
    return False


def free(run_uri: str) -> None:
    """Remove what a start without results left behind."""
    if not holds_results(run_uri):
        storage.remove_tree(run_uri)


def owner(run_uri: str) -> Any:
    """Identity of the start that owns the name of a run; None where the name is free."""
    mark = storage.join(run_uri, layout.IDENTITY)
    return storage.read_json(mark) if storage.exists(mark) else None


def take(run_uri: str, own: Any, instead_of: Any = None) -> None:
    """Make a start the owner of the name of a run; of several starts at once one is.

    On an object store the last of them is, and `check_owner` tells the others when they publish.

    Args:
        run_uri: folder of the run.
        own: identity of this start.
        instead_of: the owner that it takes the name from; None: the name is free.

    Raises:
        ConfigError: the name is another's meanwhile.
    """
    mark = storage.join(run_uri, layout.IDENTITY)
    there = owner(run_uri)
    if there == own or (there is not None and there == instead_of):
        storage.publish_json(own, mark)
    elif there is None and storage.is_local(mark):
        with asking(mark), in_one_step(storage.filesystem(mark)[1], first=True) as temporary:
            Path(temporary).write_bytes(storage.json_bytes(own))
    elif there is None:
        storage.publish_json(own, mark)
    check_owner(run_uri, own)


def check_owner(run_uri: str, own: Any) -> None:
    """Refuse to write into a run whose name another start has taken meanwhile.

    Args:
        run_uri: folder of the run.
        own: identity that this start took the name with.

    Raises:
        ConfigError: the name is another's.
    """
    if owner(run_uri) != own:
        raise ConfigError(
            f"{run_uri} was started anew with another config, and this start stops; type another --run "
            "for one of the two"
        )
