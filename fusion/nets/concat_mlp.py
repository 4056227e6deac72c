"""Concatenation: one pooled vector a modality, side by side, into a small perceptron.

    logits = W act(V [norm(z_1); ...; norm(z_M); present])

The baseline that every fusion must beat. Learns the XOR of two modalities. The presets are two published
heads: `vggish_bert` (audio map and pooled text joined, two layers of 512, no bias at the end) and `clip_clap`
(one modality, two layers of 768 with leaky ReLU; its three members are then fused by a late rule). They drop
the norms and presence flags. Both originals put softmax or sigmoid into the network; here logits come out.

Shapes: batch, time, feature, hidden, outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fusion.batch import Batch, Output, Steps
from fusion.nets._layers import Heads, Net, Range, module_dict

ACTIVATIONS = {"gelu": nn.GELU, "leaky_relu": nn.LeakyReLU, "relu": nn.ReLU}


class ConcatMLP(Net):
    """A perceptron on joined vectors."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Depth and width of the perceptron."""

        hidden: int = 256
        layers: int = 2
        dropout: float = 0.3
        activation: Literal["gelu", "leaky_relu", "relu"] = "relu"
        pool: Literal["mean", "mean_std"] = "mean"
        """Pooling over the real steps of a clip."""

        norm: Literal["layer", "none"] = "layer"
        """Normalisation of each modality's vector."""

        presence: bool = True
        """Tell the perceptron which modalities are there."""

        head_bias: bool = True
        squash: Range | None = None
        """Bounds of a single output, by a sigmoid."""

    def __init__(
        self, config: Config, *, dims: Mapping[str, int], outputs: Mapping[str, int]
    ) -> None:
        super().__init__(dims, outputs)
        self.config = config
        factor = 2 if config.pool == "mean_std" else 1
        self.norm = module_dict(
            {
                name: nn.LayerNorm(dim * factor) if config.norm == "layer" else nn.Identity()
                for name, dim in self.dims.items()
            }
        )
        width = factor * sum(self.dims.values()) + (len(self.dims) if config.presence else 0)
        layers: list[nn.Module] = []
        for _ in range(config.layers):
            layers += [
                nn.Linear(width, config.hidden),
                ACTIVATIONS[config.activation](),
                nn.Dropout(config.dropout),
            ]
            width = config.hidden
        self.layers = nn.Sequential(*layers)
        self.heads = Heads(width, outputs, squash=config.squash, bias=config.head_bias)

    def forward(self, batch: Batch) -> Output:
        parts = []
        for name, sequence in self.read(batch).items():
            present = sequence.present.unsqueeze(-1)
            parts.append(self.norm[name](pooled(sequence, self.config.pool)) * present)
            if self.config.presence:
                parts.append(present.to(sequence.values.dtype))
        return Output(self.heads(self.layers(torch.cat(parts, -1))))


def pooled(sequence: Steps, how: Literal["mean", "mean_std"]) -> Tensor:
    """One vector of the real steps: mean, or mean and standard deviation side by side."""
    mean = sequence.mean()
    if how == "mean":
        return mean
    squares = Steps((sequence.values - mean.unsqueeze(1)).square(), sequence.mask).mean()
    # The gradient of a square root at zero is infinite: one step, or a constant feature.
    return torch.cat([mean, (squares + 1e-8).sqrt()], -1)


PRESETS = {
    "clip_clap": lambda: ConcatMLP.Config(
        hidden=768, activation="leaky_relu", norm="none", presence=False
    ),
    "vggish_bert": lambda: ConcatMLP.Config(
        hidden=512, dropout=0.0, norm="none", presence=False, head_bias=False
    ),
}
"""Published heads: of a film-clip sentiment system (one modality) and of an IEMOCAP system."""
