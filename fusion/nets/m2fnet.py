"""M2FNet: encoders over the utterances of a dialogue, then attention in which only the key changes.

    x_m <- x_m + encoder(x_m)                                        over the dialogue, a few times
    T <- FC([ MHA(Q = T, K = X_m, V = T) for every other modality m ])   a few layers, each its own weights
    logits = FC(relu(FC([T; X_m of the others])))

The anchor T (text) is refined by where the other modalities look; its values stay in text space. Chudasama et
al., CVPRW 2022, https://arxiv.org/abs/2206.02187. The loss of its extractors is `fusion/losses/triplet.py`.

Differs from the paper: masks (an utterance or a modality may be missing), a causal form, any modalities;
without `anchor` the first one in sorted order takes its place. `reference` is the fusion of a public
re-implementation: relu(FC(relu([attended; T]))).

`explain`: `attention/<modality>` [batch query key] of the last fusion layer.

Shapes: batch, time (utterances), feature, hidden, outputs.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from fusion.batch import Batch, Output
from fusion.nets._attention import Attention, TransformerLayer, allowed_keys, heads_for
from fusion.nets._layers import Heads, Net, Range, module_dict


class M2FNet(Net):
    """Dialogue encoders with skips and a stack of fusion attention."""

    axis = "dialogue"

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Depth and width."""

        hidden: int = 256
        heads: int = 8
        """At most; the largest number that divides a width is taken."""

        encoders: int = 1
        """Encoders with a skip around each (1 for MELD, 5 for IEMOCAP)."""

        encoder_layers: int = 1
        feedforward: int = 2048
        fusion_layers: int = 5
        classifier: int = 256
        classifier_layers: int = 2
        """Linear layers behind the fusion, the one that gives the logits included."""

        dropout: float = 0.4
        anchor: str = "text"
        reference: bool = False
        squash: Range | None = None
        """Bounds of a single output, by a sigmoid."""

    def __init__(
        self, config: Config, *, dims: Mapping[str, int], outputs: Mapping[str, int]
    ) -> None:
        super().__init__(dims, outputs)
        self.anchor = config.anchor if config.anchor in self.dims else next(iter(self.dims))
        self.others = [name for name in self.dims if name != self.anchor]
        self.encode = module_dict(
            {
                name: nn.ModuleList(DialogueEncoder(dim, config) for _ in range(config.encoders))
                for name, dim in self.dims.items()
            }
        )
        self.project = module_dict(
            {n: nn.Linear(dim, config.hidden) for n, dim in self.dims.items()}
        )
        steps = config.fusion_layers if self.others else 0
        self.fusion = nn.ModuleList(FusionLayer(self.others, config) for _ in range(steps))
        width, layers = len(self.dims) * config.hidden, config.classifier_layers
        if layers < 1:
            raise ValueError(f"classifier_layers: expected 1 or more, came {layers}")
        widths = [width, *[config.classifier] * (layers - 1)]
        hidden = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(widths)]
        self.classifier = nn.Sequential(
            *(part for layer in hidden for part in layer), nn.Dropout(config.dropout)
        )
        self.heads = Heads(widths[-1], outputs, squash=config.squash)

    def forward(self, batch: Batch) -> Output:
        x, masks = self.encoded(batch)
        for layer in self.fusion:
            x[self.anchor] = layer(x, self.anchor, masks, batch.causal)
        z = torch.cat(list(x.values()), -1)
        return Output(self.heads(self.classifier(z)))

    def encoded(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Every modality over its dialogue [batch time hidden], and its mask."""
        x, masks = {}, {}
        for name, sequence in self.read(batch).items():
            values, mask = sequence.values, sequence.mask
            for encoder in cast(nn.ModuleList, self.encode[name]):
                values = values + encoder(values, allowed_keys(mask, causal=batch.causal))
            x[name] = self.project[name](values) * mask.unsqueeze(-1)
            masks[name] = mask
        return x, masks

    @torch.no_grad()
    def explain(self, batch: Batch) -> dict[str, Tensor]:
        """Where the last fusion layer looks, beside what each modality changes in the logits."""
        x, masks = self.encoded(batch)
        shown = {}
        for layer in self.fusion:
            before = x[self.anchor]
            x[self.anchor] = layer(x, self.anchor, masks, batch.causal)
        for name in self.others if len(self.fusion) else []:
            attention = cast(FusionLayer, self.fusion[-1]).attention[name]
            keys = allowed_keys(masks[name] & masks[self.anchor], causal=batch.causal)
            look = cast(Attention, attention).weights(before, x[name], keys)
            shown[f"attention/{name}"] = look
        return {**shown, **super().explain(batch)}


class DialogueEncoder(nn.Module):
    """Post-norm transformer layers and a closing norm."""

    def __init__(self, width: int, config: M2FNet.Config) -> None:
        super().__init__()
        heads = heads_for(width, config.heads)
        self.layers = nn.ModuleList(
            TransformerLayer(width, heads, config.feedforward, config.dropout)
            for _ in range(config.encoder_layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, allowed)
        y: Tensor = self.norm(x)
        return y


class FusionLayer(nn.Module):
    """One step of the anchor towards the others."""

    def __init__(self, others: list[str], config: M2FNet.Config) -> None:
        super().__init__()
        heads = heads_for(config.hidden, config.heads)
        self.reference = config.reference
        self.attention = module_dict(
            {name: Attention(config.hidden, heads, config.dropout) for name in others}
        )
        parts = len(others) + (1 if config.reference else 0)
        self.linear = nn.Linear(parts * config.hidden, config.hidden)

    def forward(
        self, x: Mapping[str, Tensor], anchor: str, masks: Mapping[str, Tensor], causal: bool
    ) -> Tensor:
        text = x[anchor]
        parts = [
            attention(text, x[name], text, allowed_keys(masks[name] & masks[anchor], causal=causal))
            for name, attention in self.attention.items()
        ]
        if self.reference:
            joined: Tensor = torch.relu(self.linear(torch.relu(torch.cat([*parts, text], -1))))
        else:
            joined = self.linear(torch.cat(parts, -1))
        return joined
