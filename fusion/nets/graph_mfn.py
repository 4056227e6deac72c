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

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn

from fusion.batch import Batch, Output, Sequence
from fusion.nets._align import Align, align, any_real
from fusion.nets._gated_memory import GatedMemory, in_blocks
from fusion.nets._layers import Heads, Net, Range, Widths, last_step, module_dict, step_at, width_of
from fusion.nets._recurrent import Recurrent, hold

Subset = tuple[int, ...]


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
            self.graph = EfficacyGraph(list(hidden.values()), config)
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
        parts = [step_at(h, end) for h in states.values()]
        joined, present = self._joined(states, aligned)
        if self.config.memory == "gated":
            first = self.memory.first_layers()

            def inner(before: Tensor, now: Tensor) -> Tensor:
                return nn.functional.linear(self._seen(before, now, present)[0], *first)

            memory = self.memory(in_blocks(inner, joined).expand(real.shape[1], -1, -1))
            parts.append(step_at(memory.transpose(0, 1), end))
        elif self.config.memory == "last":
            seen = self._seen(joined[:-1], joined[1:], present)[0].expand(real.shape[1], -1, -1)
            parts.append(step_at(seen.transpose(0, 1), end))
        z = torch.cat(parts, -1) * real.any(1, keepdim=True)
        return Output(self.heads(self.head(z)))

    @torch.no_grad()
    def explain(self, batch: Batch) -> dict[str, Tensor]:
        """Efficacies of every step, beside what each modality changes in the logits."""
        aligned = align(self.read(batch), self.config.align, self.config.timeline)
        joined, present = self._joined(self._states(aligned), aligned)
        seen, efficacies = self._seen(joined[:-1], joined[1:], present)
        shown = {"tau": seen.transpose(0, 1), "efficacies": efficacies.transpose(0, 1)}
        return {**shown, **super().explain(batch)}

    def _states(self, aligned: Mapping[str, Sequence]) -> dict[str, Tensor]:
        return {n: hold(self.lstm[n](s).values, s.mask) for n, s in aligned.items()}

    def _joined(
        self, states: Mapping[str, Tensor], aligned: Mapping[str, Sequence]
    ) -> tuple[Tensor, Tensor]:
        """What vertices are made of [1 + time batch hidden], from zero on, and who is there.

        The mean over the clip is the only step if `window` is static.
        """
        if self.config.window == "static":
            means = [Sequence(h, aligned[n].mask).mean().unsqueeze(0) for n, h in states.items()]
            joined = torch.cat(means, -1)
        else:
            joined = torch.cat([h.transpose(0, 1) for h in states.values()], -1)
        present = torch.stack([s.present for s in aligned.values()])
        return nn.functional.pad(joined, (0, 0, 0, 0, 1, 0)), present

    def _seen(self, before: Tensor, now: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """What the memory sees [time batch node], and the efficacies; a missing modality is zero."""
        widths = [width_of(self.config.hidden, name) for name in self.dims]
        pairs = zip(torch.split(before, widths, -1), torch.split(now, widths, -1), strict=True)
        singletons = []
        for number, (name, (h0, s)) in enumerate(zip(self.dims, pairs, strict=True)):
            if self.config.window == "pair":
                s = self.transform[name](torch.cat([h0, s], -1))
            singletons.append(torch.relu(s) * present[number, :, None])
        if self.graph is None:
            seen = torch.cat(singletons, -1)
            return seen, seen[..., :0]
        tau, efficacies = self.graph(singletons)
        return tau, efficacies


class EfficacyGraph(nn.Module):
    """Vertices for all sets of modalities, each fed by its proper subsets, and a summary of all."""

    def __init__(self, widths: list[int], config: GraphMemoryFusion.Config) -> None:
        super().__init__()
        singles: list[Subset] = [(m,) for m in range(len(widths))]
        self.sets: list[Subset] = [
            s for size in range(2, len(widths) + 1) for s in combinations(range(len(widths)), size)
        ]
        width = {s: widths[s[0]] for s in singles} | dict.fromkeys(self.sets, config.node)
        self.sources: list[list[Subset]] = [
            [b for b in [*singles, *self.sets] if set(b) < set(s)] for s in self.sets
        ]
        self.sources.append([*singles, *self.sets])
        act = nn.ReLU if config.vertex == "relu" else nn.Identity

        def network(inputs: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(inputs, config.inner), act(), nn.Linear(config.inner, config.node)
            )

        fed = [sum(width[b] for b in sources) for sources in self.sources]
        self.vertex = nn.ModuleList(network(inputs) for inputs in fed[:-1])
        self.vertex.requires_grad_(not config.frozen_vertices)
        self.summary = network(fed[-1])
        self.efficacy = nn.Sequential(
            *network(sum(widths)), act(), nn.Linear(config.node, sum(map(len, self.sources)))
        )
        self.gate = nn.Sigmoid() if config.efficacy == "sigmoid" else nn.Identity()

    def forward(self, singletons: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Summary [batch time node] and efficacies [batch time efficacy]."""
        efficacies = self.gate(self.efficacy(torch.cat(singletons, -1)))
        value: dict[Subset, Tensor] = {(m,): s for m, s in enumerate(singletons)}
        used = 0
        for subset, sources, network in zip(self.sets, self.sources, self.vertex, strict=False):
            value[subset] = network(_weighted(efficacies, used, sources, value))
            used += len(sources)
        tau = self.summary(_weighted(efficacies, used, self.sources[-1], value))
        return tau, efficacies

    def edges(self, names: list[str]) -> tuple[str, ...]:
        """Names of the efficacies, in their order."""
        targets = ["+".join(names[m] for m in s) for s in self.sets] + ["all"]
        return tuple(
            f"{'+'.join(names[m] for m in source)}->{target}"
            for target, sources in zip(targets, self.sources, strict=True)
            for source in sources
        )


def _weighted(
    efficacies: Tensor, used: int, sources: list[Subset], value: Mapping[Subset, Tensor]
) -> Tensor:
    """The concatenation of (efficacy x source), not their sum."""
    parts = [efficacies[..., used + i, None] * value[source] for i, source in enumerate(sources)]
    return torch.cat(parts, -1)


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
