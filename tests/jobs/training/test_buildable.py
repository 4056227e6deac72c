"""A net that does not go with its inputs is refused before the run has its name or a model is loaded."""

import dataclasses

import pytest

from cluster import storage
from encoders import ENCODERS
from encoders.registry import describe, find
from fusion.nets import NETS, net_axis
from fusion.nets.finetune import FineTune
from jobs import train
from jobs.__main__ import run
from jobs.catalog.manifest import read_dataset
from jobs.training.buildable import StandIn, check_built

WORDS = "minilm:publish=inputs"
FACES = "emotieffnet:weights=file:///models/b0.pt,publish=inputs"
TUNED = ("--net", "finetune", "--inputs", WORDS)


@pytest.fixture(scope="module")
def made(write_root, tmp_path_factory):
    """A root with tables of published inputs, without rows: nothing reads them here."""
    root = write_root(str(tmp_path_factory.mktemp("buildable") / "small"), dialogues=True)
    for text in (WORDS, FACES):
        published = describe(text)
        uri = f"{root}/features/{published.folder}/descriptor.json"
        storage.publish_json(published.facts(), uri)
    return root


def refused(root, capsys, *words):
    """The line with which `train` ends; the root has no run then."""
    code = run(["train", "--root", root, *words, "--no-tracking", "--workers", "0"])
    said = capsys.readouterr().err.strip()
    assert code == 2, said
    assert len(said.splitlines()) == 1, said
    assert not storage.exists(f"{root}/runs")
    return said


WRONG = {
    "head": [("m2fnet", "expected a net of clips on top"), ("lstn", "did you mean 'lstm'")],
    "head_options": [(".hidden=0", "expected 1 or more"), (".hiden=3", "no option 'hiden'")],
    "freeze": [
        ("7", "freeze of text: expected 0 to its 6 blocks, came 7"),
        ("-1", "expected 0 or more"),
        (".text=7", "freeze of text: expected 0 to its 6 blocks, came 7"),
        (".audio=1", "no input is called 'audio'"),
    ],
    "lora": [("-1", "expected 0 or more"), ("385", "at most its 384 features"), ("x", "number")],
    "encoder_rate": [("0", "expected encoder_rate > 0"), ("-1", "expected encoder_rate > 0")],
    "layer_decay": [("0", "layer_decay in (0, 1]"), ("1.5", "layer_decay in (0, 1]")],
    "layers": [
        ("3", "expected one of last, sum, all"),
        ("first", "expected one of last, sum, all"),
    ],
    "dropout": [("1", "expected a share from 0 to below 1"), ("-0.1", "expected a share")],
    "dropout_inside": [("2", "expected true or false")],
    "recompute": [("3", "expected true or false")],
}
"""Option of `FineTune` -> what is typed behind its name, and what is said of it."""


