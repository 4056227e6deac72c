"""Solve the linear head of a net that trains encoders, before it trains them.

Linear probing, then fine-tuning: Kumar et al., ICLR 2022, https://arxiv.org/abs/2202.10054. A head that
starts at random sends large and senseless gradients into states that were good; one that is solved sends
those of its errors only. It is solved as the net `linear` is, with a penalty chosen by held-out groups.

Shapes: row, feature.
"""

from collections.abc import Mapping
from typing import cast

import torch
import torch.distributed as dist
from jaxtyping import Int
from torch import Tensor

from fusion.batch import Batch, Steps
from fusion.nets._levels import Vector
from fusion.nets.finetune import FineTune
from fusion.nets.linear import Linear
from fusion.predictor import Predictor
from fusion.tasks import Task
from fusion.training.convex import Labelled, solve_rows
from fusion.training.recipe import Recipe
from fusion.training.rows import Feed, at_once
from fusion.training.units import fit_units
from fusion.workers import Group

ROWS = 64
"""Rows that are read at a time, clips of similar length together."""


def begins_solved(predictor: Predictor) -> bool:
    """Whether a net has a head to be solved first."""
    return isinstance(predictor.net, FineTune) and predictor.net.begins_solved


def solve_head(
    predictor: Predictor,
    feed: Feed,
    *,
    tasks: Mapping[str, Task],
    train: Tensor,
    groups: Int[Tensor, " row"],
    recipe: Recipe,
    group: Group,
) -> None:
    """Set the head of a net, and the scale of what it reads, by the encoders as they are.

    Args:
        predictor: the net behind its fitted scaler; changed in place, alike on every worker.
        feed: where rows come from.
        tasks: what is predicted.
        train: rows to fit on.
        groups: code of the group of each of them.
        recipe: how; `class_weights` and `balanced` count.
        group: the workers; each reads its share of the rows.

    Raises:
        ValueError: no training row has a label and an input, or states are not finite.
    """
    net = predictor.net
    assert isinstance(net, FineTune)
    assert isinstance(net.head, Linear)
    predictor.to(group.device).eval()
    steps = _read(predictor, net, feed, train, group)
    for name in net.vectors:
        known, vector = steps[name].present, _vector(net, name).cpu()
        if bool(known.any()):
            vector.fit(steps[name].values[known, 0])
            steps[name] = Steps(vector.scaled(steps[name].values), steps[name].mask)
    head = net.head.cpu()
    rows = head.features(Batch(inputs=steps)).double()
    present = torch.stack([each.present for each in steps.values()]).any(0)
    fit_units(predictor, feed, train, recipe)
    targets, labelled = feed.targets(train)
    given = Labelled(predictor.units.scaled(targets), labelled, groups=groups)
    solve_rows(head, rows, present, given, tasks, recipe)
    predictor.to(group.device)


@torch.no_grad()
def _read(
    predictor: Predictor, net: FineTune, feed: Feed, train: Tensor, group: Group
) -> dict[str, Steps]:
    """One vector a row and input, not scaled yet, in the order of `train` and on the CPU."""
    order = feed.lengths[train].argsort(stable=True)
    parts: list[dict[str, Steps]] = []
    mine = torch.split(order, at_once(feed, train, ROWS))[group.rank :: group.world]
    for some in mine:
        batch = predictor.scaler(feed.batch(train[some]).to(group.device))
        for piece in net.pieces(batch):
            states = net.states(piece)
            parts.append({name: _one_step(net, name, each) for name, each in states.items()})
    places = torch.cat([*mine, order[:0]])
    shared = [(places, parts)]
    if group.world > 1:
        shared = [None] * group.world  # type: ignore[list-item]
        dist.all_gather_object(shared, (places, parts))
    back = torch.cat([places for places, _ in shared]).argsort()
    all_parts = [part for _, parts in shared for part in parts]
    return {
        name: Steps(
            torch.cat([part[name].values for part in all_parts])[back],
            torch.cat([part[name].mask for part in all_parts])[back],
        )
        for name in all_parts[0]
    }


def _one_step(net: FineTune, name: str, steps: Steps) -> Steps:
    vector = _vector(net, name).of(steps) if name in net.vectors else steps.mean()
    return Steps(vector.unsqueeze(1).cpu(), steps.present.unsqueeze(1).cpu())


def _vector(net: FineTune, name: str) -> Vector:
    return cast(Vector, net.vectors[name])
