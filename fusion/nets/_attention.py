"""Attention that honours masks, and the transformer layer built on it.

A query that may look at nothing gets zeros, so a missing modality adds nothing.

Shapes: batch, query, key, hidden.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

SHORT = 100
"""Keys up to which, on a CPU, matrix products are faster than the library's attention in blocks."""


def heads_for(width: int, heads: int) -> int:
    """The largest number of heads, at most the one asked for, that divides the width."""
    return max(n for n in range(1, heads + 1) if width % n == 0)


def allowed_keys(
    keys: Bool[Tensor, "batch key"], *, causal: bool = False
) -> Bool[Tensor, "batch _ key"]:
    """Which keys each query may read: the real ones, and none that is later than itself if causal."""
    allowed = keys.unsqueeze(1)
    if causal:
        time = keys.shape[1]
        allowed = allowed & torch.ones(time, time, dtype=torch.bool, device=keys.device).tril()
    return allowed


def sinusoids(time: int, width: int, like: Tensor) -> Float[Tensor, "time hidden"]:
    """Position codes of Vaswani et al. 2017: sines, then cosines."""
    half = (width + 1) // 2
    rate = torch.exp(torch.arange(half, device=like.device) * (-math.log(1e4) / max(half - 1, 1)))
    angle = torch.arange(time, device=like.device)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], 1)[:, :width].to(like.dtype)


class Attention(nn.Module):
    """Multi-head attention; query, key and value are projected by the three thirds of one matrix."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.heads, self.dropout = heads, dropout
        self.inputs = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.inputs.weight)
        nn.init.zeros_(self.inputs.bias)

    def forward(
        self,
        query: Float[Tensor, "batch query hidden"],
        key: Float[Tensor, "batch key hidden"],
        value: Float[Tensor, "batch key hidden"],
        allowed: Bool[Tensor, "batch _ key"],
    ) -> Float[Tensor, "batch query hidden"]:
        q, k, v = self._project(query, key, value)
        rate = self.dropout if self.training else 0.0
        short = q.device.type == "cpu" and k.shape[2] <= SHORT
        mix = _short_attention if short else F.scaled_dot_product_attention
        if bool(allowed.all()):
            return self._merge(mix(q, k, v, None, rate))
        some = allowed.any(-1, keepdim=True)
        return self._merge(mix(q, k, v, (allowed | ~some).unsqueeze(1), rate)) * some

    def weights(
        self,
        query: Float[Tensor, "batch query hidden"],
        key: Float[Tensor, "batch key hidden"],
        allowed: Bool[Tensor, "batch _ key"],
    ) -> Float[Tensor, "batch query key"]:
        """Attention weights, mean over heads; zeros where nothing may be read."""
        q, k, _ = self._project(query, key, key)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        low = torch.finfo(scores.dtype).min
        shares = torch.softmax(scores.masked_fill(~allowed.unsqueeze(1), low), -1).mean(1)
        return shares * allowed

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        weights = self.inputs.weight.chunk(3)
        biases = self.inputs.bias.chunk(3)
        return [
            F.linear(x, w, b).view(*x.shape[:2], self.heads, -1).transpose(1, 2)
            for x, w, b in zip((query, key, value), weights, biases, strict=True)
        ]

    def _merge(self, mixed: Tensor) -> Tensor:
        merged: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return merged


def _short_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float
) -> Tensor:
    scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return F.dropout(torch.softmax(scores, -1), dropout) @ v


class TransformerLayer(nn.Module):
    """Attention and a ReLU feed-forward, each with a residual; norm before or after."""

    def __init__(
        self, width: int, heads: int, feedforward: int, dropout: float, *, pre_norm: bool = False
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attention = Attention(width, heads, dropout)
        self.up, self.down = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch query hidden"],
        allowed: Bool[Tensor, "batch _ key"],
        source: Float[Tensor, "batch key hidden"] | None = None,
    ) -> Float[Tensor, "batch query hidden"]:
        """The sequence after the layer; it reads `source` where one is given, else itself."""
        if self.pre_norm:
            y = self.norm1(x)
            key = y if source is None else self.norm1(source)
            x = x + self.dropout(self.attention(y, key, key, allowed))
            z: Tensor = x + self._forward(self.norm2(x))
            return z
        key = x if source is None else source
        x = self.norm1(x + self.dropout(self.attention(x, key, key, allowed)))
        after: Tensor = self.norm2(x + self._forward(x))
        return after

    def _forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.dropout(self.down(self.dropout(torch.relu(self.up(x)))))
        return h
