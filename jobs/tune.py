"""Search nets, inputs and hyper-parameters, then fuse the best runs.

Reads:  <root>/manifest/, <root>/features/<encoder>/, <root>/folds/  (never a row of the test split)
Writes: <root>/runs/<run>/  config.json, space.json, trials/, trials.parquet, importance.json, summary.json;
        <root>/runs/<run>-NNNNN/ of the best trials, as train writes them; <root>/bundles/<run>/

Laptop:   affuse tune --root data/ravdess --inputs whisper_tiny_en egemaps --folds subject --trials 50
Space:    affuse tune --root data/ravdess --inputs minilm egemaps --folds subject --space space.yaml
Cluster:  affuse submit --address URL -- tune --root s3://bucket/mosei --inputs bert_base

A space in five lines of YAML (a list: one of these; a range: int, float or log; else fixed):
    net: [lmf, gated]
    inputs: [[minilm], [egemaps], [minilm, egemaps]]
    lr: {log: [1e-4, 1e-2]}
    lmf.rank: {int: [1, 8]}
    preset: true
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cluster import console, settings, storage
from cluster.console import Table
from cluster.errors import AffuseError, ConfigError, NotPreparedError
from cluster.session import cluster_capacity, ray_session
from cluster.settings import Place
from cluster.tracking import Tracker, run_tracker
from fusion.metrics import METRICS, metric
from fusion.training.ordering import seed_of
from jobs import train
from jobs.catalog import layout
from jobs.catalog.groups import groups_of
from jobs.catalog.manifest import read_dataset
from jobs.catalog.outputs import publish_config
from jobs.catalog.run_names import free
from jobs.evaluation.cross_fitting import SELECTION_METRICS
from jobs.evaluation.leaks import warn_of_leaks
from jobs.training.run import ELSEWHERE, TrainConfig, identity, is_complete, run_uri
from jobs.tuning.member_selection import held_trials, members_of, procedure
from jobs.tuning.run_trials import Budget, load_library, run_trials
from jobs.tuning.space import Space, default_space, read_space, with_values
from jobs.tuning.trial_log import Live, describe
from jobs.tuning.trial_records import (
    STATES,
    baseline_of,
    importances,
    read_ledger,
    trial_uri,
    trials_table,
)

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

ALSO_ELSEWHERE = (
    "ensemble",
    "gpu_share",
    "keep",
    "member_seeds",
    "parallel",
    "time_s",
    "trials",
)
"""Fields that may change from one start of a search to the next."""


@dataclass(frozen=True, kw_only=True)
class Config(TrainConfig):
    """What is searched; a field of train is fixed unless the space names it."""

    space: Place | None = None
    """YAML file of the search space; by default nets, subsets of the inputs, and how they are trained."""

    trials: int = 50
    """Number of trials, those of earlier starts of the same search included."""

    time_s: float | None = None
    """Time after which the search ends [s]; trials under way are dropped."""

    search: Literal["optuna", "random"] = "optuna"
    """How trials are proposed. optuna: more of them where earlier trials were good. random: independently."""

    search_seed: int = 0
    """Seed of the search."""

    score: str | None = None
    """Metric of the first task to optimise; by default nll, multilabel_nll or mse."""

    prune: bool = True
    """Stop a trial after 1 or 3 folds unless it is in the best third of its inputs (ASHA)."""

    keep: int = 8
    """Number of trials that become runs: the best one of each set of inputs first, then the best of the
    rest."""

    member_seeds: tuple[int, ...] = (0, 1, 2)
    """Further seeds that kept trials are trained with: a member is the mean of its seeds."""

    ensemble: bool = True
    """Fuse the kept runs into a bundle of the run's name."""

    parallel: int | None = None
    """Trials that run at once; by default one a CPU, or as many as the GPUs hold."""

    gpu_share: float = 0.25
    """Share of a GPU that a trial takes, where there are GPUs [0..1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trials < 1 or self.keep < 1:
            raise ConfigError(
                f"--trials {self.trials} --keep {self.keep}: expected 1 or more of each"
            )
        if self.score is not None and self.score not in METRICS:
            raise ConfigError(f"--score {self.score}: {settings.nearest(self.score, [*METRICS])}")


def main(config: Config) -> None:
    """Search, keep the best as runs, fuse them."""
    start = time.monotonic()
    config = dataclasses.replace(config, root=storage.absolute(config.root))
    space_values = space_of(config)
    base = base_of(config, space_values)
    space = read_space(space_values, base)
    train.check_rows(base)
    claim(config, base, space_values)
    print(f"run {base.run}: {len(space.dimensions)} dimensions")
    folder = run_uri(base)
    with run_tracker(config.root, folder, enabled=config.tracking) as tracker:
        tracker.start(str(base.run), settings.to_mapping(config), kind="tune")
        search(config, base, space, tracker)
        summary = keep_best(config, base)
        storage.publish_json(summary, storage.join(folder, layout.SUMMARY))
        tracker.finish(summary)
        tracker.artefacts((layout.SPACE, layout.IMPORTANCE))
    show(summary)
    if config.ensemble:
        fuse(config, base, summary)
    print(f"wrote {folder} in {time.monotonic() - start:.1f} s")


def space_of(config: Config) -> dict[str, Any]:
    """The space of the file, or the default one."""
    if config.space is not None:
        return settings.read_mapping(config.space, flag="--space")
    tasks = read_dataset(config.root).tasks
    kinds = [task.kind for name, task in tasks.items() if name in (config.tasks or tasks)]
    return default_space(config, kinds)


def base_of(config: Config, space_values: Mapping[str, Any]) -> TrainConfig:
    """Train's part of the config, named."""
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(TrainConfig)}
    base = TrainConfig(**fields)
    if base.run is None:
        names = ("search", "search_seed", "score", "prune")
        shape = {"space": space_values, **{name: getattr(config, name) for name in names}}
        base = dataclasses.replace(base, run=f"tune-{identity(base, shape)}")
    return base


