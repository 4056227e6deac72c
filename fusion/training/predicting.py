"""Predicts rows in eval mode and judges them; rows of dialogues come out utterance by utterance.

Shapes: row, outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from jaxtyping import Int
from torch import Tensor, nn

from fusion.batch import Batch
from fusion.metrics import METRICS, metric
from fusion.tasks import Task
from fusion.training.rows import at_once

SHOWN = {
    "classification": ("accuracy", "weighted_f1", "nll"),
    "multilabel": ("multilabel_macro_f1", "multilabel_nll"),
    "regression": ("mae", "pearson"),
}
"""The figures of an epoch by kind of task."""


@runtime_checkable
class Rows(Protocol):
    """Rows by index."""

    @property
    def lengths(self) -> Tensor:
        """int64 [row]: steps in time."""

    def batch(self, rows: Tensor) -> Batch:
        """Rows as one batch."""


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """Logits of clips, in ascending order of `clip_id`."""

    clip_id: Int[Tensor, " row"]
    logits: Mapping[str, Tensor]
    """Task -> float32 [row outputs]."""

    targets: Mapping[str, Tensor]
    known: Mapping[str, Tensor]
    soft: Mapping[str, Tensor] = field(default_factory=dict)
    """Task -> distribution of raters' choices [row class]; zeros where there is none."""


@torch.no_grad()
def predict(
    model: nn.Module,
    feed: Rows,
    rows: Tensor,
    *,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
) -> Predicted:
    """Logits of some rows; the model is left in eval mode.

    Args:
        model: takes batches of unscaled features.
        feed: where rows come from.
        rows: which; an empty one gives an empty answer of the right widths.
        batch_size: rows at a time, similar lengths together; fewer of large ones.
        device: where the model is.
    """
    model.eval()
    order = rows[feed.lengths[rows].argsort(stable=True)] if len(rows) else rows
    collected: list[dict[str, Any]] = []
    for part in torch.split(order, at_once(feed, order, batch_size)):
        if not len(part):
            continue
        batch = feed.batch(part)
        logits = model(batch.to(device)).logits
        collected.append(
            _flat(batch, {name: value.float().cpu() for name, value in logits.items()})
        )
    return _merged(collected)


def joined(mine: Predicted, world: int) -> Predicted:
    """What all workers predicted; every worker gets the whole. A row counts once."""
    if world == 1:
        return mine
    parts: list[Any] = [None] * world
    dist.all_gather_object(parts, vars(mine))
    return _merged([part for part in parts if len(part["clip_id"])])


def figures(got: Predicted, tasks: Mapping[str, Task], *, extra: str = "loss") -> dict[str, float]:
    """``task/metric`` -> figure over the rows whose target is known; `extra` for the first task."""
    found = {}
    for position, (name, task) in enumerate(tasks.items()):
        names = list(SHOWN[task.kind])
        if position == 0 and extra in METRICS and extra not in names:
            names.append(extra)
        prediction, target = judged(got, name, task)
        if len(target):
            found.update({f"{name}/{each}": metric(each)(prediction, target) for each in names})
    return found


def judged(got: Predicted, name: str, task: Task) -> tuple[Tensor, Tensor]:
    """Prediction and target of a task as metrics take them, rows with a known target only."""
    logits, target, known = got.logits[name], got.targets[name], got.known[name]
    if task.kind == "multilabel":
        kept = known.any(1)
        labels = torch.where(known, target.double(), torch.nan)
        return torch.sigmoid(logits.double())[kept], labels[kept]
    if task.kind == "classification":
        return torch.softmax(logits.double(), -1)[known], target[known]
    return logits.squeeze(-1)[known], target[known]


def _flat(batch: Batch, logits: Mapping[str, Tensor]) -> dict[str, Any]:
    assert batch.clip_id is not None
    kept = slice(None) if batch.steps is None else batch.steps
    return {
        "clip_id": batch.clip_id[kept],
        "logits": {name: value[kept] for name, value in logits.items()},
        "targets": {name: value[kept] for name, value in batch.targets.items()},
        "known": {name: value[kept] for name, value in batch.target_masks.items()},
        "soft": {name: value[kept] for name, value in batch.soft.items()},
    }


def _merged(parts: list[dict[str, Any]]) -> Predicted:
    if not parts:
        return Predicted(clip_id=torch.zeros(0, dtype=torch.int64), logits={}, targets={}, known={})
    clip_id = torch.cat([part["clip_id"] for part in parts])
    order = clip_id.argsort()

    def gather(key: str) -> dict[str, Tensor]:
        return {
            name: torch.cat([part[key][name] for part in parts])[order] for name in parts[0][key]
        }

    return Predicted(
        clip_id=clip_id[order],
        logits=gather("logits"),
        targets=gather("targets"),
        known=gather("known"),
        soft=gather("soft"),
    )
