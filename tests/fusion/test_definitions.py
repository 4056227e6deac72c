"""Nets and recurrences against the sums of their papers, number by number: slow, and independent of torch."""

import math
from itertools import product

import torch

from fusion.batch import Batch, Steps
from fusion.nets import net_class, net_config
from fusion.nets.kernels.lstm import lstm_states


def drawn(*shape):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_lmf_is_the_contraction_of_its_whole_weight_tensor():
    """Liu et al. 2018, equations 3 to 6: W = sum_r w_r (f_r1 x f_r2 x f_r3), h = W . ([1; z1] x ...)."""
    dims = {"audio": 3, "text": 4, "video": 2}
    config = net_config("lmf", {"rank": 2, "hidden": {"*": 3}, "recurrent": "", "dropout": 0.0})
    torch.manual_seed(0)
    net = net_class("lmf")(config, dims=dims, outputs={"y": 2}).double().eval()
    batch = Batch(
        inputs={
            name: Steps(drawn(2, 4, dim), torch.ones(2, 4, dtype=torch.bool))
            for name, dim in dims.items()
        }
    )
    found = net(batch).logits["y"].tolist()
    read = net.read(batch)
    z = {name: net.subnet[name](read[name]).tolist() for name in dims}
    factor = {name: net.factor[name].tolist() for name in dims}
    weight, bias = net.rank_weights[0].tolist(), net.bias.tolist()
    widths = [range(len(z[name][0]) + 1) for name in dims]
    for row, output in product(range(2), range(2)):
        total = bias[output]
        for place in product(*widths):
            cell = sum(
                weight[rank]
                * math.prod(factor[n][rank][i][output] for n, i in zip(dims, place, strict=True))
                for rank in range(2)
            )
            inputs = [[1.0, *z[n][row]][i] for n, i in zip(dims, place, strict=True)]
            total += cell * math.prod(inputs)
        assert math.isclose(found[row][output], total, rel_tol=1e-10, abs_tol=1e-12)


def test_lstm_states_are_those_of_the_cell_written_out():
    """Hochreiter and Schmidhuber, with a forget gate; gates in the order i, f, g, o."""
    steps, width, hidden = 4, 3, 2
    inputs, of_input, of_state, bias = (
        drawn(steps, 1, width),
        drawn(8, width),
        drawn(8, 2),
        drawn(8),
    )
    states = lstm_states(inputs, of_input, of_state, bias)[0]
    w, u, b = of_input.tolist(), of_state.tolist(), bias.tolist()
    h, c = [0.0] * hidden, [0.0] * hidden
    for step in range(steps):
        x = inputs[step, 0].tolist()
        gates = [
            sum(w[g][i] * x[i] for i in range(width))
            + sum(u[g][i] * h[i] for i in range(hidden))
            + b[g]
            for g in range(4 * hidden)
        ]
        for unit in range(hidden):
            i, f, g, o = (gates[block * hidden + unit] for block in range(4))
            c[unit] = sigmoid(f) * c[unit] + sigmoid(i) * math.tanh(g)
            h[unit] = sigmoid(o) * math.tanh(c[unit])
        torch.testing.assert_close(states[step + 1, 0], torch.tensor(h, dtype=torch.float64))


def sigmoid(value):
    return 1 / (1 + math.exp(-value))
