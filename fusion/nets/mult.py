"""MulT: each modality reads every other one by cross-modal attention, aligned or not.

    x_m = conv(input_m) sqrt(d) + positions
    y_{m<-n}: layers of  x + MHA(LN x, LN x_n, LN x_n);  x + FF(LN x)        for every pair, n fixed
    z_m = last step of self-attention layers over [y_{m<-n} for all n];  logits = head([z_m for all m])

Learns the XOR of two modalities. Tsai et al., ACL 2019, https://arxiv.org/abs/1906.00295. Sequences need
neither the same length nor a common clock. A single modality goes through its self-attention layers alone.

Differs from the paper: padding is masked in every attention and the last real step is read; convolutions keep
the length (`conv="same"`; `valid` is the public code's); `future_mask` is the triangular mask that the public
code also lays between modalities (key j <= query i + |T_q - T_k|), off by default; `positions=False` for
parity with implementations that switch them off.

Shapes: batch, time (per modality), feature, hidden, outputs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusion.batch import Batch, Output, Steps
from fusion.nets._align import extent
from fusion.nets._attention import Attention, heads_for, sinusoids
from fusion.nets._layers import Heads, Net, Range, Widths, last_real, module_dict, width_of


class MulT(Net):
    """Directional cross-modal transformers for every ordered pair."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Depth and width."""

        hidden: int = 40
        heads: int = 8
        """At most; the largest number that divides a width is taken."""

        layers: int = 4
        memory_layers: int = 3
        kernel: Widths = 1
        """Steps that the convolution of each modality reads."""

        conv: Literal["same", "valid"] = "same"
        positions: bool = True
        future_mask: bool = False
        dropout: float = 0.1
        squash: Range | None = None
        """Bounds of a single output, by a sigmoid."""

    def __init__(
        self, config: Config, *, dims: Mapping[str, int], outputs: Mapping[str, int]
    ) -> None:
        super().__init__(dims, outputs)
        self.config = config
        width = config.hidden
        self.conv = module_dict(
            {
                n: nn.Conv1d(dim, width, width_of(config.kernel, n), bias=False)
                for n, dim in self.dims.items()
            }
        )
        names = list(self.dims)
        self.cross = module_dict(
            {
                f"{m}<-{n}": CrossmodalEncoder(width, config.layers, config)
                for m in names
                for n in names
                if m != n
            }
        )
        wide = width * max(1, len(names) - 1)
        self.memory = module_dict(
            {name: CrossmodalEncoder(wide, config.memory_layers, config) for name in names}
        )
        total = wide * len(names)
        self.linear1, self.linear2 = nn.Linear(total, total), nn.Linear(total, total)
        self.dropout = nn.Dropout(config.dropout)
        self.heads = Heads(total, outputs, squash=config.squash)

    def forward(self, batch: Batch) -> Output:
        z = torch.cat([last_real(s) for s in self.memories(self.projected(batch)).values()], -1)
        z = z + self.linear2(self.dropout(torch.relu(self.linear1(z))))
        return Output(self.heads(z))

    def projected(self, batch: Batch) -> dict[str, Steps]:
        """Every modality in the common width."""
        out = {}
        for name, sequence in self.read(batch).items():
            conv = cast(nn.Conv1d, self.conv[name])
            more = conv.kernel_size[0] - 1
            x = sequence.values.transpose(1, 2)
            mask = sequence.mask
            if self.config.conv == "same":
                x = F.pad(x, (more // 2, more - more // 2))
            else:
                x = F.pad(x, (0, max(0, more + 1 - x.shape[2])))
                # A window is real while it ends inside the clip; a clip shorter than it keeps one.
                ends = (extent(mask) - more).clamp(min=1) * mask.any(1)
                steps = x.shape[2] - more
                mask = torch.arange(steps, device=mask.device)[None] < ends[:, None]
            y = conv(x).transpose(1, 2) * mask.unsqueeze(-1)
            out[name] = Steps(y, mask)
        return out

    def crossed(self, projected: Mapping[str, Steps]) -> dict[str, Steps]:
        """What each modality made of each other one, under ``target<-source``."""
        return {
            pair: Steps(encoder(projected[target], projected[source]), projected[target].mask)
            for pair, encoder in self.cross.items()
            for target, source in [pair.split("<-")]
        }

    def memories(self, projected: Mapping[str, Steps]) -> dict[str, Steps]:
        """Every modality after its self-attention layers."""
        crossed = self.crossed(projected)
        out = {}
        for name, sequence in projected.items():
            parts = [crossed[f"{name}<-{n}"].values for n in projected if n != name]
            joined = Steps(torch.cat(parts, -1) if parts else sequence.values, sequence.mask)
            out[name] = Steps(self.memory[name](joined, None), sequence.mask)
        return out


class CrossmodalEncoder(nn.Module):
    """Pre-norm layers that read a fixed source, or themselves."""

    def __init__(self, width: int, layers: int, config: MulT.Config) -> None:
        super().__init__()
        self.config, self.scale = config, math.sqrt(width)
        self.layers = nn.ModuleList(CrossLayer(width, config) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, query: Steps, source: Steps | None) -> Tensor:
        x = self._embed(query)
        keys = query if source is None else source
        fixed = None if source is None else self._embed(source)
        allowed = self._allowed(query.mask, keys.mask)
        for layer in self.layers:
            x = layer(x, x if fixed is None else fixed, allowed)
        y: Tensor = self.norm(x)
        return y

    def _embed(self, sequence: Steps) -> Tensor:
        x = self.scale * sequence.values
        if self.config.positions:
            x = x + sinusoids(x.shape[1], x.shape[2], x)
        return x

    def _allowed(self, queries: Tensor, keys: Tensor) -> Tensor:
        allowed = keys.unsqueeze(1)
        if not self.config.future_mask:
            return allowed
        gap = (extent(queries) - extent(keys)).abs()[:, None, None]
        i = torch.arange(queries.shape[1], device=keys.device)[None, :, None]
        j = torch.arange(keys.shape[1], device=keys.device)[None, None, :]
        return allowed & (j <= i + gap)


class CrossLayer(nn.Module):
    """Attention and feed-forward; query and source pass the same first norm."""

    def __init__(self, width: int, config: MulT.Config) -> None:
        super().__init__()
        self.attention = Attention(width, heads_for(width, config.heads), config.dropout)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, source: Tensor, allowed: Tensor) -> Tensor:
        key = self.norm1(source)
        x = x + self.dropout(self.attention(self.norm1(x), key, key, allowed))
        h = self.down(self.dropout(torch.relu(self.up(self.norm2(x)))))
        y: Tensor = x + self.dropout(h)
        return y
