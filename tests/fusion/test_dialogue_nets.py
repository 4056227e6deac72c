"""What only nets over dialogues promise: no look into the future, speakers, profiles."""

from dataclasses import replace

import pytest
import torch

from fusion.batch import Batch, Steps
from fusion.nets import NETS, net_axis, net_class, net_config

DIMS = {"audio": 5, "text": 8, "video": 4}
NAMES = [name for name in NETS if net_axis(name) == "dialogue"]
STEPS = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])


def build(name, **options):
    torch.manual_seed(0)
    net = net_class(name)(net_config(name, options), dims=DIMS, outputs={"y": 3})
    return net.eval()


def dialogues(seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)
    inputs = {n: Steps(torch.randn(2, 6, d, generator=generator), STEPS) for n, d in DIMS.items()}
    speaker = (torch.arange(6) % 2).expand(2, -1).masked_fill(~STEPS, -1)
    return Batch(inputs=inputs, axis="dialogue", steps=STEPS, speaker=speaker, **changes)


def with_other_future(batch, after):
    """Everything later than `after` replaced: features, presence and speakers."""
    other = dialogues(seed=7)
    inputs = {}
    for name, sequence in batch.inputs.items():
        values, mask = sequence.values.clone(), sequence.mask.clone()
        values[:, after + 1 :] = other.inputs[name].values[:, after + 1 :]
        if name == "video":
            mask[:, after + 1 :] = False
        inputs[name] = Steps(values, mask)
    speaker = batch.speaker.clone()
    speaker[:, after + 1 :] = 0
    return replace(batch, inputs=inputs, speaker=speaker.masked_fill(~STEPS, -1))


def test_the_dialogue_nets_are_these():
    assert NAMES == ["dialogue_profile", "m2fnet", "sdt"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dialogue_profile", {"form": "early", "layers": 2, "hidden": 16}),
        ("dialogue_profile", {"form": "late", "layers": 2, "hidden": 16}),
        ("m2fnet", {"hidden": 16}),
        ("sdt", {"hidden": 16}),
    ],
)
class TestCausalForm:
    def test_later_utterances_change_no_earlier_output(self, name, options):
        net = build(name, **options)
        batch = dialogues(causal=True)
        before = net(batch).logits["y"]
        for after in (0, 2, 4):
            now = net(with_other_future(batch, after)).logits["y"]
            torch.testing.assert_close(now[:, : after + 1], before[:, : after + 1])

    def test_the_other_form_does_read_the_future(self, name, options):
        net = build(name, **options)
        batch = dialogues()
        before = net(batch).logits["y"]
        now = net(with_other_future(batch, 2)).logits["y"]
        assert (now[0, :3] - before[0, :3]).abs().max() > 1e-4


class TestProfile:
    def test_codes_of_a_dialogue_equal_the_same_codes_at_every_utterance(self):
        net = build("dialogue_profile", hidden=16)
        codes = {"speaker_age": torch.tensor([1, 3])}
        spread = {"speaker_age": torch.tensor([1, 3])[:, None].expand(2, 6)}
        one = net(dialogues(profile=codes)).logits["y"]
        torch.testing.assert_close(one, net(dialogues(profile=spread)).logits["y"])
        assert not torch.allclose(one, net(dialogues()).logits["y"])

    def test_a_code_outside_the_vocabulary_is_unknown(self):
        net = build("dialogue_profile", hidden=16)
        unknown = net(dialogues(profile={"speaker_age": torch.tensor([0, 0])})).logits["y"]
        foreign = net(dialogues(profile={"speaker_age": torch.tensor([99, -4])})).logits["y"]
        torch.testing.assert_close(unknown, foreign)

    def test_speaker_and_listener_share_a_table_but_not_ids(self):
        tables = set(build("dialogue_profile").profile.embed)
        assert tables == {"age", "gender", "timbre", "speaker_id", "listener_id"}

    def test_oracle_inputs_must_be_asked_for(self):
        cls, dims = net_class("dialogue_profile"), {"text": 8, "oracle_cause": 8}
        with pytest.raises(ValueError, match="set oracle=True"):
            cls(cls.Config(), dims=dims, outputs={"y": 2})
        assert cls(cls.Config(oracle=True), dims=dims, outputs={"y": 2}).dims == dict(
            sorted(dims.items())
        )


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_the_classifier_of_m2fnet_has_the_layers_that_are_asked_for(layers):
    net = build("m2fnet", hidden=16, classifier=16, classifier_layers=layers)
    batch = dialogues()
    hidden = [part for part in net.classifier if isinstance(part, torch.nn.Linear)]
    assert len(hidden) == layers - 1
    seen = []
    net.classifier.register_forward_hook(lambda _net, given, _out: seen.append(given[0]))
    logits = net(batch).logits["y"]
    x = seen[0]
    for layer in hidden:
        x = torch.relu(layer(x))
    torch.testing.assert_close(net.heads(x)["y"], logits)


def test_a_classifier_without_a_layer_is_refused():
    with pytest.raises(ValueError, match="classifier_layers: expected 1 or more"):
        build("m2fnet", classifier_layers=0)
