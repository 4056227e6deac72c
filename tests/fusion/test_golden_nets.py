"""The nets compute what the original public code computes: same weights, same inputs, same outputs.

The files hold arrays only; every size is read from them. Each net has one table that maps our parameter
names to those of the original. Modalities are named so that their sorted order is the original's.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from fusion.batch import Batch, Sequence
from fusion.nets import net_class, net_config
from fusion.nets._align import align

GOLDEN = Path(
    os.environ.get("AFFUSE_GOLDEN", Path(__file__).resolve().parents[3] / "shared/golden")
)
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no golden values in {GOLDEN}")

PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])


class Golden:
    """One file, in one precision."""

    def __init__(self, name, dtype):
        path = GOLDEN / f"{name}.npz"
        if not path.exists():
            pytest.skip(f"no {path}")
        self.arrays = np.load(path, allow_pickle=False)
        self.dtype = dtype
        self.suffix = "64" if dtype == torch.float64 else ""

    def hyper(self, name):
        value = self.arrays[f"hyper/{name}"]
        return value.tolist()

    def input(self, name):
        return torch.tensor(self.arrays[f"input/{name}"]).to(self.dtype)

    def param(self, name):
        return torch.tensor(self.arrays[f"param/{name}"]).to(self.dtype)

    def load(self, net, table):
        """Fill a net by its table; every parameter must be named and every named one exist."""
        net.to(self.dtype)
        state = net.state_dict()
        missing = [k for k in state if k not in table and not k.endswith("num_batches_tracked")]
        assert missing == []
        for ours, theirs in table.items():
            value = theirs if isinstance(theirs, torch.Tensor) else self.param(theirs)
            assert state[ours].shape == value.shape, (ours, theirs)
            state[ours] = value.to(self.dtype)
        net.load_state_dict(state)
        return net.eval()

    def same(self, value, key):
        """The stated tolerance of an output: 1e-9 absolute in double, 1e-5 in single precision."""
        expected = torch.tensor(self.arrays[f"output{self.suffix}/{key}"])
        if self.suffix:
            torch.testing.assert_close(value, expected, atol=1e-9, rtol=0)
        else:
            torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)

    def same_mid(self, value, key):
        """Intermediates are stored in single precision only: 2e-5."""
        expected = torch.tensor(self.arrays[f"mid/{key}"])
        torch.testing.assert_close(value.float(), expected, atol=2e-5, rtol=2e-5)

    def same_grad(self, value, key):
        expected = torch.tensor(self.arrays[f"grad{self.suffix}/{key}"])
        atol = 1e-9 if self.suffix else 2e-5 * (1 + expected.abs().max().item())
        torch.testing.assert_close(value, expected, atol=atol, rtol=0)

    def batch(self, names, masks=None):
        """A batch of the file's inputs under our names; everything is real unless a mask says so."""
        inputs = {}
        for theirs, ours in names.items():
            values = self.input(theirs).requires_grad_()
            mask = torch.ones(values.shape[:2], dtype=torch.bool)
            if masks and theirs in masks:
                mask = masks[theirs]
            inputs[ours] = Sequence(values, mask)
        return Batch(inputs=inputs)

    def dims(self, names):
        return {ours: self.arrays[f"input/{theirs}"].shape[2] for theirs, ours in names.items()}


def linear(ours, theirs):
    return {f"{ours}.{part}": f"{theirs}.{part}" for part in ("weight", "bias")}


def lstm(ours, theirs, *, layer=0, reverse=False, cell=False):
    """One direction of one LSTM layer; `cell` if the original is an LSTMCell."""
    end = "_reverse" if reverse else ""
    return {
        f"{ours}.{part}_l0{end}": f"{theirs}.{part}" + ("" if cell else f"_l{layer}{end}")
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }


def bn(ours, theirs):
    return linear(ours, theirs) | {
        f"{ours}.{part}": f"{theirs}.{part}" for part in ("running_mean", "running_var")
    }


