"""Gated fusion of utterance vectors: a softmax over the modalities that are there.

    z_m = relu(W_m norm(x_m));   a = softmax_m( v . relu(U [z_1; ...; z_M]) );   logits = W sum_m a_m z_m

The fusion that MERBench uses throughout: Lian et al. 2024, https://arxiv.org/abs/2401.03429. The gates see
all modalities and sum to one over those that are present, so a missing modality simply drops out.

Differs from the paper: masks; whole modalities are dropped at random in training (`modality_dropout`), which
makes one net serve any subset; features may be pooled as mean and standard deviation.

`explain`: `gates` [batch modality], in sorted order of the modalities.

Shapes: batch, time, feature, modality, hidden, outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fusion.augment import augment
from fusion.batch import Batch, Output
from fusion.nets._layers import Heads, Net, Range, module_dict
from fusion.nets.concat_mlp import pooled


class GatedFusion(Net):
    """A weighted mean of projected modalities with learned weights."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Width of the shared space."""

        hidden: int = 128
        dropout: float = 0.3
        modality_dropout: float = 0.1
        """Share of modalities that are hidden in training, never all of a row [0..1)."""

        pool: Literal["mean", "mean_std"] = "mean"
        """Pooling over the real steps of a clip."""

        norm: Literal["layer", "none"] = "layer"
        """Normalisation of each modality's vector; few, scaled features (action units) are better without."""

        squash: Range | None = None
        """Bounds of a single output, by a sigmoid."""

    def __init__(
        self, config: Config, *, dims: Mapping[str, int], outputs: Mapping[str, int]
    ) -> None:
        super().__init__(dims, outputs)
        self.config = config
        factor = 2 if config.pool == "mean_std" else 1
        self.project = module_dict(
            {
                name: nn.Sequential(
                    nn.LayerNorm(dim * factor) if config.norm == "layer" else nn.Identity(),
                    nn.Linear(dim * factor, config.hidden),
                    nn.ReLU(),
                    nn.Dropout(config.dropout),
                )
                for name, dim in self.dims.items()
            }
        )
        self.gate = nn.Sequential(
            nn.Linear(len(dims) * config.hidden, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, len(dims)),
        )
        self.heads = Heads(config.hidden, outputs, squash=config.squash)

    def forward(self, batch: Batch) -> Output:
        if self.training and self.config.modality_dropout:
            batch = augment(batch, modality_dropout=self.config.modality_dropout)
        z, gates = self._fuse(batch)
        return Output(self.heads(torch.einsum("bm,bmh->bh", gates, z)))

    @torch.no_grad()
    def explain(self, batch: Batch) -> dict[str, Tensor]:
        """The gates, beside what each modality changes in the logits."""
        return {"gates": self._fuse(batch)[1], **super().explain(batch)}

    def _fuse(
        self, batch: Batch
    ) -> tuple[Float[Tensor, "batch modality hidden"], Float[Tensor, "batch modality"]]:
        sequences = self.read(batch)
        present = torch.stack([s.present for s in sequences.values()], 1)
        z = torch.stack(
            [self.project[n](pooled(s, self.config.pool)) for n, s in sequences.items()], 1
        )
        z = z * present.unsqueeze(-1)
        return z, masked_softmax(self.gate(z.flatten(1)), present)


def masked_softmax(
    scores: Float[Tensor, "batch modality"], mask: Bool[Tensor, "batch modality"]
) -> Float[Tensor, "batch modality"]:
    """Softmax over what is there; zeros where nothing is."""
    low = torch.finfo(scores.dtype).min
    return torch.softmax(scores.masked_fill(~mask, low), -1) * mask
