"""Hands a search to Ray Tune: features in the object store, one actor a CPU or share of a GPU."""

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any

from cluster import settings, storage
from cluster.scratch import scratch_folder
from cluster.session import cluster_capacity
from jobs.catalog import layout
from jobs.evaluation.cross_fitting import SELECTION_METRICS
from jobs.evaluation.leaks import warn_of_leaks
from jobs.training.loading import Library
from jobs.training.run import TrainConfig, request_of, run_uri
from jobs.tuning.hold import Hold
from jobs.tuning.quiet import quiet_tune
from jobs.tuning.space import BASELINE, Space
from jobs.tuning.work import Bench, TrainRun, steps_of


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How many trials are run, and how many of them at once."""

    trials: int
    parallel: int | None
    """Trials at once; None: one a CPU, or as many as the GPUs hold."""

    gpu_share: float
    """Share of a GPU that a trial takes, where there are GPUs [0..1]."""

    prune: bool
    """Stop a trial that is not among the best after its first folds."""


def run_trials(bench: Bench, searcher: Any, ending: Any, budget: Budget) -> None:
    """Hand the trials to Ray Tune.

    Args:
        bench: what the trials share.
        searcher: proposes and records them.
        ending: says when none goes on.
        budget: how many.
    """
    quiet_tune()
    from ray import tune

    from jobs.tuning import trainable as trials

    base = bench.base
    capacity = cluster_capacity()
    gpus = budget.gpu_share if capacity.gpus else 0.0
    parallel = budget.parallel or int(capacity.gpus / gpus if gpus else capacity.cpus)
    print(f"{parallel} trials at once, {f'{gpus:g} GPU' if gpus else '1 CPU'} each")
    trainable = tune.with_parameters(
        trials.Trial,
        library=bench.library,
        base=settings.to_mapping(base),
        steps=bench.steps,
        score=bench.score,
        train=bench.train,
        hold=bench.hold,
    )
    with scratch_folder() as folder:
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
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=folder if local else storage.join(run_uri(base), layout.RAY_STATE),
                verbose=0,
                stop=ending,
            ),
        )
        tuner.fit()


def bench_of(
    base: TrainConfig, space: Space, score: str | None, train: TrainRun, hold: Hold | None = None
) -> Bench:
    """What the trials share: features, folds, and the metric that judges them.

    Args:
        base: the search's config of train.
        space: what is searched.
        score: the metric; None: the proper score of the first task's kind.
        train: trains the missing parts of a run.
        hold: of the search on its name.
    """
    sets = space.values_of("inputs", list(base.inputs))
    inputs = {n for some in sets for n in some}
    warn_of_leaks(base.root, sorted(inputs), base.tasks)
    library = load_library(base, space)
    task = next(iter(library.tasks.values()))
    score = score or SELECTION_METRICS[task.kind]
    return Bench(
        library=library, base=base, steps=steps_of(base), score=score, train=train, hold=hold
    )


def load_library(base: TrainConfig, space: Space) -> Library:
    """Read every input that a trial may ask for, once."""
    library = Library(request_of(base))
    nets = sorted({BASELINE, *space.values_of("net", base.net)})
    names = {n for some in space.values_of("inputs", list(base.inputs)) for n in some}
    asked = itertools.product(
        [(name,) for name in sorted(names)],
        space.values_of("pool", base.pool),
        space.values_of("normalise", base.normalise),
        space.values_of("views", base.views),
        nets,
    )
    for values in asked:
        one = dict(zip(("inputs", "pool", "normalise", "views", "net"), values, strict=True))
        library.data(request_of(dataclasses.replace(base, **one, net_options={})))
    return library
