"""A linear model of pooled features: multinomial, one logistic a label, or ridge.

    logits = b + sum_m W_m [mean_t(z_m); present_m]

The baseline of every fusion. A convex problem: `fusion.training.convex` solves it and chooses the penalty.
le Cessie and van Houwelingen 1992, https://doi.org/10.2307/2347628; Hoerl and Kennard 1970,
https://doi.org/10.1080/00401706.1970.10488634.

A modality that is missing is zero, the mean of scaled features, and `present` says so; where none is ever
missing in training the weights of `present` are zero.

Shapes: batch, time, feature, outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fusion.batch import Batch, Output
from fusion.nets._layers import Heads, Net


class Linear(Net):
    """An affine map of the modalities' mean vectors."""

    convex = True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """How its solution is penalised."""

        penalty: Literal["each", "shared"] = "each"
        """each: one a modality, in the ratio of the penalties that are best for the modalities alone. shared:
        one for all features."""

        path: int = 7
        """Penalties that are tried, evenly spaced in their logarithm."""

        weakest: float = 1e-5
        """Last penalty of the path, as a share of the features' total variance."""

        strongest: float = 0.3
        """First penalty of the path."""

        folds: int = 5
        """Parts of the training groups, each held out once, that choose among them."""

        def __post_init__(self) -> None:
            if self.path < 1 or self.folds < 2 or not 0 < self.weakest <= self.strongest:
                raise ValueError(
                    "expected path of 1 or more, folds of 2 or more and 0 < weakest <= strongest; "
                    f"came {self.path}, {self.folds}, {self.weakest:g} and {self.strongest:g}"
                )

    def __init__(
        self, config: Config, *, dims: Mapping[str, int], outputs: Mapping[str, int]
    ) -> None:
        super().__init__(dims, outputs)
        self.config = config
        self.heads = Heads(sum(self.widths), outputs)

    @property
    def widths(self) -> list[int]:
        """Columns of each modality in `features`: its own and whether it is there."""
        return [dim + 1 for dim in self.dims.values()]

    def features(self, batch: Batch) -> Float[Tensor, "batch feature"]:
        """Mean vectors and presence flags of all modalities."""
        parts = []
        for sequence in self.read(batch).values():
            parts += [sequence.mean(), sequence.present.unsqueeze(-1).to(sequence.values.dtype)]
        return torch.cat(parts, -1)

    def forward(self, batch: Batch) -> Output:
        return Output(self.heads(self.features(batch)))
