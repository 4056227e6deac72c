"""What killed writers left behind, and what may be removed: nothing that any job reads or goes on from.

A file that is being written is young, so only what has not changed for a while is a leftover. The rows of
clips that left the manifest (`former/`) come back from there when the clips do; they go only when asked for.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cluster import stamps, storage
from jobs.catalog import layout
from jobs.catalog.run_names import holds_results

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
"""Name of a file that `cluster.storage` writes before it gets its own."""

OWN = (
    "manifest", "units", "folds", "probes", "features", "transcripts", "former", "encodings", "runs",
    "searches", "bundles", "comparisons", "evaluations", "explanations", "looks", "leaks", "scores",
    "reports", "reproduce", "shards",
)  # fmt: skip
"""Folders of a root that jobs write; media are not looked through."""


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A file or folder that nobody needs."""

    uri: str
    what: str
    size: int
    """Bytes."""

    age_s: float | None
    """Since its last change [s]; None where the storage does not say."""

    is_folder: bool = False


def leftovers(root: str, *, former: bool = False) -> Iterator[Leftover]:
    """Everything of the kind, of any age.

    Args:
        root: of the dataset.
        former: with the rows of clips that left the manifest.
    """
    for info in _files(root, ("", *OWN)):
        name = _name(info)
        if TEMPORARY.fullmatch(name):
            yield Leftover(
                uri=_uri(root, info), what="temporary files", size=_size(info), age_s=_age_s(info)
            )
    folders = [
        (layout.run_uri(root, run), "runs without results")
        for run in layout.runs_there(root)
        if not holds_results(layout.run_uri(root, run))
    ]
    folders += [
        (layout.bundle_uri(root, name), "bundles without a bundle.json")
        for name in layout.bundles_there(root)
        if not storage.exists(layout.bundle_uri(root, name, layout.BUNDLE))
    ]
    if storage.names(pieces := layout.probe_pieces_uri(root)):
        folders.append((pieces, "probes of an unfinished prepare"))
    if former:
        folders += [(uri, "rows of clips that left") for uri in layout.former_there(root)]
    for uri, what in folders:
        yield _folder(uri, what)


def remove(leftover: Leftover, older_than_s: float) -> bool:
    """Remove it; whether it is gone, which a folder is not that somebody writes to by now."""
    if not leftover.is_folder:
        storage.remove(leftover.uri)
        return True
    again = _folder(leftover.uri, leftover.what)
    if again.age_s is None or again.age_s < older_than_s:
        return False
    storage.remove_tree(leftover.uri)
    return True


def unended_encodes(root: str) -> list[str]:
    """Configs of the encodes that have begun and not ended: they still run, or were stopped or killed."""
    found = []
    for name in storage.names(layout.encodings_uri(root)):
        folder = layout.encodings_uri(root, name)
        changed = {_name(info): stamps.changed_s(info) for info in _files(folder, ("",))}
        begun, ended = changed.get(layout.CONFIG), changed.get(layout.SUMMARY)
        if begun is not None and (ended is None or ended < begun):
            found.append(storage.join(folder, layout.CONFIG))
    return found


def _folder(uri: str, what: str) -> Leftover:
    files = list(_files(uri, ("",), deep=True))
    ages = [_age_s(info) for info in files]
    known = [age for age in ages if age is not None]
    return Leftover(
        uri=uri,
        what=what,
        size=sum(map(_size, files)),
        age_s=min(known) if len(known) == len(ages) and known else None,
        is_folder=True,
    )


def _files(base: str, below: tuple[str, ...], *, deep: bool = False) -> Iterator[dict[str, Any]]:
    """Files in some folders: of the empty one those directly in it, unless `deep`."""
    fs, path = storage.filesystem(base)
    fs.invalidate_cache()
    waiting = [(f"{path}/{name}" if name else path, bool(name) or deep) for name in below]
    while waiting:
        folder, inside = waiting.pop()
        try:
            entries = fs.ls(folder, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            continue
        for info in entries:
            if info["type"] == "file":
                yield info
            elif info["type"] == "directory" and inside and not info.get("islink"):
                waiting.append((info["name"], True))


def _uri(root: str, info: dict[str, Any]) -> str:
    """The URI of a file that was listed below a root."""
    path = storage.filesystem(root)[1].rstrip("/")
    return storage.join(root, str(info["name"])[len(path) :])


def _name(info: dict[str, Any]) -> str:
    return str(info["name"]).rsplit("/", 1)[-1]


def _size(info: dict[str, Any]) -> int:
    return int(info.get("size") or 0)


def _age_s(info: dict[str, Any]) -> float | None:
    changed = stamps.changed_s(info)
    return None if changed is None else time.time() - changed
