"""The workers of train: one group of Ray Train, or the process itself, for all parts that are missing."""

import functools
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import torch

from cluster import storage
from cluster.devices import worker_device
from cluster.errors import AffuseError, DivergedError, PlanError
from cluster.session import cluster_address, cluster_capacity, ray_session
from fusion.training.course import workers_of
from fusion.training.half_precision import advice
from fusion.training.loop import Course, Group, OnEpoch
from fusion.training.recipe import Recipe
from jobs.catalog import layout, run_names
from jobs.training import train_part
from jobs.training.loading import Data, load
from jobs.training.parts import Part
from jobs.training.progress import said_as_published, say_done
from jobs.training.run import (
    TrainConfig,
    choice_of,
    missing,
    parts_of,
    request_of,
    run_uri,
)

LOOK_S = 0.5
"""Between two looks at what other workers have published [s]."""


def launch(config: TrainConfig, own: Mapping[str, str]) -> None:
    """One group of workers for all that is missing, or this process.

    Args:
        config: of the run.
        own: identity that the start took the name of the run with.
    """
    workers = config.workers
    on_cluster = cluster_address(config.session) is not None
    if workers is None and not on_cluster:
        workers = 0
        print("workers: 0 (this process: one machine, and features in memory)")
    if workers == 0:
        _say_of_other_workers(config, workers)
        train_all(config, own)
        return
    with ray_session(config.session):
        from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
        from ray.train.torch import TorchTrainer

        capacity = cluster_capacity()
        use_gpu = capacity.gpus >= 1
        if workers is None:
            workers = int(min(8, capacity.gpus)) if use_gpu else 1
            print(f"workers: {workers} ({'one a GPU, at most 8' if use_gpu else 'no GPU here'})")
        have = capacity.gpus if use_gpu else capacity.cpus
        if workers > have:
            raise PlanError(
                f"--workers {workers} do not fit: the cluster has {have:g} "
                f"{'GPUs' if use_gpu else 'CPUs'}; type --workers {int(have)} or fewer"
            )
        _say_of_other_workers(config, workers)
        state = storage.join(run_uri(config), layout.RAY_STATE)
        trainer = TorchTrainer(
            functools.partial(train_all, config, own),
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
            run_config=RunConfig(
                # A name of its own: resuming is by the parts and checkpoints of the run's folder.
                name=uuid.uuid4().hex[:8],
                storage_path=state,
                failure_config=FailureConfig(max_failures=config.max_failures),
            ),
        )
        try:
            with said_as_published(config, missing(config, parts_of(config))):
                trainer.fit()
        except WorkerGroupError as error:
            # What one worker refuses all refuse; the user is told the reason, not the tracebacks.
            reasons = map(_ours, error.worker_failures.values())
            raise next(filter(None, reasons), error) from error
        if storage.is_local(state):
            shutil.rmtree(state, ignore_errors=True)


def train_all(config: TrainConfig, own: Mapping[str, str]) -> None:
    """Runs on every worker: train the parts that are missing, one after the other.

    Raises:
        ConfigError: another start has taken the name of the run.
    """
    group = _group()
    data = load(request_of(config))
    parts = parts_of(config)
    slow = advice(config.precision, group.device) if group.rank == 0 else None
    if slow is not None:
        print(f"note: {slow}", flush=True)
    check = functools.partial(run_names.check_owner, run_uri(config), own)
    folds = [part for part in parts if part.fold is not None]
    refits = [part for part in parts if part.fold is None]
    for some in (folds, refits):
        mine, ours = some, group
        if config.spread == "parts":
            mine, ours = some[group.rank :: group.world], Group(device=group.device)
        for part in _agreed(missing(config, mine), ours):
            _train_one(config, data, part, ours, check)
        # A refit takes its last epoch from all folds: also from those that another worker trains.
        _wait_for(config, some, check)


