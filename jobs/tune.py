"""Search nets, inputs and hyper-parameters, then fuse the best runs.

Reads:  <root>/manifest/, <root>/features/<encoder>/, <root>/folds/  (never a row of the test split)
Writes: <root>/runs/<run>/  config.json, space.json, earlier.json, trials/, trials.parquet, importance.json,
        summary.json; <root>/runs/<run>-NNNNN/ of the best trials, as train writes them; <root>/bundles/<run>/

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
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from cluster import settings, storage
from cluster.errors import ConfigError, NotPreparedError
from cluster.session import ray_session
from cluster.settings import Place
from cluster.tracking import Tracker, run_tracker
from fusion.metrics import METRICS
from fusion.training.ordering import seed_of
from jobs import train
from jobs.catalog import layout
from jobs.catalog.manifest import read_dataset
from jobs.catalog.outputs import publish_config
from jobs.training.run import ELSEWHERE, TrainConfig, identity, run_uri
from jobs.tuning.deadline import Deadline
from jobs.tuning.earlier import starts_of
from jobs.tuning.first_answer import FUSING_S, FirstAnswer
from jobs.tuning.hold import Hold, hold_of
from jobs.tuning.keeping import SLACK, Keeping, Reserve, judged_procedure, kept, tidy
from jobs.tuning.run_trials import Budget, bench_of, run_trials
from jobs.tuning.space import Space, default_space, read_space
from jobs.tuning.standing import Standing
from jobs.tuning.suited import check_search
from jobs.tuning.trial_log import Live, show
from jobs.tuning.trial_records import (
    STATES,
    Record,
    baseline_of,
    importances,
    read_ledger,
    trials_table,
)
from jobs.tuning.turns import first_sets, input_cycle

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

ALSO_ELSEWHERE = (
    "ensemble", "fresh", "gpu_share", "keep", "member_seeds", "minutes", "parallel", "stale", "trials",
)  # fmt: skip
"""Fields that may change from one start of a search to the next."""


@dataclass(frozen=True, kw_only=True)
class Config(TrainConfig):
    """What is searched; a field of train is fixed unless the space names it."""

    space: Place | None = None
    """YAML file of the search space; by default nets, subsets of the inputs, and how they are trained, on
    the mean of a clip's steps, or mean and spread, unless --pool is given."""

    trials: int = 50
    """Number of trials, those of earlier starts of the same search included."""

    minutes: float | None = None
    """Time that the whole job may take, its start, the members' further seeds and the last fusion included
    [min]; the linear models and the last fusion are made in any case. By default it ends by --trials and
    --stale."""

    stale: int = 20
    """Trials without a gain after which the search ends: the members fused, compared by group with those of
    the trials before, gain no more than their standard error. 0: never."""

    search: Literal["optuna", "random"] = "optuna"
    """How trials are proposed. optuna: more of them where earlier trials were good. random: independently."""

    search_seed: int = 0
    """Seed of the search."""

    fresh: bool = False
    """Do not begin with what earlier searches of this root found."""

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
        if self.stale < 0 or (self.minutes is not None and not self.minutes > 0):
            raise ConfigError(
                f"--stale {self.stale} --minutes {self.minutes}: expected 0 or more, and above 0"
            )
        if self.score is not None and self.score not in METRICS:
            raise ConfigError(f"--score {self.score}: {settings.nearest(self.score, [*METRICS])}")


@dataclass(frozen=True, kw_only=True)
class SearchJob:
    """A search under way."""

    config: Config
    base: TrainConfig
    """Train's part of the config, named."""

    space: Space
    tracker: Tracker
    deadline: Deadline
    hold: Hold

    @property
    def sets(self) -> list[list[str]]:
        """The sets of inputs."""
        return [list(some) for some in self.space.values_of("inputs", list(self.base.inputs))]


def main(config: Config) -> None:
    """Search, keep the best as runs, fuse them."""
    deadline = Deadline.of_minutes(config.minutes)
    config = dataclasses.replace(config, root=storage.absolute(config.root))
    space_values = space_of(config)
    base = base_of(config, space_values)
    space = read_space(space_values, base)
    check_search(base, space, config.score)
    train.check_rows(base)
    hold = claim(config, base, space_values)
    print(f"run {base.run}: {len(space.dimensions)} dimensions")
    folder = run_uri(base)
    with run_tracker(config.root, folder, enabled=config.tracking) as tracker:
        tracker.start(str(base.run), settings.to_mapping(config), kind="tune")
        job = SearchJob(
            config=config, base=base, space=space, tracker=tracker, deadline=deadline, hold=hold
        )
        with ExitStack() as ends:
            searched = search(job, ends)
            hold.check()
            summary = keep_best(job, searched)
        hold.check()
        storage.publish_json(summary, storage.join(folder, layout.SUMMARY))
        tracker.finish(summary)
        tracker.artefacts((layout.SPACE, layout.IMPORTANCE))
    show(summary)
    if config.ensemble:
        fuse(config, base, [member["run"] for member in summary["members"]])
    print(f"wrote {folder} in {deadline.said}")


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


def claim(config: Config, base: TrainConfig, space_values: Mapping[str, Any]) -> Hold:
    """Write config and space, or find the same ones.

    Raises:
        ConfigError: the name belongs to another search.
    """
    folder = run_uri(base)
    mapping = {**settings.to_mapping(config), "run": base.run}
    same = {k: v for k, v in mapping.items() if k not in (*ELSEWHERE, *ALSO_ELSEWHERE)}
    hold = hold_of(base, {"config": {**same, "space": space_values}, "identity": identity(base)})
    publish_config(dataclasses.replace(config, run=base.run), folder)
    storage.publish_json(space_values, storage.join(folder, layout.SPACE))
    return hold


