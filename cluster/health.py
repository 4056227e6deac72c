"""Health of a cluster: how soon a machine that is gone counts as gone, and what Ray counts of its troubles.

Each machine's agent offers Ray's metrics as text, without a dashboard. Memory that ran out, workers that died
by themselves, machines that are gone and objects that went to disk slow a stream down and show nowhere else.
"""

import os
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

HEALTH_CHECK: Mapping[str, str] = MappingProxyType(
    {
        "RAY_health_check_initial_delay_ms": "5000",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "2000",
        "RAY_health_check_failure_threshold": "3",
    }
)
"""Environment of `ray start --head`: a machine that does not answer is given up after at most 9 s.

By default Ray waits for 15 s where the connection is refused, and for 65 s where packets vanish. Until then
the stream hands units to the machine's workers, and waits for what lies in its object store. A unit of a
machine that was given up too early is only encoded again, so that short limits cost little; 2 s for an answer
are left to a machine whose cores are all busy. A session on one machine has nothing to gain by it.
"""

SAMPLE_S = 5.0
"""How often the object store is looked at [s]."""

ANSWER_S = 5.0

REPORT_SETTING, REPORTED_MS = "RAY_metrics_report_interval_ms", "10000"
"""How often Ray's processes report, and the setting that says otherwise."""

ASKED_TO_GO = (1, 4)
"""Reasons of a machine's end that are no trouble: it was stopped, or the autoscaler let it go idle."""

EVICTED = ("ray_memory_manager_worker_eviction_total", "")
DIED = ("ray_unintentional_worker_failures_total", "")
IN_MEMORY = ("ray_object_store_memory", 'Location="MMAP_SHM"')
SPILLED = ("ray_object_store_memory", 'Location="SPILLED"')


@dataclass(frozen=True, kw_only=True)
class Health:
    """What Ray has counted, over all machines; between two times where one is taken off the other."""

    evicted: int = 0
    """Workers that were ended because memory ran out."""

    died: int = 0
    """Workers that ended without being asked to."""

    dead_machines: int = 0
    """Machines that ended without being asked to."""

    store_peak_gb: float = 0.0
    """The most that the object store was seen to hold in memory."""

    spilled_gb: float = 0.0
    """Objects on disk, because the store was full; the most that was seen."""

    @property
    def complaints(self) -> list[str]:
        """What should not have happened."""
        found = {
            "workers were ended because memory ran out": self.evicted,
            "workers died by themselves": self.died,
            "machines are gone": self.dead_machines,
            "GB of objects went to disk": round(self.spilled_gb, 3),
        }
        return [f"{count} {what}" for what, count in found.items() if count]

    def since(self, before: "Health") -> "Health":
        """What was counted after another time; levels stay."""
        return Health(
            # The counters of a machine are gone with it.
            evicted=max(0, self.evicted - before.evicted),
            died=max(0, self.died - before.died),
            dead_machines=max(0, self.dead_machines - before.dead_machines),
            store_peak_gb=self.store_peak_gb,
            spilled_gb=self.spilled_gb,
        )


def health_now() -> Health:
    """The counters of the connected cluster; of a machine that does not answer, none."""
    import ray

    nodes = ray.nodes()
    texts = [_metrics(node) for node in nodes if node["Alive"]]
    return Health(
        evicted=round(_total(texts, *EVICTED)),
        died=round(_total(texts, *DIED)),
        dead_machines=sum(
            not node["Alive"] and node.get("DeathReason") not in ASKED_TO_GO for node in nodes
        ),
        store_peak_gb=_total(texts, *IN_MEMORY) / 1e9,
        spilled_gb=_total(texts, *SPILLED) / 1e9,
    )


class Watched:
    """The health of a cluster over some time."""

    def __init__(self) -> None:
        self.health = Health()
        """What was counted, once it is over."""


@contextmanager
def watched(every_s: float = SAMPLE_S) -> Iterator[Watched]:
    """Watch the connected cluster meanwhile; the end waits until everybody has reported."""
    report_s = float(os.environ.get(REPORT_SETTING, REPORTED_MS)) / 1000
    found, over, seen = Watched(), threading.Event(), [health_now()]

    def look() -> None:
        while not over.wait(every_s):
            seen.append(health_now())

    looking = threading.Thread(target=look, daemon=True, name="health")
    looking.start()
    try:
        yield found
    finally:
        over.set()
        looking.join()
        time.sleep(report_s + 1)
        seen.append(health_now())
        found.health = replace(
            seen[-1].since(seen[0]),
            store_peak_gb=max(item.store_peak_gb for item in seen),
            spilled_gb=max(item.spilled_gb for item in seen),
        )


def _metrics(node: Mapping[str, Any]) -> str:
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    try:
        with urllib.request.urlopen(address, timeout=ANSWER_S) as answer:
            return str(answer.read().decode(errors="replace"))
    except OSError:
        return ""


def _total(texts: Iterable[str], name: str, label: str) -> float:
    """Sum of a metric over machines, and over its labels where none is named."""
    return sum(
        float(line.rsplit(" ", 1)[1])
        for text in texts
        for line in text.splitlines()
        if line.startswith((f"{name}{{", f"{name} ")) and label in line
    )
