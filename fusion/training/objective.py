"""The losses of a recipe bound to its tasks."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from fusion.batch import Batch, Output
from fusion.losses import KINDS, OF_DISTRIBUTIONS, loss_function, losses_for
from fusion.tasks import Task
from fusion.training.predicting import Predicted

DEFAULT_LOSS = {"classification": "cross_entropy", "multilabel": "bce", "regression": "l1"}

ROWS = ""
"""Under this name totals hold the weight of the rows themselves, for the auxiliary losses."""


class Objective:
    """What a step minimises.

    Args:
        tasks: what is predicted.
        loss: name of a loss, or ``auto``: by kind of task.
        options: of the loss.
        shares: weight of each task; 1 where it is not named.
        label_smoothing: of the classifications among the tasks.
        class_weights: task -> weight of each class.
        device: where the logits are.

    Raises:
        ValueError: a loss of another kind of task, an option that it does not take, or smoothing without a
            classification.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        *,
        loss: str = "auto",
        options: Mapping[str, Any] | None = None,
        shares: Mapping[str, float] | None = None,
        label_smoothing: float = 0.0,
        class_weights: Mapping[str, Tensor] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.tasks = dict(tasks)
        self.device = torch.device(device)
        self.shares = {name: float((shares or {}).get(name, 1.0)) for name in tasks}
        self._losses: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {}
        self._of_distributions: set[str] = set()
        kinds = [task.kind for task in tasks.values()]
        if label_smoothing and "classification" not in kinds:
            raise ValueError(f"label_smoothing takes a classification; the tasks are {kinds}")
        for name, task in tasks.items():
            chosen = DEFAULT_LOSS[task.kind] if loss == "auto" else loss
            if task.kind not in KINDS.get(chosen, (task.kind,)):
                raise ValueError(
                    f"loss {chosen!r} has no meaning for the {task.kind} {name!r}; set it to auto or "
                    f"{', '.join(losses_for(task.kind))}"
                )
            given = dict(options or {})
            if label_smoothing and task.kind == "classification":
                given["label_smoothing"] = label_smoothing
            if class_weights and name in class_weights:
                given["class_weights"] = class_weights[name].to(self.device)
            self._losses[name] = _bound(chosen, given, name)
            if chosen in OF_DISTRIBUTIONS:
                self._of_distributions.add(name)

    def __call__(self, output: Output, batch: Batch, totals: Mapping[str, Tensor] | None) -> Tensor:
        """A batch's share of the loss of a step.

        Args:
            output: of the net.
            batch: with targets and weights.
            totals: of the whole step, as `totals` gives them; None where the batch is the step.
        """
        loss = torch.zeros((), device=self.device)
        for name in self.tasks:
            part, own = self._of(name, output.logits[name].float(), batch)
            total = own if totals is None else totals[name]
            loss = loss + self.shares[name] * part / total.clamp(min=1e-12)
        if output.losses:
            rows = _rows(batch)
            whole = rows if totals is None else totals[ROWS]
            auxiliary = torch.stack([value.float() for value in output.losses.values()]).sum()
            loss = loss + auxiliary * rows / whole.clamp(min=1e-12)
        return loss

    def totals(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Total weight of each task in some batches.

        A loss's total weight does not depend on the logits: zeros stand in for them.
        """
        totals = {}
        for name, task in self.tasks.items():
            parts = []
            for batch in batches:
                shape = batch.targets[name].shape
                if task.kind != "multilabel":
                    shape = torch.Size([*shape, task.outputs])
                zeros = torch.zeros(shape, device=self.device)
                parts.append(self._of(name, zeros, batch)[1])
            totals[name] = torch.stack(parts).sum()
        totals[ROWS] = torch.stack([_rows(batch) for batch in batches]).sum()
        return totals

    def of_rows(self, got: Predicted) -> float:
        """The loss of predicted rows, without auxiliary losses."""
        loss = 0.0
        for name, function in self._losses.items():
            if name not in got.known or not bool(got.known[name].any()):
                continue
            target, mask = self._target(name, got.targets, got.known, got.soft)
            part, total = function(
                got.logits[name].to(self.device), target.to(self.device), mask=mask.to(self.device)
            )
            loss += self.shares[name] * float(part) / max(float(total), 1e-12)
        return loss

    def _of(self, name: str, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        target, mask = self._target(name, batch.targets, batch.target_masks, batch.soft)
        return self._losses[name](logits, target, mask=mask, weights=batch.weights)

    def _target(
        self,
        name: str,
        targets: Mapping[str, Tensor],
        known: Mapping[str, Tensor],
        soft: Mapping[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """What a task's loss is computed from: votes, or the class where nobody voted."""
        if name not in self._of_distributions:
            return targets[name], known[name]
        if name not in soft:
            raise ValueError(
                f"the loss of {name!r} takes raters' votes, and the dataset has none of it; prepare it "
                "with --votes, or choose cross_entropy"
            )
        votes = soft[name]
        single = one_hot(targets[name].clamp(min=0), votes.shape[-1]) * known[name].unsqueeze(-1)
        voted = votes.sum(-1, keepdim=True) > 0
        target = torch.where(voted, votes, single.to(votes.dtype))
        return target, (target.sum(-1, keepdim=True) > 0).expand_as(target)


def balanced_weights(target: Tensor, known: Tensor, classes: int) -> Tensor:
    """Rows / (classes present x rows of the class); zero for a class without rows.

    >>> balanced_weights(torch.tensor([0, 0, 0, 1]), torch.ones(4, dtype=torch.bool), 3).tolist()
    [0.6666666865348816, 2.0, 0.0]
    """
    counts = torch.bincount(target[known], minlength=classes).float()
    present = (counts > 0).sum()
    return torch.where(counts > 0, counts.sum() / (present * counts.clamp(min=1)), 0.0)


def _bound(loss: str, options: Mapping[str, Any], task: str) -> Callable[..., Any]:
    function = loss_function(loss)
    accepted = inspect.signature(function).parameters
    unknown = [option for option in options if option not in accepted]
    if unknown:
        raise ValueError(f"loss {loss!r} of task {task!r} takes no {', '.join(unknown)}")

    def bound(logits: Tensor, target: Tensor, **kwargs: Tensor | None) -> tuple[Tensor, Tensor]:
        return function(logits, target, **kwargs, **options)

    return bound


def _rows(batch: Batch) -> Tensor:
    assert batch.weights is not None
    return batch.weights.sum()
