"""Size the stages of a plan by the measured cost of a few clips on its workers.

On a CPU machine decode and models share the cores, so their times add, and the fixed rule of
`cluster.resources` stays; only the memory that an actor really takes, or models that need few of the
cores, change the number of actors. On GPUs the slower side sets the pace: as many decode tasks as keep
the GPUs from waiting, and no more actors than the CPUs can feed. What the user fixed is never changed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cluster.resources import DEVICE_BATCH, Plan, WorkersConfig, room_gb
from cluster.session import Capacity

MEMORY_MARGIN = 1.25
"""Memory to allow a worker, over what it took for a few clips."""

SPARE_ACTORS = 1.5
"""Actors over those that suffice on average, where they are fewer than the plan's."""

SPARE_DECODERS = 2.0
"""Decode tasks beside GPUs, over those that suffice on average: surplus tasks queue and do not slow the GPU;
missing ones leave it idle."""

GPU_MARGIN = 1.25
"""How much faster than measured a GPU may turn out to be before too few actors are left."""

NEAR_BEST = 0.97
"""Share of the best rate for which further GPUs are not taken."""

STREAM_EFFICIENCY = 0.9
"""Rate of a stream over that of its parts measured alone."""

MOST_CALLS = 16
"""Largest number of units that a GPU actor works on at once."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Average cost of the clips of a job on the workers of its plan."""

    decode_s: float
    """One decode task, per clip [s]."""

    encode_s: Mapping[str, float]
    """One actor with the plan's threads, by model and per clip [s]."""

    actor_gb: float
    """Memory of an actor."""

    decoder_gb: float
    """Memory of a decode task and its child."""

    unit_gb: float
    """A decoded unit in the object store."""

    clips_per_unit: float

    @property
    def models_s(self) -> float:
        """All models of one clip, on one actor [s]."""
        return sum(self.encode_s.values())


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """The plan that a measurement leads to."""

    plan: Plan
    rate: float
    """Clips a second to expect once the stream runs."""

    limit: str
    """Stage that limits the rate."""

    notes: tuple[str, ...] = ()
    """Changes of the plan, and workers kept against the measurement, with reasons."""


def size_stream(
    plan: Plan, measured: Measured, capacity: Capacity, overrides: WorkersConfig
) -> Sizing:
    """Size the stages of a plan by what was measured.

    Args:
        plan: as `cluster.resources.plan_stream` laid it out.
        measured: on workers of this plan.
        capacity: what there is.
        overrides: workers that the user set; they stay.
    """
    size = _beside_gpus if plan.on_gpu else _on_cores
    return size(plan, measured, capacity, overrides)


