"""One test for the whole zoo: what every net promises, whatever paper it is."""

import copy
import dataclasses
import importlib
import importlib.util
import json
import math
import re
import typing
from dataclasses import replace
from pathlib import Path

import cloudpickle
import pytest
import torch
from safetensors.torch import load, save

from fusion.batch import Batch, Steps
from fusion.nets import NETS, net_class, net_config

DIMS = {"audio": 5, "egemaps": 7, "text": 12, "video": 6}
OUTPUTS = {"emotion": 4, "labels": 3, "sentiment": 1}
LENGTHS = {
    "audio": [9, 5, 7, 1],
    "egemaps": [2, 1, 1, 1],
    "text": [6, 6, 2, 4],
    "video": [3, 8, 4, 2],
}
DIALOGUE = [6, 3, 5, 1]

spec = importlib.util.spec_from_file_location(
    "small_nets", Path(__file__).with_name("small_nets.py")
)
small_nets = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small_nets)
SMALL = small_nets.SMALL

SUBSETS = [("audio",), ("audio", "text"), ("audio", "text", "video"), tuple(DIMS)]
ALL = list(NETS)


def test_the_zoo_has_the_nets_it_should():
    assert len(NETS) == 19
    assert sorted(SMALL) == sorted(NETS)


def build(name, dims=None, outputs=None, **options):
    """A small net with the modalities it takes, in eval."""
    torch.manual_seed(0)
    dims = dict(dims or DIMS)
    if name == "lstm":
        dims = dict([next(iter(sorted(dims.items())))])
    config = net_config(name, {**SMALL[name], **options})
    return net_class(name)(config, dims=dims, outputs=outputs or OUTPUTS).eval()


