"""The workers that train one net together."""

from dataclasses import dataclass, field

import torch
import torch.distributed as dist


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