def _on_cores(
    plan: Plan, measured: Measured, capacity: Capacity, overrides: WorkersConfig
) -> Sizing:
    cores, before = math.floor(capacity.cpus), plan.encode.threads_each
    # Seconds of a core that a clip takes: decode tasks have one thread, a model keeps all of its own busy.
    core_s = max(measured.decode_s + measured.models_s * before, 1e-9)
    share = measured.models_s * before / core_s
    fits = _actors_in_memory(plan.decode.workers, measured, capacity)
    notes: list[str] = []
    actors, threads = plan.encode.workers, before
    if overrides.actors is not None:
        if fits < actors:
            notes.append(f"encode {actors} x as asked, though memory holds {fits}")
    else:
        room = max(1, min(cores // (overrides.threads or 1), fits))
        enough = max(2, math.ceil(SPARE_ACTORS * cores * share))
        if before == 1 and enough <= room / 2:  # less would not be worth a wrong guess
            actors = enough
            notes += _changed(plan.encode.workers, actors, f"models take {share:.0%} of the cores")
        elif room != actors:
            actors, threads = room, overrides.threads or max(1, cores // room)
            why = f"memory holds {fits} of {MEMORY_MARGIN * measured.actor_gb:.1f} GB"
            notes += _changed(plan.encode.workers, actors, why)
    decoders, more_notes = _decoders_that_fit(plan, actors, measured, capacity, overrides)
    by_cores = cores / core_s
    # With other threads a model's work stays the same, spread over more or fewer of them.
    by_actors = actors / max(measured.models_s * before / threads, 1e-9)
    by_decoders = decoders / max(measured.decode_s, 1e-9)
    limit = _largest_share(
        {"decoding": measured.decode_s}
        | {name: seconds * before for name, seconds in measured.encode_s.items()},
        "the cores' time",
    )
    if min(by_actors, by_decoders) < NEAR_BEST * by_cores:
        limit = f"{'encode' if by_actors < by_decoders else 'decode'} has too few workers"
    return Sizing(
        plan=_laid_out(plan, decoders, actors, threads, plan.calls_per_actor, measured),
        rate=STREAM_EFFICIENCY * min(by_cores, by_actors, by_decoders),
        limit=limit,
        notes=(*notes, *more_notes),
    )


def _beside_gpus(
    plan: Plan, measured: Measured, capacity: Capacity, overrides: WorkersConfig
) -> Sizing:
    cpus, notes = math.floor(capacity.cpus), []
    decode_s, models_s = max(measured.decode_s, 1e-9), max(measured.models_s, 1e-9)
    actors = plan.encode.workers
    if overrides.actors is None:
        actors = _actors_that_are_fed(actors, cpus, measured, overrides)
        notes += _changed(plan.encode.workers, actors, "the CPUs decode for no more")
    needed = math.ceil(actors * decode_s / models_s)
    decoders = overrides.decoders or min(cpus - actors, math.ceil(SPARE_DECODERS * needed))
    # Units in hand that fill a device batch, and one more that is published meanwhile.
    filled = math.ceil(DEVICE_BATCH / max(1.0, measured.clips_per_unit)) + 1
    calls = overrides.calls_per_actor or min(MOST_CALLS, max(plan.calls_per_actor, filled))
    while overrides.calls_per_actor is None and calls > 2:
        if decoders <= _units_in_store(measured, capacity) - actors * calls:
            break
        calls -= 1
    wanted = replace(plan, decode=replace(plan.decode, workers=decoders), calls_per_actor=calls)
    decoders, more_notes = _decoders_that_fit(wanted, actors, measured, capacity, overrides)
    by_decode, by_models = decoders / decode_s, actors / models_s
    if by_decode >= by_models:
        limit = _largest_share(measured.encode_s, "the GPUs' time")
    else:
        limit = (
            f"{'memory for decoding' if more_notes else 'decoding'} limits: the GPUs need {needed} tasks, "
            f"and wait {1 - by_decode / by_models:.0%} of the time"
        )
    return Sizing(
        plan=_laid_out(plan, decoders, actors, plan.encode.threads_each, calls, measured),
        rate=STREAM_EFFICIENCY * min(by_decode, by_models),
        limit=limit,
        notes=(*notes, *more_notes),
    )


def _actors_that_are_fed(most: int, cpus: int, measured: Measured, overrides: WorkersConfig) -> int:
    """All GPU actors where decoding keeps up, else the fewest that come near the best rate.

    Each takes a CPU from decoding.
    """
    decode_s, models_s = max(measured.decode_s, 1e-9), max(measured.models_s, 1e-9)

    def decoded(actors: int) -> float:
        return min(overrides.decoders or cpus, cpus - actors) / decode_s

    def rate(actors: int) -> float:
        return min(actors / (GPU_MARGIN * models_s), decoded(actors))

    if rate(most) < decoded(most):
        return most
    best = max(rate(actors) for actors in range(1, most + 1))
    return next(actors for actors in range(1, most + 1) if rate(actors) >= NEAR_BEST * best)


def _actors_in_memory(decoders: int, measured: Measured, capacity: Capacity) -> int:
    """How many actors fit beside the decode tasks; 1 at the least."""
    left_gb = room_gb(capacity) - MEMORY_MARGIN * measured.decoder_gb * decoders
    return max(1, math.floor(left_gb / max(MEMORY_MARGIN * measured.actor_gb, 1e-9)))


def _decoders_that_fit(
    plan: Plan, actors: int, measured: Measured, capacity: Capacity, overrides: WorkersConfig
) -> tuple[int, list[str]]:
    """The plan's decode tasks, fewer where their memory or their units would not fit; and a note on why."""
    asked = plan.decode.workers
    left_gb = room_gb(capacity) - MEMORY_MARGIN * measured.actor_gb * actors
    by_memory = left_gb / max(MEMORY_MARGIN * measured.decoder_gb, 1e-9)
    by_store = _units_in_store(measured, capacity) - actors * plan.calls_per_actor
    fits = max(1, math.floor(min(by_memory, by_store, asked)))
    if fits == asked:
        return asked, []
    why = "memory holds" if by_memory < by_store else "the object store holds units of"
    if overrides.decoders is not None:
        return asked, [f"decode {asked} x as asked, though {why} {fits}"]
    return fits, [f"decode {fits} x instead of {asked}: {why} no more"]


def _units_in_store(measured: Measured, capacity: Capacity) -> float:
    """Decoded units for which the stream's half of the object store has room.

    Ray Data holds back its tasks above half of the store; whatever is planned beyond that would only wait.
    """
    return 0.5 * capacity.object_store_gb / max(measured.unit_gb, 1e-9)


def _changed(before: int, after: int, why: str) -> list[str]:
    return [] if before == after else [f"encode {after} x instead of {before}: {why}"]


def _largest_share(seconds: Mapping[str, float], of: str) -> str:
    """The part that takes most, with its share of the whole."""
    most = max(seconds, key=lambda name: seconds[name])
    return f"{most} limits: {seconds[most] / max(sum(seconds.values()), 1e-9):.0%} of {of}"


def _laid_out(
    plan: Plan, decoders: int, actors: int, threads: int, calls: int, measured: Measured
) -> Plan:
    return replace(
        plan,
        decode=replace(plan.decode, workers=decoders, memory_gb_each=measured.decoder_gb),
        encode=replace(
            plan.encode, workers=actors, threads_each=threads, memory_gb_each=measured.actor_gb
        ),
        calls_per_actor=calls,
    )
