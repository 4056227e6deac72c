"""The settings that scores are made with: written beside them first, compared at every later start.

A second command of the same name may go on with them only if its rows would be the same. Whatever shapes
rows is in the claim; what only shapes the way there (workers, calibration, the limit of failures) is not.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from cluster import settings, storage
from cluster.errors import ConfigError
from cluster.tables import SCORES
from jobs.catalog import layout
from jobs.catalog.bundles import read_by_scoring
from jobs.scoring.bundle import Bundle
from jobs.scoring.config import ScoreConfig
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
        "tables": sorted(bundle.tables.values()) or None,
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


def command_of(job: str, **flags: object) -> str:
    """A command to type; flags without a value are left out.

    >>> command_of("score", root="my data", name=None, per=("speaker", "file"))
    "affuse score --root 'my data' --per speaker file"
    """
    words = []
    for name, value in flags.items():
        values = value if isinstance(value, tuple | list) else [value]
        if value not in (None, "", ()):
            words.append(f"--{name.replace('_', '-')} {shlex.join(map(str, values))}")
    return " ".join([f"affuse {job}", *words])


REPEATED = (
    "root", "transcriber", "source", "server", "store", "coverage", "by", "window_s", "step_s", "per",
    "pooling",
)  # fmt: skip
"""Settings of `score` that say what is made, and of what."""


def command_again(config: ScoreConfig, bundle: str, **elsewhere: str) -> str:
    """The command that was typed, for scores in another place.

    Args:
        config: of the command.
        bundle: one of its bundles, as it was typed.
        elsewhere: --name or --out with another value; a name goes with one bundle, without --also.
    """
    usual = {each.name: each.default for each in fields(ScoreConfig)}
    kept = {name: getattr(config, name) for name in REPEATED}
    kept = {name: value for name, value in kept.items() if value != usual[name]}
    policy, plain = map(settings.to_mapping, (config.decoding, DecodingConfig()))
    kept |= {f"decoding.{name}": value for name, value in policy.items() if value != plain[name]}
    also = () if "name" in elsewhere else config.also
    job = "score FILES" if config.clips else "score"
    return command_of(job, bundle=bundle, also=also, **kept, **elsewhere)


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
