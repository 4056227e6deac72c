"""What runs inside Ray Tune: the actor that trains trials, and the search that proposes and records them.

One trial is all folds of a configuration, one fold a step, so that a bad one is stopped after its first
folds. Actors are kept from trial to trial and share the features in Ray's object store. Every trial that ends
gets a file in `<root>/runs/<run>/trials/`; a search that was killed reads these files and goes on.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import optuna
import pyarrow as pa
import torch
from optuna.distributions import distribution_to_json
from optuna.trial import TrialState
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cluster import settings, storage
from cluster.errors import AffuseError
from cluster.tables import PREDICTIONS
from fusion.metrics import metric
from fusion.training.loop import Group
from fusion.training.predicting import SHOWN, judged
from jobs.training import train_part
from jobs.training.loading import Library
from jobs.training.parts import Part
from jobs.training.run import TrainConfig, choice_of, request_of, seeds_of
from jobs.training.train_part import Trained
from jobs.tuning.space import BASELINE, Space, with_values
from jobs.tuning.trial_records import STATES, Record, frozen, trial_uri

RUNGS = (1, 3, 9)
"""Folds after which a trial may be stopped."""

WORST = 1e9
"""The score of a trial that diverged or could not be trained; finite, because Tune compares it."""


class Trial(tune.Trainable):  # type: ignore[misc]
    """Trains one configuration after the other in the same process."""

    def setup(
        self,
        config: dict[str, Any],
        library: Library | None = None,
        base: Mapping[str, Any] | None = None,
        steps: Sequence[Sequence[Part]] = (),
        score: str = "",
    ) -> None:
        """Once an actor.

        Args:
            config: number and values of the first trial.
            library: the features, from the object store.
            base: train's config as a mapping.
            steps: the parts of each step.
            score: metric of the first task.
        """
        assert library is not None
        assert base is not None
        torch.set_num_threads(1)
        self.library, self.parts, self.score = library, steps, metric(score)
        self.base = settings.from_mapping(TrainConfig, base)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.group = Group(device=device)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial."""
        self.trial = new_config
        self.at = 0
        self.trained: list[Trained] = []
        self.began = time.monotonic()
        return True

    def step(self) -> dict[str, Any]:
        """Train the nets of one fold."""
        try:
            config = with_values(self.base, self.trial["values"])
            data = self.library.data(request_of(config))
            role = "valid" if config.folds is None else "oof"
            seeds = seeds_of(config)
            for part in (part for part in self.parts[self.at] if part.seed in seeds):
                self.trained.append(
                    train_part.train_part(
                        choice_of(config), data, part, config, group=self.group, roles=(role,)
                    )
                )
        except AffuseError as error:
            return {"score": WORST, "done": True, "error": str(error), **self._facts("failed")}
        figures = self._figures()
        score = self.score.loss(figures.get(self.score.name, math.nan))
        if not math.isfinite(score):
            reason = f"{self.score.name} has no value on the rows that fold {self.at} is judged by"
            return {"score": WORST, "done": True, "error": reason, **self._facts("failed")}
        self.at += 1
        done = self.at == len(self.parts)
        if done:
            run = str(self.base.run)
            tables = [
                train_part.predictions_table(run, item.part, item.roles, data)
                for item in self.trained
            ]
            table = PREDICTIONS.conform(pa.concat_tables(tables))
            storage.publish_table(table, trial_uri(self.base, self.trial["number"], ".parquet"))
        return {
            "score": score,
            "done": done,
            "figures": figures,
            **self._facts("finished" if done else "pruned"),
        }

    def _facts(self, state: str) -> dict[str, Any]:
        return {"state": state, "steps": self.at, "seconds": time.monotonic() - self.began}

    def _figures(self) -> dict[str, float]:
        """Mean over the nets of the figures of the first task, on rows that nobody trained on."""
        found: dict[str, list[float]] = {}
        name, task = next(iter(self.library.tasks.items()))
        shown = {self.score.name, *SHOWN[task.kind]}
        for item in self.trained:
            for predicted in item.roles.values():
                prediction, target = judged(predicted, name, task)
                for each in shown if len(target) else ():
                    found.setdefault(each, []).append(metric(each)(prediction, target))
        return {each: sum(values) / len(values) for each, values in sorted(found.items())}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Trials are short: one that was stopped is trained again from its start."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing was saved."""