def check(golden, net, batch, names, task="y"):
    """Outputs and input gradients of a net with one output."""
    output = net(batch).logits[task]
    golden.same(output, "M")
    output.sum().backward()
    for theirs, ours in names.items():
        golden.same_grad(batch.inputs[ours].values.grad, theirs)


TENSOR = {"audio": "1audio", "vision": "2vision", "text": "3text"}
"""Tensor axes and concatenations of the TFN family are in the order audio, vision, text."""

EARLY = {"text": "1text", "audio": "2audio", "vision": "3vision"}
"""Joined features and singletons elsewhere: text, audio, vision."""


def subnets(names):
    """Audio and vision: norm and three layers; text: LSTM and one layer."""
    table = lstm(f"subnet.{names['text']}.lstm.layers.0", "text_subnet.rnn")
    table |= linear(f"subnet.{names['text']}.linear", "text_subnet.linear_1")
    for theirs, name in (("audio_subnet", names["audio"]), ("video_subnet", names["vision"])):
        table |= bn(f"subnet.{name}.norm", f"{theirs}.norm")
        for layer in range(3):
            table |= linear(f"subnet.{name}.layers.{layer}", f"{theirs}.linear_{layer + 1}")
    return table


def subnet_options(golden):
    text, audio, vision = golden.hyper("hidden_dims")
    return {
        "hidden": {"1audio": audio, "2vision": vision, "3text": text},
        "recurrent": "3text",
        "recurrent_out": golden.hyper("text_out"),
        "norm": "batch",
    }


@PRECISIONS
class TestTensorFamily:
    def test_tfn(self, dtype):
        golden = Golden("tfn", dtype)
        hidden = golden.hyper("post_fusion_dim")
        options = subnet_options(golden) | {"post_fusion": hidden}
        shift, span = float(golden.param("output_shift")), float(golden.param("output_range"))
        config = net_config("tfn", options | {"squash": (shift, shift + span)})
        net = net_class("tfn")(config, dims=golden.dims(TENSOR), outputs={"y": 1})
        right = options["recurrent_out"] + 1
        # Theirs is (out, left * right) row-major; ours is (left, out * right).
        tensor = golden.param("post_fusion_layer_1.weight").reshape(hidden, -1, right)
        table = subnets(TENSOR) | {
            "tensor.weight": tensor.permute(1, 0, 2).reshape(-1, hidden * right),
            "tensor.bias": "post_fusion_layer_1.bias",
            **linear("linear", "post_fusion_layer_2"),
            **linear("heads.task.y", "post_fusion_layer_3"),
        }
        golden.load(net, table)
        batch = golden.batch(TENSOR)
        for key, z in zip("avt", net.vectors(net.read(batch)), strict=True):
            golden.same(z, f"Feature_{key}")
        check(golden, net, batch, TENSOR)

    @pytest.mark.parametrize("file", ["lmf", "lmf_multi"])
    def test_lmf(self, dtype, file):
        golden = Golden(file, dtype)
        config = net_config("lmf", subnet_options(golden) | {"rank": golden.hyper("rank")})
        outputs = {"y": golden.hyper("output_dim")}
        net = net_class("lmf")(config, dims=golden.dims(TENSOR), outputs=outputs)
        table = subnets(TENSOR) | {
            "factor.1audio": "audio_factor",
            "factor.2vision": "video_factor",
            "factor.3text": "text_factor",
            "rank_weights": "fusion_weights",
            "bias": golden.param("fusion_bias")[0],
        }
        golden.load(net, table)
        batch = golden.batch(TENSOR)
        terms = net.terms(batch)
        golden.same(terms.squeeze(-1) if outputs["y"] == 1 else terms, "Feature_f")
        check(golden, net, batch, TENSOR)

    def test_lf_dnn(self, dtype):
        golden = Golden("lf_dnn", dtype)
        options = subnet_options(golden) | {"post_fusion": golden.hyper("post_fusion_dim")}
        net = net_class("lf_dnn")(
            net_config("lf_dnn", options), dims=golden.dims(TENSOR), outputs={"y": 1}
        )
        table = subnets(TENSOR) | {
            **linear("layers.1", "post_fusion_layer_1"),
            **linear("layers.3", "post_fusion_layer_2"),
            **linear("heads.task.y", "post_fusion_layer_3"),
        }
        golden.load(net, table)
        check(golden, net, golden.batch(TENSOR), TENSOR)


