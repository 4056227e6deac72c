"""Fit a convex net: no epochs and no seeds, one solution, with the penalty chosen by inner cross-validation.

The penalty is chosen by held-out groups of the training part (each group is held out once), by log loss or
squared error; then all rows of the training part are solved with it. Each task, and each label of a
multi-label task, has its own. Rows without a label, and rows without any input, are left out.

Shapes: row, feature, problem, outputs, path.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fusion.batch import Batch
from fusion.nets.linear import Linear
from fusion.predictor import Predictor
from fusion.tasks import Kind, Task
from fusion.training.objective import balanced_weights
from fusion.training.outcome import FittedNet
from fusion.training.penalised import (
    Rotated,
    held_out_error,
    held_out_loss,
    ridge,
    rotate,
    solve,
)
from fusion.training.recipe import Recipe
from fusion.training.rows import Feed, ViewFeed

READ = 1024
"""Rows that are read at a time."""


KNOWN = 1024
"""Penalties of modalities alone that are remembered: the same one comes in many sets of modalities."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The solution of one task."""

    weight: Float[Tensor, "feature outputs"]
    bias: Float[Tensor, " outputs"]
    penalty: float
    """Chosen share of the features' variance; of several labels the geometric mean."""

    loss: float
    """Of held-out groups: log loss, or squared error."""


def fit_convex(
    predictor: Predictor,
    feed: Feed,
    *,
    tasks: Mapping[str, Task],
    train: Tensor,
    groups: Int[Tensor, " row"],
    recipe: Recipe,
) -> FittedNet:
    """Solve a net of the zoo that is convex.

    Of the recipe it uses `class_weights` and `balanced` (the same weights, for the first task only).
    Augmented views of a row are rows of their own, which weigh as much as the original.

    Args:
        predictor: net behind its fitted scaler; its weights are set in place.
        feed: where rows come from.
        tasks: what is predicted.
        train: rows to fit on [row].
        groups: code of the group of each of them; groups choose the penalty.
        recipe: how.

    Raises:
        ValueError: no training row has a label and an input, or the features are not finite.
    """
    net = predictor.net
    assert isinstance(net, Linear)
    if len(train) == 0:
        raise ValueError("there are no training rows")
    rows, present, looks = _read(predictor.cpu(), net, feed, train)
    if len(torch.unique(groups)) == 1:
        groups = torch.arange(len(train))  # as `folds_of` holds them out, with all views of a row
    given = Labelled(*feed.targets(train.repeat(looks)), groups=groups.repeat(looks))
    record = {"epoch": 1.0, "lr": 0.0, **solve_rows(net, rows, present, given, tasks, recipe)}
    return FittedNet(predictor=predictor.eval(), best_epoch=1, history=[record], stopped=False)


@dataclass(frozen=True)
class Labelled:
    """What is known of some rows."""

    targets: Mapping[str, Tensor]
    known: Mapping[str, Tensor]
    """Of which rows each task has a target."""

    groups: Int[Tensor, " row"]


def solve_rows(
    net: Linear,
    rows: Float[Tensor, "row feature"],
    present: Bool[Tensor, " row"],
    given: Labelled,
    tasks: Mapping[str, Task],
    recipe: Recipe,
) -> dict[str, float]:
    """Set the weights of a linear net, on the CPU, to the solution of each task.

    Args:
        net: whose weights are set.
        rows: its features, in double precision.
        present: rows that have any input.
        given: targets and groups of the rows.
        tasks: what is predicted.
        recipe: how.

    Returns:
        Chosen penalty and loss on held-out groups by task.

    Raises:
        ValueError: no row has a label and an input, or the features are not finite.
    """
    if not bool(rows.isfinite().all()):
        raise ValueError("some scaled features are not finite; encode or import them again")
    record: dict[str, float] = {}
    designs: dict[bytes, _Rows] = {}
    for name, task in tasks.items():
        labelled = present & given.known[name].reshape(len(rows), -1).any(1)
        if not bool(labelled.any()):
            raise ValueError(f"no training row has a label of {name!r} and any input")
        key = labelled.numpy().tobytes()
        if key not in designs:
            fold = folds_of(given.groups[labelled], net.config.folds)
            designs[key] = _Rows(rows[labelled], fold, net)
        balanced = recipe.class_weights or (recipe.balanced and name == next(iter(tasks)))
        target = _Target.of(
            task, given.targets[name][labelled], given.known[name][labelled], balanced
        )
        answer = designs[key].answer(target)
        head = net.heads.task[name]
        assert isinstance(head, torch.nn.Linear)
        with torch.no_grad():
            head.weight.copy_(answer.weight.T)
            head.bias.copy_(answer.bias)
        record[f"{name}/penalty"], record[f"{name}/inner_loss"] = answer.penalty, answer.loss
    return record


