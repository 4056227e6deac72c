"""Where `~` leads: a user of a container may have no home folder at all."""

import os

from cluster.errors import ConfigError


def expanded(path: str) -> str:
    """A path whose ``~`` is spelt out; one that begins otherwise as it is.

    Raises:
        ConfigError: nobody knows where ``~`` is.
    """
    found = os.path.expanduser(path)
    # A folder of that name would be made where the command was typed.
    if found.partition("/")[0] == "~":
        raise ConfigError(
            f"{path}: this user has no home folder; type: export HOME=FOLDER, or name the place in full"
        )
    return found
