"""The files of a bundle that say how it was judged, tied to its bundle.json by their hashes.

Several files do not change in one step. bundle.json is written last and names the hash of each file beside
it, so a bundle whose making was stopped over a former one is known by a file that is not as named. Bundles
of earlier versions name none: their files are read as they are.
"""

import hashlib
import shlex
from collections.abc import Mapping
from typing import Any

from cluster import storage
from cluster.errors import NotPreparedError
from jobs.catalog import layout

FILES = (layout.RESULTS, layout.FUSED, layout.PREDICTIONS, layout.COVERED)

KEY = "judged"
"""Of bundle.json: file -> sha256."""


def hash_of(content: bytes) -> str:
    """By which a file is known."""
    return hashlib.sha256(content).hexdigest()


def publish_over(uri: str, facts: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Commit a bundle with the files beside it, also where a former one stands.

    Args:
        uri: folder of the bundle, which holds its nets.
        facts: of its bundle.json.
        files: file name -> content; those of `FILES` are tied to it.
    """
    hashes = {name: hash_of(files[name]) for name in FILES if name in files}
    commit = storage.json_bytes({**facts, KEY: hashes} if hashes else dict(facts))
    where = storage.join(uri, layout.BUNDLE)
    is_other = storage.exists(where) and storage.read_bytes(where) != commit
    if is_other:
        _tie_former(uri)
    for name, content in files.items():
        storage.publish_bytes(content, storage.join(uri, name))
    if is_other:  # the card of the former one; whoever registers this one writes another
        storage.remove(storage.join(uri, layout.MODEL_CARD))
    storage.publish_bytes(commit, where)


def _tie_former(uri: str) -> None:
    """Name the hashes in a bundle of an earlier version, before its files are replaced."""
    where = storage.join(uri, layout.BUNDLE)
    try:
        facts = storage.read_json(where)
    except ValueError:  # damaged: nobody takes it for a bundle
        return
    if not isinstance(facts, dict) or KEY in facts:
        return
    there = {name: storage.join(uri, name) for name in FILES}
    hashes = {
        name: hash_of(storage.read_bytes(file))
        for name, file in there.items()
        if storage.exists(file)
    }
    storage.publish_json({**facts, KEY: hashes}, where)


def judged_file(uri: str, name: str) -> str:
    """Place of one of `FILES` in the folder of a bundle, once it is known to be this bundle's.

    Raises:
        NotPreparedError: the making of the bundle was stopped before its bundle.json was written.
    """
    file, where = storage.join(uri, name), storage.join(uri, layout.BUNDLE)
    if not storage.exists(where):
        raise NotPreparedError(
            f"bundle {_name(uri)} has no bundle.json: its making was stopped; type the same affuse "
            "ensemble or tune again"
        )
    facts = storage.read_json(where)
    if is_another(uri, facts, name):
        raise not_whole(uri, name)
    return file


def is_another(uri: str, facts: Mapping[str, Any], name: str) -> bool:
    """Whether one of `FILES` is there that does not belong to the facts of the bundle."""
    file, named = storage.join(uri, name), facts.get(KEY)
    if not isinstance(named, dict) or not storage.exists(file):
        return False
    return hash_of(storage.read_bytes(file)) != named.get(name)


def check_weights(folder: str, content: bytes, named: str | None) -> None:
    """Refuse weights that another making of the bundle left.

    Args:
        folder: of a net in a bundle.
        content: its weights.
        named: their hash in the bundle.json; None: bundles of earlier versions name none.

    Raises:
        NotPreparedError: they are not those that the bundle names.
    """
    if named is not None and hash_of(content) != named:
        uri, *inside = folder.rsplit("/", 3)
        raise not_whole(uri, "/".join([*inside, layout.WEIGHTS]))


def not_whole(uri: str, name: str) -> NotPreparedError:
    """What is said of a bundle with a file of another one."""
    config = storage.join(uri, layout.CONFIG)
    again = (
        f", or: affuse ensemble --config {shlex.quote(config)}" if storage.exists(config) else ""
    )
    return NotPreparedError(
        f"bundle {_name(uri)} is not whole: {name} is not the one that its bundle.json was written with, "
        "damaged or cut off, or of a bundle that was being made again; type the command that was stopped "
        f"again{again}"
    )


def _name(uri: str) -> str:
    return uri.rstrip("/").rsplit("/", 1)[-1]
