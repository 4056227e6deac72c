"""A net learns values of any unit as well, and answers in it."""

import importlib.util
import io
from pathlib import Path

import pytest
import safetensors.torch
import torch

from fusion.predictor import Card, build, from_bytes, own_state, to_bytes
from fusion.scaling import Units
from fusion.tasks import Task
from fusion.training.loop import Course, RowSplit, fit
from fusion.training.predicting import predict
from fusion.training.recipe import Recipe

spec = importlib.util.spec_from_file_location(
    "training_data", Path(__file__).with_name("training_data.py")
)
made_up = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made_up)

TRAIN, VALID = torch.arange(45), torch.arange(45, 60)
UNITS = [(1e-6, 0.0), (33.0, 99.0), (1e6, 0.0), (-1.0, 5.0)]
"""Factor on the values and what is added to them."""


class OtherUnit(made_up.MadeUp):
    """The same clips, with their values in another unit."""

    def __init__(self, factor: float, shift: float) -> None:
        super().__init__()
        self.value = factor * self.value + shift


def trained(unit=(1.0, 0.0), net="concat_mlp", *, course=None, rows=TRAIN, **changes):
    """The fitted net, and what it says of the rows that it did not train on."""
    feed = OtherUnit(*unit)
    recipe = Recipe(**{"epochs": 8, "patience": 0, "batch_size": 16, "lr": 5e-3, **changes})
    options = {} if net == "concat_mlp" else {"hidden": {"*": 16}}
    fitted = fit(
        made_up.new_predictor(feed, rows, net, **options),
        feed,
        RowSplit(train=rows, valid=VALID),
        recipe,
        tasks=made_up.TASKS,
        course=course or Course(seed=3),
    )
    return fitted, predict(fitted.predictor, feed, VALID).logits


@pytest.mark.parametrize("loss", ["auto", "mse", "huber"])
@pytest.mark.parametrize("unit", UNITS)
def test_values_of_another_unit_are_learnt_as_well_and_so_is_the_other_task(unit, loss):
    tasks = (
        {name: made_up.TASKS[name] for name in ("arousal",)} if loss != "auto" else made_up.TASKS
    )
    change = {"loss": loss, "monitor": "mae"} if loss != "auto" else {}
    answers = []
    for factor, shift in ((1.0, 0.0), unit):
        feed = OtherUnit(factor, shift)
        torch.manual_seed(7)
        card = Card(net="concat_mlp", config={"dropout": 0.0}, tasks=tasks, dims=made_up.DIMS)
        fitted = fit(
            build(card),
            feed,
            RowSplit(train=TRAIN, valid=VALID),
            Recipe(epochs=8, patience=0, batch_size=16, lr=5e-3, **change),
            tasks=tasks,
            course=Course(seed=3),
        )
        said = predict(fitted.predictor, feed, VALID).logits
        answers.append({**said, "arousal": (said["arousal"].double() - shift) / factor})
    for name in tasks:
        if unit[0] > 0:
            torch.testing.assert_close(answers[1][name], answers[0][name], rtol=2e-3, atol=2e-3)
    assert (answers[1]["arousal"][:, 0] - made_up.MadeUp().value[VALID]).abs().mean() < 0.5


def test_values_learnt_as_they_are_depend_on_their_unit():
    _, far = trained((1.0, 99.0), target_scale="none")
    assert (far["arousal"][:, 0] - OtherUnit(1.0, 99.0).value[VALID]).abs().mean() > 50


def test_a_net_that_reads_the_sign_of_a_value_learns_it_as_it_is():
    fitted, _ = trained((1.0, 2.0), "self_mm")
    assert fitted.predictor.units.mean.tolist() == [0]
    assert fitted.predictor.units.std.tolist() == [1]


def test_units_are_those_of_the_known_targets_of_the_training_part():
    rows = torch.arange(30)
    fitted, _ = trained((10.0, 3.0), rows=rows)
    values = OtherUnit(10.0, 3.0).value[rows]
    torch.testing.assert_close(fitted.predictor.units.mean, values.mean()[None])
    torch.testing.assert_close(fitted.predictor.units.std, values.std(correction=0)[None])


