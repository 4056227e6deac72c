"""Rules: neither the order of the members nor that of the classes decides anything."""

from dataclasses import replace

import pytest
import torch

from fusion.late import LATE, rule_class
from fusion.late.members import Members

NAMES = ("sharp", "blunt", "noise")
OTHERS = {
    "attention": [{"hidden": 3}],
    "caruana": [{"metric": "accuracy", "ties": "second_metric"}, {"space": "log"}],
    "stacking": [{"features": "probabilities"}],
    "weighted": [{"space": "log"}, {"metric": "accuracy"}, {"metric": "macro_f1"}],
}
RULES = [(name, options) for name in LATE for options in ({}, *OTHERS.get(name, ()))]


def case(kind="classification"):
    """Members that know different classes, and their targets."""
    draws = torch.Generator().manual_seed(3)
    target = torch.randint(4, (160,), generator=draws)
    if kind == "regression":
        noise = torch.tensor([0.6, 1.5, 3.0]).reshape(3, 1)
        raw = (target + noise * torch.randn(3, 160, generator=draws)).unsqueeze(2)
        return Members.from_logits(NAMES, kind, raw), target.double()
    skill = torch.tensor([[2.5, 2.5, 0.3, 0.3], [0.3, 0.3, 2.5, 2.0], [1.0, 0.5, 1.0, 0.0]])
    signal = torch.nn.functional.one_hot(target, 4) * skill[:, target].unsqueeze(2)
    raw = signal + torch.randn(3, 160, 4, generator=draws)
    return Members.from_logits(NAMES, kind, raw), target


def fused(name, options, members, target):
    rule = rule_class(name)
    groups = torch.arange(len(target)) % 8
    return rule.fit(rule.Config(**options), members, target, groups=groups).combine(members)


@pytest.mark.parametrize(("name", "options"), RULES)
@pytest.mark.parametrize("order", [[1, 0, 2, 3], [2, 0, 3, 1]])
def test_classes_in_another_order_are_fused_alike(name, options, order):
    members, target = case()
    place = torch.argsort(torch.tensor(order))
    turned = fused(
        name, options, replace(members, scores=members.scores[:, :, order]), place[target]
    )
    assert torch.allclose(turned, fused(name, options, members, target)[:, order], atol=1e-8)


@pytest.mark.parametrize(("name", "options"), RULES)
@pytest.mark.parametrize("order", [(2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_members_that_come_in_another_order_are_fused_alike(name, options, order, kind):
    if kind == "regression" and ("regression" not in rule_class(name).kinds or "metric" in options):
        pytest.skip("it has no meaning for values")
    members, target = case(kind)
    turned = fused(name, options, members.only([NAMES[place] for place in order]), target)
    assert torch.allclose(turned, fused(name, options, members, target), atol=1e-8)
