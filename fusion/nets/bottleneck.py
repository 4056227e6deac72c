"""Attention bottlenecks: modalities talk through a handful of shared tokens only.

    [x_m; b_m] <- layer_m([x_m; b]) for every modality;   b <- mean of b_m over those present
    logits = head(mean over modalities of their class tokens)

The first layers see one modality each; from `fuse_from` on, all that passes between modalities must fit into
`tokens` vectors, which costs far less than full cross attention. Learns the XOR of two modalities. Nagrani et
al., NeurIPS 2021, https://arxiv.org/abs/2107.00135.

Differs from the paper: inputs are encoder features, not patches; sinusoidal positions; masks; a missing
modality neither writes to the bottleneck nor counts in the means.

`explain`: `bottleneck/<modality>` [batch bottleneck time], how much of each step went into each token in the
last layer, the class token first.

Shapes: batch, time, feature, hidden, bottleneck, outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from fusion.batch import Batch, Output
from fusion.nets._attention import TransformerLayer, heads_for, sinusoids
from fusion.nets._layers import Heads, Net, Range, module_dict


class BottleneckFusion(Net):
    """Per-modality transformers that share a few tokens."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Depth and width."""

        hidden: int = 64
        heads: int = 4
        layers: int = 4
        fuse_from: int = 2
        """First layer (from 0) that reads the bottleneck."""

        tokens: int = 4
        feedforward: int = 256
        dropout: float = 0.1
        squash: Range | None = None
        """Bounds of a single output, by a sigmoid."""

        def __post_init__(self) -> None:
            if not 0 <= self.fuse_from < self.layers:
                raise ValueError(
                    f"fuse_from is {self.fuse_from}, expected 0 to {self.layers - 1} (layers - 1)"
                )

    def __init__(
        self, config: Config, *, dims: Mapping[str, int], outputs: Mapping[str, int]
    ) -> None:
        super().__init__(dims, outputs)
        self.config = config
        width = config.hidden
        self.embed = module_dict(
            {n: nn.Sequential(nn.LayerNorm(d), nn.Linear(d, width)) for n, d in self.dims.items()}
        )
        heads = heads_for(width, config.heads)
        self.layers = module_dict(
            {
                name: nn.ModuleList(
                    TransformerLayer(
                        width, heads, config.feedforward, config.dropout, pre_norm=True
                    )
                    for _ in range(config.layers)
                )
                for name in self.dims
            }
        )
        self.cls = nn.Parameter(0.02 * torch.randn(len(self.dims), width))
        self.tokens = nn.Parameter(0.02 * torch.randn(config.tokens, width))
        self.norm = nn.LayerNorm(width)
        self.heads = Heads(width, outputs, squash=config.squash)

    def forward(self, batch: Batch) -> Output:
        x, masks, present = self._embedded(batch)
        shared = self.tokens.expand(len(present), -1, -1)
        for number in range(self.config.layers):
            shared = self._layer(number, x, masks, present, shared)
        cls = torch.stack([v[:, 0] for v in x.values()], 1)
        return Output(self.heads(self.norm(_mean(cls, present))))

    @torch.no_grad()
    def explain(self, batch: Batch) -> dict[str, Tensor]:
        """What the last layer writes into the bottleneck, beside what each modality changes."""
        x, masks, present = self._embedded(batch)
        shared = self.tokens.expand(len(present), -1, -1)
        last = self.config.layers - 1
        for number in range(last):
            shared = self._layer(number, x, masks, present, shared)
        shown = {}
        for name, values in x.items():
            layer = self._at(name, last)
            both, allowed = _with_tokens(values, masks[name], shared)
            y = layer.norm1(both)
            look = layer.attention.weights(y, y, allowed)
            shown[f"bottleneck/{name}"] = look[:, values.shape[1] :, : values.shape[1]]
        return {**shown, **super().explain(batch)}

    def _at(self, name: str, number: int) -> TransformerLayer:
        return cast(TransformerLayer, cast(nn.ModuleList, self.layers[name])[number])

    def _embedded(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Class token and steps of every modality, their masks, and who is present [batch modality]."""
        x, masks, present = {}, {}, []
        for number, (name, sequence) in enumerate(self.read(batch).items()):
            h = self.embed[name](sequence.values)
            h = h + sinusoids(h.shape[1], h.shape[2], h)
            x[name] = torch.cat([self.cls[number].expand(len(h), 1, -1), h], 1)
            present.append(sequence.present)
            masks[name] = torch.cat([sequence.present[:, None], sequence.mask], 1)
        return x, masks, torch.stack(present, 1)

    def _layer(
        self,
        number: int,
        x: dict[str, Tensor],
        masks: Mapping[str, Tensor],
        present: Tensor,
        shared: Tensor,
    ) -> Tensor:
        """One layer of all modalities in place; gives the bottleneck after it."""
        if number < self.config.fuse_from:
            for name in x:
                x[name] = self._at(name, number)(x[name], masks[name].unsqueeze(1))
            return shared
        written = []
        for name in x:
            both, allowed = _with_tokens(x[name], masks[name], shared)
            both = self._at(name, number)(both, allowed)
            steps = x[name].shape[1]
            x[name] = both[:, :steps]
            written.append(both[:, steps:])
        return _mean(torch.stack(written, 1), present)


def _with_tokens(x: Tensor, mask: Tensor, shared: Tensor) -> tuple[Tensor, Tensor]:
    real = torch.cat([mask, mask.new_ones(shared.shape[:2])], 1)
    return torch.cat([x, shared], 1), real.unsqueeze(1)


def _mean(values: Tensor, present: Tensor) -> Tensor:
    """Mean over the modalities that are there [batch modality ...]; zero where none is."""
    weight = present.to(values.dtype)
    weight = weight / weight.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("bm,bm...->b...", weight, values)
