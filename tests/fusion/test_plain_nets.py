"""Fast forms equal slow ones: every net against its plain form, every recurrence against a loop."""

import dataclasses
from unittest.mock import patch

import pytest
import torch

from fusion.batch import Batch, Steps
from fusion.nets import NETS, net_class, net_config
from fusion.nets._align import align, pool_weights
from fusion.nets._attention import Attention
from fusion.nets.kernels import lstm
from fusion.nets.kernels.attended import attended
from fusion.nets.kernels.blocks import overlapping, scaled
from fusion.nets.kernels.lstm import NARROW, Layer, lstm_states, states_of_all
from fusion.nets.kernels.memory import gated_memory, scan
from fusion.nets.kernels.recurrent import Recurrent, held, states_beside
from fusion.nets.tfn import OuterLinear
from tests.benchmarks.plain_nets import plain_output, prepare

DIMS = {"audio": 5, "text": 7, "video": 3}


def full_batch(axis, dims, dtype=torch.float64):
    """Every step of three rows is real."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(3, 6, dtype=torch.bool)
    inputs = {
        n: Steps(torch.randn(3, 6, d, generator=generator, dtype=dtype), mask)
        for n, d in dims.items()
    }
    steps = mask if axis == "dialogue" else None
    return Batch(inputs=inputs, axis=axis, steps=steps)


CASES = [
    *((name, {}) for name in NETS if name != "finetune"),  # its head is one of the others
    ("dialogue_profile", {"form": "early"}),
    ("ef_lstm", {"bidirectional": True, "layers": 2}),
    ("mfn", {"gates_see_memory": True}),
    ("mult", {"future_mask": True}),
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_net_equals_its_plain_form_in_outputs_and_gradients(name, options):
    torch.manual_seed(1)
    config = net_config(name, options)
    off = [f.name for f in dataclasses.fields(config) if f.name.endswith("dropout")]
    config = dataclasses.replace(config, **dict.fromkeys(off, 0.0))
    dims = {"text": 7} if name == "lstm" else DIMS
    net = prepare(net_class(name)(config, dims=dims, outputs={"y": 2}).double())
    batch = full_batch(net.axis, dims)
    grads = []
    for run in (net, lambda b: plain_output(net, b)):
        net.zero_grad()
        logits = run(batch).logits["y"]
        logits.square().sum().backward()
        grads.append([p.grad for p in net.parameters() if p.grad is not None])
        grads[-1].append(logits)
    if name == "tfn":
        # Its plain form holds the largest weight in another layout.
        grads = [
            [g for g in side if g.shape not in (net.tensor.weight.shape, net.tensor.flat.shape)]
            for side in grads
        ]
    for ours, plain in zip(*grads, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-10, rtol=1e-8)


class TestRecurrences:
    """Hand-written gradients are those of finite differences."""

    @staticmethod
    def draw(*shape):
        generator = torch.Generator().manual_seed(sum(shape))
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    @pytest.fixture(params=[1024, 4], ids=["one block", "blocks of two steps"], autouse=True)
    def block(self, request, monkeypatch):
        monkeypatch.setattr("fusion.nets.kernels.blocks.ROWS", request.param)

    def test_lstm_states(self):
        leaves = (self.draw(5, 2, 4), self.draw(12, 4), self.draw(12, 3), self.draw(12))
        assert torch.autograd.gradcheck(lstm_states, leaves)

    def test_lstms_beside_each_other(self):
        first = (self.draw(5, 2, 4), self.draw(12, 4), self.draw(12, 3), self.draw(12))
        second = (self.draw(5, 2, 3), self.draw(8, 3), self.draw(8, 2), self.draw(8))

        def run(*leaves):
            both = states_of_all([Layer(*leaves[:4]), Layer(*leaves[4:])])
            return tuple(state for pair in both for state in pair)

        assert torch.autograd.gradcheck(run, (*first, *second))

    def test_wide_inputs_and_wide_states_are_not_joined(self):
        def layer(width, hidden):
            shapes = ((5, 2, width), (4 * hidden, width), (4 * hidden, hidden), (4 * hidden,))
            return Layer(*(self.draw(*shape) for shape in shapes))

        runs = []
        with patch.object(
            lstm, "lstm_states", lambda *layer: runs.append(layer) or lstm_states(*layer)
        ):
            layers = [layer(9, 3), layer(NARROW, 3), layer(4, NARROW), layer(6, 2)]
            states_of_all(layers)
        assert sorted(run[2].shape[1] for run in runs) == [3, 5, NARROW]

    def test_scan(self):
        assert torch.autograd.gradcheck(scan, (self.draw(4, 2, 3), self.draw(4, 2, 3)))

    @pytest.mark.parametrize("dropout", [False, True])
    def test_gated_memory(self, dropout):
        kept = torch.rand(5, 2, 9, dtype=torch.float64) * 2 if dropout else None
        pairs = [part for n in (2, 4, 3) for part in (self.draw(3, n), self.draw(3))]

        def run(inputs, of_memory, *pairs):
            return gated_memory(inputs, kept, of_memory, pairs[:2], pairs[2:4], pairs[4:])

        assert torch.autograd.gradcheck(run, (self.draw(5, 2, 9), self.draw(7, 3), *pairs))

    @pytest.mark.parametrize("dropout", [False, True])
    def test_attended(self, dropout):
        kept = torch.rand(5, 2, 4, dtype=torch.float64) * 2 if dropout else None
        layers = (self.draw(4, 10), self.draw(4), self.draw(10, 4), self.draw(10))

        def run(one, other, *weights):
            return attended([one, other], weights[:4], kept, weights[4:])

        cells = (self.draw(6, 2, 2), self.draw(6, 2, 3))
        assert torch.autograd.gradcheck(run, (*cells, *layers, self.draw(3, 10), self.draw(3)))

    def test_overlapping_windows_and_scaled_values(self):
        def run(states, factors):
            windows = overlapping(states, [slice(0, 2), slice(2, 4), slice(4, 5)])
            now = torch.cat([w[1:] * w[:-1] for w in windows])
            return scaled(factors, [now, states[1:, :, :2]])

        assert torch.autograd.gradcheck(run, (self.draw(6, 2, 3), self.draw(5, 2, 2)))

    def test_lstm_states_are_those_of_the_library_cell(self):
        cell = torch.nn.LSTMCell(4, 3).double()
        x = self.draw(5, 2, 4)
        h, c = lstm_states(x, cell.weight_ih, cell.weight_hh, cell.bias_ih + cell.bias_hh)
        state = (torch.zeros(2, 3, dtype=torch.float64),) * 2
        torch.testing.assert_close((h[0], c[0]), state)
        for t in range(5):
            state = cell(x[t], state)
            torch.testing.assert_close((h[t + 1], c[t + 1]), state)

    def test_half_precision_is_computed_in_single(self):
        leaves = [self.draw(*shape).detach() for shape in ((9, 2, 4), (12, 4), (12, 3), (12,))]
        half = [z.bfloat16().requires_grad_() for z in leaves]
        exact = [z.detach().double().requires_grad_() for z in half]
        for leaf, states in ((half, lstm_states(*half)), (exact, lstm_states(*exact))):
            states[0].double().sum().backward()
            assert states[0].dtype == leaf[0].dtype
        for close, right in zip(half, exact, strict=True):
            torch.testing.assert_close(close.grad.double(), right.grad, atol=2e-2, rtol=1e-2)

    def test_a_second_derivative_is_refused(self):
        leaves = (self.draw(2, 1, 2), self.draw(4, 2), self.draw(4, 1), self.draw(4))
        (grad,) = torch.autograd.grad(
            lstm_states(*leaves)[0].square().sum(), leaves[:1], create_graph=True
        )
        with pytest.raises(RuntimeError, match="once_differentiable"):
            grad.sum().backward()


class TestMaskedRecurrence:
    """An LSTM reads a row with holes as if the holes had been cut out."""

    @pytest.mark.parametrize("own_from", [1, 99], ids=["own loop", "library"])
    @pytest.mark.parametrize("both", [False, True], ids=["one way", "both ways"])
    def test_equals_the_library_on_each_cut_row(self, both, own_from, monkeypatch):
        monkeypatch.setattr("fusion.nets.kernels.recurrent.LONG", own_from)
        monkeypatch.setattr("fusion.nets.kernels.recurrent.WIDE", 1)
        torch.manual_seed(0)
        net = Recurrent(4, 3, layers=2, bidirectional=both).double().eval()
        x = torch.randn(3, 7, 4, dtype=torch.float64)
        mask = torch.rand(3, 7) < 0.6
        mask[2] = False
        states = net(Steps(x * mask.unsqueeze(-1), mask))
        ends = net.ends(states)
        for row in range(2):
            y = x[row, mask[row]][None]
            for layer in net.layers:
                y, (last, _) = layer(y)
            torch.testing.assert_close(states.values[row, mask[row]], y[0])
            assert (states.values[row, ~mask[row]] == 0).all()
            torch.testing.assert_close(ends[row], last[:, 0].flatten())
        assert (ends[2] == 0).all()

    def test_a_step_without_input_keeps_the_state_of_the_last_real_one(self):
        states = torch.arange(6.0).view(6, 1, 1)
        mask = torch.tensor([[False, True, False, True, False]])
        assert held(states, mask).flatten().tolist() == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]

    @pytest.mark.parametrize("own_from", [1, 99], ids=["own loop", "library"])
    def test_lstms_beside_each_other_give_what_each_gives_by_itself(self, own_from, monkeypatch):
        monkeypatch.setattr("fusion.nets.kernels.recurrent.LONG", own_from)
        monkeypatch.setattr("fusion.nets.kernels.recurrent.WIDE", 1)
        torch.manual_seed(0)
        widths = {"audio": (5, 2), "text": (4, NARROW + 1), "video": (3, 4)}
        lstms = {name: Recurrent(*width).double() for name, width in widths.items()}
        mask = torch.rand(3, 7) < 0.6
        mask[2] = False
        masks = {"audio": mask, "text": mask.flip(1), "video": torch.ones_like(mask)}
        inputs = {
            name: Steps(torch.randn(3, 7, width, dtype=torch.float64), masks[name])
            for name, (width, _) in widths.items()
        }
        beside = states_beside(lstms.values(), inputs.values())
        for name, states in zip(widths, beside, strict=True):
            assert (states[0] == 0).all()
            monkeypatch.setattr("fusion.nets.kernels.recurrent.LONG", 99)
            alone = lstms[name](inputs[name]).values.transpose(0, 1)
            real = masks[name].t()
            torch.testing.assert_close(states[1:][real], alone[real])
            kept = states[:-1][~real]
            assert torch.equal(states[1:][~real], kept)


@pytest.mark.parametrize("hidden", [False, True], ids=["all keys", "some keys"])
def test_attention_to_few_keys_is_that_of_the_library(hidden, monkeypatch):
    torch.manual_seed(0)
    attention = Attention(8, 2).double()
    query, key = torch.randn(3, 5, 8), torch.randn(3, 7, 8)
    allowed = torch.rand(3, 1, 7) < (0.6 if hidden else 1.1)
    allowed[2] = not hidden
    ours = attention(query.double(), key.double(), key.double(), allowed)
    monkeypatch.setattr("fusion.nets._attention.SHORT", 0)
    library = attention(query.double(), key.double(), key.double(), allowed)
    torch.testing.assert_close(ours, library)


class TestAlignment:
    def test_area_is_the_mean_of_what_each_step_covers(self):
        weights = pool_weights(torch.tensor([5]), torch.tensor([2]), 5, 2, "area")[0]
        # 2.5 source steps a target step.
        expected = torch.tensor([[0.4, 0.4, 0.2, 0, 0], [0, 0, 0.2, 0.4, 0.4]])
        torch.testing.assert_close(weights, expected)

    def test_area_repeats_steps_of_a_shorter_modality(self):
        weights = pool_weights(torch.tensor([2]), torch.tensor([4]), 2, 4, "area")[0]
        torch.testing.assert_close(weights, torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]]))

    def test_equal_lengths_are_left_alone_bit_for_bit(self):
        values = torch.randn(2, 4, 3)
        mask = torch.tensor([[True] * 4, [True, True, False, False]])
        sequences = {"a": Steps(values, mask), "text": Steps(values, mask)}
        aligned = align(sequences, "area", "text")
        assert (aligned["a"].values[mask] == values[mask]).all()

    def test_missing_source_steps_do_not_dilute_the_mean(self):
        values = torch.tensor([[[1.0], [100.0], [3.0], [5.0]]])
        mask = torch.tensor([[True, False, True, True]])
        text = Steps(torch.zeros(1, 2, 1), torch.ones(1, 2, dtype=torch.bool))
        out = align({"a": Steps(values * mask.unsqueeze(-1), mask), "text": text}, "area", "text")
        assert out["a"].values.flatten().tolist() == [1.0, 4.0]

    def test_a_row_without_the_timeline_follows_its_shortest_modality(self):
        sequences = {
            n: Steps(torch.ones(1, t, 1), torch.full((1, t), n != "text"))
            for n, t in (("a", 6), ("text", 4), ("v", 3))
        }
        assert align(sequences, "area", "text")["a"].mask.sum() == 3


def test_outer_linear_is_a_linear_layer_on_the_outer_product():
    torch.manual_seed(0)
    layer = OuterLinear(3, 4, 5).double()
    left, right = torch.randn(2, 3).double(), torch.randn(2, 4).double()
    slow = torch.zeros(2, 5, dtype=torch.float64)
    for b in range(2):
        for o in range(5):
            for i in range(3):
                for j in range(4):
                    slow[b, o] += layer.weight[i, o * 4 + j] * left[b, i] * right[b, j]
    torch.testing.assert_close(layer(left, right), slow + layer.bias)