def folds_of(groups: Int[Tensor, " row"], most: int) -> Int[Tensor, " row"]:
    """Folds of whole groups, about equally large; of rows, where there is one group only.

    >>> folds_of(torch.tensor([7, 7, 7, 3, 3, 9]), 2).tolist()
    [0, 0, 0, 1, 1, 1]
    """
    codes, counts = torch.unique(groups, return_inverse=True, return_counts=True)[1:]
    if len(counts) == 1:
        # One group cannot be held out; rows are, although that chooses too weak a penalty.
        codes, counts = torch.arange(len(groups)), torch.ones(len(groups), dtype=torch.int64)
    number = min(most, len(counts))
    shuffled = torch.randperm(len(counts), generator=torch.Generator().manual_seed(0))
    order = shuffled[counts[shuffled].argsort(descending=True, stable=True)]
    sizes, fold = torch.zeros(number, dtype=torch.int64), torch.zeros_like(counts)
    for group in order.tolist():
        fold[group] = lightest = int(sizes.argmin())
        sizes[lightest] += counts[group]
    return fold[codes]


@dataclass(frozen=True, kw_only=True)
class _Target:
    """What a task asks of some rows."""

    kind: Kind
    values: Float[Tensor, " row"]
    """Of a regression."""

    mass: Float[Tensor, "row problem outputs"]
    """Of the others: a problem of all classes, or one of yes and no for each label."""

    @classmethod
    def of(cls, task: Task, target: Tensor, known: Tensor, balanced: bool) -> "_Target":
        """Every problem weighs 1 in all, whatever the number of its rows."""
        values = torch.zeros(len(target), dtype=torch.float64)
        mass = torch.zeros(len(target), 0, 2, dtype=torch.float64)
        if task.kind == "regression":
            values = target.double()
        elif task.kind == "multilabel":
            yes = target.double()
            mass = torch.stack([yes, 1 - yes], 2) * known.unsqueeze(2)
        elif task.kind == "classification":
            mass = torch.nn.functional.one_hot(target, task.outputs).double().unsqueeze(1)
            if balanced:
                weights = balanced_weights(target, known, task.outputs)[target]
                mass = mass * weights.double()[:, None, None]
        total = mass.sum((0, 2), keepdim=True).clamp(min=1e-12)
        return cls(kind=task.kind, values=values, mass=mass / total)


