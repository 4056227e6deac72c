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

import torch
from torch import Tensor, nn

from fusion.batch import Batch, Output, Sequence
from fusion.nets._align import Align, align, any_real
from fusion.nets._gated_memory import GatedMemory, in_blocks
from fusion.nets._layers import Heads, Net, Range, Widths, last_step, module_dict, step_at, width_of
from fusion.nets._memory import lstm_states
from fusion.nets._recurrent import hold, without_holes


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
        hs, cs = self._states(aligned)
        weight, bias = self.memory.first_layers()

        def attended(before: Tensor, now: Tensor) -> Tensor:
            pairs = torch.cat([before, now], -1)
            seen = torch.softmax(self.attention(pairs), -1) * pairs
            return nn.functional.linear(seen, weight, bias)

        memory = self.memory(in_blocks(attended, cs)).transpose(0, 1)
        real = any_real(aligned)
        end = last_step(real)
        parts = [step_at(states, end) for states in [*hs, memory]]
        z = torch.cat(parts, -1) * real.any(1, keepdim=True)
        return Output(self.heads(self.head(z)))

    @torch.no_grad()
    def explain(self, batch: Batch) -> dict[str, Tensor]:
        """The attention over cell states, beside what each modality changes in the logits."""
        aligned = align(self.read(batch), self.config.align, self.config.timeline)
        cells = self._states(aligned)[1]
        scores = self.attention(torch.cat([cells[:-1], cells[1:]], -1))
        return {
            "attention": torch.softmax(scores, -1).transpose(0, 1),
            **super().explain(batch),
        }

    def _states(self, aligned: Mapping[str, Sequence]) -> tuple[list[Tensor], Tensor]:
        """Hidden states [batch time hidden] of each, joined cells [1 + time batch hidden] from zero on."""
        states = [self.lstm[name](sequence) for name, sequence in aligned.items()]
        return [h for h, _ in states], nn.functional.pad(
            torch.cat([c.transpose(0, 1) for _, c in states], -1), (0, 0, 0, 0, 1, 0)
        )


class CellLSTM(nn.Module):
    """An LSTM that gives the hidden and the cell state of every step."""

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

    def forward(self, sequence: Sequence) -> tuple[Tensor, Tensor]:
        """States [batch time hidden]; a step that is not real keeps the state before it."""
        x, mask = sequence.values, sequence.mask
        order = without_holes(mask)
        if order is not None:
            x = x.take_along_dim(order.unsqueeze(-1), 1)
        gates = nn.functional.linear(x, self.weight_ih, self.bias_ih + self.bias_hh)
        states = [s.transpose(0, 1) for s in lstm_states(gates.transpose(0, 1), self.weight_hh)]
        if order is not None:
            back = torch.argsort(order, dim=1).unsqueeze(-1)
            states = [s.take_along_dim(back, 1) for s in states]
        h, c = (hold(s, mask) for s in states)
        return h, c


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
