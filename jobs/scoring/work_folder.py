"""The work folder beside `--out` for many files: it survives a kill, and goes once `--out` is written."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from cluster import storage
from cluster.errors import ConfigError
from jobs.catalog import layout
from jobs.scoring.claim import claim

SUFFIX = ".affuse"

SCORES = "files"
"""Name of the scores inside."""


def work_root(out: str) -> str:
    """A root for the files whose scores go to `out`; like `out` a folder or a URI that every node sees."""
    return storage.absolute(out) + SUFFIX


def scores_uri(root: str) -> str:
    """Where the scores stand while they are made."""
    return layout.scores_uri(root, SCORES)


def take_up(root: str, made_with: Mapping[str, Any], command: str) -> bool:
    """Make the folder, or continue in it.

    Returns:
        Whether an earlier command left some work in it.

    Raises:
        ConfigError: the folder is somebody else's, or of a command with other settings.
    """
    begun = storage.exists(storage.join(scores_uri(root), layout.BUNDLE))
    if not begun and storage.names(root):
        raise ConfigError(
            f"{root} is where the work on so many files would go on after a stop, but it holds something "
            f"else; type: {command}"
        )
    claim(scores_uri(root), made_with, command)
    return begun


def begun(out: str, made_with: Mapping[str, Any], command: str) -> str:
    """The folder of work on `out`, made or taken up."""
    root = work_root(out)
    take_up(root, made_with, command)
    return root


def is_leaving(root: str) -> bool:
    """Whether a folder in which work was going on is gone, or about to go."""
    return not storage.exists(layout.dataset_uri(root))


def put_away(root: str) -> None:
    """Remove the folder.

    What makes it a dataset goes first, so that a twin sees what is going on; what says whose it is goes last,
    so that a kill leaves nothing that nobody owns.
    """
    storage.remove(layout.dataset_uri(root))
    fs, path = storage.filesystem(root)
    fs.invalidate_cache()
    claimed = storage.filesystem(storage.join(scores_uri(root), layout.BUNDLE))[1]
    for file in fs.find(path):
        if file != claimed:
            with suppress(FileNotFoundError):
                fs.rm_file(file)
    with suppress(FileNotFoundError):
        fs.rm(path, recursive=True)
