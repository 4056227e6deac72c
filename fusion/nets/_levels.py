"""What a head reads of an encoder that is trained with it: one block or all, and one vector of each clip.

Shapes: batch, time, width, level.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusion.batch import Steps
from fusion.nets.concat_mlp import pooled

Layers = Literal["last", "sum", "all"]


class Levels(nn.Module):
    """The states of the last block, a learned mean of the embedding and of all blocks, or all side by side.

    In the mean each level is brought to mean 0 and variance 1 before: states grow from block to block, and
    the last would drown the others.

    Args:
        layers: which of the three.
        depth: blocks of the encoder.
    """

    def __init__(self, layers: Layers, depth: int) -> None:
        super().__init__()
        self.layers, self.depth = layers, depth
        if layers == "sum":
            self.shares = nn.Parameter(torch.zeros(depth + 1))

    @property
    def factor(self) -> int:
        """Width of the states in widths of the encoder."""
        return self.depth + 1 if self.layers == "all" else 1

    def forward(
        self, levels: Sequence[Float[Tensor, "batch time dim"]]
    ) -> Float[Tensor, "batch time width"]:
        if self.layers == "last":
            return levels[-1]
        if self.layers == "all":
            return torch.cat(list(levels), -1)
        total = torch.zeros_like(levels[-1])
        for share, states in zip(self.shares.softmax(0), levels, strict=True):
            total = total + share * nn.functional.layer_norm(states, states.shape[-1:])
        return total


class Vector(nn.Module):
    """Mean and standard deviation over the steps of a clip, scaled as they were before the encoder changed.

    Args:
        width: of the states.
        dropout: share of the vector that is hidden in training.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(2 * width))
        self.register_buffer("spread", torch.ones(2 * width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Steps) -> Steps:
        """One step a clip; of it the head is shown what `hidden` leaves."""
        vector = self.scaled(self.of(states))
        return Steps(vector.unsqueeze(1), states.present.unsqueeze(1))

    def hidden(self, vector: Steps) -> Steps:
        """With a share of it hidden in training."""
        return Steps(self.dropout(vector.values), vector.mask)

    def of(self, states: Steps) -> Float[Tensor, "batch pooled"]:
        """As it comes, in single precision: a variance is a difference of near numbers."""
        return pooled(Steps(states.values.float(), states.mask), "mean_std")

    def scaled(self, vector: Float[Tensor, "*row pooled"]) -> Float[Tensor, "*row pooled"]:
        """A vector as the head reads it."""
        return (vector - self.centre) / self.spread

    @torch.no_grad()
    def fit(self, vectors: Float[Tensor, "row pooled"]) -> None:
        """Scale by the training rows that have the input."""
        spread, centre = torch.std_mean(vectors.double(), 0, correction=0)
        self.centre.copy_(centre)
        self.spread.copy_(torch.where(spread > 1e-6, spread, 1.0))
