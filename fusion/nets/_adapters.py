"""What changes how a pretrained block is trained, and not what it computes: low-rank updates, recomputation.

    W' = W + 2 U D      U [out rank] starts at zero, D [rank in] at random; W is not trained

Hu et al., ICLR 2022, https://arxiv.org/abs/2106.09685, with their alpha at twice the rank. Recomputation
(Chen et al. 2016, https://arxiv.org/abs/1604.06174) keeps of a block only its input and runs it once more
for the gradients: a third more time, and the memory of one block in place of all.

Shapes: rows, in, out, rank.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

SCALE = 2.0


class LowRank(nn.Module):
    """A linear layer that learns a low-rank update of its weights.

    Args:
        base: the layer; its own weights are not trained any more.
        rank: of the update.
    """

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        """The updated weights, for models that read them past `forward`."""
        return self.base.weight + SCALE * self.up @ self.down

    @property
    def bias(self) -> Tensor | None:
        """That of the layer."""
        return self.base.bias

    def forward(self, x: Float[Tensor, "*rows in"]) -> Float[Tensor, "*rows out"]:
        update = nn.functional.linear(nn.functional.linear(x, self.down), self.up)
        found: Tensor = self.base(x) + SCALE * update
        return found


def adapt(block: nn.Module, rank: int) -> int:
    """Give every linear layer of a block a low-rank update; how many there are."""
    count = 0
    for parent in list(block.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, LowRank(child, rank))
                count += 1
    return count


def recompute(block: nn.Module) -> None:
    """Keep of a block's forward pass only its input; a random draw is drawn again as it was."""
    block.forward = functools.partial(_again, block.forward)


def _again(forward: Callable[..., Any], *args: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **options)
    return checkpoint(forward, *args, use_reentrant=False, **options)