def _say_of_other_workers(config: TrainConfig, now: int) -> None:
    """That a part goes on with other workers than it began with, which draw otherwise."""
    now = 1 if config.spread == "parts" else max(1, now)
    for part in missing(config, parts_of(config)):
        checkpoint = part.checkpoint(config.root, str(config.run))
        before = workers_of(storage.read_bytes(checkpoint)) if storage.exists(checkpoint) else now
        if before not in (None, now):
            print(
                f"{part.title}: began with {before} worker{'s' * (before != 1)} and goes on with {now}; "
                "each draws its own dropout, so scores may differ from those of an undisturbed run"
            )


def _ours(failure: BaseException | None) -> AffuseError | None:
    """The error of our own that a worker failed with, however Ray has wrapped it."""
    while failure is not None and not isinstance(failure, AffuseError):
        inside = getattr(failure, "_base_exc", None) or getattr(failure, "cause", None)
        failure = inside or failure.__cause__
    return failure


def _wait_for(config: TrainConfig, parts: list[Part], check: Callable[[], None]) -> None:
    """Return once all parts are published, by whichever worker; a worker that dies ends the others too."""
    while missing(config, parts):
        check()
        time.sleep(LOOK_S)


def _train_one(
    config: TrainConfig, data: Data, part: Part, group: Group, check: Callable[[], None]
) -> None:
    """Train and publish one part, from its checkpoint if there is one; `check` comes before each write."""
    check()
    run = str(config.run)
    choice = choice_of(config)
    recipe: Recipe = config
    checkpoint = part.checkpoint(config.root, run)
    last_epoch, rates = None, tuple[float, ...]()
    if part.fold is None:
        folds = [p for p in parts_of(config) if p.fold is not None]
        last_epoch = train_part.median_epoch(config.root, run, folds)
        if recipe.schedule == "plateau":
            # Nothing is held back that could say when the rate has to fall.
            rates = train_part.median_rates(config.root, run, folds)
    course = Course(
        resume=storage.read_bytes(checkpoint) if storage.exists(checkpoint) else None,
        on_epoch=saving(checkpoint, config.checkpoint_s, group, check),
        last_epoch=last_epoch,
        rates=rates,
    )
    try:
        trained = train_part.train_part(choice, data, part, recipe, group=group, course=course)
    except DivergedError:
        check()
        # From here on it would diverge again.
        storage.remove(checkpoint)
        raise
    facts = train_part.facts_of(run, trained, data)
    if group.rank == 0:
        check()
        card = train_part.card_of(choice, data, facts)
        train_part.publish_part(config.root, run, trained, data, card)
        say_done(part, facts)
    if group.world > 1:
        torch.distributed.barrier()


def saving(uri: str, every_s: float, group: Group, check: Callable[[], None]) -> OnEpoch:
    """Writes the state at the end of an epoch, by the first worker, at most every so many seconds.

    Args:
        uri: of the state.
        every_s: between two of them [s].
        group: the workers.
        check: called before each.
    """
    last = time.monotonic()

    def save(_record: dict[str, float], state: Callable[[], bytes]) -> bool:
        nonlocal last
        if group.rank == 0 and time.monotonic() - last >= every_s:
            check()
            storage.publish_bytes(state(), uri)
            last = time.monotonic()
        return False

    return save


def _group() -> Group:
    """The group of this worker; a process by itself is a group of one."""
    device = worker_device()
    if not torch.distributed.is_initialized():
        return Group(device=torch.device(device))
    from ray.train.torch import get_device

    # To a worker that was lent no card Ray Train names the first one.
    return Group.joined(device if device == "cpu" else get_device())


def _agreed(todo: list[Part], group: Group) -> list[Part]:
    """The list of the first worker: a slow listing must not let two workers disagree."""
    if group.world == 1:
        return todo
    shared: list[Any] = [todo]
    torch.distributed.broadcast_object_list(shared, src=0)
    return list(shared[0])