@PRECISIONS
@pytest.mark.parametrize("file", ["ef_lstm", "ef_lstm_bi"])
def test_ef_lstm(dtype, file):
    golden = Golden(file, dtype)
    layers, both = golden.hyper("num_layers"), golden.hyper("bidirectional")
    config = net_config(
        "ef_lstm",
        {
            "hidden": golden.hyper("hidden_dims"),
            "layers": layers,
            "bidirectional": both,
            "readout": "last_entry",
            "norm": "time",
            "steps": golden.hyper("seq_len"),
            "align": "shared",
        },
    )
    net = net_class("ef_lstm")(config, dims=golden.dims(EARLY), outputs={"y": 1})
    table = bn("time_norm.norm", "norm")
    for layer in range(layers):
        for reverse in (False, True) if both else (False,):
            table |= lstm(f"trunk.lstm.layers.{layer}", "lstm", layer=layer, reverse=reverse)
    table |= linear("trunk.linear", "linear") | linear("heads.task.y", "out")
    golden.load(net, table)
    check(golden, net, golden.batch(EARLY), EARLY)


@PRECISIONS
@pytest.mark.parametrize("how", ["neighbour", "strided"])
def test_alignment_by_pooling(dtype, how):
    golden = Golden("align_avg_pool", dtype)
    batch = golden.batch(EARLY)
    aligned = align(batch.inputs, how, EARLY["text"])
    arrays = golden.arrays
    keys = [k for k in arrays.files if k.startswith("output/") and how in k]
    assert keys
    for key in keys:
        name = EARLY[next(m for m in EARLY if m in key)]
        torch.testing.assert_close(
            aligned[name].values.float(), torch.tensor(arrays[key]), atol=1e-6, rtol=1e-6
        )


def gated_options(golden):
    """Widths of the small networks of MFN and Graph-MFN."""
    text, audio, vision = golden.hyper("hidden_dims")
    return {
        "hidden": {"1text": text, "2audio": audio, "3vision": vision},
        "keep": golden.hyper("gamma1"),
        "add": golden.hyper("gamma2"),
        "head": golden.hyper("out"),
        "align": "shared",
    }


def memory_table():
    table = {}
    for ours, theirs in (("candidate", "att2"), ("keep", "gamma1"), ("add", "gamma2")):
        for number, layer in enumerate(("first", "second"), start=1):
            table |= linear(f"memory.{ours}.{layer}", f"{theirs}_fc{number}")
    return table


CELLS = {"1text": "lstm_l", "2audio": "lstm_a", "3vision": "lstm_v"}


@PRECISIONS
def test_mfn(dtype):
    golden = Golden("mfn", dtype)
    options = gated_options(golden) | {
        "memory": golden.hyper("memsize"),
        "gates_see_memory": True,
        "attention": golden.hyper("att1"),
        "candidate": golden.hyper("att2"),
    }
    net = net_class("mfn")(net_config("mfn", options), dims=golden.dims(EARLY), outputs={"y": 1})
    table = memory_table()
    for ours, theirs in CELLS.items():
        parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        table |= {f"lstm.{ours}.{part}": f"{theirs}.{part}" for part in parts}
    table |= linear("attention.0", "att1_fc1") | linear("attention.3", "att1_fc2")
    table |= linear("head.0", "out_fc1") | linear("heads.task.y", "out_fc2")
    golden.load(net, table)
    batch = golden.batch(EARLY)
    golden.same_mid(net.explain(batch)["attention"], "attention")
    for letter, (name, sequence) in zip("lav", net.read(batch).items(), strict=True):
        h, c = net.lstm[name](sequence)
        golden.same_mid(h, f"h_{letter}")
        golden.same_mid(c, f"c_{letter}")
    check(golden, net, batch, EARLY)