class Search(Searcher):  # type: ignore[misc]
    """Draws trials from a space, tells Optuna what became of them, and keeps the ledger.

    Args:
        space: what is searched.
        config: train's config that the space varies.
        sampler: gives the sampler of a trial by its number, so that a search that was stopped draws as one
            that was not.
        ledger: trials of an earlier start of the same search.
        on_record: called with every trial that ended.
    """

    def __init__(
        self,
        space: Space,
        config: TrainConfig,
        sampler: Callable[[int], optuna.samplers.BaseSampler],
        ledger: Sequence[Record],
        on_record: Callable[[Record], None],
    ) -> None:
        super().__init__(metric="score", mode="min")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.config, self.on_record = space, config, on_record
        self.sampler = sampler
        self.study = optuna.create_study(direction="minimize", sampler=sampler(0))
        for record in ledger:
            if record.drawn:
                self.study.add_trial(frozen(record))
        sets = [list(some) for some in space.values_of("inputs", list(config.inputs))]
        self.turns = input_cycle(sets)
        self.baselines = self.turns or sets
        self.next = 1 + max((record.number for record in ledger), default=-1)
        self.open: dict[str, tuple[int, optuna.Trial | None, dict[str, Any]]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next configuration: the baseline on each set of inputs, then what is drawn."""
        number = self.next
        self.next += 1
        drawn, values = self._draw(number)
        self.open[trial_id] = (number, drawn, values)
        return {"number": number, "values": values}

    def _draw(self, number: int) -> tuple[optuna.Trial | None, dict[str, Any]]:
        """Optuna's trial of a number, and its values; it is not asked for a baseline."""
        if number < len(self.baselines):
            return None, self.space.baseline(self.baselines[number])
        self.study.sampler = self.sampler(number)
        inputs = inputs_of_turn(self.turns, number - len(self.baselines))
        if inputs is not None:
            self.study.enqueue_trial({"inputs": json.dumps(inputs)})
        drawn = self.study.ask()
        return drawn, self.space.draw(drawn, self.config.net)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A fold is done."""
        drawn = self.open[trial_id][1]
        if drawn is not None:
            drawn.report(result["score"], int(result["steps"]))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A trial ended: finished, pruned or failed."""
        number, drawn, values = self.open.pop(trial_id)
        result = result or {"state": "failed", "score": WORST, "error": "its process died"}
        record = Record(
            number=number,
            state=str(result["state"]),
            score=float(result["score"]),
            steps=int(result.get("steps", 0)),
            seconds=round(float(result.get("seconds", 0.0)), 3),
            values=values,
            figures={
                name.removeprefix("figures/"): float(value)
                for name, value in result.items()
                if name.startswith("figures/")
            },
            error=result.get("error"),
            drawn=drawn is not None,
            params={} if drawn is None else dict(drawn.params),
            distributions={}
            if drawn is None
            else {k: distribution_to_json(d) for k, d in drawn.distributions.items()},
        )
        state = STATES[record.state]
        if drawn is not None:
            self.study.tell(drawn, record.score if state == TrialState.COMPLETE else None, state)
        storage.publish_json(asdict(record), trial_uri(self.config, number, ".json"))
        self.on_record(record)

    def save(self, checkpoint_path: str) -> None:
        """The ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """The ledger is the state."""

    def __deepcopy__(self, _memo: dict[int, Any]) -> "Search":
        # Tune copies its settings; there is one study and one ledger.
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"_metric": self._metric, "_mode": self._mode}


class Pruner(FIFOScheduler):  # type: ignore[misc]
    """Successive halving over folds, among trials of the same inputs only.

    After 1, 3, 9 ... folds a trial goes on if it is in the best third of those that got as far. Trials are
    compared with trials of their own inputs: late fusion needs the best net of a weak modality too, and a
    common bar would stop every one of them. The baseline is not among them: it is never stopped, and a net
    that is worse may still add to it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rungs: dict[tuple[str, int], list[float]] = {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop or go on."""
        step, score = int(result["steps"]), float(result["score"])
        baseline = trial.config["values"].get("net") == BASELINE
        if baseline or result["state"] != "pruned" or step not in RUNGS:
            return str(TrialScheduler.CONTINUE)
        inputs = str(trial.config["values"].get("inputs"))
        seen = self.rungs.setdefault((inputs, step), [])
        seen.append(score)
        bar = sorted(seen)[(len(seen) - 1) // 3]
        return str(TrialScheduler.CONTINUE if score <= bar else TrialScheduler.STOP)


def input_cycle(sets: Sequence[Sequence[str]]) -> list[list[str]]:
    """Sets of inputs in the order in which they take turns: each by itself, the largest, then the rest."""
    if len(sets) < 2:
        return []
    largest = max(sets, key=len)
    order = sorted(sets, key=lambda some: (len(some) > 1, some is not largest))
    return [list(some) for some in order]


def inputs_of_turn(turns: Sequence[Sequence[str]], number: int) -> Sequence[str] | None:
    """The inputs of a trial where they are not the sampler's to choose.

    The first trials take every set in turn, and so does every other one after them: late fusion needs good
    nets of the weak modalities too, and a sampler that learns from scores soon asks for the best set only.
    """
    if not turns:
        return None
    first = len(turns)
    if number < first:
        return turns[number]
    return turns[(number - first) // 2 % first] if (number - first) % 2 == 0 else None


def sampler_of(search: str, seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler; `optuna` models which regions are good after ten random trials."""
    if search == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    logging.getLogger("optuna").setLevel(logging.ERROR)
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=10)
