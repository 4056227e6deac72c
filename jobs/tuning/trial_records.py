"""The ledger of a search: one file for every trial that ended; a search that was killed goes on from it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import optuna
import pyarrow as pa
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.trial import TrialState

from cluster import storage
from jobs.catalog import layout
from jobs.training.run import TrainConfig, seeds_of
from jobs.tuning.space import BASELINE

WORST = 1e9
"""The score of a trial that diverged or could not be trained; finite, because Tune compares it."""

STATES = {
    "failed": TrialState.FAIL,
    "finished": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
}


@dataclass(frozen=True, kw_only=True)
class Record:
    """One line of the ledger."""

    number: int
    state: str
    """finished, pruned (stopped after some folds) or failed."""

    score: float
    """Mean over its folds, lower is better."""

    steps: int
    seconds: float
    values: Mapping[str, Any]
    """Path of the space -> value."""

    figures: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    drawn: bool = True
    """By Optuna; the baseline is not."""

    params: Mapping[str, Any] = field(default_factory=dict)
    distributions: Mapping[str, str] = field(default_factory=dict)
    """How Optuna drew it, so that a search that goes on knows what it has seen."""


def trial_uri(config: TrainConfig, number: int, suffix: str) -> str:
    """A file of one trial."""
    return layout.trials_uri(config.root, str(config.run), f"{number:05d}{suffix}")


def member_name(config: TrainConfig, number: int) -> str:
    """The run that a trial becomes if it is kept."""
    return f"{config.run}-{number:05d}"


def member_config(config: TrainConfig, number: int, more_seeds: Sequence[int] = ()) -> TrainConfig:
    """The run that a trial becomes if it is kept.

    Args:
        config: of the trial, under the name of the search.
        number: of the trial.
        more_seeds: besides those of the trial; a convex net has no others.
    """
    seeds = tuple(dict.fromkeys([*config.seeds, *more_seeds]))
    named = dataclasses.replace(
        config, run=member_name(config, number), seeds=seeds, tracking=False, workers=0
    )
    return named if seeds_of(named) == seeds else dataclasses.replace(named, seeds=config.seeds)


def read_ledger(config: TrainConfig) -> list[Record]:
    """Every trial that ended, by number."""
    folder = layout.trials_uri(config.root, str(config.run))
    return [
        Record(**storage.read_json(storage.join(folder, name)))
        for name in storage.names(folder, ".json")
    ]


def record_of(
    number: int,
    values: Mapping[str, Any],
    result: Mapping[str, Any] | None,
    drawn: optuna.Trial | None = None,
) -> Record:
    """The record of a trial that ended.

    Args:
        number: of the trial.
        values: its values.
        result: its last one; None: it has none, because its process died.
        drawn: by Optuna; None: a baseline.
    """
    result = result or {"state": "failed", "score": WORST, "error": "its process died"}
    flat = {name.removeprefix("figures/"): v for name, v in result.items() if "figures/" in name}
    return Record(
        number=number,
        state=str(result["state"]),
        score=float(result["score"]),
        steps=int(result.get("steps", 0)),
        seconds=round(float(result.get("seconds", 0.0)), 3),
        values=values,
        figures={
            name: float(value) for name, value in {**result.get("figures", {}), **flat}.items()
        },
        error=result.get("error"),
        drawn=drawn is not None,
        params={} if drawn is None else dict(drawn.params),
        distributions={}
        if drawn is None
        else {name: distribution_to_json(d) for name, d in drawn.distributions.items()},
    )


def publish_record(config: TrainConfig, record: Record) -> None:
    """Enter a trial into the ledger."""
    storage.publish_json(asdict(record), trial_uri(config, record.number, ".json"))


def importances(ledger: Sequence[Record]) -> dict[str, float]:
    """Share of each path in the differences between trials (mean decrease in impurity of a forest).

    Paths that only some trials have (options of one net) stand apart from this: they are left out.
    """
    study = optuna.create_study(direction="minimize")
    finished = [record for record in ledger if record.state == "finished" and record.drawn]
    for record in finished:
        study.add_trial(frozen(record))
    if len(finished) < 4:
        return {}
    evaluator = optuna.importance.MeanDecreaseImpurityImportanceEvaluator(seed=0)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(value) for name, value in found.items()}


def baseline_of(finished: Sequence[Record]) -> dict[str, Any] | None:
    """The best linear model on the same features: number, score and values; None where none was finished."""
    found = [record for record in finished if record.values.get("net") == BASELINE]
    if not found:
        return None
    best = min(found, key=lambda record: record.score)
    return {"number": best.number, "score": best.score, "values": dict(best.values)}


def trials_table(ledger: Sequence[Record]) -> pa.Table:
    """One row a trial: what the parallel-coordinates plot is drawn from."""
    paths = sorted({path for record in ledger for path in record.values})
    figures = sorted({name for record in ledger for name in record.figures})
    columns: dict[str, Any] = {
        name: [getattr(record, name) for record in ledger]
        for name in ("number", "state", "score", "steps", "seconds", "error")
    }
    columns["error"] = pa.array(columns["error"], pa.string())
    for name in figures:
        columns[f"figure/{name}"] = [record.figures.get(name) for record in ledger]
    for path in paths:
        columns[f"value/{path}"] = _column([record.values.get(path) for record in ledger])
    return pa.table(columns)


def _column(values: list[Any]) -> pa.Array:
    """Numbers as numbers; anything else as JSON text."""
    numbers = all(
        value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        for value in values
    )
    if numbers:
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    texts = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
    return pa.array(texts, pa.string())


def frozen(record: Record) -> optuna.trial.FrozenTrial:
    """The record as Optuna takes it."""
    state = STATES[record.state]
    finished = state == TrialState.COMPLETE
    return optuna.trial.create_trial(
        state=state,
        value=record.score if finished else None,
        params=dict(record.params),
        distributions={k: json_to_distribution(d) for k, d in record.distributions.items()},
        intermediate_values={} if record.state == "failed" else {record.steps: record.score},
    )
