"""emotion2vec, a data2vec 2.0 speech encoder, with the parameter names that its checkpoints have.

Seven convolutions with layer norm, a projection, positions by five grouped convolutions, ten learned tokens
before the steps, and blocks that are normalised after each half; distance costs attention (ALiBi), its price
learned for each head. Sizes are read off the parameters. Unlike the original it masks padding after each
convolution over positions, so that a row beside longer ones has the states that it has alone.

Shapes: batch, time, dim.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

AUDIO = "modality_encoders.AUDIO."
CONVOLUTIONS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
"""Kernel and stride of each."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of emotion2vec+ base where nothing else is said."""

    dim: int = 768
    heads: int = 12
    hidden: int = 3072
    channels: int = 512
    context_blocks: int = 4
    blocks: int = 8
    position_layers: int = 5
    position_kernel: int = 19
    position_groups: int = 16
    extra_tokens: int = 10
    classes: int = 9


def sizes_of(states: Mapping[str, Tensor]) -> Sizes:
    """Read the sizes off the parameters of a checkpoint.

    Raises:
        KeyError: one of them is not there.
    """
    dim, channels = states[AUDIO + "project_features.2.weight"].shape
    _, grouped, kernel = states[AUDIO + "relative_positional_encoder.1.0.weight"].shape
    return Sizes(
        dim=dim,
        heads=states[AUDIO + "alibi_scale"].shape[2],
        hidden=len(states["blocks.0.mlp.fc1.bias"]),
        channels=channels,
        context_blocks=_count(states, AUDIO + "context_encoder.blocks.{}.norm1.weight"),
        blocks=_count(states, "blocks.{}.norm1.weight"),
        position_layers=_count(states, AUDIO + "relative_positional_encoder.{}.0.weight", start=1),
        position_kernel=kernel,
        position_groups=dim // grouped,
        extra_tokens=states[AUDIO + "extra_tokens"].shape[1],
        classes=len(states["proj.bias"]),
    )


class Emotion2vecNet(nn.Module):
    """From samples to the states of every block; the call is that of a `transformers` speech model."""

    slopes: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        dim, channels = sizes.dim, sizes.channels
        audio = nn.Module()
        audio.extra_tokens = nn.Parameter(torch.randn(1, sizes.extra_tokens, dim))
        audio.alibi_scale = nn.Parameter(torch.ones(1, 1, sizes.heads, 1, 1))
        audio.local_encoder = nn.Module()
        audio.local_encoder.conv_layers = nn.ModuleList(
            _convolution(1 if index == 0 else channels, channels, kernel, stride)
            for index, (kernel, stride) in enumerate(CONVOLUTIONS)
        )
        audio.project_features = nn.Sequential(
            nn.Identity(), nn.LayerNorm(channels), nn.Linear(channels, dim)
        )
        audio.relative_positional_encoder = nn.Sequential(
            nn.Identity(), *(_position(sizes) for _ in range(sizes.position_layers))
        )
        audio.context_encoder = nn.Module()
        audio.context_encoder.norm = nn.LayerNorm(dim)
        audio.context_encoder.blocks = _blocks(sizes.context_blocks, sizes)
        self.modality_encoders = nn.ModuleDict({"AUDIO": audio})
        self.blocks = _blocks(sizes.blocks, sizes)
        self.proj = nn.Linear(dim, sizes.classes)
        self.register_buffer("slopes", torch.tensor(slopes(sizes.heads)), persistent=False)
        self.config = SimpleNamespace(
            model_type="emotion2vec",
            feat_extract_norm="layer",
            hidden_size=dim,
            num_hidden_layers=sizes.context_blocks + sizes.blocks,
            is_encoder_decoder=False,
        )

    def forward(
        self,
        input_values: Float[Tensor, "batch samples"],
        attention_mask: Tensor | None = None,
        *,
        output_hidden_states: bool = True,
    ) -> SimpleNamespace:
        """States of the steps of each row, the learned tokens left out.

        Args:
            input_values: samples of mean 0 and variance 1 over the recording, zeros behind it.
            attention_mask: 1 at a sample, 0 at padding; None: there is no padding.
            output_hidden_states: all are given.
        """
        audio: Any = self.modality_encoders["AUDIO"]
        mask = torch.ones_like(input_values) if attention_mask is None else attention_mask
        x = input_values.unsqueeze(1)
        for convolution in audio.local_encoder.conv_layers:
            x = convolution[0](x)
            x = F.gelu(convolution[2](x.transpose(1, 2)).transpose(1, 2))
        x = audio.project_features(x.transpose(1, 2))
        inside = _inside(mask.long().sum(1), x.shape[1])
        x = x * inside.unsqueeze(-1)
        positions = x
        for part in audio.relative_positional_encoder[1:]:
            found = part(positions.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)
            positions = F.gelu(F.layer_norm(found, found.shape[-1:])) * inside.unsqueeze(-1)
        num_extra = audio.extra_tokens.shape[1]
        x = torch.cat([audio.extra_tokens.expand(len(x), -1, -1), x + positions], 1)
        bias = self._bias(F.pad(inside, (num_extra, 0), value=True), num_extra)
        x = audio.context_encoder.norm(x)
        states = [x[:, num_extra:]]
        for block in (*audio.context_encoder.blocks, *self.blocks):
            x = block(x, bias)
            states.append(x[:, num_extra:])
        return SimpleNamespace(hidden_states=states, last_hidden_state=states[-1])

    def _bias(self, inside: Tensor, num_extra: int) -> Float[Tensor, "batch head time time"]:
        """Added to attention scores: the price of distance between steps, none from or to a token."""
        audio: Any = self.modality_encoders["AUDIO"]
        scale = audio.alibi_scale.clamp(min=0)[0]
        place = torch.arange(inside.shape[1] - num_extra, device=inside.device)
        apart = -(place[:, None] - place).abs()
        price = F.pad(scale * self.slopes[:, None, None] * apart, (num_extra, 0, num_extra, 0))
        return price.masked_fill(~inside[:, None, None], -torch.inf)