def claim(config: Config, base: TrainConfig, space_values: Mapping[str, Any]) -> None:
    """Write config and space, or find the same ones.

    Raises:
        ConfigError: the name belongs to another search.
    """
    folder = run_uri(base)
    mapping = {**settings.to_mapping(config), "run": base.run}
    same = {k: v for k, v in mapping.items() if k not in (*ELSEWHERE, *ALSO_ELSEWHERE)}
    made_of = {"config": {**same, "space": space_values}, "identity": identity(base)}
    mark = storage.join(folder, layout.IDENTITY)
    free(folder)
    if storage.exists(mark) and storage.read_json(mark) != made_of:
        raise ConfigError(
            f"run {base.run!r} is there already, as another search or of another manifest; "
            "type another --run"
        )
    storage.publish_json(made_of, mark)
    publish_config(dataclasses.replace(config, run=base.run), folder)
    storage.publish_json(space_values, storage.join(folder, layout.SPACE))


def search(config: Config, base: TrainConfig, space: Space, tracker: Tracker) -> None:
    """Run the trials that are missing."""
    from jobs.tuning import trainable

    ledger = read_ledger(base)
    todo = config.trials - len(ledger)
    if todo <= 0:
        print(f"nothing to search: {len(ledger)} trials are there")
        return
    print(f"{todo} trials to run" + (f", {len(ledger)} are there" if ledger else ""))
    names = {name for some in space.values_of("inputs", list(base.inputs)) for name in some}
    warn_of_leaks(base.root, sorted(names), base.tasks)
    library = load_library(base, space)
    with ray_session(config.session):
        name, task = next(iter(library.tasks.items()))
        score = config.score or SELECTION_METRICS[task.kind]
        if metric(score).kind != task.kind:
            raise ConfigError(f"--score {score} judges no {task.kind}, which {name!r} is")
        live = Live(config.trials, ledger, score, tracker, base)

        def sampler(number: int) -> "BaseSampler":
            return trainable.sampler_of(config.search, seed_of(config.search_seed, number) % 2**32)

        searcher = trainable.Search(space, base, sampler, ledger, live)
        budget = Budget(
            trials=todo,
            time_s=config.time_s,
            parallel=config.parallel,
            gpu_share=config.gpu_share,
            prune=config.prune,
        )
        run_trials(base, library, searcher, score, budget)


def keep_best(config: Config, base: TrainConfig) -> dict[str, Any]:
    """Make runs of the best trials, and print the figures of the whole procedure."""
    folder = run_uri(base)
    ledger = read_ledger(base)
    finished = [record for record in ledger if record.state == "finished"]
    if not finished:
        reasons = {record.error for record in ledger if record.error}
        why = "; ".join(reasons) or "the time was too short; give --time-s more"
        raise NotPreparedError(f"no trial of {base.run!r} was finished: {why}")
    storage.publish_table(trials_table(ledger), storage.join(folder, layout.TRIALS))
    shares = importances(ledger)
    storage.publish_json(shares, storage.join(folder, layout.IMPORTANCE))
    by_number = {record.number: record for record in finished}
    scores = {record.number: record.score for record in finished}
    numbers = members_of(finished, scores, config.keep)
    best = min(finished, key=lambda record: record.score)
    members = {
        f"{base.run}-{number:05d}": with_values(base, by_number[number].values)
        for number in numbers
    }
    members = train_members(config, base, members)
    return {
        "run": base.run,
        "kind": "tune",
        "trials": {state: sum(r.state == state for r in ledger) for state in STATES},
        "seconds": round(sum(record.seconds for record in ledger), 1),
        "best": dataclasses.asdict(best),
        "baseline": baseline_of(finished),
        "members": [
            {"run": name, "score": scores[number], "values": dict(by_number[number].values)}
            for number in numbers
            if (name := f"{base.run}-{number:05d}") in members
        ],
        "importance": shares,
        "procedure": judged_procedure(config, base, finished),
    }


