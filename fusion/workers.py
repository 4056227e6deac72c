"""The workers that train one net together."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Group:
    """The workers that train together, and this one among them."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def joined(cls, device: torch.device | str = "cpu") -> "Group":
        """The initialised process group of torch, or a worker alone."""
        if not dist.is_initialized():
            return cls(device=torch.device(device))
        rank, world = dist.get_rank(), dist.get_world_size()
        return cls(rank=rank, world=world, device=torch.device(device))


def synchronised(net: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
    """Synchronise gradients on the last micro-batch of a step only (DDP's `no_sync`)."""
    if not last and isinstance(net, nn.parallel.DistributedDataParallel):
        return net.no_sync()
    return nullcontext()
