"""The nets compute what the original public code computes: same weights, same inputs, same outputs.

The files hold arrays only; every size is read from them. Each net has one table that maps our parameter
names to those of the original. Modalities are named so that their sorted order is the original's.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fusion.batch import Batch, Steps
from fusion.nets import net_class, net_config
from fusion.nets._align import align
from fusion.nets._codes import moment_distance, orthogonality
from fusion.nets._label_table import LabelTable
from fusion.nets.kernels.lstm import lstm_states
from fusion.nets.m2fnet import FusionLayer

GOLDEN = Path(
    os.environ.get("AFFUSE_GOLDEN", Path(__file__).resolve().parents[3] / "shared/golden")
)
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no golden values in {GOLDEN}")

PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])


def files(pattern, *known):
    """The files of a kind: those that are known, and any other."""
    others = sorted(path.stem for path in GOLDEN.glob(f"{pattern}.npz"))
    return list(dict.fromkeys([*known, *others]))


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

    def size(self, name, axis=0):
        """Length of an axis of a parameter."""
        return self.arrays[f"param/{name}"].shape[axis]

    def layers(self, before, after):
        """The numbers that stand between two parts of parameter names, ascending."""
        found = (k.removeprefix(f"param/{before}") for k in self.arrays.files)
        names = (k.split(after)[0] for k in found if after in k)
        return sorted({int(name) for name in names if name.isdigit()})

    def has(self, name):
        return f"param/{name}" in self.arrays.files

    @property
    def outputs(self):
        """The one task and its width."""
        return {"y": self.arrays["output/M"].shape[1]}

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
            inputs[ours] = Steps(values, mask)
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
        net = net_class("tfn")(config, dims=golden.dims(TENSOR), outputs=golden.outputs)
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

    @pytest.mark.parametrize("file", files("lmf*", "lmf", "lmf_multi"))
    def test_lmf(self, dtype, file):
        golden = Golden(file, dtype)
        config = net_config("lmf", subnet_options(golden) | {"rank": golden.hyper("rank")})
        outputs = golden.outputs
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
            net_config("lf_dnn", options), dims=golden.dims(TENSOR), outputs=golden.outputs
        )
        table = subnets(TENSOR) | {
            **linear("layers.1", "post_fusion_layer_1"),
            **linear("layers.3", "post_fusion_layer_2"),
            **linear("heads.task.y", "post_fusion_layer_3"),
        }
        golden.load(net, table)
        check(golden, net, golden.batch(TENSOR), TENSOR)


@PRECISIONS
@pytest.mark.parametrize("file", files("ef_lstm*", "ef_lstm", "ef_lstm_bi"))
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
    net = net_class("ef_lstm")(config, dims=golden.dims(EARLY), outputs=golden.outputs)
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
    return {
        "hidden": dict(zip(EARLY.values(), golden.hyper("hidden_dims"), strict=True)),
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
    net = net_class("mfn")(
        net_config("mfn", options), dims=golden.dims(EARLY), outputs=golden.outputs
    )
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
        h, c = lstm_states(*net.lstm[name].layer(sequence))
        golden.same_mid(h[1:].transpose(0, 1), f"h_{letter}")
        golden.same_mid(c[1:].transpose(0, 1), f"c_{letter}")
    check(golden, net, batch, EARLY)


def graph_options(golden):
    """What a file leaves out, and its widths."""
    left_out = {}
    if golden.hyper("noG"):
        left_out["no_graph"] = True
    if golden.hyper("noM"):
        left_out["memory"] = "none"
    if golden.hyper("noW"):
        left_out["window"] = "none"
    return (
        gated_options(golden)
        | left_out
        | {
            "memory_width": golden.hyper("memsize"),
            "candidate": golden.hyper("candidate"),
            "node": golden.hyper("inner_node_dim"),
            "inner": golden.hyper("inner_width"),
            "efficacy": "linear",
            "vertex": "linear",
        }
    )


def graph_table(golden, options):
    table = {} if options.get("memory") == "none" else memory_table()
    for letter, name in zip("lav", CELLS, strict=True):
        table |= lstm(f"lstm.{name}.layers.0", f"lstm_{letter}", cell=True)
        if options.get("window") != "none":
            plain = f"{letter}_transform"
            there = plain if golden.has(f"{plain}.weight") else f"{plain}.1"
            table |= linear(f"transform.{name}", there)
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
@pytest.mark.parametrize(
    "file",
    files(
        "graph_mfn*",
        "graph_mfn",
        "graph_mfn_noG",
        "graph_mfn_noM",
        "graph_mfn_noW",
        "graph_mfn_pair",
    ),
)
def test_graph_mfn(dtype, file):
    golden = Golden(file, dtype)
    options = graph_options(golden)
    net = net_class("graph_mfn")(
        net_config("graph_mfn", options), dims=golden.dims(EARLY), outputs=golden.outputs
    )
    table = graph_table(golden, options)
    used = golden.hyper("modalities")
    names = dict(zip("lav", EARLY, strict=True))
    masks = {
        names[letter]: torch.zeros(golden.input(names[letter]).shape[:2], dtype=torch.bool)
        for letter in "lav"
        if letter not in used
    }
    if masks:
        absent = {EARLY[name] for name in masks}
        own = net.state_dict()
        for ours, theirs in table.items():
            # A state that is never reached: the file may leave its weights out.
            if set(ours.split(".")) & absent and not golden.has(theirs):
                table[ours] = own[ours]
        # Their head reads the states that are there and the memory; ours reads zeros in place of the rest.
        read = [
            torch.full((size,), letter in used)
            for letter, size in zip("lav", golden.hyper("hidden_dims"), strict=True)
        ]
        if options.get("memory") != "none":
            read.append(torch.ones(golden.hyper("memsize"), dtype=torch.bool))
        kept = torch.cat(read)
        weight = golden.param("out_fc1.weight")
        if weight.shape[1] == int(kept.sum()):
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


def attention(ours, theirs):
    """nn.MultiheadAttention: one matrix of query, key and value rows, and the output."""
    return {
        f"{ours}.inputs.weight": f"{theirs}.in_proj_weight",
        f"{ours}.inputs.bias": f"{theirs}.in_proj_bias",
        **linear(f"{ours}.output", f"{theirs}.out_proj"),
    }


def transformer_layer(ours, theirs):
    """nn.TransformerEncoderLayer."""
    return {
        **attention(f"{ours}.attention", f"{theirs}.self_attn"),
        **linear(f"{ours}.up", f"{theirs}.linear1"),
        **linear(f"{ours}.down", f"{theirs}.linear2"),
        **linear(f"{ours}.norm1", f"{theirs}.norm1"),
        **linear(f"{ours}.norm2", f"{theirs}.norm2"),
    }


SHORT = {"l": "1text", "a": "2audio", "v": "3vision"}


def mult_encoder(ours, theirs, layers):
    table = linear(f"{ours}.norm", f"{theirs}.layer_norm")
    for layer in range(layers):
        here, there = f"{ours}.layers.{layer}", f"{theirs}.layers.{layer}"
        table |= attention(f"{here}.attention", f"{there}.self_attn")
        table |= linear(f"{here}.up", f"{there}.fc1") | linear(f"{here}.down", f"{there}.fc2")
        for norm in (0, 1):
            table |= linear(f"{here}.norm{norm + 1}", f"{there}.layer_norms.{norm}")
    return table


@PRECISIONS
@pytest.mark.parametrize("file", files("mult_*", "mult_aligned", "mult_unaligned", "mult_nomask"))
def test_mult(dtype, file):
    golden = Golden(file, dtype)
    layers, memory = golden.hyper("layers"), golden.hyper("mem_layers")
    config = net_config(
        "mult",
        {
            "hidden": golden.hyper("d_model"),
            "heads": golden.hyper("heads"),
            "layers": layers,
            "memory_layers": memory,
            "kernel": dict(zip(EARLY.values(), golden.hyper("kernels"), strict=True)),
            "conv": "valid",
            "positions": False,
            "future_mask": golden.hyper("attn_mask"),
        },
    )
    net = net_class("mult")(config, dims=golden.dims(EARLY), outputs=golden.outputs)
    table = linear("linear1", "proj1") | linear("linear2", "proj2")
    table |= linear("heads.task.y", "out_layer")
    for m, ours in SHORT.items():
        table[f"conv.{ours}.weight"] = f"proj_{m}.weight"
        table |= mult_encoder(f"memory.{ours}", f"trans_{m}_mem", memory)
        for n, source in SHORT.items():
            if n != m:
                pair = f"cross.{ours}<-{source}"
                table |= mult_encoder(pair, f"trans_{m}_with_{n}", layers)
    golden.load(net, table)
    batch = golden.batch(EARLY)
    projected = net.projected(batch)
    crossed, memories = net.crossed(projected), net.memories(projected)
    for m, ours in SHORT.items():
        golden.same_mid(projected[ours].values, f"proj_{m}")
        golden.same_mid(memories[ours].values, f"trans_{m}_mem")
        for n, source in SHORT.items():
            if n != m:
                golden.same_mid(crossed[f"{ours}<-{source}"].values, f"trans_{m}_with_{n}")
    check(golden, net, batch, EARLY)


TOKENS = {"text": "1text", "vision": "2vision", "audio": "3audio"}
"""MISA's tokens are in the order text, vision, audio."""


