"""Stages of a chain of jobs, each of which runs again only when its inputs have changed."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from cluster import storage
from jobs.catalog import layout

Stage = tuple[str, Callable[[], object], Mapping[str, Any]]
"""The command that does the same, what is done here, and all that shapes the result."""


class Stages:
    """Records which inputs each stage was run with, so that no stage runs twice on them.

    The key of a stage is a hash of all that shapes its result and of the stage before it. Jobs skip what
    they have themselves; this also skips those that would look at every row again.

    Args:
        root: folder or URI of everything.
        outputs: stage -> the last thing it writes; without it the stage is done again.
        record: file below the root.
    """

    def __init__(self, root: str, outputs: Mapping[str, str], record: str = layout.STAGES) -> None:
        self._root = storage.absolute(root)
        self._outputs = outputs
        self._record = storage.join(self._root, record)
        self.kept: dict[str, str] = (
            storage.read_json(self._record) if storage.exists(self._record) else {}
        )
        """Stage -> key of what was made."""
        self._key = ""
        self.made: list[str] = []
        """Stages that had to be done this time."""

    def run(self, name: str, stage: Stage) -> None:
        """Do one stage unless it was done with the same inputs."""
        command, do, facts = stage
        text = json.dumps([self._key, name, facts], sort_keys=True, default=str)
        self._key = hashlib.sha256(text.encode()).hexdigest()[:16]
        if self.kept.get(name) == self._key and self._is_there(name):
            print(f"{name}: nothing to do")
            return
        print(f"\n== affuse {command}", flush=True)
        start = time.monotonic()
        do()
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
        self.made.append(name)
        self.kept[name] = self._key
        storage.publish_json(self.kept, self._record)

    def _is_there(self, name: str) -> bool:
        output = self._outputs.get(name)
        return output is None or storage.exists(output)
