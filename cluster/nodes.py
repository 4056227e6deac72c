"""Machines of a cluster in words: ``8xL4:16cpu`` is eight machines of one L4 and 16 CPUs each.

GROUPS = GROUP { + GROUP }        4x32cpu + 16x8xH100:192cpu:2000gb
GROUP  = COUNT x PART { : PART }
PART   = N cpu | N gb | [N [x]] KIND OF GPU | N gpu
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.errors import ConfigError

GB_PER_CPU = 4.0
"""Memory of a machine of which nothing is known but its CPUs [GB]."""

STORE_SHARE = 0.3
"""Part of a machine's memory that Ray takes for objects."""

MOST = {"machines": 100_000, "CPUs": 4096, "GPUs": 64, "GB": 100_000}
"""More than that of a machine is a slip of the pen."""

GPU_GB: Mapping[str, float] = {
    "A10": 24, "A100": 40, "A10G": 24, "B200": 180, "H100": 80, "H200": 141, "L4": 24, "L40S": 48, "P100": 16,
    "T4": 16, "V100": 16,
}  # fmt: skip
"""Memory of GPUs; of a kind that is sold in two sizes the smaller one [GB]."""


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """Machines of one shape."""

    count: int
    cpus: float
    gpus: float = 0.0
    gpu_kind: str = ""
    memory_gb: float
    """For processes; the object store comes on top."""

    object_store_gb: float

    def bundle(self) -> dict[str, float]:
        """The resources of one of them, as Ray names them."""
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})

    def __str__(self) -> str:
        gpus = f"{self.gpus:g} {self.gpu_kind or 'GPU'}, " if self.gpus else ""
        return f"{self.count} x ({gpus}{self.cpus:g} CPU)"


def parse_nodes(text: str) -> list[Nodes]:
    """The machines that are written down.

    Raises:
        ConfigError: what came, and what was expected in its place.
    """
    return [_group(part.strip(), text) for part in text.split("+")]


def nodes_of(
    count: int, resources: Mapping[str, float], *, like: Sequence[Nodes] = (), gpu_kind: str = ""
) -> Nodes:
    """Machines with the resources that Ray counts.

    Args:
        count: how many.
        resources: of one: CPU, GPU, and where it is known memory and object_store_memory [bytes].
        like: machines of which more is known; their memory a CPU holds for these too.
        gpu_kind: name of the GPU, where it is known.
    """
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    per_cpu = [(item.memory_gb / item.cpus, item.object_store_gb / item.cpus) for item in like]
    default = (GB_PER_CPU * (1 - STORE_SHARE), GB_PER_CPU * STORE_SHARE)
    memory_per_cpu, store_per_cpu = min(per_cpu, default=default)
    return Nodes(
        count=count,
        cpus=cpus,
        gpus=gpus,
        gpu_kind=gpu_kind,
        memory_gb=resources.get("memory", 1e9 * memory_per_cpu * cpus) / 1e9,
        object_store_gb=resources.get("object_store_memory", 1e9 * store_per_cpu * cpus) / 1e9,
    )


def _group(group: str, text: str) -> Nodes:
    found = re.fullmatch(r"(\d+)\s*x\s*(\S.*)", group, re.IGNORECASE)
    if found is None:
        raise ConfigError(
            f"machines {text!r}: {group!r} does not begin with their number; expected e.g. 8xL4:16cpu"
        )
    count = _bounded(int(found[1]), "machines", text)
    cpus: int | None = None
    gpus: int | None = None
    memory_gb: int | None = None
    kind = ""
    for part in found[2].split(":"):
        number, unit = _part(part.strip(), text)
        if unit == "cpu" and cpus is None:
            cpus = _bounded(number, "CPUs", text)
        elif unit == "gb" and memory_gb is None:
            memory_gb = _bounded(number, "GB", text)
        elif unit not in ("cpu", "gb") and gpus is None:
            gpus, kind = _bounded(number, "GPUs", text), "" if unit == "gpu" else unit.upper()
        else:
            raise ConfigError(f"machines {text!r}: {group!r} says its {_what(unit)} twice")
    if cpus is None:
        raise ConfigError(
            f"machines {text!r}: {group!r} does not say its CPUs; expected e.g. {group}:16cpu"
        )
    all_gb = memory_gb or GB_PER_CPU * cpus
    return Nodes(
        count=count,
        cpus=cpus,
        gpus=gpus or 0.0,
        gpu_kind=kind,
        memory_gb=all_gb * (1 - STORE_SHARE),
        object_store_gb=all_gb * STORE_SHARE,
    )


def _part(part: str, text: str) -> tuple[int, str]:
    found = re.fullmatch(r"(\d+)\s*(cpu|gb|gpu)s?|(?:(\d+)\s*x?\s*)?([a-z][a-z0-9-]*)", part, re.I)
    if found is None or (found[4] or "").lower() in ("cpu", "gb", "gpu", "cpus", "gpus"):
        raise ConfigError(
            f"machines {text!r}: {part!r} is no part of a machine; expected 16cpu, 64gb, L4 or 8xH100"
        )
    if found[2]:
        return int(found[1]), found[2].lower()
    return int(found[3] or 1), found[4]


def _bounded(number: int, what: str, text: str) -> int:
    if not 1 <= number <= MOST[what]:
        raise ConfigError(f"machines {text!r}: {number} {what}; expected 1 to {MOST[what]}")
    return number


def _what(unit: str) -> str:
    return {"cpu": "CPUs", "gb": "memory"}.get(unit, "GPUs")