@PRECISIONS
@pytest.mark.parametrize("file", ["misa", "misa_adv"])
def test_misa(dtype, file):
    golden = Golden(file, dtype)
    adversarial = not golden.hyper("use_cmd_sim")
    config = net_config(
        "misa",
        {
            "hidden": golden.hyper("hidden_size"),
            "pooled": "1text",
            "heads": golden.hyper("heads"),
            "feedforward": golden.hyper("feedforward"),
            "adversarial": adversarial,
            "reversal": golden.hyper("reverse_grad_weight"),
        },
    )
    net = net_class("misa")(config, dims=golden.dims(TOKENS), outputs=golden.outputs)
    table = linear("shared", "shared.shared_1")
    for name, letter, private in (("1text", "t", 1), ("2vision", "v", 1), ("3audio", "a", 3)):
        table |= linear(f"project.{name}.0", f"project_{letter}.project_{letter}")
        table |= linear(f"project.{name}.2", f"project_{letter}.project_{letter}_layer_norm")
        table |= linear(f"private.{name}", f"private_{letter}.private_{letter}_{private}")
        table |= linear(f"rebuild.{name}", f"recon_{letter}.recon_{letter}_1")
        if letter != "t":
            table |= linear(f"utterance.{name}.norm", f"{letter}layer_norm")
            for number, part in enumerate(("first", "second"), start=1):
                for reverse in (False, True):
                    ours = f"utterance.{name}.{part}.layers.0"
                    table |= lstm(ours, f"{letter}rnn{number}", reverse=reverse)
    table |= transformer_layer("transformer", "transformer_encoder.layers.0")
    table |= linear("fuse.0", "fusion.fusion_layer_1")
    table |= linear("heads.task.y", "fusion.fusion_layer_3")
    if adversarial:
        table |= linear("discriminator.0", "discriminator.discriminator_layer_1")
        table |= linear("discriminator.3", "discriminator.discriminator_layer_2")
    golden.load(net, table)
    # The original cuts audio and vision to the length of the text.
    mask = golden.input("text_mask") > 0
    batch = golden.batch(TOKENS, dict.fromkeys(TOKENS, mask))
    codes = net.codes(batch)
    for m, letter in enumerate("tva"):
        golden.same(codes["original"][:, m], f"utt_{letter}_orig")
        golden.same(codes["private"][:, m], f"utt_private_{letter}")
        golden.same(codes["shared"][:, m], f"utt_shared_{letter}")
        golden.same(codes["rebuilt"][:, m], f"utt_{letter}_recon")
        if adversarial:
            golden.same(net.discriminate(codes["shared"])[:, m], f"domain_label_{letter}")
    check(golden, net, batch, TOKENS)


