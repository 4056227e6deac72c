"""Losses, one file each.

A loss is ``loss(logits, target, *, mask=None, weights=None, ...) -> (weighted sum, total weight)``: sums, so
that a distributed run can divide by the all-reduced total weight. `logits` are [*rows outputs], as a net
gives them; `mask` has the shape of `target` and is True where a target is known (what is masked may hold
anything, NaN too); `weights` are [*rows]. Without a single known target both sums are zero.
"""

import importlib
from collections.abc import Callable
from typing import cast

from torch import Tensor

from fusion.tasks import Kind

LOSSES: dict[str, str] = {
    "bce": "binary cross-entropy over labels, with a weight for the positives of each (multi-label)",
    "ccc": "one minus the concordance correlation (regression)",
    "cross_entropy": "cross-entropy with class weights and label smoothing (classification)",
    "focal": "cross-entropy that fades for rows that are right already (classification)",
    "huber": "squared near zero, absolute further out (regression)",
    "kl": "divergence from the distribution of raters' choices (classification)",
    "l1": "absolute error (regression)",
    "mse": "squared error (regression)",
    "triplet": "adaptive-margin triplets, variance and covariance on embeddings (of no task's answers)",
}
"""Loss name (= file name) -> one-line description."""

KINDS: dict[str, tuple[Kind, ...]] = {
    "bce": ("multilabel",),
    "ccc": ("regression",),
    "cross_entropy": ("classification",),
    "focal": ("classification",),
    "huber": ("regression",),
    "kl": ("classification",),
    "l1": ("regression",),
    "mse": ("regression",),
    "triplet": (),
}
"""Loss name -> kinds of tasks it has a meaning for; on another one it fails, or trains nothing. Without a
kind: it moves embeddings, and logits that it moves are no answers."""

OF_DISTRIBUTIONS = ("kl",)
"""Losses whose target is a distribution [*rows outputs] in place of class indices."""


Loss = Callable[..., tuple[Tensor, Tensor]]
"""What every file of this package holds under its own name."""


def loss_function(name: str) -> Loss:
    """The function of a loss.

    Raises:
        ValueError: no such loss.
    """
    if name not in LOSSES:
        raise ValueError(f"there is no loss {name!r}; known: {', '.join(LOSSES)}")
    return cast(Loss, getattr(importlib.import_module(f"fusion.losses.{name}"), name))


def losses_for(kind: Kind) -> list[str]:
    """Names of the losses that have a meaning for a kind of task.

    >>> losses_for("multilabel")
    ['bce']
    """
    return [name for name in LOSSES if kind in KINDS[name]]