@pytest.mark.parametrize("values", [[], [4.0], [4.0, 4.0]])
def test_values_that_never_vary_keep_their_unit(values):
    units = Units(["v"])
    units.fit(
        {"v": torch.tensor([*values, 9.0])}, {"v": torch.tensor([*[True] * len(values), False])}
    )
    assert units.std.tolist() == [1]
    assert units.mean.tolist() == [4.0 if values else 0.0]
    there = {"v": torch.tensor([7.0]), "other": torch.tensor([2])}
    back = units.unscaled(units.scaled(there))
    assert back["v"].tolist() == [7.0]
    assert back["other"] is there["other"]


@pytest.mark.parametrize("net", ["concat_mlp", "lmf"])
def test_answers_of_a_net_with_bounds_lie_within_them_on_both_sides_of_the_mean(net):
    options = {"squash": (0.0, 100.0)} | (
        {} if net == "concat_mlp" else {"rank": 2, "hidden": {"*": 16}}
    )
    feed = OtherUnit(40.0, 5.0)
    predictor = made_up.new_predictor(feed, TRAIN, net, **options)
    recipe = Recipe(epochs=30, patience=0, batch_size=16, lr=2e-2)
    rows = RowSplit(train=TRAIN, valid=VALID)
    fitted = fit(predictor, feed, rows, recipe, tasks=made_up.TASKS, course=Course(seed=3))
    said = predict(fitted.predictor, feed, TRAIN).logits["arousal"]
    assert 0 <= said.min() < 30
    assert 60 < said.max() <= 100


def test_a_run_of_before_goes_on_with_targets_as_they_are():
    def state_of(course):
        return torch.load(io.BytesIO(course), weights_only=True)

    states = []
    trained(
        (33.0, 99.0),
        course=Course(seed=3, on_epoch=lambda _, state: bool(states.append(state()))),
        target_scale="none",
    )
    before = state_of(states[2])
    for part in ("now", "best"):
        before[part] = {k: v for k, v in before[part].items() if not k.startswith("units")}
    content = io.BytesIO()
    torch.save(before, content)
    again, _ = trained((33.0, 99.0), course=Course(seed=3, resume=content.getvalue()))
    assert again.predictor.units.mean.tolist() == [0]
    assert again.predictor.units.std.tolist() == [1]


def test_a_run_that_goes_on_keeps_the_units_that_it_began_with():
    states = []
    whole, said = trained(
        (33.0, 99.0), course=Course(seed=3, on_epoch=lambda _, state: bool(states.append(state())))
    )
    again, same = trained((33.0, 99.0), course=Course(seed=3, resume=states[2]))
    torch.testing.assert_close(same["arousal"], said["arousal"], rtol=0, atol=0)
    assert own_state(again.predictor).keys() == own_state(whole.predictor).keys()


def test_a_net_of_an_earlier_version_answers_as_it_did():
    card = Card(net="concat_mlp", config={}, tasks=made_up.TASKS, dims=made_up.DIMS)
    predictor = build(card).eval()
    before = predict(predictor, made_up.MadeUp(), VALID).logits
    predictor.units.fit(
        {"arousal": torch.tensor([3.0, 5.0])}, {"arousal": torch.ones(2, dtype=torch.bool)}
    )
    state = {name: value for name, value in own_state(predictor).items() if "units" not in name}
    read = from_bytes(safetensors.torch.save(state), card)
    for name, value in predict(read, made_up.MadeUp(), VALID).logits.items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_units_travel_with_the_weights():
    fitted, said = trained((33.0, 99.0))
    card = Card(
        net="concat_mlp",
        config={"hidden": 16, "dropout": 0.0},
        tasks=made_up.TASKS,
        dims=made_up.DIMS,
    )
    read = from_bytes(to_bytes(fitted.predictor), card)
    got = predict(read, OtherUnit(33.0, 99.0), VALID).logits
    torch.testing.assert_close(got["arousal"], said["arousal"], rtol=0, atol=0)


def test_without_a_regression_there_is_nothing_to_keep():
    tasks = {"x": Task(kind="classification", classes=("a", "b"))}
    card = Card(net="concat_mlp", config={}, tasks=tasks, dims=made_up.DIMS)
    assert not [name for name in own_state(build(card)) if name.startswith("units")]
