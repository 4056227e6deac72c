"""The plan of a stream: how many workers of what size, why, and whether they fit.

On a CPU machine decode tasks of one CPU each share the cores with a fixed pool of encoder actors that
reserve no CPU: an actor pool that reserves the CPUs leaves none to decode with, and the job would wait
for ever. On GPUs every actor holds its share of a device and one CPU, and all other CPUs decode. What a few
clips take may change these numbers before a stream starts (`cluster.sizing`).

Where machines come and go, every worker holds a share of a CPU instead, so that workers spread over them, and
pools grow and shrink. The plan is that of all machines that may come.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.errors import PlanError
from cluster.nodes import parse_nodes
from cluster.session import Capacity

PROCESS_GB = 0.6
"""Resident memory of a worker with torch and Ray loaded, before any model."""

DECODER_GB = 0.5
"""A decode task and its child process: buffers and one clip's frames."""

HEADROOM = 0.9
"""Share of the memory that the plan may use."""

DEVICE_BATCH = 64
"""Clips that a GPU actor gives a model at once."""

DECODER_CPU, ACTOR_CPU = 0.6, 0.4
"""CPUs that a decode task and an encoder actor hold where machines come and go: both together fill a core.
They differ, because Ray Data makes one stage of two that hold the same."""

GPU_MEMORY_GB = 16.0
"""Memory of a GPU of which nothing is known [GB]."""

CALLS = 4
"""Units in hand of a GPU actor, unless a measurement or the user says otherwise."""


@dataclass(frozen=True, kw_only=True)
class WorkersConfig:
    """Workers of a stream; a field that is left out is derived from the machine."""

    actors: int | None = None
    """Encoder actors; by default one per CPU, or one per share of a GPU."""

    threads: int | None = None
    """Threads of each actor's models; by default the CPUs divided by the actors."""

    decoders: int | None = None
    """Decode tasks at once, of one CPU each; by default all CPUs that no GPU actor holds."""

    gpus_per_actor: float | None = None
    """Share of a GPU that an actor holds; 0 keeps models on the CPU. By default 1 where there are GPUs."""

    gpu_memory_gb: float | None = None
    """Memory of one GPU [GB]; decides whether the encoders fit together. By default of its kind, else 16."""

    calls_per_actor: int | None = None
    """Units that a GPU actor works on at once, so that its device batches span units; by default 4."""

    nodes: str | None = None
    """Machines that a cluster may grow to: ``8`` like the largest, ``8xL4:16cpu``; else its autoscaler's."""

    def __post_init__(self) -> None:
        for name in ("actors", "threads", "decoders", "calls_per_actor"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"workers.{name}: expected 1 or more, came {value}")
        if self.nodes is not None:  # a number is checked as so many of any kind
            parse_nodes(f"{self.nodes}x1cpu" if self.nodes.isdecimal() else self.nodes)
        if self.gpus_per_actor is not None and not 0 <= self.gpus_per_actor <= 1:
            raise ValueError(f"workers.gpus_per_actor: expected 0 to 1, came {self.gpus_per_actor}")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Workers of one kind."""

    name: str
    workers: int
    cpus_each: float
    gpus_each: float
    threads_each: int
    memory_gb_each: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Workers of a stream that fits."""

    decode: Stage
    encode: Stage
    calls_per_actor: int
    passes: tuple[tuple[str, ...], ...]
    """Names of the encoders of each pass over the clips."""

    notes: tuple[str, ...] = ()
    elastic: bool = False
    """Machines may come and go: the numbers of workers are the most."""

    @property
    def on_gpu(self) -> bool:
        """Whether the models run on GPUs."""
        return self.encode.gpus_each > 0

    def lines(self) -> list[str]:
        """The plan as it is printed: one line a stage with the reason, then the notes."""
        text, most = [], "up to " if self.elastic else ""
        for stage in (self.decode, self.encode):
            size = f"{stage.cpus_each:g} CPU" + (
                f", {stage.gpus_each:g} GPU" if stage.gpus_each else ""
            )
            text.append(
                f"plan: {stage.name:<6} {most}{stage.workers} x ({size}, {stage.threads_each} thread"
                f"{'s' if stage.threads_each > 1 else ''}, {stage.memory_gb_each:.1f} GB): "
                f"{stage.reason}"
            )
        return [*text, *(f"plan: {note}" for note in self.notes)]


