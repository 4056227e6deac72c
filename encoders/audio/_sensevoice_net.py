"""SenseVoice small: a stack of SAN-M blocks over log-mel frames, with the parameter names of its checkpoint.

Attention whose values are also filtered channel by channel along time (SAN-M: Gao et al. 2020,
https://arxiv.org/abs/2006.01713). Four learned queries stand before the sound; the outputs at their places
are tokens for language, emotion, event and style, those behind are the words (CTC). The first block, which
changes the width, stands for the embedding. Sizes are read off the parameters.

Shapes: batch, time, feature.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

QUERIES = 4
LANGUAGE, EMOTION, EVENT = 0, 1, 2
"""Places of the queries whose outputs are read."""

WRITTEN, SPOKEN = 14, 15
"""Rows that ask for digits and punctuation, or for bare words."""

HEADS = 4
"""Of attention; no parameter tells."""


class SenseVoiceNet(nn.Module):
    """From scaled frames to the states of every block and the logits of the tokens.

    Args:
        states: parameters, of which the shapes count.

    Raises:
        KeyError: one of them is not there.
    """

    def __init__(self, states: Mapping[str, Tensor]) -> None:
        super().__init__()
        dim = len(states["encoder.encoders0.0.self_attn.linear_out.bias"])
        hidden = len(states["encoder.encoders0.0.feed_forward.w_1.bias"])
        kernel = states["encoder.encoders0.0.self_attn.fsmn_block.weight"].shape[2]
        rows, feature = states["embed.weight"].shape
        counts = [_count(states, f"encoder.{part}.{{}}.norm1.weight") for part in _PARTS]
        parts: dict[str, nn.Module] = {
            part: nn.ModuleList(
                SanmBlock(feature if part == "encoders0" else dim, dim, hidden, kernel)
                for _ in range(count)
            )
            for part, count in zip(_PARTS, counts, strict=True)
        }
        norms = {name: nn.LayerNorm(dim) for name in ("after_norm", "tp_norm")}
        self.encoder = nn.ModuleDict({**parts, **norms})
        self.ctc = nn.ModuleDict({"ctc_lo": nn.Linear(dim, len(states["ctc.ctc_lo.bias"]))})
        self.embed = nn.Embedding(rows, feature)
        self.dim, self.feature, self.depth = dim, feature, sum(counts) - 1

    def forward(
        self,
        frames: Float[Tensor, "batch time feature"],
        lengths: Sequence[int],
        asked: Sequence[int],
    ) -> list[Float[Tensor, "batch more dim"]]:
        """States of every block, the queries' places first, the last ones normalised.

        Args:
            frames: scaled frames, anything behind each row's own.
            lengths: frames of each row.
            asked: rows of `embed` for the four queries.
        """
        asking = self.embed(torch.tensor(asked, device=frames.device))
        x = torch.cat([asking.expand(len(frames), -1, -1), frames], 1)
        x = x * math.sqrt(self.dim) + positions(x.shape[1], x.shape[2]).to(x)
        ends = torch.tensor(lengths, device=x.device) + QUERIES
        inside = torch.arange(x.shape[1], device=x.device) < ends[:, None]
        states = []
        for part in _PARTS:
            if part == "tp_encoders":
                x = self.encoder["after_norm"](x)
            for block in self.encoder[part].children():
                x = block(x, inside)
                states.append(x)
        return [*states[:-1], self.encoder["tp_norm"](x)]

    def logits(self, states: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch tokens"]:
        """Of every token, of the last states."""
        found: Tensor = self.ctc["ctc_lo"](states)
        return found


class SanmBlock(nn.Module):
    """Attention with a memory of neighbouring steps, then a dense half; each reads what is normalised."""

    def __init__(self, ins: int, dim: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(ins), nn.LayerNorm(dim)
        memory = nn.Conv1d(dim, dim, kernel, padding="same", groups=dim, bias=False)
        self.self_attn = nn.ModuleDict(
            {
                "linear_q_k_v": nn.Linear(ins, 3 * dim),
                "linear_out": nn.Linear(dim, dim),
                "fsmn_block": memory,
            }
        )
        self.feed_forward = nn.ModuleDict(
            {"w_1": nn.Linear(dim, hidden), "w_2": nn.Linear(hidden, dim)}
        )
        self.adds = ins == dim

    def forward(
        self, x: Float[Tensor, "batch time ins"], inside: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time dim"]:
        y = self._attended(self.norm1(x), inside)
        y = x + y if self.adds else y
        dense = self.feed_forward["w_2"](self.feed_forward["w_1"](self.norm2(y)).relu())
        both: Tensor = y + dense
        return both

    def _attended(self, x: Tensor, inside: Tensor) -> Tensor:
        batch, time, _ = x.shape
        triple = self.self_attn["linear_q_k_v"](x).chunk(3, -1)
        query, key, value = (
            part.reshape(batch, time, HEADS, -1).transpose(1, 2) for part in triple
        )
        mixed = F.scaled_dot_product_attention(query, key, value, inside[:, None, None])
        known = triple[2] * inside.unsqueeze(-1)
        memory = self.self_attn["fsmn_block"](known.transpose(1, 2)).transpose(1, 2) + known
        both: Tensor = memory + self.self_attn["linear_out"](
            mixed.transpose(1, 2).reshape(batch, time, -1)
        )
        return both


_PARTS = ("encoders0", "encoders", "tp_encoders")


def positions(time: int, width: int) -> Float[Tensor, "time width"]:
    """Sines, then cosines, of places counted from 1."""
    step = math.log(10000) / (width / 2 - 1)
    scales = torch.exp(torch.arange(width // 2) * -step)
    angles = torch.arange(1, time + 1)[:, None] * scales
    return torch.cat([angles.sin(), angles.cos()], 1)


def _count(states: Mapping[str, Tensor], name: str) -> int:
    count = 0
    while name.format(count) in states:
        count += 1
    return count
