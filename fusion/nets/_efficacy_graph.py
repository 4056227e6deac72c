"""The graph of Graph-MFN: vertices for sets of modalities, joined by efficacies.

Shapes: batch, time, node, efficacy.
"""

from itertools import combinations

import torch
from torch import Tensor, nn

from fusion.nets.kernels.blocks import scaled

Subset = tuple[int, ...]
Layers = list[tuple[Tensor, Tensor]]


class EfficacyGraph(nn.Module):
    """Vertices for all sets of modalities, each fed by its proper subsets, and a summary of all."""

    def __init__(
        self, widths: list[int], *, node: int, inner: int, relu: bool, sigmoid: bool
    ) -> None:
        super().__init__()
        singles: list[Subset] = [(m,) for m in range(len(widths))]
        self.sets: list[Subset] = [
            s for size in range(2, len(widths) + 1) for s in combinations(range(len(widths)), size)
        ]
        width = {s: widths[s[0]] for s in singles} | dict.fromkeys(self.sets, node)
        self.sources: list[list[Subset]] = [
            [b for b in [*singles, *self.sets] if set(b) < set(s)] for s in self.sets
        ]
        self.sources.append([*singles, *self.sets])
        act = nn.ReLU if relu else nn.Identity

        def network(inputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(inputs, inner), act(), nn.Linear(inner, node))

        fed = [sum(width[b] for b in sources) for sources in self.sources]
        self.vertex = nn.ModuleList(network(inputs) for inputs in fed[:-1])
        self.summary = network(fed[-1])
        self.efficacy = nn.Sequential(
            *network(sum(widths)), act(), nn.Linear(node, sum(map(len, self.sources)))
        )
        self.gate = nn.Sigmoid() if sigmoid else nn.Identity()

    def layers(self) -> tuple[list[Layers], Layers, Layers]:
        """Networks of the vertices, of the summary and of the efficacies, ready for many blocks of steps."""
        vertices = [_layers(network) for network in self.vertex]
        return vertices, _layers(self.summary), _layers(self.efficacy)

    def forward(
        self, singletons: list[Tensor], layers: tuple[list[Layers], Layers, Layers]
    ) -> tuple[Tensor, Tensor]:
        """Summary [batch time node] and efficacies [batch time efficacy]."""
        vertices, summary, efficacy = layers
        efficacies = self.gate(_through(efficacy, torch.cat(singletons, -1)))
        value: dict[Subset, Tensor] = {(m,): s for m, s in enumerate(singletons)}
        parts = torch.split(efficacies, [len(sources) for sources in self.sources], -1)
        for subset, sources, network, part in zip(
            self.sets, self.sources, vertices, parts, strict=False
        ):
            value[subset] = _through(network, scaled(part, [value[s] for s in sources]))
        tau = _through(summary, scaled(parts[-1], [value[s] for s in self.sources[-1]]))
        return tau, efficacies

    def edges(self, names: list[str]) -> tuple[str, ...]:
        """Names of the efficacies, in their order."""
        targets = ["+".join(names[m] for m in s) for s in self.sets] + ["all"]
        return tuple(
            f"{'+'.join(names[m] for m in source)}->{target}"
            for target, sources in zip(targets, self.sources, strict=True)
            for source in sources
        )


def _layers(network: nn.Module) -> Layers:
    """Weights and biases, a ReLU between each and the next.

    Layers with nothing between them become one: their product.
    """
    layers: Layers = []
    joins = False
    for part in network.children():
        if isinstance(part, nn.Linear):
            weight: Tensor = part.weight
            bias: Tensor = part.bias
            if joins:
                before = layers.pop()
                weight, bias = weight @ before[0], nn.functional.linear(before[1], weight, bias)
            layers.append((weight, bias))
        joins = bool(layers) and isinstance(part, nn.Identity)
    return layers


def _through(layers: Layers, x: Tensor) -> Tensor:
    for number, (weight, bias) in enumerate(layers):
        x = nn.functional.linear(torch.relu(x) if number else x, weight, bias)
    return x