@PRECISIONS
def test_misa_losses(dtype):
    golden = Golden("misa_losses", dtype)
    x, y = (golden.input(n).requires_grad_() for n in "xy")
    difference = orthogonality(x, y)
    five = moment_distance(x, y, golden.hyper("n_moments"))
    golden.same(difference, "diff")
    golden.same(five, "cmd5")
    golden.same(moment_distance(x, y, 3), "cmd3")
    (difference + five).backward()
    golden.same_grad(x.grad, "x")
    golden.same_grad(y.grad, "y")


@PRECISIONS
def test_self_mm(dtype):
    golden = Golden("self_mm", dtype)
    config = net_config(
        "self_mm",
        {
            "pooled": "1text",
            "pool": "first",
            "hidden": {
                "2audio": golden.hyper("a_lstm_hidden_size"),
                "3vision": golden.hyper("v_lstm_hidden_size"),
            },
            "out": {"2audio": golden.hyper("audio_out"), "3vision": golden.hyper("video_out")},
            "post_fusion": golden.hyper("post_fusion_dim"),
            "post": {
                "1text": golden.hyper("post_text_dim"),
                "2audio": golden.hyper("post_audio_dim"),
                "3vision": golden.hyper("post_video_dim"),
            },
        },
    )
    net = net_class("self_mm")(config, dims=golden.dims(EARLY), outputs=golden.outputs)
    table = {}
    for ours, theirs in (("2audio", "audio_model"), ("3vision", "video_model")):
        table |= lstm(f"lstm.{ours}.layers.0", f"{theirs}.rnn")
        table |= linear(f"project.{ours}", f"{theirs}.linear_1")
    heads = {"fusion": "fusion", "1text": "text", "2audio": "audio", "3vision": "video"}
    for ours, theirs in heads.items():
        for number, part in enumerate(("first", "second"), start=1):
            table |= linear(f"{part}.{ours}", f"post_{theirs}_layer_{number}")
        table |= linear(f"third.{ours}.task.y", f"post_{theirs}_layer_3")
    table |= {k: v for k, v in net.state_dict().items() if k.startswith("table.")}
    golden.load(net, table)
    masks = {}
    for name in ("audio", "vision"):
        lengths = golden.arrays[f"input/{name}_lengths"]
        steps = torch.arange(golden.arrays[f"input/{name}"].shape[1])
        masks[name] = steps[None] < torch.tensor(lengths)[:, None]
    batch = golden.batch(EARLY, masks)
    features, logits = net.run(batch)
    for letter, ours in zip("MTAV", heads, strict=True):
        golden.same(logits[ours]["y"], letter)
        golden.same(features[ours], f"Feature_{'f' if letter == 'M' else letter.lower()}")
    sum(v["y"].sum() for v in logits.values()).backward()
    for theirs, ours in EARLY.items():
        golden.same_grad(batch.inputs[ours].values.grad, theirs)


