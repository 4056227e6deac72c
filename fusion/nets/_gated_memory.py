"""The gated memory of MFN and Graph-MFN.

Shapes: time, batch, width, inner, memory.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusion.nets.kernels.memory import gated_memory, scan


class GatedMemory(nn.Module):
    """A memory that two small networks keep and fill: u_t = g1 u_{t-1} + g2 tanh(D(seen_t)).

    `sees_memory`: the gates read [seen_t; u_{t-1}] instead of seen_t alone. Every network is Linear, ReLU,
    dropout, Linear. `seen` is wide and `inner` narrow, so the caller applies `first_layers` block by block.
    """

    def __init__(
        self,
        width: int,
        memory: int,
        *,
        candidate: tuple[int, float],
        keep: tuple[int, float],
        add: tuple[int, float],
        sees_memory: bool,
    ) -> None:
        super().__init__()
        self.width, self.sees_memory = width, sees_memory
        self.rates = tuple(rate for _, rate in (candidate, keep, add))
        seen = width + memory if sees_memory else width
        self.candidate = TwoLayers(width, candidate[0], memory)
        self.keep = TwoLayers(seen, keep[0], memory)
        self.add = TwoLayers(seen, add[0], memory)

    def first_layers(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the three first layers, side by side, as far as they read `seen`."""
        firsts = [net.first for net in (self.candidate, self.keep, self.add)]
        weight = torch.cat([first.weight[:, : self.width] for first in firsts])
        return weight, torch.cat([first.bias for first in firsts])

    def forward(self, inner: Float[Tensor, "time batch inner"]) -> Tensor:
        """The memory after each step [time batch memory], from the first layers' outputs."""
        nets = (self.candidate, self.keep, self.add)
        sizes = [net.first.out_features for net in nets]
        dropout = [self._mask(inner, n, rate) for n, rate in zip(sizes, self.rates, strict=True)]
        kept = self._joined(dropout, inner, sizes)
        if self.sees_memory:
            of_memory = torch.cat([net.first.weight[:, self.width :] for net in nets[1:]])
            pairs = [(net.second.weight, net.second.bias) for net in nets]
            return gated_memory(inner, kept, of_memory, *pairs)
        a = inner.relu()
        a = a if kept is None else a * kept
        candidate, keep, add = (
            net.second(part) for net, part in zip(nets, torch.split(a, sizes, -1), strict=True)
        )
        return scan(torch.sigmoid(keep), torch.sigmoid(add) * torch.tanh(candidate))

    def _mask(self, like: Tensor, size: int, rate: float) -> Tensor | None:
        if not self.training or rate == 0:
            return None
        return nn.functional.dropout(like.new_ones(*like.shape[:2], size), rate)

    @staticmethod
    def _joined(masks: list[Tensor | None], like: Tensor, sizes: list[int]) -> Tensor | None:
        if all(mask is None for mask in masks):
            return None
        ones = [like.new_ones(*like.shape[:2], size) for size in sizes]
        return torch.cat([o if m is None else m for m, o in zip(masks, ones, strict=True)], -1)


class TwoLayers(nn.Module):
    """Linear, (ReLU and dropout by the caller), Linear."""

    def __init__(self, width: int, inner: int, out: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, inner)
        self.second = nn.Linear(inner, out)
