"""What a cluster may become: the bounds of its autoscaler, or what the user says; and asking for it.

Ray's autoscaler keeps its bounds in the file that the head was started with. Kubernetes keeps them in its own
objects: our file for it tells the head by a variable, any other is told by `--workers.nodes`. While a stream
runs, the machines are asked for at once: Ray Data by itself doubles a cluster every ten seconds, from what is
there.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import ConfigError
from cluster.nodes import GPU_GB, Nodes, nodes_of, parse_nodes
from cluster.session import Capacity, SessionConfig, local_capacity

RENEW_S = 5.0
"""How often machines are asked for [s]: Ray Data's own requests take the place of ours in between."""

NODES_VARIABLE = "AFFUSE_NODES"
"""Set on the head of a cluster: the machines that it may start, in the words of `cluster.nodes`."""

ANSWER_S = 60.0
"""How long the head may take to say its bounds [s]."""

_COUNTED = ("CPU", "GPU", "memory", "object_store_memory")
_FILE_FLAG = "--autoscaling-config="

Shape = tuple[dict[str, float], int]
"""Resources of a kind of machine, and how many of them there may be."""


def known_capacity(session: SessionConfig, asked: str | None) -> Capacity | None:
    """What a local session has, known before anything starts; None where a cluster is joined.

    Raises:
        ConfigError: machines are asked for, and no cluster is joined that could have them.
    """
    capacity = local_capacity(session)
    if capacity is not None and asked is not None:
        raise ConfigError(
            f"--workers.nodes {asked}: a session on this machine has no other; type: --session.address auto "
            "on a cluster, or --dry-run --assume.nodes to plan for one"
        )
    return capacity


def planned_capacity(asked: str | None) -> Capacity:
    """What the connected cluster may become.

    Args:
        asked: machines that it may grow to, in the words of `cluster.nodes`; or a number of them, of the
            largest shape that is known; None: as its autoscaler says, else what is there.

    Raises:
        ConfigError: the machines are not understood, or a number of unknown machines.
    """
    there = nodes_now()
    if asked is None:
        bounds = autoscaler_bounds()
        return capacity_of([*_beyond(there, bounds), *bounds], there)
    if not asked.isdecimal():
        return capacity_of(parse_nodes(asked), there)
    known = [*there, *autoscaler_bounds()]
    if not known:
        raise ConfigError(
            f"--workers.nodes {asked}: of what shape? the cluster has no machine yet; "
            f"type e.g. --workers.nodes {asked}x16cpu or {asked}xL4:16cpu"
        )
    largest = max(known, key=lambda item: (item.gpus, item.cpus))
    return capacity_of([replace(largest, count=int(asked))], there)


def capacity_of(groups: Sequence[Nodes], there: Sequence[Nodes] = ()) -> Capacity:
    """The resources of machines together.

    Args:
        groups: the machines.
        there: those of them that are there already.
    """
    most, now = (sum(item.count for item in items) for items in (groups, there))
    memories = [GPU_GB.get(item.gpu_kind) for item in groups if item.gpus]
    bundles = [bundle for item in groups for bundle in [item.bundle()] * item.count]
    return Capacity(
        cpus=sum(item.count * item.cpus for item in groups),
        gpus=sum(item.count * item.gpus for item in groups),
        memory_gb=sum(item.count * item.memory_gb for item in groups),
        object_store_gb=sum(item.count * item.object_store_gb for item in groups),
        nodes=most,
        elastic=most > 1 or now < most,
        node_cpus=min((item.cpus for item in groups), default=0.0),
        gpu_memory_gb=min((gb for gb in memories if gb), default=None) if all(memories) else None,
        wanted=tuple(bundles) if most > now else (),
    )