def train_members(
    config: Config, base: TrainConfig, members: Mapping[str, TrainConfig]
) -> dict[str, TrainConfig]:
    """Train the kept configurations with all member seeds, several at a time.

    The seeds of the search give the nets of the search again, bit by bit.

    Returns:
        Those that could be trained: with a seed that the search has not seen a net may diverge.

    Raises:
        AffuseError: that of the last member, where none could be trained.
    """
    seeds = tuple(dict.fromkeys([*base.seeds, *config.member_seeds]))
    chosen = {
        name: dataclasses.replace(each, run=name, seeds=seeds, tracking=False, workers=0)
        for name, each in members.items()
    }
    todo = {name: one for name, one in chosen.items() if not is_complete(one)}
    if not todo:
        return dict(members)
    print(f"{len(todo)} members to train with seeds {list(seeds)}")
    failed: dict[str, AffuseError] = {}
    with ray_session(config.session):
        import ray

        gpus = config.gpu_share if cluster_capacity().gpus else 0.0
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=1)(train.train_without_printing)
        waiting = {task.remote(settings.to_mapping(one)): name for name, one in todo.items()}
        while waiting:
            (ready,), _ = ray.wait(list(waiting))
            name = waiting.pop(ready)
            try:
                print(f"  {ray.get(ready)}, {len(waiting)} left", flush=True)
            except ray.exceptions.RayTaskError as error:
                if not isinstance(error.cause, AffuseError):
                    raise
                failed[name] = error.cause
                print(f"  {name} is left out: {error.cause}, {len(waiting)} left", flush=True)
    if len(failed) == len(members):
        raise next(iter(failed.values()))
    return {name: one for name, one in members.items() if name not in failed}


def judged_procedure(
    config: Config, base: TrainConfig, finished: Sequence[Any]
) -> dict[str, Any] | None:
    """The figures of choosing and fusing, fold by fold; None without folds."""
    if base.folds is None:
        return None

    tasks = read_dataset(base.root).tasks
    name = base.tasks[0] if base.tasks else next(iter(tasks))
    files = {record.number: trial_uri(base, record.number, ".parquet") for record in finished}
    held = held_trials(files, name, tasks[name])
    held = dataclasses.replace(held, group=groups_of(base.root, held.clip_id))
    found = procedure(held, finished, tasks[name], config.keep)
    return {
        "figures": dict(found.figures),
        "members": {str(k): v for k, v in found.members.items()},
    }


def show(summary: Mapping[str, Any]) -> None:
    """Print the kept runs and what mattered."""
    table = Table(title=f"{summary['run']}: {summary['trials']}")
    for column in ("run", "score", "what"):
        table.add_column(column)
    for member in summary["members"]:
        table.add_row(member["run"], f"{member['score']:.4f}", describe(member["values"]))
    console.show(table)
    if baseline := summary["baseline"]:
        score, what = baseline["score"], describe(baseline["values"])
        console.show(f"{what}, of the same features: {score:.4f} (trial {baseline['number']})")
    shares = sorted(summary["importance"].items(), key=lambda item: -item[1])
    if shares:
        text = ", ".join(f"{name} {share:.0%}" for name, share in shares[:5])
        console.show(f"what mattered: {text}")
    if summary["procedure"]:
        figures = summary["procedure"]["figures"].items()
        text = ", ".join(f"{name} {value:.3f}" for name, value in figures)
        console.show(f"members and fusion chosen without the fold they are judged on: {text}")


def fuse(config: Config, base: TrainConfig, summary: Mapping[str, Any]) -> None:
    """Fit the default late fusion on the held-out rows of the kept runs; write a bundle."""
    from jobs import ensemble

    runs = tuple(member["run"] for member in summary["members"])
    task = config.tasks[0] if config.tasks else None
    ensemble.main(ensemble.Config(root=base.root, runs=runs, bundle=str(base.run), task=task))
