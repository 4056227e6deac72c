"""Tables of imported features: the table that a name means, and the fingerprint of an import."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cluster import storage
from jobs.catalog import layout
from jobs.catalog.features import feature_folders
from jobs.interop.import_features import Ready


def fingerprint(ready: Ready, rows: Mapping[str, int], **shape: object) -> str:
    """Twelve hex digits over all that the rows of a table come from.

    Args:
        ready: the features of the file.
        rows: name of a clip in the manifest -> its place in `ready`.
        shape: flags that change rows, or what they mean: modality, padding, time from step to step.
    """
    names = list(ready.names)
    for name, place in rows.items():
        names[place] = name
    renamed = dataclasses.replace(ready, names=tuple(names))
    meaning = {"content": renamed.content_hash, "columns": list(ready.columns), **shape}
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:12]


def supersede(root: str, folder: str) -> list[str]:
    """Let a name mean this table, in place of an import of the same content by other flags.

    The older table stays, and goes by its folder: runs may have been trained on it. Other content of the same
    name is left alone: a name that means both is refused where it is used.

    Returns:
        The folders that went by the name until now.
    """
    tables = feature_folders(root)
    mine = tables.pop(folder)
    older = []
    for other, facts in tables.items():
        if facts.get("name") != mine["name"] or content_of(facts) != content_of(mine):
            continue
        if "superseded" not in facts:
            older.append(other)
        uri = layout.features_uri(root, other, layout.DESCRIPTOR)
        storage.publish_json({**facts, "superseded": folder}, uri)
    return older


def content_of(facts: Mapping[str, Any]) -> str | None:
    """Hash of the imported content, whatever the flags; None for the table of an encoder."""
    imported = facts.get("imported")
    return None if imported is None else imported.get("content", facts["fingerprint"])
