"""The error where no clip has anything of what is shown to a model, with what to type instead."""

import shlex
from collections.abc import Collection, Mapping
from typing import Any, get_args

from jobs.asking.config import AskConfig
from jobs.asking.contents import HAS, Shown, has_shown
from jobs.catalog.features import feature_folders
from jobs.catalog.missing_rows import typed

TRANSCRIBER = "whisper_tiny_en_asr"
"""Which one is named where none has run."""


def nothing_to_show(config: AskConfig, rows: Collection[Mapping[str, Any]], num_clips: int) -> str:
    """What no clip has, and what would show something of them.

    Args:
        config: what is shown.
        rows: rows of the manifest that a model may see.
        num_clips: clips that would be asked about.
    """
    said = f"none of the {num_clips} clips has {' or '.join(HAS[each] for each in config.show)}"
    if config.transcriber is not None and "text" in config.show:
        said += f", and {config.transcriber} heard no words in any"
    others = [
        each
        for each in get_args(Shown)
        if each not in config.show and any(has_shown(row, [each]) for row in rows)
    ]
    advice = [_heard(config, has_sound="audio" in others)]
    advice += [f"--show {' '.join(others)}"] if others else []
    return f"{said}; type: {', or '.join(filter(None, advice)) or 'another --root'}"


def _heard(config: AskConfig, *, has_sound: bool) -> str:
    """A transcriber whose words could be shown; empty where one was named or no words are asked for."""
    if config.transcriber is not None or "text" not in config.show:
        return ""
    known = feature_folders(config.root, "transcripts").values()
    names = sorted({typed(facts) for facts in known})
    if names:
        return " or ".join(f"--transcriber {name}" for name in names)
    if not has_sound:
        return ""
    encode = f"affuse encode --root {shlex.quote(config.root)} --transcriber {TRANSCRIBER}"
    return f"{encode}, then this with --transcriber {TRANSCRIBER}"
