"""A kernel machine: a Gaussian kernel a modality, and a linear model of their sum.

    k(x, y) = exp(-width |x - y|^2 / d)  ~  phi(x) phi(y)'      phi(x) = [cos(x W); sin(x W)] / sqrt(waves)
    W = sqrt(2 width p / d) H S1 H S2 H S3
    logits  = b + sum_m W_m [phi_m(mean_t(z_m)); present_m]

What is not linear in one modality (two intensities that mean something only together) is read; the problem
stays convex, and is solved as `linear` is. H is the Hadamard matrix of p, the power of two from d on (at
least 64), over sqrt(p); S are diagonals of signs drawn once, which the net keeps: no training row is stored
in it, as the support vectors of a kernel machine would be. Cosines are bounded, so that one wild feature
cannot carry an answer away.
Rahimi and Recht 2007, Random features for large-scale kernel machines; Yu et al. 2016, Orthogonal random
features, https://arxiv.org/abs/1610.09072 (the structured ones).

Shapes: batch, feature, block, p, waves.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fusion.batch import Batch
from fusion.nets._layers import Heads, module_dict
from fusion.nets.linear import Linear

SMALLEST = 64
"""Of p: sums of fewer signs take too few values to stand for Gaussian ones."""


class Fourier(Linear):
    """An affine map of random waves over the modalities' mean vectors."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Linear.Config):
        """The kernel, and how the solution is penalised."""

        width: float = 0.3
        """Decay of the kernel with the mean squared difference of scaled features; towards 0: linear."""

        waves: int = 2048
        """Cosines of a modality, with as many sines [>= 1]; the error of the kernel falls with their root."""

        seed: int = 0
        """Of the signs; the net keeps them."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not (0 < self.width < math.inf) or self.waves < 1:
                raise ValueError(
                    "expected a width above 0 and waves of 1 or more; "
                    f"came {self.width:g} and {self.waves}"
                )

    def __init__(
        self, config: Config, *, dims: Mapping[str, int], outputs: Mapping[str, int]
    ) -> None:
        super().__init__(config, dims=dims, outputs=outputs)
        draws = torch.Generator().manual_seed(config.seed)
        self.waves = module_dict(
            {name: _Waves(dim, config, draws) for name, dim in self.dims.items()}
        )
        self.heads = Heads(sum(self.widths), outputs)

    @property
    def widths(self) -> list[int]:
        """Columns of each modality in `features`: its cosines, its sines and whether it is there."""
        return [2 * cast(Fourier.Config, self.config).waves + 1] * len(self.dims)

    def features(self, batch: Batch) -> Float[Tensor, "batch feature"]:
        """Waves over the mean vectors, zero where a modality is missing, and presence flags."""
        parts = []
        for name, sequence in self.read(batch).items():
            there = sequence.present.unsqueeze(-1).to(sequence.values.dtype)
            parts += [self.waves[name](sequence.mean()) * there, there]
        return torch.cat(parts, -1)


class _Waves(nn.Module):
    """Random Fourier features of one modality."""

    signs: Tensor
    left: Tensor
    right: Tensor

    def __init__(self, dim: int, config: Fourier.Config, draws: torch.Generator) -> None:
        super().__init__()
        self.count = config.waves
        size = max(SMALLEST, 1 << (dim - 1).bit_length())
        self.missing = size - dim
        self.scale = math.sqrt(2 * config.width * size / dim)
        drawn = torch.randint(0, 2, (-(-self.count // size), 3, size), generator=draws)
        self.register_buffer("signs", 2.0 * drawn - 1)
        # The Hadamard matrix of `size` is the Kronecker product of these two.
        first = 1 << (size.bit_length() - 1) // 2
        self.register_buffer("left", _hadamard(first), persistent=False)
        self.register_buffer("right", _hadamard(size // first), persistent=False)

    def forward(self, values: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch waves"]:
        turned = F.pad(values * self.scale, (0, self.missing)).unsqueeze(1)
        shape = (len(self.left), len(self.right))
        for turn in range(3):
            turned = turned * self.signs[:, turn]  # [batch block p]
            grid = turned.reshape(*turned.shape[:2], *shape)
            turned = (self.left @ grid @ self.right).flatten(-2)
        phase = turned.flatten(1)[:, : self.count]
        return torch.cat([phase.cos(), phase.sin()], 1) / math.sqrt(self.count)


def _hadamard(size: int) -> Float[Tensor, "size size"]:
    """Orthogonal, of entries of one absolute value.

    >>> _hadamard(2).square()
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]])
    """
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix / math.sqrt(size)
