"""Nets over what encoders say themselves, made without training: their classes joined to those of a task.

An encoder may publish side columns in which it says how probable its own classes are, or what a value is
(`OwnAnswer` of `encoders.spec`). Such a column is the one input of a net that holds no weights
(`fusion.nets._pretrained_answer`).
"""

from collections.abc import Mapping
from typing import Any

from encoders import ENCODERS
from encoders.registry import find
from encoders.spec import OwnAnswer
from fusion.predictor import Card
from fusion.tasks import Task
from jobs.catalog.label_words import joined

NET = "pretrained_answer"
"""Key of fusion.nets.UNTRAINED."""

FEWEST = {"classification": 2, "multilabel": 1}
"""Outputs of a task that a class of the encoder has to mean: of one class alone nothing follows."""


def answers_of(encoder: str) -> Mapping[str, OwnAnswer]:
    """The answers of an encoder by their columns; none of imported features."""
    return find(encoder).answers if encoder in ENCODERS else {}


def card_of(source: Mapping[str, Any], name: str, task: Task) -> Card | None:
    """The card of the net of one column; None where it says nothing of the task.

    Args:
        source: the input as cards have it: features, name, options, fingerprint, column.
        name: of the task.
        task: the task.
    """
    column, spec = source["column"], find(source["name"])
    answer = spec.answers[column]
    config = _config(column, answer, name, task)
    if config is None:
        return None
    place = str(spec.modality)
    return Card(
        net=NET,
        config={"kind": task.kind, **config},
        tasks={name: task},
        dims={place: len(answer.classes) or 1},
        inputs={place: {**source, "pool": "none"}},
    )


def _config(column: str, answer: OwnAnswer, name: str, task: Task) -> dict[str, Any] | None:
    if task.kind == "regression":
        if answer.range is None or task.range is None or name.casefold() != column:
            return None
        return {"bounds": (*answer.range, *task.range)}
    join = joined(answer.classes, task.classes)
    return {"join": join} if sum(map(any, join)) >= FEWEST[task.kind] else None


def said(card: Card) -> str:
    """How the encoder's classes are those of the task, in one line."""
    ((_, source),) = card.inputs.items()
    (task,) = card.tasks.values()
    if task.kind == "regression":
        return f"{source['column']} of {source['name']}, stretched to {task.range}"
    classes, join = find(source["name"]).answers[source["column"]].classes, card.config["join"]
    pairs, mute = [], []
    for label, row in zip(task.classes, join, strict=True):
        meant = [one for one, share in zip(classes, row, strict=True) if share]
        pairs += [f"{label} = {' + '.join(meant)}"] if meant else []
        mute += [] if meant else [label]
    lost = [
        one for one, shares in zip(classes, zip(*join, strict=True), strict=True) if not any(shares)
    ]
    parts = [", ".join(pairs)]
    parts += [f"it has no class for {', '.join(mute)}, which it leaves even"] if mute else []
    parts += [f"no label is its {', '.join(lost)}"] if lost else []
    return "; ".join(parts)