def nodes_now() -> list[Nodes]:
    """The machines of the connected cluster that have a CPU to work with, by their shape."""
    import ray

    shapes: Counter[tuple[tuple[tuple[str, float], ...], str]] = Counter()
    for node in ray.nodes():
        has = node["Resources"]
        if node["Alive"] and has.get("CPU", 0) >= 1:
            kinds = [name.partition(":")[2] for name in has if name.startswith("accelerator_type:")]
            kept = {name: has[name] for name in _COUNTED if name in has}
            shapes[tuple(kept.items()), kinds[0].upper() if kinds else ""] += 1
    return [
        nodes_of(count, dict(resources), gpu_kind=kind)
        for (resources, kind), count in shapes.items()
    ]


def autoscaler_bounds() -> list[Nodes]:
    """The machines that the autoscaler of the connected cluster may start; none where there is none."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if words := os.environ.get(NODES_VARIABLE):
        return parse_nodes(words)
    there = nodes_now()
    heads = [
        node["NodeID"]
        for node in ray.nodes()
        if node["Alive"] and "node:__internal_head__" in node["Resources"]
    ]
    if not heads:
        return []
    if heads[0] == ray.get_runtime_context().get_node_id():
        shapes = shapes_of_head()
    else:
        where = NodeAffinitySchedulingStrategy(heads[0], soft=False)
        ask = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=where)(shapes_of_head)
        try:
            shapes = ray.get(ask.remote(), timeout=ANSWER_S)
        except ray.exceptions.RayError:
            return []
    return [nodes_of(count, resources, like=there) for resources, count in shapes]


def shapes_of_head() -> list[Shape]:
    """The kinds of machines in the file of the autoscaler that runs on this one."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended, or is another user's
            continue
        files = [word.partition("=")[2] for word in words if word.startswith(_FILE_FLAG)]
        if files and any(word.endswith("monitor.py") for word in words):
            return shapes_of_file(Path(os.path.expanduser(files[0])))
    return []


def shapes_of_file(file: Path) -> list[Shape]:
    """The kinds of machines in a file of Ray's cluster launcher, at most as many as it allows in all."""
    try:
        config: Mapping[str, Any] = yaml.safe_load(file.read_text()) or {}
        left = int(config.get("max_workers", 0))
        shapes: list[Shape] = []
        kinds = config.get("available_node_types", {})
        # Where fewer machines are allowed in all than of each kind together, those with GPUs come first.
        for kind in sorted(kinds, key=lambda kind: -kinds[kind].get("resources", {}).get("GPU", 0)):
            resources = kinds[kind].get("resources", {})
            count = min(left, int(kinds[kind].get("max_workers", left)))
            if kind != config.get("head_node_type") and count > 0 and resources.get("CPU", 0) >= 1:
                shapes.append(
                    ({name: resources[name] for name in _COUNTED if name in resources}, count)
                )
                left -= count
    except (OSError, yaml.YAMLError, AttributeError, TypeError, ValueError):
        return []  # a plan for what is there beats none
    return shapes


@contextmanager
def requested(capacity: Capacity) -> Iterator[None]:
    """Ask the autoscaler for the machines that a capacity counts on; in the end they are let go of."""
    if not capacity.wanted:
        yield
        return
    over = threading.Event()

    def renew() -> None:
        while not over.is_set():
            _ask(capacity.wanted)
            over.wait(RENEW_S)

    renewing = threading.Thread(target=renew, daemon=True, name="machines")
    renewing.start()
    try:
        yield
    finally:
        over.set()
        renewing.join()
        _ask(())


def _ask(bundles: Sequence[Mapping[str, float]]) -> None:
    from ray.autoscaler.sdk import request_resources
    from ray.exceptions import RayError

    with suppress(RayError, RuntimeError):  # a head that is away is asked again, or was left
        request_resources(bundles=[dict(bundle) for bundle in bundles])


def _beyond(there: Sequence[Nodes], bounds: Sequence[Nodes]) -> list[Nodes]:
    """Machines that are there and that no autoscaler has started: of another shape than its own."""
    shapes = [(item.cpus, item.gpus) for item in bounds]
    return [item for item in there if (item.cpus, item.gpus) not in shapes]
