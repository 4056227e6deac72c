"""Late fusion by a perceptron: one deep subnet a modality, concatenation, two hidden layers.

    logits = W relu(V relu(U [z_1; ...; z_M]));   z_m = subnet_m(x_m)

Learns the XOR of two modalities. Baseline of Cambria et al., 2018, https://arxiv.org/abs/1707.09538, as in
the public benchmark implementations: the subnets are those of tensor fusion (an LSTM for text, the mean over
time and three layers for the others), so the pair of nets shows what the tensor adds.

Differs from them: the mean is over real steps only, norms are per row (`norm="batch"` is theirs), a missing
modality gives zeros.

Shapes: batch, time, feature, hidden, outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from fusion.batch import Batch, Output
from fusion.nets._layers import Heads, Net, Range, Widths, module_dict, names_of, width_of
from fusion.nets._subnet import Subnet


class LateFusionDNN(Net):
    """Concatenation of deep subnets."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Widths of the subnets and of the layers after them."""

        hidden: Widths = field(default_factory=lambda: {"text": 128, "*": 32})
        """Width of each modality's subnet."""

        recurrent: str = "text"
        """Modalities, comma-separated, that are read by an LSTM; the others by their mean over time."""

        recurrent_out: Widths = 64
        """Width of the vector of a modality that is read by an LSTM."""

        post_fusion: int = 128
        """Width of the two layers after the concatenation."""

        dropout: float = 0.2
        norm: Literal["layer", "batch"] = "layer"
        squash: Range | None = None
        """Bounds of a single output, by a sigmoid."""

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
        width = sum(subnet.width for subnet in subnets.values())
        self.layers = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(width, config.post_fusion),
            nn.ReLU(),
            nn.Linear(config.post_fusion, config.post_fusion),
            nn.ReLU(),
        )
        self.heads = Heads(config.post_fusion, outputs, squash=config.squash)

    def forward(self, batch: Batch) -> Output:
        vectors = [self.subnet[name](sequence) for name, sequence in self.read(batch).items()]
        return Output(self.heads(self.layers(torch.cat(vectors, -1))))
