"""The kinds of tasks that are typed by `--tasks NAME=KIND`."""

from collections.abc import Sequence

from cluster.errors import ConfigError
from cluster.settings import nearest


def check_kind(task: str, kind: str, kinds: Sequence[str]) -> None:
    """Refuse a kind that there is not.

    Args:
        task: name, as typed.
        kind: of it, as typed.
        kinds: those that there are.

    Raises:
        ConfigError: naming the nearest, or what to do with a name that holds a =.
    """
    if kind in kinds:
        return
    rest = kind.rpartition("=")[0]
    if rest and kind.rpartition("=")[2] in kinds:
        raise ConfigError(
            f"--tasks {task}={kind}: a name ends at the first =, which made the kind of {task!r} {kind!r}; "
            f"name a column {f'{task}={rest}'!r} without the = in the table, or type one task a word"
        )
    raise ConfigError(f"--tasks {task}={kind}: {nearest(kind, list(kinds))}")
