"""What runs inside Ray Tune: the actor that trains trials, and the search that proposes and records them.

One trial is all folds of a configuration, one fold a step, so that a bad one is stopped after its first
folds. Actors are kept from trial to trial and share the features in Ray's object store. Every trial that ends
gets a file in `<root>/runs/<run>/trials/`; a search that was killed reads these files and goes on.
"""

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
import torch
from optuna.trial import TrialState
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cluster import settings
from cluster.devices import worker_device
from fusion.training.loop import Group
from jobs.training.loading import Library
from jobs.training.parts import Part
from jobs.training.run import TrainConfig
from jobs.tuning.hold import Hold
from jobs.tuning.space import BASELINE, Space
from jobs.tuning.standing import Standing
from jobs.tuning.trial_records import STATES, Record, frozen, publish_record, record_of
from jobs.tuning.turns import first_sets, input_cycle, inputs_of_turn
from jobs.tuning.work import Bench, TrainRun, TrialWork

RUNGS = (1, 3, 9)
"""Folds after which a trial may be stopped."""


class Trial(tune.Trainable):  # type: ignore[misc]
    """Trains one configuration after the other in the same process."""

    def setup(
        self,
        config: dict[str, Any],
        library: Library | None = None,
        base: Mapping[str, Any] | None = None,
        steps: Sequence[Sequence[Part]] = (),
        score: str = "",
        train: TrainRun | None = None,
        hold: Hold | None = None,
    ) -> None:
        """Once an actor.

        Args:
            config: what `Search.suggest` says of the first trial.
            library: the features, from the object store.
            base: train's config as a mapping.
            steps: the parts of each step.
            score: metric of the first task.
            train: trains the missing parts of a run.
            hold: of the search on its name.
        """
        assert library is not None
        assert base is not None
        torch.set_num_threads(1)
        self.bench = Bench(
            library=library,
            base=settings.from_mapping(TrainConfig, base),
            steps=steps,
            score=score,
            group=Group(device=torch.device(worker_device())),
            train=train,
            hold=hold,
        )
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial."""
        self.work = TrialWork(self.bench, **new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train the nets of one fold."""
        return self.work.step()

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
        standing: follows which trials would be members.
        starts: what the first trials after the baselines are told to draw, where earlier searches said so.
    """

    def __init__(
        self,
        space: Space,
        config: TrainConfig,
        sampler: Callable[[int], optuna.samplers.BaseSampler],
        ledger: Sequence[Record],
        on_record: Callable[[Record], None],
        standing: Standing,
        starts: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(metric="score", mode="min")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.config = space, config
        self.on_record, self.standing, self.starts = on_record, standing, starts
        self.sampler = sampler
        self.study = optuna.create_study(direction="minimize", sampler=sampler(0))
        for record in ledger:
            if record.drawn:
                self.study.add_trial(frozen(record))
        sets = [list(some) for some in space.values_of("inputs", list(config.inputs))]
        self.turns = input_cycle(sets)
        self.baselines = self.turns or sets
        self.first = first_sets(sets)
        self.next = 1 + max((record.number for record in ledger), default=-1)
        self.hold: Hold | None = None
        self.open: dict[str, tuple[int, optuna.Trial | None, dict[str, Any]]] = {}

    def held_by(self, hold: Hold) -> "Search":
        """Itself, recording trials only as long as the search has its name."""
        self.hold = hold
        return self

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next configuration: the baseline on each set of inputs, then what is drawn."""
        number = self.next
        self.next += 1
        drawn, values = self._draw(number)
        self.open[trial_id] = (number, drawn, values)
        inputs = values.get("inputs", list(self.config.inputs))
        ships = drawn is None and inputs in self.first
        bar = math.inf if ships else self.standing.bar(inputs)
        return {"number": number, "values": values, "bar": bar, "whole": ships}

    def _draw(self, number: int) -> tuple[optuna.Trial | None, dict[str, Any]]:
        """Optuna's trial of a number, and its values; it is not asked for a baseline."""
        if number < len(self.baselines):
            return None, self.space.baseline(self.baselines[number])
        self.study.sampler = self.sampler(number)
        place = number - len(self.baselines)
        inputs = inputs_of_turn(self.turns, place)
        if place < len(self.starts):
            self.study.enqueue_trial(dict(self.starts[place]))
        elif inputs is not None:
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
        if self.hold is not None and self.hold.is_lost:
            return  # the search ends: what is under its name is another's
        record = record_of(number, values, result, drawn)
        state = STATES[record.state]
        if drawn is not None:
            self.study.tell(drawn, record.score if state == TrialState.COMPLETE else None, state)
        publish_record(self.config, record)
        self.standing.see(record, has_run=bool(result and result.get("has_run")))
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


def sampler_of(search: str, seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler; `optuna` models which regions are good after ten random trials."""
    if search == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    logging.getLogger("optuna").setLevel(logging.ERROR)
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=10)
