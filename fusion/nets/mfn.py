"""Memory fusion network: one LSTM a modality, attention over pairs of cell states, a gated memory.

    c*_t = [c_{t-1}; c_t] of all modalities;   s_t = softmax(A(c*_t)) o c*_t        (delta-memory attention)
    u_t = g1 o u_{t-1} + g2 o tanh(D(s_t));    g = sigmoid(G(s_t))                  (multi-view gated memory)
    logits = head([h_T of all modalities; u_T])

Zadeh et al., AAAI 2018, https://arxiv.org/abs/1802.00927. The authors' code lets the gates see
[s_t; u_{t-1}], the paper s_t alone: `gates_see_memory`.

Differs from the paper: steps that a modality lacks leave its state as it is, a missing modality has states of
zero, modalities of different lengths are put on one time axis (`align`); all that does not depend on a step
before is computed for all steps at once (see `_memory.py`).

`explain`: `attention` [batch time 2*hidden], in the order of c*; modalities sorted.

Shapes: batch, time, feature, hidden, memory, outputs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from fusion.batch import Batch, Output, Steps
from fusion.nets._align import Align, align, any_real
from fusion.nets._gated_memory import GatedMemory
from fusion.nets._layers import (
    Heads,
    Net,
    Range,
    Widths,
    last_step,
    module_dict,
    state_at,
    width_of,
)
from fusion.nets.kernels.attended import attended
from fusion.nets.kernels.lstm import Layer, states_of_all
from fusion.nets.kernels.recurrent import held, real_first


class MemoryFusion(Net):
    """LSTMs beside each other and a memory of what happens between them."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Widths and dropout of the parts."""

        hidden: Widths = field(default_factory=lambda: {"text": 128, "*": 32})
        """Width of each modality's LSTM."""

        memory: int = 128
        attention: int = 64
        candidate: int = 64
        keep: int = 64
        add: int = 64
        head: int = 128
        """Inner widths of the small networks."""

        attention_dropout: float = 0.2
        candidate_dropout: float = 0.2
        keep_dropout: float = 0.2
        add_dropout: float = 0.2
        head_dropout: float = 0.2
        gates_see_memory: bool = False
        align: Align = "area"
        timeline: str = "text"
        """The modality whose steps the others follow."""

        squash: Range | None = None
        """Bounds of a single output, by a sigmoid."""

    def __init__(
        self, config: Config, *, dims: Mapping[str, int], outputs: Mapping[str, int]
    ) -> None:
        super().__init__(dims, outputs)
        self.config = config
        hidden = {name: width_of(config.hidden, name) for name in self.dims}
        total = sum(hidden.values())
        self.lstm = module_dict({n: CellLSTM(dim, hidden[n]) for n, dim in self.dims.items()})
        self.attention = nn.Sequential(
            nn.Linear(2 * total, config.attention),
            nn.ReLU(),
            nn.Dropout(config.attention_dropout),
            nn.Linear(config.attention, 2 * total),
        )
        self.memory = GatedMemory(
            2 * total,
            config.memory,
            candidate=(config.candidate, config.candidate_dropout),
            keep=(config.keep, config.keep_dropout),
            add=(config.add, config.add_dropout),
            sees_memory=config.gates_see_memory,
        )
        self.head = nn.Sequential(
            nn.Linear(total + config.memory, config.head),
            nn.ReLU(),
            nn.Dropout(config.head_dropout),
        )
        self.heads = Heads(config.head, outputs, squash=config.squash)

    def forward(self, batch: Batch) -> Output:
        aligned = align(self.read(batch), self.config.align, self.config.timeline)
        real = any_real(aligned)
        states = self._states(aligned)
        cells, rate = [c for _, c in states], self.config.attention_dropout
        kept = None
        if self.training and rate > 0:
            ones = cells[0].new_ones(real.shape[1], len(real), self.config.attention)
            kept = nn.functional.dropout(ones, rate)
        weights = list(self.attention.parameters())
        inner = attended(cells, weights, kept, self.memory.first_layers())
        parts = [*(h for h, _ in states), state_at(self.memory(inner), last_step(real))]
        z = torch.cat(parts, -1) * real.any(1, keepdim=True)
        return Output(self.heads(self.head(z)))

    @torch.no_grad()
    def explain(self, batch: Batch) -> dict[str, Tensor]:
        """The attention over cell states, beside what each modality changes in the logits."""
        aligned = align(self.read(batch), self.config.align, self.config.timeline)
        cells = torch.cat([c for _, c in self._states(aligned)], -1)
        scores = self.attention(torch.cat([cells[:-1], cells[1:]], -1))
        return {
            "attention": torch.softmax(scores, -1).transpose(0, 1),
            **super().explain(batch),
        }

    def _states(self, aligned: Mapping[str, Steps]) -> list[tuple[Tensor, Tensor]]:
        """For each modality: its last hidden state, and its cell states from the initial zeros on."""
        lstms = [cast(CellLSTM, self.lstm[name]) for name in aligned]
        layers = [lstm.layer(s) for lstm, s in zip(lstms, aligned.values(), strict=True)]
        masks = [s.mask for s in aligned.values()]
        return [
            # State number n is the one after n real steps.
            (state_at(h, mask.sum(1)), held(c, mask))
            for (h, c), mask in zip(states_of_all(layers), masks, strict=True)
        ]


class CellLSTM(nn.Module):
    """The weights of an LSTM that gives the hidden and the cell state of every step."""

    weight_ih: nn.Parameter
    weight_hh: nn.Parameter
    bias_ih: nn.Parameter
    bias_hh: nn.Parameter

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(hidden)
        shapes = {
            "weight_ih": (4 * hidden, width),
            "weight_hh": (4 * hidden, hidden),
            "bias_ih": (4 * hidden,),
            "bias_hh": (4 * hidden,),
        }
        for name, shape in shapes.items():
            parameter = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
            self.register_parameter(name, parameter)

    def layer(self, sequence: Steps) -> Layer:
        """What computes its states after each real step, then states that have no meaning."""
        bias = self.bias_ih + self.bias_hh
        return Layer(real_first(sequence), self.weight_ih, self.weight_hh, bias)


PRESETS = {
    "A10": lambda: MemoryFusion.Config(
        hidden={"text": 256, "audio": 32, "*": 256},
        memory=128,
        attention=128,
        candidate=32,
        keep=256,
        add=32,
        head=128,
        attention_dropout=0.5,
        candidate_dropout=0.7,
        keep_dropout=0.7,
        add_dropout=0.0,
        head_dropout=0.2,
        gates_see_memory=True,
        align="shared",
    ),
}
"""Model of the influencer-empathy study: all three modalities."""