def test_self_mm_labels():
    golden = Golden("self_mm_labels", torch.float32)
    truth, order = golden.input("labels"), torch.tensor(golden.arrays["input/batch_order"])
    names = ("fusion", "text", "audio", "vision")
    widths = {n: golden.arrays[f"input/epoch1/batch0/{n}"].shape[1] for n in names}
    table = LabelTable(widths, golden.hyper("H"))
    for epoch in range(1, golden.hyper("epochs") + 1):
        for number, rows in enumerate(torch.tensor_split(order, golden.hyper("batches"))):
            features = {n: golden.input(f"epoch{epoch}/batch{number}/{n}") for n in names}
            table.update(rows, truth[rows], features, {})
        for name in names:
            label = getattr(table, f"label_{name}")[: len(truth)]
            golden.same(label, f"epoch{epoch}/{name}")
            for side, key in ((1, "pos"), (-1, "neg")):
                golden.same_mid(table.centre(name, side), f"epoch{epoch}/center_{name}_{key}")
    error = {
        n: (golden.input("pred") - getattr(table, f"label_{n}")[: len(truth)]).abs() for n in names
    }
    golden.same(error["fusion"].mean(), "loss_fusion")
    labels = {n: getattr(table, f"label_{n}")[: len(truth)] for n in names}
    for name in names[1:]:
        weight = torch.tanh((labels[name] - labels["fusion"]).abs())
        golden.same((error[name] * weight).mean(), f"loss_{name}")


