"""How often a unit has taken the process that worked on it along.

Ray starts a task that was lost again for ever, so that a machine that dies costs time and no unit. What kills
its process each time would then go on for ever: a worker says which unit it has in hand before it begins, and
takes it back at the end. What is left over are the deaths. They stand in the cluster's own key-value store,
which outlives every worker, a line for each unit in hand.
"""

import json
import uuid
from dataclasses import dataclass, field

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
        from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

        key = f"{self.stream}{stage}/{unit}"
        left = _internal_kv_get(key)
        died_on: list[str] = [] if left is None else json.loads(left)
        if died_on:
            alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            died_on = [node for node in died_on if node in alive]
        if len(died_on) >= MOST_DEATHS:
            return WorkerFaultError(Kind.CRASH, f"{stage} killed its process {len(died_on)} times")
        here = ray.get_runtime_context().get_node_id()
        _internal_kv_put(key, json.dumps([*died_on, here]).encode())
        return None

    def end(self, stage: str, unit: str) -> None:
        """The worker lives, whatever became of the unit."""
        from ray.experimental.internal_kv import _internal_kv_del

        _internal_kv_del(f"{self.stream}{stage}/{unit}")

    def forget(self) -> None:
        """Leave nothing of the stream in the cluster's store."""
        import ray
        from ray.experimental.internal_kv import _internal_kv_del

        if ray.is_initialized():
            _internal_kv_del(self.stream, del_by_prefix=True)
