"""How often a unit has taken the process that worked on it along.

Ray starts a task that was lost again for ever, so that a machine that dies costs time and no unit. What kills
its process each time would then go on for ever: a worker says which unit it has in hand before it begins, and
takes it back at the end. What is left over are the deaths. They stand in the cluster's own key-value store,
which outlives every worker, a line for each unit in hand.
"""

import json
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

from jobs.stream.faults import Kind, WorkerFaultError

MOST_DEATHS = 3
"""A unit that was in the hands of so many workers as they died is no longer begun."""


@dataclass(frozen=True)
class Tries:
    """The units of one stream that workers have in hand. It travels to every worker."""

    stream: str = field(default_factory=lambda: f"affuse/{uuid.uuid4().hex}/")

    def begin(self, stage: str, unit: str) -> WorkerFaultError | None:
        """Take a unit in hand; or why not: it killed its worker each time.

        A worker that died with its machine was not killed by the unit.
        """
        import ray

        left = self._read(stage, unit)
        died_on: list[str] = [] if left is None else json.loads(left)
        if died_on:
            alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            died_on = [node for node in died_on if node in alive]
        if len(died_on) >= MOST_DEATHS:
            return WorkerFaultError(Kind.CRASH, f"{stage} killed its process {len(died_on)} times")
        here = ray.get_runtime_context().get_node_id()
        self._write(stage, unit, json.dumps([*died_on, here]).encode())
        return None

    def end(self, stage: str, unit: str) -> None:
        """The worker lives, whatever became of the unit."""
        from ray.exceptions import RayError
        from ray.experimental.internal_kv import _internal_kv_del

        with suppress(RayError):
            _internal_kv_del(self._key(stage, unit))

    def forget(self) -> None:
        """Leave nothing of the stream in the cluster's store."""
        import ray
        from ray.experimental.internal_kv import _internal_kv_del

        if ray.is_initialized():
            with suppress(ray.exceptions.RayError):
                _internal_kv_del(self.stream, del_by_prefix=True)

    def _read(self, stage: str, unit: str) -> bytes | None:
        from ray.exceptions import RayError
        from ray.experimental.internal_kv import _internal_kv_get

        with suppress(RayError):  # who cannot be counted is begun
            return cast(bytes | None, _internal_kv_get(self._key(stage, unit)))
        return None

    def _write(self, stage: str, unit: str, line: bytes) -> None:
        from ray.exceptions import RayError
        from ray.experimental.internal_kv import _internal_kv_put

        with suppress(RayError):
            _internal_kv_put(self._key(stage, unit), line)

    def _key(self, stage: str, unit: str) -> str:
        return f"{self.stream}{stage}/{unit}"
