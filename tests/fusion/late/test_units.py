"""Rules of values: neither the unit nor the zero of a scale decides anything."""

import json

import pytest
import torch

from fusion.late import LATE, rule_class, rule_from_state
from fusion.late.conformal import Conformal
from fusion.late.members import Members

VALUE_RULES = [name for name in LATE if "regression" in rule_class(name).kinds]


def case(*, gaps=True):
    """Members of falling quality, and their targets."""
    draws = torch.Generator().manual_seed(0)
    target = torch.randn(120, generator=draws, dtype=torch.float64)
    noise = torch.tensor([0.7, 1.6, 3.0]).reshape(3, 1)
    values = target + noise * torch.randn(3, 120, generator=draws, dtype=torch.float64)
    present = torch.ones(3, 120, dtype=torch.bool)
    if gaps:
        present[1:] = torch.rand(2, 120, generator=draws) > 0.2
    return members_of(values, present), target


def members_of(values, present):
    return Members(
        names=("sharp", "blunt", "noise"),
        kind="regression",
        scores=values.unsqueeze(2),
        present=present,
    )


OPTIONS = {
    "caruana": [{"metric": "mae"}, {"metric": "ccc"}, {"sorted_start": 2}],
    "log_pool": [{"bias": True}, {"fitted": False}],
    "weighted": [{"metric": "mae"}, {"metric": "ccc"}],
}
OF_VALUES = [(name, options) for name in VALUE_RULES for options in ({}, *OPTIONS.get(name, ()))]


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize(("unit", "zero"), [(1e-6, 0), (1, 10), (1e6, 0), (1e-6, 1e-5)])
@pytest.mark.parametrize(("name", "options"), OF_VALUES)
def test_values_in_another_unit_and_from_another_zero_are_fused_alike(
    name, options, unit, zero, gaps
):
    members, target = case(gaps=gaps)
    rule, groups = rule_class(name), torch.arange(len(target)) % 8

    def fused(unit, zero):
        some = members_of(unit * members.scores[..., 0] + zero, members.present)
        fitted = rule.fit(rule.Config(**options), some, unit * target + zero, groups=groups)
        again = rule_from_state(json.loads(json.dumps(fitted.state())))
        return (again.combine(some) - zero) / unit

    assert torch.allclose(fused(unit, zero), fused(1, 0), atol=1e-7)


@pytest.mark.parametrize("name", VALUE_RULES)
@pytest.mark.parametrize("unit", [1e-6, 1, 1e6])
def test_targets_that_are_all_equal_are_fused_to_finite_values_of_their_size(name, unit):
    members, _ = case()
    some = members_of(unit * (3.5 + members.scores[..., 0]), members.present)
    rule = rule_class(name)
    target = torch.full((some.num_rows,), 3.5 * unit, dtype=torch.float64)
    fused = rule.fit(rule.Config(), some, target).combine(some)
    assert ((fused - 3.5 * unit).abs() < 40 * unit).all()


@pytest.mark.parametrize("name", VALUE_RULES)
def test_a_rule_of_before_which_has_no_scale_takes_values_as_they_are(name):
    members, target = case()
    rule = rule_class(name)
    state = rule.fit(rule.Config(), members, target).state()
    parts = rule_from_state(state | {"zero": 0.0, "unit": 1.0}).combine(members)
    del state["zero"], state["unit"]
    assert torch.equal(rule_from_state(state).combine(members), parts)


@pytest.mark.parametrize(("unit", "zero"), [(1e-6, 0), (1, 10), (1e6, 0)])
def test_intervals_that_are_promised_of_values_have_their_unit(unit, zero):
    members, target = case(gaps=False)
    values, groups = members.scores[0], torch.arange(len(target)) % 12
    plain = Conformal.fit("regression", values, target, groups)
    moved = Conformal.fit("regression", unit * values + zero, unit * target + zero, groups)
    for coverage in (0.5, 0.8, 0.9):
        assert torch.allclose(moved.allowed(coverage), unit * plain.allowed(coverage), rtol=1e-6)