def draw(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def clip_batch(dims):
    """Four clips of different lengths; NaN wherever the mask is False; a hole in the video."""
    inputs = {}
    for number, name in enumerate(sorted(dims)):
        lengths = torch.tensor(LENGTHS[name])
        mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
        if name == "video":
            mask[1, 3] = False
        values = draw((*mask.shape, dims[name]), number).masked_fill(~mask[..., None], torch.nan)
        inputs[name] = Steps(values, mask)
    return Batch(inputs=inputs, axis="clip", index=torch.arange(4), **labels((4,)))


def dialogue_batch(dims):
    """Four dialogues; the second utterance of the first has no video."""
    steps = torch.arange(max(DIALOGUE))[None] < torch.tensor(DIALOGUE)[:, None]
    inputs = {}
    for number, name in enumerate(sorted(dims)):
        mask = steps.clone()
        if name == "video":
            mask[0, 1] = False
        values = draw((*mask.shape, dims[name]), number).masked_fill(~mask[..., None], torch.nan)
        inputs[name] = Steps(values, mask)
    speaker = (torch.arange(max(DIALOGUE)) % 2).expand(4, -1).masked_fill(~steps, -1)
    rows = tuple(steps.shape)
    return Batch(inputs=inputs, axis="dialogue", steps=steps, speaker=speaker, **labels(rows))


def labels(rows):
    generator = torch.Generator().manual_seed(9)
    return {
        "targets": {
            "emotion": torch.randint(4, rows, generator=generator),
            "labels": torch.randint(2, (*rows, 3), generator=generator).float(),
            "sentiment": 3 + torch.randn(rows, generator=generator),
        }
    }


def batch_for(net):
    return (clip_batch if net.axis == "clip" else dialogue_batch)(net.dims)


def rows_of(batch, keep):
    """Some rows of a batch, in the given order."""
    keep = torch.tensor(keep)

    def take(value):
        if isinstance(value, torch.Tensor):
            return value[keep]
        if isinstance(value, Steps):
            return Steps(value.values[keep], value.mask[keep])
        if isinstance(value, dict):
            return {name: take(item) for name, item in value.items()}
        return value

    return replace(batch, **{name: take(value) for name, value in vars(batch).items()})


def padded(batch, more):
    """The same batch with masked rubbish behind every row."""

    def longer(sequence):
        b, _, f = sequence.values.shape
        rubbish = torch.full((b, more, f), 1e4)
        return Steps(
            torch.cat([sequence.values, rubbish], 1),
            torch.cat([sequence.mask, torch.zeros(b, more, dtype=torch.bool)], 1),
        )

    changes = {"inputs": {name: longer(s) for name, s in batch.inputs.items()}}
    if batch.axis == "dialogue":
        pad = torch.nn.functional.pad
        changes["steps"] = pad(batch.steps, (0, more))
        changes["speaker"] = pad(batch.speaker, (0, more), value=-1)
        changes["targets"] = {}
    return replace(batch, **changes)


def without(batch, name, rows=slice(None)):
    """The same batch with a modality hidden in some rows."""
    sequence = batch.inputs[name]
    mask = sequence.mask.clone()
    mask[rows] = False
    return replace(batch, inputs={**batch.inputs, name: Steps(sequence.values, mask)})


def same(left, right, steps=None, atol=1e-5):
    """Equal logits; of dialogues, at the real utterances."""
    assert left.logits.keys() == right.logits.keys()
    for task in left.logits:
        a, b = left.logits[task].float(), right.logits[task].float()
        if steps is not None:
            a, b = a[:, : steps.shape[1]][steps], b[:, : steps.shape[1]][steps]
        torch.testing.assert_close(a, b, atol=atol, rtol=atol)


@pytest.mark.parametrize("name", ALL)
class TestEveryNet:
    def test_its_losses_read_targets_only_if_it_says_so(self, name):
        net = build(name).train()
        rows = batch_for(net)

        def losses(batch):
            torch.manual_seed(0)
            found = copy.deepcopy(net)(batch).losses
            return {key: float(value.detach()) for key, value in found.items()}

        told, untold = losses(rows), losses(replace(rows, targets={}, target_masks={}))
        assert (told != untold) == net.reads_targets

    @pytest.mark.parametrize("modalities", SUBSETS, ids="+".join)
    def test_any_subset_of_modalities_gives_finite_logits_of_the_right_shape(
        self, name, modalities
    ):
        net = build(name, {m: DIMS[m] for m in modalities})
        batch = batch_for(net)
        output = net(batch)
        rows = (4,) if net.axis == "clip" else tuple(batch.steps.shape)
        assert {t: tuple(v.shape) for t, v in output.logits.items()} == {
            t: (*rows, n) for t, n in OUTPUTS.items()
        }
        assert all(v.isfinite().all() for v in output.logits.values())
        assert output.losses == {}, "auxiliary losses belong to training"

    def test_the_gradient_reaches_every_parameter_and_no_masked_value(self, name):
        net = build(name).train()
        batch = batch_for(net)
        for sequence in batch.inputs.values():
            sequence.values.requires_grad_()
        output = net(batch)
        loss = sum(v.square().sum() for v in output.logits.values()) + sum(output.losses.values())
        loss.backward()
        dead = [
            n
            for n, p in net.named_parameters()
            if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)
        ]
        assert dead == []
        for modality in net.dims:
            sequence = batch.inputs[modality]
            assert (sequence.values.grad[~sequence.mask] == 0).all()
            assert sequence.values.grad.isfinite().all()

    def test_eval_is_deterministic(self, name):
        net = build(name)
        same(net(batch_for(net)), net(batch_for(net)), atol=0)

    def test_padding_changes_nothing(self, name):
        net = build(name)
        batch = batch_for(net)
        same(net(batch), net(padded(batch, 3)), steps=batch.steps)

    def test_batch_order_and_neighbours_change_nothing(self, name):
        net = build(name)
        batch = batch_for(net)
        full = net(batch)
        for keep in ([3, 1, 0, 2], [0], [1], [2], [3]):
            part = rows_of(batch, keep)
            expected = replace(full, logits={t: v[keep] for t, v in full.logits.items()})
            same(expected, net(part), steps=part.steps)

    def test_a_batch_of_one_with_one_step_trains(self, name):
        net = build(name).train()
        batch = rows_of(batch_for(net), [3])
        short = {n: Steps(s.values[:, :1], s.mask[:, :1]) for n, s in batch.inputs.items()}
        changes = {"inputs": short}
        if batch.axis == "dialogue":
            changes |= {"steps": batch.steps[:, :1], "speaker": batch.speaker[:, :1]}
            changes["targets"] = {t: v[:, :1] for t, v in batch.targets.items()}
        output = net(replace(batch, **changes))
        loss = sum(v.sum() for v in output.logits.values()) + sum(output.losses.values())
        loss.backward()
        grads = [p.grad for p in net.parameters() if p.grad is not None]
        assert torch.isfinite(loss)
        assert all(g.isfinite().all() for g in grads)

    def test_a_missing_modality_is_finite_and_its_values_do_not_matter(self, name):
        net = build(name)
        batch = batch_for(net)
        for modality in net.dims:
            hidden = without(batch, modality)
            output = net(hidden)
            assert all(v.isfinite().all() for v in output.logits.values())
            other = Steps(
                torch.full_like(batch.inputs[modality].values, 7.0), hidden.inputs[modality].mask
            )
            same(output, net(replace(hidden, inputs={**hidden.inputs, modality: other})), atol=0)

    def test_a_row_without_any_modality_is_finite_and_harms_no_neighbour(self, name):
        net = build(name).train()
        batch = batch_for(net)
        empty = batch
        for modality in net.dims:
            empty = without(empty, modality, rows=[1])
        output = net(empty)
        loss = sum(v.sum() for v in output.logits.values()) + sum(output.losses.values())
        loss.backward()
        assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
        net.eval()
        kept = [0, 2, 3]
        full, part = net(empty), net(rows_of(batch, kept))
        steps = None if batch.steps is None else batch.steps[kept]
        same(replace(full, logits={t: v[kept] for t, v in full.logits.items()}), part, steps=steps)

    def test_weights_survive_safetensors_and_cloudpickle(self, name):
        net = build(name)
        batch = batch_for(net)
        other = net_class(name)(
            net_config(name, SMALL[name]), dims=net.dims, outputs=OUTPUTS
        ).eval()
        other.load_state_dict(load(save(net.state_dict())), strict=True)
        same(net(batch), other(batch), atol=0)
        same(net(batch), cloudpickle.loads(cloudpickle.dumps(net))(batch), atol=0)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
    def test_half_precision_is_close(self, name, dtype):
        net = build(name)
        batch = batch_for(net)
        full = net(batch)
        half = copy.deepcopy(net).to(dtype)(batch)
        scale = max(v.detach().abs().max().item() for v in full.logits.values())
        same(full, half, steps=batch.steps, atol=0.05 * max(scale, 1.0))

    def test_bfloat16_autocast_trains(self, name):
        net = build(name).train()
        with torch.autocast("cpu", torch.bfloat16):
            output = net(batch_for(net))
        loss = sum(v.float().sum() for v in output.logits.values())
        (loss + sum(output.losses.values())).backward()
        assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)

    def test_a_config_equals_its_copies_and_its_json(self, name):
        config = net_config(name, SMALL[name])
        assert copy.deepcopy(config) == config
        assert cloudpickle.loads(cloudpickle.dumps(config)) == config
        assert net_config(name, json.loads(json.dumps(dataclasses.asdict(config)))) == config

    def test_explain_gives_finite_tensors_and_changes_nothing(self, name):
        net = build(name)
        batch = batch_for(net)
        before = net(batch)
        shown = net.explain(batch)
        assert shown
        assert all(isinstance(v, torch.Tensor) and v.isfinite().all() for v in shown.values())
        assert not any(v.requires_grad for v in shown.values())
        same(before, net(batch), atol=0)

    def test_a_wrong_batch_is_refused_with_a_reason(self, name):
        net = build(name)
        batch = batch_for(net)
        first = next(iter(net.dims))
        wide = Steps(
            torch.zeros(4, batch.inputs[first].mask.shape[1], 99), batch.inputs[first].mask
        )
        with pytest.raises(ValueError, match="99 features"):
            net(replace(batch, inputs={**batch.inputs, first: wide}))
        with pytest.raises(ValueError, match="mask of zeros"):
            net(replace(batch, inputs={"other": wide}))
        other = dialogue_batch(net.dims) if net.axis == "clip" else clip_batch(net.dims)
        with pytest.raises(ValueError, match=f"takes {net.axis}"):
            net(other)


