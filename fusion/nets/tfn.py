"""Tensor fusion: the outer product of all modalities holds every product of their features.

    z = [1; z_1] (x) [1; z_2] (x) ... (x) [1; z_M];   logits = W relu(V relu(U z))

The constant 1 keeps all products of fewer modalities: from uni- up to M-modal terms. Learns the XOR of two
modalities. Zadeh et al., EMNLP 2017, https://arxiv.org/abs/1707.07250.

Differs from the paper: any number of modalities in sorted order; U is contracted with the product of all
modalities but the last, then with the last, so that z itself (140,481 wide at the paper's sizes) is never
formed; dropout therefore falls on the factors, not on single products; the (-3, 3) squashing is an option.
A missing modality gives zeros, hence the tensor of the others.

Shapes: batch, time, feature, left (products of all modalities but the last), right, hidden, outputs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusion.batch import Batch, Output, Steps
from fusion.nets._layers import Heads, Net, Range, Widths, module_dict, names_of, width_of
from fusion.nets._subnet import Subnet


class TensorFusion(Net):
    """Outer product of one vector a modality."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sizes of the paper."""

        hidden: Widths = field(default_factory=lambda: {"text": 128, "*": 32})
        """Width of each modality's subnet."""

        recurrent: str = "text"
        """Modalities, comma-separated, that are read by an LSTM; the others by their mean over time."""

        recurrent_out: Widths = 128
        """Width of the vector of a modality that is read by an LSTM."""

        post_fusion: int = 128
        """Width of the two layers after the tensor."""

        dropout: float = 0.3
        norm: Literal["layer", "batch"] = "layer"
        squash: Range | None = None
        """Bounds of a single output, by a sigmoid; (-3, 3) in the paper."""

    def __init__(
        self, config: Config, *, dims: Mapping[str, int], outputs: Mapping[str, int]
    ) -> None:
        super().__init__(dims, outputs)
        recurrent = names_of(config.recurrent)
        subnets = {
            name: Subnet(
                dim,
                width_of(config.hidden, name),
                recurrent_out=width_of(config.recurrent_out, name) if name in recurrent else None,
                norm=config.norm,
                dropout=config.dropout,
            )
            for name, dim in self.dims.items()
        }
        self.subnet = module_dict(subnets)
        widths = [subnet.width + 1 for subnet in subnets.values()]
        self.tensor = OuterLinear(math.prod(widths[:-1]), widths[-1], config.post_fusion)
        self.linear = nn.Linear(config.post_fusion, config.post_fusion)
        self.dropout = nn.Dropout(config.dropout)
        self.heads = Heads(config.post_fusion, outputs, squash=config.squash)

    def vectors(self, sequences: Mapping[str, Steps]) -> list[Float[Tensor, "batch hidden"]]:
        """One vector a modality, before the constant."""
        return [self.subnet[name](sequence) for name, sequence in sequences.items()]

    def forward(self, batch: Batch) -> Output:
        factors = [with_one(self.dropout(z)) for z in self.vectors(self.read(batch))]
        left = factors[0][:, :1]
        for factor in factors[:-1]:
            left = (left.unsqueeze(2) * factor.unsqueeze(1)).flatten(1)
        h = torch.relu(self.tensor(left, factors[-1]))
        return Output(self.heads(torch.relu(self.linear(h))))


class OuterLinear(nn.Module):
    """A linear layer on the outer product of two vectors, which is never formed."""

    def __init__(self, left: int, right: int, hidden: int) -> None:
        super().__init__()
        self.hidden, self.right = hidden, right
        bound = 1 / math.sqrt(left * right)
        self.weight = nn.Parameter(torch.empty(left, hidden * right).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(hidden).uniform_(-bound, bound))

    def forward(
        self, left: Float[Tensor, "batch left"], right: Float[Tensor, "batch right"]
    ) -> Float[Tensor, "batch hidden"]:
        # [batch, left] @ [left, hidden * right], then a dot product with the right factor.
        partial = (left @ self.weight).view(-1, self.hidden, self.right)
        return torch.bmm(partial, right.unsqueeze(2)).squeeze(2) + self.bias


def with_one(z: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch right"]:
    """The vector with a constant 1 in front."""
    return torch.cat([torch.ones_like(z[:, :1]), z], 1)


PRESETS = {
    "A8": lambda: TensorFusion.Config(
        hidden={"text": 128, "audio": 32, "*": 128},
        recurrent_out=128,
        post_fusion=16,
        norm="batch",
        squash=(-3.0, 3.0),
    ),
}
"""Model of the influencer-empathy study: all three modalities."""
