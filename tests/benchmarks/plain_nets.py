"""The nets as their papers' code computes them: step by step, with nothing prepared ahead.

The same modules, hence the same weights, with their shared parts swapped for the obvious way: an LSTM is a
loop over steps, attention forms its whole matrix, the tensor of TFN is formed. MFN and Graph-MFN, whose loop
spans the whole net, are written out. These forms know no masks: every step of a batch must be real.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import nn

from fusion.batch import Batch, Output, Steps
from fusion.nets import _attention, graph_mfn, lmf, mfn, tfn
from fusion.nets.kernels import recurrent


def cell(x, h, c, w_ih, w_hh, b_ih, b_hh):
    """One step of an LSTM."""
    gates = nn.functional.linear(x, w_ih, b_ih) + nn.functional.linear(h, w_hh, b_hh)
    i, f, g, o = gates.chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def lstm_loop(x, layer, end=""):
    """States of every step of one direction."""
    weights = [
        getattr(layer, f"{n}_l0{end}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    h = c = x.new_zeros(len(x), layer.hidden_size)
    states = []
    # Unbound once: the gradient of an index would fill a tensor of all steps at every step.
    steps = x.unbind(1)
    for step in reversed(steps) if end else steps:
        h, c = cell(step, h, c, *weights)
        states.append(h)
    return torch.stack(states[::-1] if end else states, 1)


def plain_recurrent(self, sequence, *, causal=False):
    x = sequence.values
    for number, layer in enumerate(self.layers):
        x = self.dropout(x) if number else x
        ways = [lstm_loop(x, layer)]
        if self.bidirectional:
            back = lstm_loop(x, layer, "_reverse")
            ways.append(torch.zeros_like(back) if causal else back)
        x = torch.cat(ways, -1)
    return Steps(x, sequence.mask)


def plain_outer(self, left, right):
    z = (left.unsqueeze(2) * right.unsqueeze(1)).flatten(1)
    return nn.functional.linear(z, self.flat, self.bias)


def plain_attention(self, query, key, value, allowed):
    q, k, v = self._project(query, key, value)
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    shares = nn.functional.dropout(
        torch.softmax(scores.masked_fill(~allowed.unsqueeze(1), -torch.inf), -1),
        self.dropout,
        self.training,
    )
    return self._merge(shares @ v)


def plain_terms(self, batch):
    product = None
    for name, sequence in self.read(batch).items():
        part = torch.matmul(tfn.with_one(self.subnet[name](sequence)), self.factor[name])
        product = part if product is None else product * part
    return product.transpose(0, 1)


def small(net, x):
    """Linear, ReLU, Linear (dropout is off in a benchmark)."""
    return net.second(torch.relu(net.first(x)))


def remember(memory, seen, u):
    """One step of the gated memory."""
    both = torch.cat([seen, u], 1) if memory.sees_memory else seen
    keep, add = torch.sigmoid(small(memory.keep, both)), torch.sigmoid(small(memory.add, both))
    return keep * u + add * torch.tanh(small(memory.candidate, seen))


def plain_mfn(self, batch):
    x = {name: sequence.values.unbind(1) for name, sequence in self.read(batch).items()}
    first = next(iter(x.values()))
    rows, steps, zeros = len(first[0]), len(first), first[0].new_zeros
    h = {n: zeros(rows, m.weight_hh.shape[1]) for n, m in self.lstm.items()}
    c = dict(h)
    u = zeros(rows, self.config.memory)
    for t in range(steps):
        before = list(c.values())
        for name, m in self.lstm.items():
            weights = (m.weight_ih, m.weight_hh, m.bias_ih, m.bias_hh)
            h[name], c[name] = cell(x[name][t], h[name], c[name], *weights)
        pair = torch.cat([*before, *c.values()], 1)
        u = remember(self.memory, torch.softmax(self.attention(pair), 1) * pair, u)
    return Output(self.heads(self.head(torch.cat([*h.values(), u], 1))))


def plain_graph(graph, singles):
    """Summary of the vertices at one step."""
    efficacies = graph.gate(graph.efficacy(torch.cat(singles, 1))).split(1, 1)
    value = {(m,): s for m, s in enumerate(singles)}
    used = 0
    for subset, sources, network in zip(
        [*graph.sets, "all"], graph.sources, [*graph.vertex, graph.summary], strict=True
    ):
        parts = [efficacies[used + i] * value[s] for i, s in enumerate(sources)]
        value[subset] = network(torch.cat(parts, 1))
        used += len(sources)
    return value["all"]


def plain_graph_mfn(self, batch):
    x = {name: sequence.values.unbind(1) for name, sequence in self.read(batch).items()}
    first = next(iter(x.values()))
    rows, steps, zeros = len(first[0]), len(first), first[0].new_zeros
    h = {n: zeros(rows, m.hidden) for n, m in self.lstm.items()}
    c = dict(h)
    u = zeros(rows, self.config.memory_width)
    for t in range(steps):
        before = dict(h)
        singles = []
        for name, m in self.lstm.items():
            layer = m.layers[0]
            weights = [
                getattr(layer, f"{n}_l0") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            ]
            h[name], c[name] = cell(x[name][t], h[name], c[name], *weights)
            both = torch.cat([before[name], h[name]], 1)
            singles.append(torch.relu(self.transform[name](both)))
        u = remember(self.memory, plain_graph(self.graph, singles), u)
    return Output(self.heads(self.head(torch.cat([*h.values(), u], 1))))


@contextmanager
def plain_forms() -> Iterator[None]:
    """Inside, every net computes the plain way."""
    with (
        patch.object(recurrent.Recurrent, "forward", plain_recurrent),
        patch.object(_attention.Attention, "forward", plain_attention),
        patch.object(tfn.OuterLinear, "forward", plain_outer),
        patch.object(lmf.LowRankFusion, "terms", plain_terms),
        patch.object(mfn.MemoryFusion, "forward", plain_mfn),
        patch.object(graph_mfn.GraphMemoryFusion, "forward", plain_graph_mfn),
    ):
        yield


def prepare(net: nn.Module) -> nn.Module:
    """Give the plain tensor fusion its weight in the layout that it would have been made with."""
    for part in net.modules():
        if isinstance(part, tfn.OuterLinear):
            weight = part.weight.detach().view(-1, part.hidden, part.right)
            part.flat = nn.Parameter(weight.permute(1, 0, 2).reshape(part.hidden, -1).contiguous())
    return net


def plain_output(net: nn.Module, batch: Batch) -> Output:
    """What a prepared net gives the plain way."""
    with plain_forms():
        return net(batch)