def signs_task(net_name, interaction, rows=96):
    """Two modalities that each carry a sign; the class is their sum, or their product (XOR)."""
    generator = torch.Generator().manual_seed(3)
    dims = {"audio": 6, "text": 8}
    axis = net_class(net_name).axis
    shape = (rows, 1) if axis == "clip" else (rows // 4, 4)
    signs = torch.randint(2, (2, *shape), generator=generator) * 2 - 1
    inputs = {}
    for sign, (name, dim) in zip(signs, dims.items(), strict=True):
        direction = torch.randn(dim, generator=generator)
        steps = (rows, 3) if axis == "clip" else shape
        noise = 0.2 * torch.randn(*steps, dim, generator=generator)
        values = sign.unsqueeze(-1) * direction + noise
        inputs[name] = Steps(values, torch.ones(steps, dtype=torch.bool))
    target = (signs.prod(0) + 1) // 2 if interaction else (signs.sum(0) + 2) // 2
    classes = 2 if interaction else 3
    if axis == "clip":
        batch = Batch(inputs=inputs, targets={"y": target[:, 0]}, index=torch.arange(rows))
    else:
        batch = Batch(
            inputs=inputs,
            axis=axis,
            steps=torch.ones(shape, dtype=torch.bool),
            speaker=torch.zeros(shape, dtype=torch.long),
            targets={"y": target},
        )
    return dims, {"y": classes}, batch


def learned(name, interaction, steps=200):
    """Accuracy of a small net after some steps on one batch."""
    dims, outputs, batch = signs_task(name, interaction)
    if name == "lstm":
        # It reads one modality, so it is asked for that one's own sign.
        values = batch.inputs["audio"].values
        side = (values.mean(1) @ values[0].mean(0) > 0).long()
        batch = replace(batch, inputs={"audio": batch.inputs["audio"]}, targets={"y": side})
    fields = [field.name for field in dataclasses.fields(net_config(name, SMALL[name]))]
    net = build(name, dims, outputs, **{f: 0.0 for f in fields if f.endswith("dropout")}).train()
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
    target = batch.targets["y"]
    for step in range(steps):
        output = net(batch)
        logits = output.logits["y"]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, -2), target.flatten())
        optimiser.zero_grad()
        # The task alone: auxiliary losses pull elsewhere, and hard on a net this small.
        loss.backward()
        optimiser.step()
        if step % 20 == 19:
            net.eval()
            accuracy = (net(batch).logits["y"].argmax(-1) == target).float().mean().item()
            net.train()
            if accuracy == 1.0:
                break
    return accuracy