GRAPHS = {
    "graph_mfn": {},
    "graph_mfn_noG": {"no_graph": True},
    "graph_mfn_noM": {"memory": "none"},
    "graph_mfn_noW": {"window": "none"},
    "graph_mfn_pair": {},
}


def graph_table(golden, options):
    table = {} if options.get("memory") == "none" else memory_table()
    transform = "" if "param/l_transform.weight" in golden.arrays.files else ".1"
    for letter, name in zip("lav", CELLS, strict=True):
        table |= lstm(f"lstm.{name}.layers.0", f"lstm_{letter}", cell=True)
        if options.get("window") != "none":
            table |= linear(f"transform.{name}", f"{letter}_transform{transform}")
    if not options.get("no_graph"):
        for number, key in enumerate(("0_1", "0_2", "1_2", "0_1_2")):
            table |= linear(f"graph.vertex.{number}.0", f"graph_mfn.networks.{key}.0")
            table |= linear(f"graph.vertex.{number}.2", f"graph_mfn.networks.{key}.1.0")
        table |= linear("graph.summary.0", "graph_mfn.t_network.0")
        table |= linear("graph.summary.2", "graph_mfn.t_network.1.0")
        table |= linear("graph.efficacy.0", "graph_mfn.efficacy_model.0")
        table |= linear("graph.efficacy.2", "graph_mfn.efficacy_model.1.0")
        table |= linear("graph.efficacy.4", "graph_mfn.efficacy_model.2")
    if options.get("memory") == "none":
        table |= linear("unread", "att2_fc1")
    return table | linear("head.0", "out_fc1") | linear("heads.task.y", "out_fc2")


@PRECISIONS
@pytest.mark.parametrize("file", list(GRAPHS))
def test_graph_mfn(dtype, file):
    golden = Golden(file, dtype)
    options = (
        gated_options(golden)
        | GRAPHS[file]
        | {
            "memory_width": golden.hyper("memsize"),
            "candidate": golden.hyper("candidate"),
            "node": golden.hyper("inner_node_dim"),
            "inner": golden.hyper("inner_width"),
            "efficacy": "linear",
            "vertex": "linear",
        }
    )
    net = net_class("graph_mfn")(
        net_config("graph_mfn", options), dims=golden.dims(EARLY), outputs={"y": 1}
    )
    table = graph_table(golden, options)
    used = golden.hyper("modalities")
    names = dict(zip("lav", EARLY, strict=True))
    masks = {
        names[letter]: torch.zeros(golden.input(names[letter]).shape[:2], dtype=torch.bool)
        for letter in set("lav") - set(used)
    }
    if masks:
        # Their head reads the states that are there; ours reads zeros in the places of the others.
        sizes = [*golden.hyper("hidden_dims"), golden.hyper("memsize")]
        kept = torch.cat([torch.full((n,), m in used) for n, m in zip(sizes, "lavl", strict=True)])
        weight = golden.param("out_fc1.weight")
        wide = torch.zeros(len(weight), len(kept), dtype=dtype)
        wide[:, kept] = weight
        table["head.0.weight"] = wide
    golden.load(net, table)
    batch = golden.batch(EARLY, masks)
    shown = net.explain(batch)
    if not options.get("no_graph"):
        golden.same_mid(shown["efficacies"], "efficacies")
        golden.same_mid(shown["tau"], "tau")
        assert net.edges[4:7] == (
            "2audio->2audio+3vision",
            "3vision->2audio+3vision",
            "1text->1text+2audio+3vision",
        )
    check(golden, net, batch, EARLY)