def test_every_option_of_a_net_that_trains_encoders_has_a_wrong_value_here():
    assert set(WRONG) == {field.name for field in dataclasses.fields(FineTune.Config)}


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [(option, *each) for option, values in WRONG.items() for each in values],
)
def test_a_wrong_option_of_a_net_that_trains_encoders_is_refused(
    made, capsys, option, value, expected
):
    typed = f"{option}{value}" if value.startswith(".") else f"{option}={value}"
    assert expected in refused(made, capsys, *TUNED, "--net-options", typed)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((*TUNED, "--net-options", "lora=4", "freeze=6"), "freeze leaves no block to update"),
        ((*TUNED, "--net-options", "freeze.minilm=2"), "no input is called 'minilm'"),
        ((*TUNED, "voice", "--net-options", "freeze.audio=1"), "an input whose encoder is trained"),
        ((*TUNED, "voice", "--net-options", "head=lstm"), "lstm reads one modality"),
        ((*TUNED, "--pca", "text=8"), "a model of the net reads text as it is"),
        ((*TUNED, "voice", "--pca", "audio=0"), "expected 1 to 6 components"),
        ((*TUNED, "voice", "--pca", "audio=7"), "expected 1 to 6 components"),
        ((*TUNED, "--feature-noise", "0.1"), "cannot be given noise"),
        ((*TUNED, "--mixup", "0.2", "--net-options", "head=self_mm"), "read the targets"),
        ((*TUNED, "--lr-factors", "haed=0.1"), "expected the beginning of a name, such as"),
        ((*TUNED, "--normalise", "speaker"), "stay as they are"),
        (("--net", "finetune", "--inputs", FACES, "--net-options", "layers=sum"), "unlike shapes"),
        (("--net", "finetune", "--inputs", FACES, "--net-options", "lora=2"), "no linear layer"),
        (("--net", "finetune", "--inputs", FACES, "--net-options", "freeze=8"), "its 7 blocks"),
        (("--net", "finetune", "--inputs", "voice"), "needs an input that a model reads"),
        (("--net", "lmf", "--inputs", WORDS), "type --net finetune"),
        (("--net", "lstm", "--inputs", "voice", "face"), "lstm reads one modality"),
        (("--net", "m2fnet", "--inputs", "voice", "--mixup", "0.2"), "reads whole dialogues"),
        (
            ("--net", "m2fnet", "--inputs", "voice", "--balanced", "--tasks", "emotion"),
            "reads whole dialogues",
        ),
        (("--net", "sdt", "--inputs", "voice", "--mixup", "0.2"), "leave it out"),
        (("--inputs", "voice", "--lr-factors", "subnets=0.1"), "expected the beginning of a name"),
        (("--inputs", "voice", "--pool", "mean_std", "--pca", "audio=13"), "expected 1 to 12"),
    ],
)
def test_a_net_and_a_recipe_that_do_not_go_with_the_inputs_are_refused(
    made, capsys, words, expected
):
    assert expected in refused(made, capsys, *words)


@pytest.mark.parametrize("net", [name for name in NETS if name != "finetune"])
@pytest.mark.parametrize("mixed", [False, True], ids=["alone", "tuned"])
def test_nets_that_go_with_their_inputs_are_let_through(made, net, mixed):
    if mixed and net_axis(net) != "clip":
        pytest.skip("it is no head")
    alone = ("voice",) if net == "lstm" else ("voice", "face")
    several = (WORDS,) if net == "lstm" else (WORDS, FACES, *alone)
    tuned = {"net": "finetune", "net_options": {"head": net, "freeze": 2}}
    chosen = {"inputs": several, **tuned} if mixed else {"inputs": alone, "net": net}
    more = {} if mixed else {"lr_factors": {"": 0.5}}
    check_built(train.Config(root=made, **chosen, **more), read_dataset(made).tasks)


@pytest.mark.parametrize(
    "options",
    [
        {"freeze": 6},
        {"freeze": {"text": 6, "video": 7}},
        {"lora": 8, "freeze": 5},
        {"encoder_rate": 1.0, "layer_decay": 1.0, "recompute": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("layers", ["last", "sum", "all"])
def test_bounds_of_options_are_let_through(made, options, layers):
    inputs = (WORDS, FACES) if "video" in str(options) and layers == "last" else (WORDS,)
    freeze = options.get("freeze")
    if isinstance(freeze, dict) and len(inputs) == 1:
        options = {**options, "freeze": {"text": 6}}
    config = train.Config(
        root=made,
        inputs=inputs,
        net="finetune",
        net_options={"layers": layers, **options},
        lr_factors={"branches.text": 0.5},
    )
    check_built(config, read_dataset(made).tasks)


def test_every_encoder_that_can_be_trained_has_an_outline():
    for name in ENCODERS:
        spec = find(name)
        if spec.inputs is None:
            continue
        options = ["publish=inputs"]
        if spec.own_weights:
            shape = ["dim=32", "depth=2"] if "depth" in spec.options else []
            options += ["weights=file:///x", *shape]
        outline = StandIn(describe(f"{name}:{','.join(options)}").facts())
        assert outline.depth > 1
