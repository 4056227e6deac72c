"""The settings that scores are made with: written beside them first, compared at every later start.

A second command of the same name may go on with them only if its rows would be the same. Whatever shapes
rows is in the claim; what only shapes the way there (workers, calibration, the limit of failures) is not.
"""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from cluster import settings, storage
from cluster.errors import ConfigError
from cluster.tables import SCORES
from jobs.catalog import layout
from jobs.catalog.bundles import read_by_scoring
from jobs.scoring.bundle import Bundle
from jobs.stream.job import DecodingConfig


def claim_of(bundle: Bundle, source: str, decoding: DecodingConfig) -> dict[str, Any]:
    """Everything that shapes the rows of scores."""
    policy = settings.to_mapping(decoding)
    del policy["recycle_after"]  # which child decodes a clip changes nothing
    return {
        "bundle": bundle.name,
        "facts": read_by_scoring(bundle.facts) or None,
        "transcriber": None if bundle.transcriber is None else bundle.transcriber.folder,
        "source": source,
        "asked": sorted(bundle.told) or None,
        "coverage": bundle.coverage,
        "schema": SCORES.tag,
        "decoding": policy,
    }


def claim(uri: str, made_with: Mapping[str, Any], command: str) -> None:
    """Write what the scores at `uri` are made with, unless others stand there.

    Args:
        uri: folder of the scores.
        made_with: as `claim_of` gives it.
        command: what to type for scores of another name, without the flags that differ.

    Raises:
        ConfigError: scores are there that were made with something else; the message says with what.
    """
    where = storage.join(uri, layout.BUNDLE)
    # As it is read back: facts that were made in memory have tuples where JSON has lists.
    made_with = json.loads(json.dumps(made_with))
    if storage.exists(where):
        there = storage.read_json(where)
        # Claims of earlier versions hold all facts of the bundle, also the place where it was made.
        facts = there.get("facts")
        same = {**there, "facts": facts and read_by_scoring(facts)}
        differences = [key for key in made_with if same.get(key) != made_with[key]]
        if differences:
            said = "; ".join(_said(key, there.get(key), made_with[key]) for key in differences)
            raise ConfigError(f"{uri} was made with other settings ({said}); type: {command}")
        made_with = there  # written again as it is: it is seen to be in use
    storage.publish_json(dict(made_with), where)


def command_of(job: str, **flags: str | None) -> str:
    """A command to type; flags without a value are left out.

    >>> command_of("score", root="my data", name=None)
    "affuse score --root 'my data'"
    """
    words = [f"--{name} {shlex.quote(value)}" for name, value in flags.items() if value]
    return " ".join([f"affuse {job}", *words])


def _said(key: str, there: Any, now: Any) -> str:
    """One difference in words."""
    if key == "facts":
        return "the bundle has changed since"
    if isinstance(now, Mapping):
        before = there if isinstance(there, Mapping) else {}
        changed = {name: (before.get(name), now[name]) for name in now}
        return ", ".join(
            f"{key}.{name} {old}, now {new}" for name, (old, new) in changed.items() if old != new
        )
    return f"{key} {there or 'none'}, now {now or 'none'}"
