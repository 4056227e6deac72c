"""The work of a trial: the nets of one fold after the other, their figures, and what a member takes over."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from cluster import settings, storage
from cluster.errors import AffuseError
from cluster.tables import PREDICTIONS
from fusion.metrics import metric
from fusion.tasks import Task
from fusion.training.loop import Group
from fusion.training.predicting import SHOWN, judged
from jobs.catalog.run_names import owner
from jobs.training import train_part
from jobs.training.loading import Library
from jobs.training.parts import Part
from jobs.training.run import (
    TrainConfig,
    choice_of,
    claim,
    identity,
    parts_of,
    request_of,
    run_uri,
    seeds_of,
)
from jobs.training.train_part import ROLES, Trained
from jobs.tuning.hold import Hold
from jobs.tuning.space import with_values
from jobs.tuning.trial_records import WORST, member_config, trial_uri

TrainRun = Callable[[Mapping[str, Any]], str]
"""Trains the missing parts of a run by its config in plain values; says its figures."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all trials of a search share."""

    library: Library
    base: TrainConfig
    steps: Sequence[Sequence[Part]]
    """The parts of each step."""

    score: str
    """Metric of the first task."""

    group: Group = field(default_factory=Group)
    train: TrainRun | None = None
    hold: Hold | None = None
    """Of the search on its name; None: nobody else can have it."""

    @property
    def task(self) -> tuple[str, Task]:
        """The first task, which trials are judged by."""
        return next(iter(self.library.tasks.items()))


class TrialWork:
    """One trial under way.

    Args:
        bench: what it shares with the others.
        number: of the trial.
        values: path of the space -> value.
        bar: with a score below it the nets of a finished trial become a run, which need not train them again.
        whole: whether that run is made complete at once.
    """

    def __init__(
        self,
        bench: Bench,
        number: int,
        values: Mapping[str, Any],
        bar: float = -math.inf,
        *,
        whole: bool = False,
    ) -> None:
        self.bench, self.number, self.values = bench, number, values
        self.bar, self.whole, self.has_run = bar, whole, False
        self.score = metric(bench.score)
        self.at = 0
        self.trained: list[Trained] = []
        self.began = time.monotonic()

    def step(self) -> dict[str, Any]:
        """Train the nets of one fold, and say how the trial stands."""
        try:
            config = with_values(self.bench.base, self.values)
            self._train(config)
            figures = self._figures()
            score = self.score.loss(figures.get(self.score.name, math.nan))
            if not math.isfinite(score):
                reason = (
                    f"{self.score.name} has no value on the rows that fold {self.at} is judged by"
                )
                return self._failed(reason)
            self.at += 1
            done = self.at == len(self.bench.steps)
            if done:
                self._publish(config)
                if score < self.bar:
                    self._publish_run(member_config(config, self.number))
        except AffuseError as error:
            return self._failed(str(error))
        facts = self._facts("finished" if done else "pruned")
        return {
            "score": score,
            "done": done,
            "figures": figures,
            "has_run": self.has_run,
            **facts,
        }

    def _train(self, config: TrainConfig) -> None:
        data, choice = self.bench.library.data(request_of(config)), choice_of(config)
        role = "valid" if config.folds is None else "oof"
        seeds = seeds_of(config)
        for part in (part for part in self.bench.steps[self.at] if part.seed in seeds):
            self.trained.append(
                train_part.train_part(
                    choice, data, part, config, group=self.bench.group, roles=(role,)
                )
            )

    def _failed(self, reason: str) -> dict[str, Any]:
        return {"score": WORST, "done": True, "error": reason, **self._facts("failed")}

    def _facts(self, state: str) -> dict[str, Any]:
        return {"state": state, "steps": self.at, "seconds": time.monotonic() - self.began}

    def _figures(self) -> dict[str, float]:
        """Mean over the nets of the figures of the first task, on rows that nobody trained on."""
        found: dict[str, list[float]] = {}
        name, task = self.bench.task
        shown = {self.score.name, *SHOWN[task.kind]}
        for item in self.trained:
            for predicted in item.roles.values():
                prediction, target = judged(predicted, name, task)
                for each in shown if len(target) else ():
                    found.setdefault(each, []).append(metric(each)(prediction, target))
        return {each: sum(values) / len(values) for each, values in sorted(found.items())}

    def _publish(self, config: TrainConfig) -> None:
        """The predictions of a finished trial."""
        base = self.bench.base
        data = self.bench.library.data(request_of(config))
        tables = [
            train_part.predictions_table(str(base.run), item.part, item.roles, data)
            for item in self.trained
        ]
        table = PREDICTIONS.conform(pa.concat_tables(tables))
        if self.bench.hold is not None:
            self.bench.hold.check()
        storage.publish_table(table, trial_uri(base, self.number, ".parquet"))

    def _publish_run(self, config: TrainConfig) -> None:
        """The nets of a finished trial as parts of the run that a member would be."""
        if owner(run_uri(config)) not in (None, {"identity": identity(config)}):
            return  # a member of an earlier start, with more seeds, or somebody else's run
        data, choice = self.bench.library.data(request_of(config)), choice_of(config)
        own = claim(config)
        for item in self.trained:
            group = self.bench.group
            others = [role for role in ROLES if role not in item.roles]
            found = train_part.predicted(choice, data, item.part, item.fitted, others, group)
            roles = {role: {**item.roles, **found}[role] for role in ROLES}
            whole = dataclasses.replace(item, roles=roles)
            facts = train_part.facts_of(str(config.run), whole, data)
            card = train_part.card_of(choice, data, facts)
            if owner(run_uri(config)) != own:
                return
            train_part.publish_part(config.root, str(config.run), whole, data, card)
        self.has_run = True
        if self.whole and self.bench.train is not None:
            self.bench.train(settings.to_mapping(config))


def steps_of(base: TrainConfig) -> list[list[Part]]:
    """The parts of each step of a trial: a fold (all seeds), or a seed where there are no folds."""
    parts = [part for part in parts_of(base) if part.fold is not None]
    if base.folds is None:
        return [[part] for part in parts]
    folds = sorted({part.fold for part in parts if part.fold is not None})
    return [[part for part in parts if part.fold == fold] for fold in folds]
