"""Graph memory fusion network: a dynamic fusion graph over modalities in place of MFN's attention.

    s_m = relu(W_m [h_{t-1}; h_t])                              one vertex a modality
    n_S = P_S( [e_{B->S} n_B for B in proper subsets of S] )    one vertex a set of two or more modalities
    tau = P_tau( [e_{S->tau} n_S for all S] );   e = act(E([s_1; ...; s_M]))
    u_t = g1 o u_{t-1} + g2 o tanh(D(tau_t)), the gates read [tau_t; u_{t-1}];   logits = head([h_T; u_T])

The efficacies e (19 for three modalities, 65 for four) say at each step which combination counts; reading
them is the point of the model: `explain` gives `efficacies` [batch time efficacy], named by `edges`. Zadeh et
al., ACL 2018, https://aclanthology.org/P18-1208.

Differs from the paper: a step that a modality lacks leaves its state as it is, a missing modality is a vertex
of zeros, lengths may differ (`align`). Differs from public code, where the vertex networks sit in a plain
dictionary, so that they neither train nor get saved: here they do (`frozen_vertices` undoes it). Efficacies
pass a sigmoid and the small networks a ReLU (`efficacy`, `vertex`: linear in public code). Ablations:
`no_graph` (tau is the concatenation of s), `window` (`none`: s = relu(h_t); `static`: s = relu of the mean
of h over the clip), `memory` (`last`: the head reads tau_T; `none`: only h_T, as in public code; the graph
and a candidate layer then stay as frozen, unread weights).

Shapes: batch, time, feature, hidden, node, efficacy, memory, outputs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, cast

import torch
from torch import Tensor, nn

from fusion.batch import Batch, Output, Steps
from fusion.nets._align import Align, align, any_real
from fusion.nets._efficacy_graph import EfficacyGraph
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
from fusion.nets.kernels.blocks import in_blocks
from fusion.nets.kernels.recurrent import Recurrent, states_beside

Looker = Callable[[list[Tensor], list[Tensor]], tuple[Tensor, Tensor]]


class GraphMemoryFusion(Net):
    """LSTMs beside each other, a graph of their combinations, and a memory."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Widths and dropout of the parts, and what is left out."""

        hidden: Widths = field(default_factory=lambda: {"text": 128, "*": 32})
        """Width of each modality's LSTM."""

        memory_width: int = 128
        node: int = 64
        """Width of a vertex of several modalities."""

        inner: int = 100
        """Width inside the networks of vertices and efficacies."""

        candidate: int = 64
        keep: int = 64
        add: int = 64
        head: int = 128
        """Inner widths of the small networks."""

        candidate_dropout: float = 0.2
        keep_dropout: float = 0.2
        add_dropout: float = 0.2
        head_dropout: float = 0.2
        efficacy: Literal["sigmoid", "linear"] = "sigmoid"
        vertex: Literal["relu", "linear"] = "relu"
        frozen_vertices: bool = False
        no_graph: bool = False
        window: Literal["pair", "none", "static"] = "pair"
        memory: Literal["gated", "last", "none"] = "gated"
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
        self.lstm = module_dict({n: Recurrent(dim, hidden[n]) for n, dim in self.dims.items()})
        if config.window == "pair":
            self.transform = module_dict({n: nn.Linear(2 * h, h) for n, h in hidden.items()})
        width = total
        self.graph: EfficacyGraph | None = None
        if not config.no_graph:
            width = config.node
            self.graph = EfficacyGraph(
                list(hidden.values()),
                node=config.node,
                inner=config.inner,
                relu=config.vertex == "relu",
                sigmoid=config.efficacy == "sigmoid",
            )
            self.graph.vertex.requires_grad_(not config.frozen_vertices)
        gated = config.memory == "gated"
        if gated:
            self.memory = GatedMemory(
                width,
                config.memory_width,
                candidate=(config.candidate, config.candidate_dropout),
                keep=(config.keep, config.keep_dropout),
                add=(config.add, config.add_dropout),
                sees_memory=True,
            )
        elif config.memory == "none":
            self.unread = nn.Linear(width, config.candidate)
            for name, part in self.named_children():
                part.requires_grad_(name == "lstm")
        end = {"gated": config.memory_width, "last": width, "none": 0}[config.memory]
        self.head = nn.Sequential(
            nn.Linear(total + end, config.head), nn.ReLU(), nn.Dropout(config.head_dropout)
        )
        self.heads = Heads(config.head, outputs, squash=config.squash)

    @property
    def edges(self) -> tuple[str, ...]:
        """What each efficacy scales: ``audio->audio+text``, ..., ``audio+text->all``."""
        names = list(self.dims)
        return () if self.graph is None else self.graph.edges(names)

    def forward(self, batch: Batch) -> Output:
        aligned = align(self.read(batch), self.config.align, self.config.timeline)
        states = self._states(aligned)
        real = any_real(aligned)
        end = last_step(real)
        parts = [state_at(h[1:], end) for h in states.values()]
        if self.config.memory != "none":
            seen = self._memory_of(states, aligned).expand(real.shape[1], -1, -1)
            parts.append(state_at(seen, end))
        z = torch.cat(parts, -1) * real.any(1, keepdim=True)
        return Output(self.heads(self.head(z)))

    @torch.no_grad()
    def explain(self, batch: Batch) -> dict[str, Tensor]:
        """Efficacies of every step, beside what each modality changes in the logits."""
        aligned = align(self.read(batch), self.config.align, self.config.timeline)
        states = self._watched(self._states(aligned), aligned)
        look = self._looker(aligned)
        seen, efficacies = look([s[:-1] for s in states], [s[1:] for s in states])
        shown = {"tau": seen.transpose(0, 1), "efficacies": efficacies.transpose(0, 1)}
        return {**shown, **super().explain(batch)}

    def _states(self, aligned: Mapping[str, Steps]) -> dict[str, Tensor]:
        """Hidden states of each modality [1 + time batch hidden], from the zeros before the first step on."""
        lstms = [cast(Recurrent, self.lstm[name]) for name in aligned]
        return dict(zip(aligned, states_beside(lstms, aligned.values()), strict=True))

    def _memory_of(self, states: Mapping[str, Tensor], aligned: Mapping[str, Steps]) -> Tensor:
        """What the head reads beside the states [time batch _]: the memory, or tau itself."""
        watched, look = self._watched(states, aligned), self._looker(aligned)
        if self.config.memory == "last":
            return look([s[:-1] for s in watched], [s[1:] for s in watched])[0]
        first = self.memory.first_layers()
        memory: Tensor = self.memory(
            in_blocks(lambda *pair: nn.functional.linear(look(*pair)[0], *first), watched)
        )
        return memory

    def _watched(self, states: Mapping[str, Tensor], aligned: Mapping[str, Steps]) -> list[Tensor]:
        """What vertices are made of [1 + time batch hidden], from zero on.

        The mean over the clip is the only step if `window` is static.
        """
        if self.config.window != "static":
            return list(states.values())
        steps = (Steps(h[1:].transpose(0, 1), aligned[n].mask) for n, h in states.items())
        return [torch.stack([torch.zeros_like(mean), mean]) for mean in (s.mean() for s in steps)]

    def _looker(self, aligned: Mapping[str, Steps]) -> Looker:
        """From states before and now to what the memory sees [time batch node], and the efficacies."""
        present = [s.present.unsqueeze(-1) for s in aligned.values()]
        everyone = all(bool(here.all()) for here in present)
        layers = None if self.graph is None else self.graph.layers()

        def look(before: list[Tensor], now: list[Tensor]) -> tuple[Tensor, Tensor]:
            singletons = []
            for name, h0, s, here in zip(self.dims, before, now, present, strict=True):
                if self.config.window == "pair":
                    s = self.transform[name](torch.cat([h0, s], -1))
                s = torch.relu(s)
                # A missing modality is zero.
                singletons.append(s if everyone else s * here)
            if self.graph is None or layers is None:
                seen = torch.cat(singletons, -1)
                return seen, seen[..., :0]
            tau, efficacies = self.graph(singletons, layers)
            return tau, efficacies

        return look


