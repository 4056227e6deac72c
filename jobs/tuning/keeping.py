"""The members of a search: the best trials as runs, trained with further seeds as far as the time goes."""

import dataclasses
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster import settings, storage
from cluster.errors import AffuseError, NotPreparedError
from cluster.session import SessionConfig, cluster_capacity, ray_session
from jobs.catalog import layout
from jobs.catalog.groups import groups_of
from jobs.catalog.manifest import read_dataset
from jobs.catalog.run_names import owner
from jobs.training.run import TrainConfig, grown, identity, is_complete, seeds_of
from jobs.tuning.deadline import Deadline
from jobs.tuning.first_answer import FirstAnswer
from jobs.tuning.member_selection import held_trials, members_of, procedure
from jobs.tuning.space import with_values
from jobs.tuning.standing import Standing
from jobs.tuning.trial_records import Record, member_config, member_name, trial_uri
from jobs.tuning.work import TrainRun

SLACK = 1.2
"""Factor on the time that nets are foreseen to take."""


SHARE = 0.35
"""Of the time of a job, at most so much is kept for further seeds of the members while trials run."""


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """How members are made."""

    keep: int
    """How many at most."""

    seeds: tuple[int, ...]
    """Further seeds, as far as the time goes."""

    gpu_share: float
    """Share of a GPU that each takes, where there are GPUs [0..1]."""

    session: SessionConfig
    train: TrainRun

    @property
    def gpus(self) -> float:
        """What each takes of the GPUs of the session that is open."""
        return self.gpu_share if cluster_capacity().gpus else 0.0

    @property
    def parallel(self) -> int:
        """Members at once, in the session that is open."""
        capacity = cluster_capacity()
        return max(1, int(capacity.gpus / self.gpus if self.gpus else capacity.cpus))


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The members of a search."""

    configs: Mapping[int, TrainConfig]
    """Number of the trial -> its run, best first."""

    left_out: Sequence[str]
    """What there was no time for, or what could not be trained."""


def kept(
    base: TrainConfig, finished: Sequence[Record], how: Keeping, left_s: float = math.inf
) -> Kept:
    """Train the best configurations with further seeds.

    The nets of the search are not trained again where they were kept.

    Args:
        base: the search's config of train.
        finished: its trials.
        how: members are made.
        left_s: time for it [s].

    Raises:
        AffuseError: that of the last member, where none could be trained.
    """
    numbers = members_of(finished, {r.number: r.score for r in finished}, how.keep)
    by_number = {record.number: record for record in finished}
    some = [by_number[number] for number in numbers]
    plain = {record.number: with_values(base, record.values) for record in some}
    seeds = how.seeds
    if math.isfinite(left_s) and need_s(some, plain, how.seeds) > 0:
        with ray_session(how.session):
            seeds = affordable(some, plain, how.seeds, left_s * how.parallel / SLACK)
    without = [seed for seed in how.seeds if seed not in seeds]
    left_out = [f"seeds {without} of the members"] if without else []
    chosen = {number: grown(member_config(one, number, seeds)) for number, one in plain.items()}
    failed = train_all({n: one for n, one in chosen.items() if not is_complete(one)}, how, left_s)
    left_out += [f"{chosen[number].run} ({error})" for number, error in failed.items()]
    if len(failed) == len(chosen):
        raise next(iter(failed.values()))
    return Kept(
        configs={number: one for number, one in chosen.items() if number not in failed},
        left_out=left_out,
    )


def affordable(
    records: Sequence[Record],
    configs: Mapping[int, TrainConfig],
    seeds: tuple[int, ...],
    left_s: float,
) -> tuple[int, ...]:
    """The further seeds that all members can be trained with in a time, by what their trials took.

    Args:
        records: of the members.
        configs: number of the trial -> config.
        seeds: that are wanted, the first ones first.
        left_s: time of one worker [s].
    """
    for count in range(len(seeds), 0, -1):
        if need_s(records, configs, seeds[:count]) <= max(0.0, left_s):
            return seeds[:count]
    return ()


def need_s(
    records: Sequence[Record], configs: Mapping[int, TrainConfig], seeds: tuple[int, ...]
) -> float:
    """What one worker takes to train the nets of further seeds, and all refits [s]."""
    need = 0.0
    for record in records:
        config = configs[record.number]
        member = member_config(config, record.number, seeds)
        if is_complete(member):
            continue
        own, more = seeds_of(config), seeds_of(member)
        nets = len(more) * (record.steps + 1) - len(own) * record.steps
        need += nets * record.seconds / max(1, record.steps * len(own))
    return need


class Reserve:
    """The time that is kept for the members and the last fusion while trials run.

    Args:
        base: the search's config of train.
        standing: who the members would be.
        how: they are made.
        deadline: of the whole job.
    """

    def __init__(
        self, base: TrainConfig, standing: Standing, how: Keeping, deadline: Deadline
    ) -> None:
        self.base, self.standing, self.how, self.deadline = base, standing, how, deadline
        self.known: dict[int, float] = {}

    def left_s(self, first: FirstAnswer) -> float:
        """Time that is left for trials; the first answer is given whatever time it takes [s]."""
        if first.is_waiting or self.deadline.budget_s is None:
            return math.inf
        most_s = SHARE * self.deadline.budget_s
        return self.deadline.left_s(first.fusing_s + min(most_s, self.members_s))

    @property
    def members_s(self) -> float:
        """For further seeds and refits of the members of now [s]."""
        finished = self.standing.finished
        if len(finished) not in self.known:
            members = set(self.standing.members)
            some = [record for record in finished if record.number in members]
            configs = {record.number: with_values(self.base, record.values) for record in some}
            need = need_s(some, configs, self.how.seeds)
            self.known[len(finished)] = SLACK * need / self.how.parallel
        return self.known[len(finished)]


def train_all(
    todo: Mapping[int, TrainConfig], how: Keeping, left_s: float
) -> dict[int, AffuseError]:
    """Train some runs, several at a time.

    Returns:
        Why some have not become complete: with a seed that the search has not seen a net may diverge, and
        the time may end.
    """
    if not todo:
        return {}
    print(f"{len(todo)} members to train")
    failed: dict[int, AffuseError] = {}
    began = time.monotonic()
    with ray_session(how.session):
        import ray

        task = ray.remote(num_cpus=1, num_gpus=how.gpus, max_retries=1)(how.train)
        waiting = {task.remote(settings.to_mapping(one)): number for number, one in todo.items()}
        while waiting:
            left = left_s - (time.monotonic() - began)
            ready, _ = ray.wait(
                list(waiting), timeout=max(0, left) if math.isfinite(left) else None
            )
            for each in ready:
                number = waiting.pop(each)
                try:
                    print(f"  {ray.get(each)}, {len(waiting)} left", flush=True)
                except ray.exceptions.RayTaskError as error:
                    if not isinstance(error.cause, AffuseError):
                        raise
                    failed[number] = error.cause
                    name = todo[number].run
                    print(f"  {name} is left out: {error.cause}, {len(waiting)} left", flush=True)
            if not ready:
                for each, number in waiting.items():
                    ray.cancel(each, force=True)
                    failed[number] = NotPreparedError("the time is up")
                break
    return failed


def judged_procedure(
    base: TrainConfig, finished: Sequence[Record], keep: int
) -> dict[str, Any] | None:
    """The figures of choosing and fusing, fold by fold; None without folds."""
    if base.folds is None:
        return None
    tasks = read_dataset(base.root).tasks
    name = base.tasks[0] if base.tasks else next(iter(tasks))
    files = {record.number: trial_uri(base, record.number, ".parquet") for record in finished}
    held = held_trials(files, name, tasks[name])
    held = dataclasses.replace(held, group=groups_of(base.root, held.clip_id))
    found = procedure(held, finished, tasks[name], keep)
    return {
        "figures": dict(found.figures),
        "members": {str(k): v for k, v in found.members.items()},
    }


def tidy(base: TrainConfig, finished: Sequence[Record], members: Collection[int]) -> None:
    """Remove nets of trials that are no members, which an earlier start left behind."""
    for record in finished:
        folder = layout.run_uri(base.root, member_name(base, record.number))
        own = None if record.number in members else owner(folder)
        if own is None or storage.exists(storage.join(folder, layout.SUMMARY)):
            continue
        if own == {
            "identity": identity(member_config(with_values(base, record.values), record.number))
        }:
            storage.remove_tree(folder)
