"""Where a training starts, who is told of its epochs, and where it ends."""

import io
from collections.abc import Callable
from dataclasses import dataclass

import torch

OnEpoch = Callable[[dict[str, float], Callable[[], bytes]], bool]
"""(record of the epoch, function that gives the state to go on from) -> True to stop."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """Seed of a training, checkpoint to resume from, callback for each epoch, and last epoch."""

    seed: int = 0
    """Names everything random."""

    resume: bytes | None = None
    """The state an `on_epoch` gave, to go on after that epoch."""

    on_epoch: OnEpoch | None = None
    """Called after each epoch on every worker, with equal records."""

    last_epoch: int | None = None
    """The last one, where the recipe (and its schedule) would go on."""

    rates: tuple[float, ...] = ()
    """Factor on the learning rate in each epoch, the last one for all that follow, in place of the schedule
    `plateau` where no row says that the figures stopped getting better."""


def workers_of(state: bytes) -> int | None:
    """How many workers a state to go on from is of; None where it does not say."""
    content = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
    found = content.get("workers")
    return None if found is None else int(found)