@dataclass(frozen=True, kw_only=True)
class SearchEnd:
    """How a search ended."""

    left_out: Sequence[str] = ()
    """Trials that were not run, and why."""

    fusing_s: float = FUSING_S
    """How long a fusion takes [s]."""


def search(job: SearchJob, ends: ExitStack) -> SearchEnd:
    """Run the trials that are missing, in a Ray session that `ends` closes."""
    from jobs.tuning.ending import Ending, Patience

    config, base = job.config, job.base
    ledger = read_ledger(base)
    todo = config.trials - len(ledger)
    if todo <= 0:
        print(f"nothing to search: {len(ledger)} trials are there")
        return SearchEnd()
    sets = job.sets
    bench = bench_of(base, job.space, config.score, train.train_without_printing, job.hold)
    # Every set has had its turn before nothing is expected of the next one.
    stale = config.stale and max(config.stale, len(sets))
    patience = Patience(base, bench.task, keep=config.keep, patience=stale, first=len(sets))
    patience.go_on(ledger)
    if patience.is_over:
        print(f"nothing to search: {patience.said}")
        return SearchEnd(left_out=[f"{todo} trials ({patience.said})"])
    print(f"{todo} trials to run" + (f", {len(ledger)} are there" if ledger else ""))
    ends.enter_context(ray_session(config.session))
    count = min(config.trials, len(first_sets(sets)))
    first = FirstAnswer(base, count, partial(fuse, config, base) if config.ensemble else None)
    first.go_on(ledger)
    standing = Standing(base, config.keep, ledger)
    live = Live(config.trials, ledger, bench.score, job.tracker, base)

    def ended(record: Record) -> None:
        for see in (live, patience.see, first.see):
            see(record)

    reserve = Reserve(base, standing, keeping_of(config), job.deadline)
    ending = Ending(lambda: 0 if job.hold.is_lost else reserve.left_s(first), patience)
    budget = Budget(
        trials=todo, parallel=config.parallel, gpu_share=config.gpu_share, prune=config.prune
    )
    if ending.reason is None:
        run_trials(bench, searcher_of(job, ledger, ended, standing), ending, budget)
    left = config.trials - len(read_ledger(base))
    why = [f"{left} trials ({ending.reason})"] if left > 0 and ending.reason else []
    return SearchEnd(left_out=why, fusing_s=first.fusing_s)


def searcher_of(
    job: SearchJob, ledger: Sequence[Record], ended: Callable[[Record], None], standing: Standing
) -> Any:
    """What proposes the trials, by seeds that are those of their numbers."""
    from jobs.tuning import trainable

    def sampler(number: int) -> "BaseSampler":
        seed = seed_of(job.config.search_seed, number) % 2**32
        return trainable.sampler_of(job.config.search, seed)

    turns = input_cycle(job.sets)
    starts = starts_of(job.base, job.space, turns, score=job.config.score, fresh=job.config.fresh)
    found = trainable.Search(job.space, job.base, sampler, ledger, ended, standing, starts)
    return found.held_by(job.hold)


def keep_best(job: SearchJob, searched: SearchEnd) -> dict[str, Any]:
    """Make runs of the best trials, and give the figures of the whole procedure."""
    config, base, folder = job.config, job.base, run_uri(job.base)
    ledger = read_ledger(base)
    finished = [record for record in ledger if record.state == "finished"]
    if not finished:
        reasons = {record.error for record in ledger if record.error}
        why = "; ".join(reasons) or "the time was too short; give --minutes more"
        raise NotPreparedError(f"no trial of {base.run!r} was finished: {why}")
    storage.publish_table(trials_table(ledger), storage.join(folder, layout.TRIALS))
    shares = importances(ledger)
    storage.publish_json(shares, storage.join(folder, layout.IMPORTANCE))
    left_s = job.deadline.left_s(SLACK * searched.fusing_s)
    found = kept(base, finished, keeping_of(config), left_s)
    tidy(base, finished, found.configs)
    by_number = {record.number: record for record in finished}
    return {
        "run": base.run,
        "kind": "tune",
        "trials": {state: sum(r.state == state for r in ledger) for state in STATES},
        "seconds": round(sum(record.seconds for record in ledger), 1),
        "left_out": [*searched.left_out, *found.left_out],
        "best": dataclasses.asdict(min(finished, key=lambda record: record.score)),
        "baseline": baseline_of(finished),
        "members": [
            {
                "run": one.run,
                "score": by_number[number].score,
                "seeds": list(one.seeds),
                "values": dict(by_number[number].values),
            }
            for number, one in found.configs.items()
        ],
        "importance": shares,
        "procedure": judged_procedure(base, finished, config.keep),
    }


def keeping_of(config: Config) -> Keeping:
    """How members are made."""
    return Keeping(
        keep=config.keep,
        seeds=config.member_seeds,
        gpu_share=config.gpu_share,
        session=config.session,
        train=train.train_without_printing,
    )


def fuse(config: Config, base: TrainConfig, runs: Sequence[str]) -> None:
    """Fit the default late fusion on the held-out rows of some runs, for the first task; write a bundle."""
    from jobs import ensemble

    task = next(iter(config.tasks or read_dataset(base.root).tasks))
    ensemble.main(
        ensemble.Config(
            root=base.root, runs=tuple(runs), bundle=str(base.run), task=task, tracking=config.tracking,
        )
    )  # fmt: skip
