"""The name of a search: one start at a time owns it, and what is no longer its owner writes nothing more."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster import storage
from cluster.errors import ConfigError
from jobs.catalog.label_names import check_run, note_tasks
from jobs.catalog.manifest import read_dataset
from jobs.catalog.run_names import check_owner, free, owner, take
from jobs.catalog.tasks import pick_tasks
from jobs.training.run import TrainConfig, run_uri


@dataclass(frozen=True)
class Hold:
    """What a start of a search took its name with."""

    uri: str
    """Folder of the search."""

    own: Mapping[str, Any]
    """Identity of the search, as it is read back."""

    @property
    def is_lost(self) -> bool:
        """Whether another search has taken the name."""
        return bool(owner(self.uri) != self.own)

    def check(self) -> None:
        """Refuse to go on where the name is another's.

        Raises:
            ConfigError: it is.
        """
        check_owner(self.uri, self.own)


def hold_of(base: TrainConfig, made_of: Mapping[str, Any]) -> Hold:
    """Take the name of a search, or find it with the same one.

    Args:
        base: train's config, named.
        made_of: all that shapes the trials.

    Raises:
        ConfigError: the name belongs to another search.
    """
    uri, own = run_uri(base), json.loads(storage.json_bytes(made_of))
    free(uri)
    if owner(uri) not in (None, own):
        raise ConfigError(
            f"run {base.run!r} is there already, as another search or of another manifest; "
            "type another --run"
        )
    check_run(base.root, str(base.run))
    take(uri, own)
    note_tasks(base.root, str(base.run), pick_tasks(read_dataset(base.root), base.tasks))
    return Hold(uri, own)
