"""The results of a report as one JSON document: what scripts of others read.

Timestamp, size, overall and per-class metrics, confusion matrix with its labels, and every clip with what was
true and what was answered.
"""

import datetime
import math
from typing import Any

import torch

from fusion.late.members import probabilities
from fusion.metrics.classification import confusion, per_class
from fusion.metrics.multilabel import per_label
from jobs.reporting.evidence import Evidence


def results_document(evidence: Evidence) -> dict[str, Any]:
    """The document of what the report looks at: what ships, else the best member."""
    focus, task = evidence.focus, evidence.task
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    document: dict[str, Any] = {
        "timestamp": now,
        "dataset": evidence.dataset,
        "task": evidence.task_name,
        "kind": task.kind,
        "model": focus.name,
        "protocol": evidence.protocol,
        "dataset_size": len(evidence.clips),
        "num_groups": evidence.groups.count,
        "overall_metrics": {
            name: {key: _number(getattr(figure, key)) for key in ("value", "low", "high")}
            for name, figure in focus.figures.items()
        },
    }
    if task.kind == "classification":
        document |= _by_class(evidence)
    elif task.kind == "multilabel":
        document |= _by_label(evidence)
    return {**document, "detailed_predictions": _rows(evidence)}


def _by_class(evidence: Evidence) -> dict[str, Any]:
    """Clips without an answer are left out, as in the page's own tables of classes."""
    classes = list(evidence.task.classes)
    known = ~evidence.focus.scores.isnan().any(1)
    prediction, target = evidence.focus.scores[known].argmax(1), evidence.target[known].long()
    counts = confusion(prediction, target, num_classes=len(classes))
    each = per_class(prediction, target, num_classes=len(classes))
    metrics = {name: getattr(each, name).tolist() for name in ("precision", "recall", "f1")}
    support = [int(count) for count in each.support.tolist()]
    return {
        "per_class_metrics": {"labels": classes, **metrics, "support": support},
        "confusion_matrix": {"labels": classes, "rows_true": counts.long().tolist()},
    }


def _by_label(evidence: Evidence) -> dict[str, Any]:
    """Decided at 0.5; clips without an answer are left out."""
    known = ~evidence.focus.scores.isnan().any(1)
    answers = probabilities("multilabel", evidence.focus.scores[known])
    each = per_label(answers > 0.5, evidence.target[known])
    names = ("precision", "recall", "f1", "weighted_accuracy")
    metrics = {name: [_number(x) for x in getattr(each, name).tolist()] for name in names}
    support = [int(count) for count in each.support.tolist()]
    return {
        "per_label_metrics": {"labels": list(evidence.task.classes), **metrics, "support": support}
    }


def _rows(evidence: Evidence) -> list[dict[str, Any]]:
    task, scores = evidence.task, evidence.focus.scores
    answers = probabilities(task.kind, scores)
    rows = []
    for at, name in enumerate(evidence.clips):
        row: dict[str, Any] = {"clip": name, "group": evidence.group_of[at]}
        silent = bool(scores[at].isnan().any())
        if task.kind == "regression":
            value = None if silent else float(answers[at])
            rows.append({**row, "true": float(evidence.target[at]), "predicted": value})
            continue
        shares = None if silent else dict(zip(task.classes, answers[at].tolist(), strict=True))
        if task.kind == "classification":
            true = task.classes[int(evidence.target[at])]
            said = None if silent else task.classes[int(scores[at].argmax())]
            row |= {"true": true, "predicted": said, "correct": said == true}
        else:
            row |= {
                "true": _labels(task.classes, evidence.target[at]),
                "predicted": None if silent else _labels(task.classes, answers[at]),
            }
        rows.append({**row, "probabilities": shares})
    return rows


def _labels(classes: tuple[str, ...], values: torch.Tensor) -> list[str]:
    return [name for name, value in zip(classes, values.tolist(), strict=True) if value >= 0.5]


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return value if math.isfinite(value) else None
