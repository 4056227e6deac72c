"""In which order rows are seen: a function of (seed, epoch) and of nothing else.

A step's rows are drawn for the whole group of workers and then shared out, so that two workers see what
one worker with the same rows a step would see.
"""

import hashlib

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

BUCKET = 16
"""Steps whose rows are sorted by length together."""


def seed_of(*parts: object) -> int:
    """One seed from several parts: numbers and words."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:7], "little")


def generator_of(*parts: object, device: str | torch.device = "cpu") -> Generator:
    """A generator seeded by several parts."""
    return Generator(device=device).manual_seed(seed_of(*parts))


def epoch_steps(
    rows: Int[Tensor, " row"],
    lengths: Int[Tensor, " row"],
    *,
    step_rows: int,
    seed: int,
    epoch: int,
    chances: Float[Tensor, " row"] | None = None,
) -> list[Tensor]:
    """The rows of each step of one epoch.

    The steps are of equal size (at most `step_rows`; a lone last row would break batch statistics). Rows of
    similar length come together where lengths differ, and the steps then in random order.

    Args:
        rows: indices of the training part.
        lengths: steps in time of each of them.
        step_rows: rows of one step over all workers.
        seed: of the run.
        epoch: counted from 0.
        chances: draw with replacement by these chances (balanced sampling) in place of once each.
    """
    generator = generator_of("order", seed, epoch)
    if chances is None:
        order = torch.randperm(len(rows), generator=generator)
    else:
        order = torch.multinomial(chances, len(rows), replacement=True, generator=generator)
    if int(lengths.min()) != int(lengths.max()):
        pool = step_rows * BUCKET
        order = torch.cat(
            [part[lengths[part].argsort(stable=True)] for part in torch.split(order, pool)]
        )
    num_steps = -(-len(rows) // step_rows)
    steps = [rows[part] for part in order.tensor_split(num_steps)]
    shuffled = torch.randperm(num_steps, generator=generator).tolist()
    return [steps[index] for index in shuffled]


def share_of(
    rows: Int[Tensor, " row"], *, rank: int, world: int
) -> tuple[Int[Tensor, " mine"], Float[Tensor, " mine"]]:
    """A worker's rows of a step, equally many for each; what was added to get there weighs zero."""
    size = -(-len(rows) // world)
    padded = torch.arange(size * world) % len(rows)
    mine = padded[rank * size : (rank + 1) * size]
    real = torch.arange(rank * size, (rank + 1) * size) < len(rows)
    return rows[mine], real.float()