def plan_stream(
    models_gb: Mapping[str, float], capacity: Capacity, overrides: WorkersConfig | None = None
) -> Plan:
    """Plan the workers of a stream on a machine or cluster.

    Args:
        models_gb: name of each encoder (and transcriber) -> memory that it takes [GB].
        capacity: what there is.
        overrides: workers that the user set.

    Raises:
        PlanError: it cannot fit; the message says what would.
    """
    overrides = overrides or WorkersConfig()
    if capacity.cpus < 1:
        raise PlanError(
            f"the plan needs 1 CPU to decode with; there are {capacity.cpus:g}; where machines come with the "
            "work, say which: --workers.nodes 8x16cpu or 8xL4:16cpu"
        )
    share = overrides.gpus_per_actor
    if share is None:
        share = 1.0 if capacity.gpus >= 1 else 0.0
    return (
        _on_gpus(models_gb, capacity, overrides, share)
        if share > 0
        else _on_cpus(models_gb, capacity, overrides)
    )


def _on_cpus(models_gb: Mapping[str, float], capacity: Capacity, overrides: WorkersConfig) -> Plan:
    cpus = math.floor(capacity.cpus)
    needed = (overrides.actors or 1) * (overrides.threads or 1)
    if needed > cpus:
        raise PlanError(
            f"{_actors_text(overrides)} need {needed} CPUs; there are {cpus}; "
            f"type: --workers.actors {max(1, cpus // (overrides.threads or 1))}"
        )
    decoders = _decoders(overrides, cpus)
    room = room_gb(capacity) - DECODER_GB * decoders
    together_gb = PROCESS_GB + sum(models_gb.values())
    by_memory = math.floor(room / together_gb)
    by_cpu = cpus // (overrides.threads or 1)
    actors = overrides.actors or max(1, min(by_cpu, by_memory))
    if overrides.actors:
        reason = "as asked"
    elif 1 <= by_memory < by_cpu:
        reason = f"{room:.1f} GB hold {by_memory} times {together_gb:.1f} GB of models"
    else:
        reason = (
            f"one per CPU; {ACTOR_CPU:g} of it, so that they spread over the machines"
            if capacity.elastic
            else "one per CPU; they reserve none, so that decoding always finds one"
        )
    threads = overrides.threads or max(1, min(cpus // actors, _cpus_of_one(capacity)))
    passes = _passes(models_gb, room / actors - PROCESS_GB, "memory", actors)
    most_gb = max(sum(models_gb[name] for name in names) for names in passes)
    return Plan(
        decode=_decode_stage(
            decoders,
            overrides,
            f"up to one task per CPU ({cpus}), each with its own decoder child",
            DECODER_CPU if capacity.elastic else 1,
        ),
        encode=Stage(
            name="encode",
            workers=actors,
            cpus_each=ACTOR_CPU if capacity.elastic else 0,
            gpus_each=0,
            threads_each=threads,
            memory_gb_each=PROCESS_GB + most_gb,
            reason=reason,
        ),
        calls_per_actor=1,
        passes=passes,
        notes=(*_pass_notes(passes, f"{room / actors:.1f} GB per actor"), *_growth_note(capacity)),
        elastic=capacity.elastic,
    )


def _on_gpus(
    models_gb: Mapping[str, float], capacity: Capacity, overrides: WorkersConfig, share: float
) -> Plan:
    if capacity.gpus < share:
        raise PlanError(
            f"an actor was to hold {share:g} GPU; there are {capacity.gpus:g}; "
            "type: --workers.gpus-per-actor 0"
        )
    by_gpu = math.floor(capacity.gpus) * math.floor(1 / share + 1e-9)
    by_cpu = math.floor(capacity.cpus) - 1
    actors = overrides.actors or min(by_gpu, by_cpu)
    if actors > by_gpu or actors < 1 or actors > by_cpu:
        raise PlanError(
            f"{max(actors, 1)} GPU actors need {max(actors, 1) * share:g} GPUs and "
            f"{max(actors, 1) + 1} CPUs (1 each and 1 to decode with); there are "
            f"{capacity.gpus:g} and {capacity.cpus:g}; type: {_fewer_on_gpus(by_gpu, by_cpu, capacity)}"
        )
    reason = "as asked" if overrides.actors else f"{share:g} of a GPU each, {capacity.gpus:g} GPUs"
    if not overrides.actors and by_cpu < by_gpu:
        reason = f"{capacity.cpus:g} CPUs leave 1 each and 1 to decode with"
    decoders = _decoders(overrides, math.floor(capacity.cpus) - actors)
    calls = overrides.calls_per_actor or CALLS
    gpu_gb = overrides.gpu_memory_gb or capacity.gpu_memory_gb or GPU_MEMORY_GB
    room = gpu_gb * share * HEADROOM
    passes = _passes(models_gb, room, "GPU memory", actors)
    return Plan(
        decode=_decode_stage(decoders, overrides, "every CPU that no actor holds"),
        encode=Stage(
            name="encode",
            workers=actors,
            cpus_each=1,
            gpus_each=share,
            threads_each=overrides.threads or 1,
            memory_gb_each=PROCESS_GB + DECODER_GB * calls,
            reason=f"{reason}; {calls} units in hand, batched on the device",
        ),
        calls_per_actor=calls,
        passes=passes,
        notes=(*_pass_notes(passes, f"{room:.1f} GB of a GPU"), *_growth_note(capacity)),
        elastic=capacity.elastic,
    )


def _fewer_on_gpus(by_gpu: int, by_cpu: int, capacity: Capacity) -> str:
    """What fits: fewer actors, or none on a GPU where a single CPU would have to decode too."""
    if by_cpu >= 1:
        return f"--workers.actors {min(by_gpu, by_cpu)}"
    counted_twice = (
        "--session.num-cpus 2 to count this CPU twice"
        if capacity.node_cpus is None
        else "ray start --num-cpus=2 on the machine, to count its CPU twice"
    )
    return f"--workers.gpus-per-actor 0 to leave the GPU alone, or {counted_twice}"


def _actors_text(overrides: WorkersConfig) -> str:
    threads = overrides.threads or 1
    actors = overrides.actors or 1
    return f"{actors} encoder actor{'s' if actors > 1 else ''} of {threads} thread" + (
        "s" if threads > 1 else ""
    )


def room_gb(capacity: Capacity) -> float:
    """Memory for actors and decode tasks: a share of all, less what the object store is filled with."""
    return HEADROOM * capacity.memory_gb - 0.5 * capacity.object_store_gb


def _cpus_of_one(capacity: Capacity) -> int:
    """CPUs of the smallest machine: threads of an actor run on one."""
    return math.floor(capacity.cpus if capacity.node_cpus is None else capacity.node_cpus)


def _growth_note(capacity: Capacity) -> tuple[str, ...]:
    if not capacity.wanted:
        return ()
    return (f"{capacity.nodes} machines are asked for; what is there begins, what comes joins in",)


def _decode_stage(
    workers: int, overrides: WorkersConfig, reason: str, cpus_each: float = 1
) -> Stage:
    """Tasks with a decoder child each; the reason holds where nobody asked for a number."""
    return Stage(
        name="decode",
        workers=workers,
        cpus_each=cpus_each,
        gpus_each=0,
        threads_each=1,
        memory_gb_each=DECODER_GB,
        reason="as asked" if overrides.decoders else reason,
    )


def _decoders(overrides: WorkersConfig, free: int) -> int:
    """Decode tasks, of the CPUs that are free for them."""
    if overrides.decoders is not None and overrides.decoders > free:
        raise PlanError(
            f"{overrides.decoders} decode tasks need a CPU each; {free} are free for them; "
            f"type: --workers.decoders {free}"
        )
    return overrides.decoders or free


def _passes(
    models_gb: Mapping[str, float], each_gb: float, what: str, actors: int
) -> tuple[tuple[str, ...], ...]:
    """Pack models, the largest first, into as few passes as hold them."""
    for name, size_gb in models_gb.items():
        if size_gb > each_gb:
            fewer = f"type: --workers.actors {actors - 1}" if actors > 1 else "use a larger machine"
            raise PlanError(
                f"{name} takes {size_gb:.1f} GB of {what}; each of {actors} actors has "
                f"{max(each_gb, 0):.1f} GB; {fewer}"
            )
    bins: list[list[str]] = []
    for name in sorted(models_gb, key=lambda name: -models_gb[name]):
        for names in bins:
            if sum(models_gb[other] for other in names) + models_gb[name] <= each_gb:
                names.append(name)
                break
        else:
            bins.append([name])
    order = list(models_gb)
    return tuple(tuple(sorted(names, key=order.index)) for names in bins)


def _pass_notes(passes: Sequence[Sequence[str]], room: str) -> tuple[str, ...]:
    if len(passes) == 1:
        return ()
    parts = "; then ".join(", ".join(names) for names in passes)
    return (f"the encoders do not fit together in {room}: {len(passes)} passes, {parts}",)