class AlibiBlock(nn.Module):
    """Attention and a dense half, each normalised with what it was added to."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, dim)})

    def forward(self, x: Float[Tensor, "batch time dim"], bias: Tensor) -> Tensor:
        """[batch time dim]."""
        batch, time, dim = x.shape
        qkv = self.attn["qkv"](x).reshape(batch, time, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv
        mixed = F.scaled_dot_product_attention(query, key, value, bias.to(query.dtype))
        x = self.norm1(x + self.attn["proj"](mixed.transpose(1, 2).reshape(batch, time, dim)))
        y: Tensor = self.norm2(x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](x))))
        return y


def slopes(heads: int) -> list[float]:
    """What a step of distance costs each head (Press et al., 2022, https://arxiv.org/abs/2108.12409).

    >>> slopes(4)
    [0.25, 0.0625, 0.015625, 0.00390625]
    """
    power = 2 ** math.floor(math.log2(heads))
    found = [2.0 ** (-8 * (index + 1) / power) for index in range(power)]
    return found if power == heads else found + slopes(2 * power)[0::2][: heads - power]


def _inside(sizes: Tensor, longest: int) -> Bool[Tensor, "batch time"]:
    """Which steps read samples of their row alone."""
    for kernel, stride in CONVOLUTIONS:
        sizes = (sizes - kernel) // stride + 1
    return torch.arange(longest, device=sizes.device) < sizes.unsqueeze(1)


def _convolution(ins: int, outs: int, kernel: int, stride: int) -> nn.Sequential:
    norm = nn.Sequential(nn.Identity(), nn.LayerNorm(outs), nn.Identity())
    return nn.Sequential(nn.Conv1d(ins, outs, kernel, stride, bias=False), nn.Identity(), norm)


def _position(sizes: Sizes) -> nn.Sequential:
    kernel, groups = sizes.position_kernel, sizes.position_groups
    return nn.Sequential(
        nn.Conv1d(sizes.dim, sizes.dim, kernel, padding=kernel // 2, groups=groups)
    )


def _blocks(count: int, sizes: Sizes) -> nn.ModuleList:
    return nn.ModuleList(AlibiBlock(sizes.dim, sizes.heads, sizes.hidden) for _ in range(count))


def _count(states: Mapping[str, Tensor], name: str, start: int = 0) -> int:
    count = 0
    while name.format(start + count) in states:
        count += 1
    return count