class _Rows:
    """Rows that several tasks share, rotated once."""

    def __init__(self, rows: Float[Tensor, "row feature"], fold: Tensor, net: Linear) -> None:
        config = net.config
        self.rows, self.fold, self.each = rows, fold, config.penalty == "each"
        self.blocks = net.widths
        exponents = torch.linspace(
            math.log10(config.strongest), math.log10(config.weakest), config.path
        )
        self.path = 10 ** exponents.double()

    @cached_property
    def rotated(self) -> Rotated:
        return rotate(self.rows)

    def answer(self, target: _Target) -> Answer:
        """The solution of one task."""
        if not self.each:
            return self._solved(self.rotated, target)
        if len(self.blocks) == 1:
            key = _digest(self.rows, self.fold, self.path, target.values, target.mass)
            return self._solved(self.rotated, target, key)
        scale = torch.cat(
            [self._scale(rows, target) for rows in torch.split(self.rows, self.blocks, 1)]
        )
        found = self._solved(rotate(self.rows * scale), target)
        return replace(found, weight=found.weight * scale.unsqueeze(1))

    def _scale(self, rows: Tensor, target: _Target) -> Tensor:
        """Factor of a modality, after which a common penalty is the one that is best for it alone."""
        key = _digest(rows, self.fold, self.path, target.values, target.mass)
        if key not in _alone:
            alone = rotate(rows)
            losses, _ = self._judged(alone, target)
            self._remember(key, losses, alone)
        penalty = _alone[key]
        return torch.full((rows.shape[1],), 1.0 if penalty == 0 else penalty**-0.5).double()

    def _remember(self, key: bytes, losses: Tensor, alone: Rotated) -> None:
        _alone[key] = float(self.path[losses.sum(1).argmin()]) * alone.total
        while len(_alone) > KNOWN:
            del _alone[next(iter(_alone))]

    def _judged(self, rows: Rotated, target: _Target) -> tuple[Tensor, Tensor]:
        """Loss on held-out groups by penalty [path problem], and initial weights."""
        path = self.path * rows.total
        if target.kind == "regression":
            return held_out_error(rows, target.values, self.fold, path).unsqueeze(1), path
        return held_out_loss(rows, target.mass, self.fold, path * _sides(target))

    def _solved(self, rows: Rotated, target: _Target, key: bytes | None = None) -> Answer:
        losses, starts = self._judged(rows, target)
        if key is not None:
            self._remember(key, losses, rows)
        best = losses.argmin(0)  # [problem]
        penalty = self.path[best] * rows.total
        if target.kind == "regression":
            found = ridge(rows, target.values, penalty).unsqueeze(1)
        else:
            start = torch.stack([starts[at, :, i] for i, at in enumerate(best.tolist())], 1)
            found = solve(rows, target.mass, penalty * _sides(target), start)
            found = (
                found[:, 0] if target.kind == "classification" else found[..., 0] - found[..., 1]
            )
        weight, bias = rows.weights(found)
        return Answer(
            weight=weight,
            bias=bias,
            penalty=float(self.path[best].log().mean().exp()),
            loss=float(losses.gather(0, best.unsqueeze(0)).mean()),
        )


_alone: dict[bytes, float] = {}
"""Digest of a modality's rows, folds, path and targets -> its penalty."""


def _digest(*tensors: Tensor) -> bytes:
    """Equal for equal values of equal shapes."""
    found = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        found.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        found.update(tensor.contiguous().numpy().data)
    return found.digest()


def _sides(target: _Target) -> int:
    """Factor of the penalty: a logistic is a softmax of two classes with twice its penalty."""
    return 2 if target.kind == "multilabel" else 1


def _read(
    predictor: Predictor, net: Linear, feed: Feed, train: Tensor
) -> tuple[Float[Tensor, "row feature"], Bool[Tensor, " row"], int]:
    """Scaled and pooled rows, view after view; which have any input at all; how often each row is there."""
    parts, present = [], []
    number = feed.num_views if isinstance(feed, ViewFeed) else 0
    with torch.no_grad():
        for view in range(number + 1):
            for some in torch.split(train, READ):
                batch = predictor.scaler(_in_view(feed, some, view))
                parts.append(net.features(batch).double())
                present.append(torch.stack([s.present for s in batch.inputs.values()]).any(0))
    return torch.cat(parts), torch.cat(present), number + 1


def _in_view(feed: Feed, rows: Tensor, view: int) -> Batch:
    if view == 0 or not isinstance(feed, ViewFeed):
        return feed.batch(rows)
    return feed.batch_in_views(rows, torch.full_like(rows, view))