def _study(**parts: int | float | str | bool | Mapping[str, int]) -> GraphMemoryFusion.Config:
    base = GraphMemoryFusion.Config(
        hidden={"text": 128, "audio": 16, "*": 128},
        efficacy="linear",
        vertex="linear",
        align="shared",
    )
    return replace(base, **parts)  # type: ignore[arg-type]


PRESETS = {
    "A11": lambda: _study(
        no_graph=True,
        memory_width=256,
        candidate=256,
        keep=32,
        add=256,
        add_dropout=0.0,
        head_dropout=0.5,
    ),
    "A12": lambda: _study(
        window="none",
        memory_width=300,
        node=20,
        keep_dropout=0.0,
        candidate_dropout=0.5,
        add=128,
        add_dropout=0.5,
        head=256,
        head_dropout=0.0,
    ),
    "A13": lambda: _study(
        hidden={"text": 64, "audio": 32, "*": 64}, memory="none", node=128, candidate=32, head=64
    ),
    "A14": lambda: _study(
        memory_width=400,
        candidate=32,
        keep=32,
        candidate_dropout=0.0,
        keep_dropout=0.0,
        add_dropout=0.7,
        head_dropout=0.0,
    ),
}
"""Models of the influencer-empathy study: without graph, window and memory, and the whole."""
