"""Optimiser and learning-rate schedule of a recipe."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from fusion.nets._layers import Net
from fusion.training.recipe import Recipe


def optimiser_of(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Parameter groups by the longest prefix of `lr_factors` that fits, and by the net's own rates.

    Raises:
        ValueError: a prefix that no parameter has.
    """
    groups: dict[str, dict[float, list[Tensor]]] = {"": {}, **{p: {} for p in recipe.lr_factors}}
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = net.rate_of(name) if isinstance(net, Net) else 1.0
        fitting = [prefix for prefix in groups if name.startswith(prefix)]
        groups[max(fitting, key=len)].setdefault(rate, []).append(parameter)
    empty = [prefix for prefix, found in groups.items() if prefix and not found]
    if empty:
        raise ValueError(f"lr_factors: no parameter's name starts with {', '.join(empty)}")
    parts: list[dict[str, Any]] = [
        {"params": found, "lr": recipe.lr * recipe.lr_factors.get(prefix, 1.0) * rate}
        for prefix, rates in groups.items()
        for rate, found in rates.items()
    ]
    # One kernel for all of a parameter's update: a third off the step of a small net on a CPU.
    fused = all(p.device.type in ("cpu", "cuda") for p in net.parameters())
    decay = recipe.weight_decay
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(parts, momentum=0.9, weight_decay=decay, fused=fused)
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    return kind(parts, weight_decay=decay, fused=fused)


def schedule_of(
    optimiser: torch.optim.Optimizer,
    recipe: Recipe,
    num_steps: int,
    rates: Sequence[float] | None = None,
) -> LambdaLR | ReduceLROnPlateau | None:
    """The schedule of a recipe: per step (cosine), per epoch (plateau), or none.

    Args:
        optimiser: whose rates follow it.
        recipe: that names it.
        num_steps: of all epochs.
        rates: factor of each epoch for `plateau` where nothing is watched; None: something is.
    """
    if recipe.schedule == "plateau" and rates is None:
        return ReduceLROnPlateau(optimiser, factor=0.1, patience=recipe.plateau)
    if recipe.schedule == "constant" or rates == ():
        return None
    if recipe.schedule == "plateau":
        given, in_epoch = rates or (), num_steps // recipe.epochs
        return LambdaLR(optimiser, lambda step: given[min(step // in_epoch, len(given) - 1)])
    warm = max(1, round(recipe.warmup * num_steps))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, num_steps - warm)))

    return LambdaLR(optimiser, factor)


def schedule_state(schedule: LambdaLR | ReduceLROnPlateau) -> dict[str, Any]:
    """Its numbers; the functions in it are built again."""
    plain = (int, float, str, bool, list, type(None))
    return {key: value for key, value in schedule.state_dict().items() if isinstance(value, plain)}
