"""Hands a search to Ray Tune: features in the object store, one actor a CPU or share of a GPU."""

import dataclasses
import tempfile
from dataclasses import dataclass
from typing import Any

from cluster import settings, storage
from cluster.session import cluster_capacity
from jobs.catalog import layout
from jobs.training.loading import Library
from jobs.training.parts import Part
from jobs.training.run import TrainConfig, parts_of, request_of, run_uri
from jobs.tuning.quiet import quiet_tune
from jobs.tuning.space import BASELINE, Space


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How many trials are run, how many of them at once, and for how long."""

    trials: int
    time_s: float | None
    parallel: int | None
    """Trials at once; None: one a CPU, or as many as the GPUs hold."""

    gpu_share: float
    """Share of a GPU that a trial takes, where there are GPUs [0..1]."""

    prune: bool
    """Stop a trial that is not among the best after its first folds."""


def run_trials(
    base: TrainConfig, library: Library, searcher: Any, score: str, budget: Budget
) -> None:
    """Hand the trials to Ray Tune."""
    quiet_tune()
    from ray import tune

    from jobs.tuning import trainable as trials

    steps = steps_of(base)
    capacity = cluster_capacity()
    gpus = budget.gpu_share if capacity.gpus else 0.0
    parallel = budget.parallel or int(capacity.gpus / gpus if gpus else capacity.cpus)
    print(f"{parallel} trials at once, {f'{gpus:g} GPU' if gpus else '1 CPU'} each")
    trainable = tune.with_parameters(
        trials.Trial,
        library=library,
        base=settings.to_mapping(base),
        steps=steps,
        score=score,
    )
    with tempfile.TemporaryDirectory(prefix="af-tune-") as folder:
        local = storage.is_local(base.root)
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1, "gpu": gpus}),
            tune_config=tune.TuneConfig(
                metric="score",
                mode="min",
                search_alg=searcher,
                scheduler=trials.Pruner() if budget.prune else None,
                num_samples=budget.trials,
                max_concurrent_trials=max(1, parallel),
                time_budget_s=budget.time_s,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=folder if local else storage.join(run_uri(base), layout.RAY_STATE),
                verbose=0,
            ),
        )
        tuner.fit()


def steps_of(base: TrainConfig) -> list[list[Part]]:
    """The parts of each step of a trial: a fold (all seeds), or a seed where there are no folds."""
    parts = [part for part in parts_of(base) if part.fold is not None]
    if base.folds is None:
        return [[part] for part in parts]
    folds = sorted({part.fold for part in parts if part.fold is not None})
    return [[part for part in parts if part.fold == fold] for fold in folds]


def load_library(base: TrainConfig, space: Space) -> Library:
    """Read every input that a trial may ask for, once."""
    library = Library(request_of(base))
    nets = sorted({BASELINE, *space.values_of("net", base.net)})
    names = {n for some in space.values_of("inputs", list(base.inputs)) for n in some}
    for name in sorted(names):
        for pool in space.values_of("pool", base.pool):
            for how in space.values_of("normalise", base.normalise):
                for net in nets:
                    one = {"inputs": (name,), "pool": pool, "normalise": how, "net": net}
                    library.data(request_of(dataclasses.replace(base, **one, net_options={})))
    return library