@PRECISIONS
def test_m2fnet_fusion_layer(dtype):
    golden = Golden("m2fnet_fusion", dtype)
    width = golden.hyper("embedding_size")
    config = net_config(
        "m2fnet", {"hidden": width, "heads": golden.hyper("heads"), "reference": True}
    )
    layer = FusionLayer(["audio"], config)
    table = attention("attention.audio", "multihead_attention") | linear("linear", "linear")
    golden.load(layer, table)
    real = ~torch.tensor(golden.arrays["input/padding_mask"])
    x = {n: golden.input(n).requires_grad_() for n in ("audio", "text")}
    fused = layer(x, "text", {"audio": real, "text": real}, False)
    expected = torch.tensor(golden.arrays[f"output{golden.suffix}/fused"])
    limit = 1e-9 if golden.suffix else 1e-5
    torch.testing.assert_close(fused[real], expected[real], atol=limit, rtol=limit)
    look = layer.attention["audio"].weights(x["text"], x["audio"], real.unsqueeze(1))
    mean = torch.tensor(golden.arrays["mid/attention_mean"])
    torch.testing.assert_close(look[real].float(), mean[real], atol=2e-5, rtol=2e-5)
    fused[real].sum().backward()
    for name, values in x.items():
        golden.same_grad(values.grad, name)


M2FNETS = [f for f in files("m2fnet*", "m2fnet") if "fusion" not in f and "losses" not in f]


@PRECISIONS
@pytest.mark.parametrize("file", M2FNETS)
def test_m2fnet(dtype, file):
    golden = Golden(file, dtype)
    fusion = golden.layers("fusion_layers.", ".linear.weight")
    encoders = golden.layers("text_encoders.", ".norm.weight")
    inside = golden.layers("text_encoders.0.layers.", ".linear1.weight")
    *hidden, last = golden.layers("output_layer.", ".weight")
    config = net_config(
        "m2fnet",
        {
            "hidden": golden.size("text_proj.weight"),
            "heads": golden.hyper("fusion_heads"),
            "encoders": len(encoders),
            "encoder_layers": len(inside),
            "feedforward": golden.size("text_encoders.0.layers.0.linear1.weight"),
            "fusion_layers": len(fusion),
            "classifier": golden.size(f"output_layer.{last}.weight", 1),
            "classifier_layers": len(hidden) + 1,
            "reference": True,
        },
    )
    names = {"audio": "audio", "text": "text"}
    outputs = {"y": golden.size(f"output_layer.{last}.weight")}
    net = net_class("m2fnet")(config, dims=golden.dims(names), outputs=outputs)
    for name in names:
        # Heads differ by modality there; the number does not change the shape of any weight.
        for encoder in net.encode[name]:
            for layer in encoder.layers:
                layer.attention.heads = golden.hyper(f"{name}_heads")
    table = linear("heads.task.y", f"output_layer.{last}")
    for number, layer in enumerate(hidden):
        table |= linear(f"classifier.{2 * number}", f"output_layer.{layer}")
    for name in names:
        for encoder in encoders:
            ours, theirs = f"encode.{name}.{encoder}", f"{name}_encoders.{encoder}"
            for layer in inside:
                table |= transformer_layer(f"{ours}.layers.{layer}", f"{theirs}.layers.{layer}")
            table |= linear(f"{ours}.norm", f"{theirs}.norm")
        table |= linear(f"project.{name}", f"{name}_proj")
    for layer in fusion:
        ours, theirs = f"fusion.{layer}", f"fusion_layers.{layer}"
        table |= attention(f"{ours}.attention.audio", f"{theirs}.multihead_attention")
        table |= linear(f"{ours}.linear", f"{theirs}.linear")
    golden.load(net, table)
    real = ~torch.tensor(golden.arrays["input/padding_mask"])
    batch = golden.batch(names, dict.fromkeys(names, real))
    batch = replace(batch, axis="dialogue", steps=real)
    x, _ = net.encoded(batch)
    for name in names:
        mid = torch.tensor(golden.arrays[f"mid/{name}_proj"])
        torch.testing.assert_close(x[name][real].float(), mid[real], atol=2e-5, rtol=2e-5)
    logits = net(batch).logits["y"]
    expected = torch.tensor(golden.arrays[f"output{golden.suffix}/logits"])
    limit = 1e-9 if golden.suffix else 1e-5
    torch.testing.assert_close(logits[real], expected[real], atol=limit, rtol=limit)
    logits[real].sum().backward()
    for name in names:
        golden.same_grad(batch.inputs[name].values.grad, name)
