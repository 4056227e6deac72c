"""The gated memory of MFN and Graph-MFN.

Shapes: time, batch, width, inner, memory.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusion.nets._memory import gated_memory, scan


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
        firsts = [net.first for net in (self.candidate, self.keep, self.add)]
        sizes = [first.out_features for first in firsts]
        dropout = [self._mask(inner, n, rate) for n, rate in zip(sizes, self.rates, strict=True)]
        a = inner[..., : sizes[0]].relu()
        a = a if dropout[0] is None else a * dropout[0]
        candidate = torch.tanh(self.candidate.second(a))
        kept = self._joined(dropout[1:], inner, sizes[1:])
        seconds = (self.keep.second, self.add.second)
        if self.sees_memory:
            of_memory = torch.cat([first.weight[:, self.width :] for first in firsts[1:]])
            pairs = [(second.weight, second.bias) for second in seconds]
            return gated_memory(inner[..., sizes[0] :], candidate, kept, of_memory, *pairs)
        b = inner[..., sizes[0] :].relu()
        b = b if kept is None else b * kept
        keep, add = (
            torch.sigmoid(second(part))
            for second, part in zip(seconds, torch.split(b, sizes[1:], -1), strict=True)
        )
        return scan(keep, add * candidate)

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


def in_blocks(
    function: Callable[[Tensor, Tensor], Tensor], states: Tensor, *, rows: int = 1024
) -> Tensor:
    """`function` of every state and the one before it, over blocks of steps.

    On a CPU what it makes in between stays in the cache that way. The blocks are cut by `split`, whose
    gradient is one concatenation; slices would each fill a tensor of all steps.

    Args:
        function: of states before and now [time batch _].
        states: with one before the first step [1 + time batch _].
        rows: of one block.
    """
    before, now = states[:-1], states[1:]
    steps = max(1, rows // states.shape[1])
    if states.device.type != "cpu" or steps >= len(now):
        return function(before, now)
    blocks = zip(torch.split(before, steps), torch.split(now, steps), strict=True)
    return torch.cat([function(*block) for block in blocks])


class TwoLayers(nn.Module):
    """Linear, (ReLU and dropout by the caller), Linear."""

    def __init__(self, width: int, inner: int, out: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, inner)
        self.second = nn.Linear(inner, out)