@pytest.mark.parametrize("name", ALL)
def test_every_net_learns_the_additive_task(name):
    assert learned(name, interaction=False) == 1.0


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ALL)
def test_every_net_runs_in_half_precision_on_a_processor(name, precision):
    net = build(name).train()
    with torch.autocast("cpu", dtype=precision):
        output = net(batch_for(net))
    total = sum(
        v.float().square().mean() for v in (*output.logits.values(), *output.losses.values())
    )
    total.backward()
    assert total.isfinite()


def claims_interaction(name):
    module = importlib.import_module(f"fusion.nets.{name}")
    return "XOR of two modalities" in " ".join(module.__doc__.split())


@pytest.mark.parametrize("name", [n for n in ALL if claims_interaction(n)])
def test_a_net_that_says_so_learns_the_xor_of_two_modalities(name):
    assert learned(name, interaction=True) == 1.0


def test_the_nets_made_of_products_claim_the_interaction():
    assert {"lmf", "tfn"} <= {n for n in ALL if claims_interaction(n)}


OPTIONS = [
    pytest.param(name, field, hint, id=f"{name}-{field}")
    for name in NETS
    for field, hint in typing.get_type_hints(net_class(name).Config).items()
]


def zero_is_refused(name, field):
    """Whether 0 of something is refused in words."""
    try:
        build(name, **{field: 0})
    except ValueError as error:
        return bool(re.search(r"expected .*\b[1-9] or more|NAME=VALUE", str(error)))
    return False


class TestConfigFromOptions:
    def test_an_unknown_option_names_the_nearest_one(self):
        with pytest.raises(ValueError, match="did you mean 'hidden'"):
            net_config("tfn", {"hiden": 3})

    def test_a_whole_number_is_a_fraction_where_the_field_is_one(self):
        rate = net_config("finetune", {"encoder_rate": 1}).encoder_rate
        assert (rate, type(rate)) == (1.0, float)
        assert type(net_config("finetune", {"freeze": 1}).freeze) is int

    @pytest.mark.parametrize(("name", "field", "hint"), OPTIONS)
    def test_no_value_of_another_type_is_taken(self, name, field, hint):
        wrong = {int: [2.5, "four", True, -1, {"*": 1}], float: ["x", True, math.nan, math.inf]}
        wrong |= {bool: ["no", 1], str: [3, True]}
        for value in wrong.get(hint, ["nowhere", 2.5]):
            with pytest.raises(ValueError, match=f"{name} {field}: expected"):
                net_config(name, {field: value})

    @pytest.mark.parametrize(("name", "field", "hint"), OPTIONS)
    def test_with_none_of_something_a_net_still_answers_or_it_is_refused(self, name, field, hint):
        if "int" not in str(hint):
            return
        if not zero_is_refused(name, field):
            net = build(name, **{field: 0})
            said = net(batch_for(net)).logits["emotion"]
            assert len(said.flatten(0, -2).unique(dim=0)) > 1

    def test_a_dotted_option_sets_one_modality_and_keeps_the_rest(self):
        config = net_config("tfn", {"hidden.audio": 9})
        assert config.hidden == {"text": 128, "*": 32, "audio": 9}

    def test_an_unknown_net_or_preset_names_those_there_are(self):
        with pytest.raises(ValueError, match="known: A8"):
            net_config("tfn", {"preset": "A1"})
        with pytest.raises(ValueError, match=r"known: .*tfn"):
            net_config("tensor", {})

    def test_a_list_from_json_becomes_a_tuple(self):
        assert net_config("tfn", {"squash": [-3.0, 3.0]}) == net_config(
            "tfn", {"squash": (-3.0, 3.0)}
        )
