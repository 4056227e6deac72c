"""Every late-fusion rule: kinds, gaps, rows without members, state, and what it learns."""

import doctest
import importlib
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fusion.late import LATE, rule_class, rule_from_state
from fusion.late.members import Members, probabilities, shares
from fusion.metrics import metric

NUM_RULES = 11
NAMES = ("sharp", "blunt", "noise")
KINDS = ("classification", "multilabel", "regression")
UNFITTED = {"confidence", "mean", "product", "vote"}
"""By default they fit no weights, and so listen to a noisy member as much as to the others."""

NO_REGRESSION = {"confidence", "per_class", "vote"}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def case(kind, *, rows=240, seed=0, gaps=True):
    """Members of falling quality, with gaps, and their targets."""
    generator = seeded(seed)
    noise = torch.tensor([0.7, 1.6, 9.0]).reshape(3, 1, 1)
    if kind == "classification":
        target = torch.randint(4, (rows,), generator=generator)
        signal = 2.0 * torch.nn.functional.one_hot(target, 4)
    elif kind == "multilabel":
        target = (torch.rand(rows, 3, generator=generator) > 0.6).double()
        signal = 3.0 * (target - 0.5)
    else:
        target = torch.randn(rows, generator=generator, dtype=torch.float64)
        signal = target.unsqueeze(1)
    raw = signal + noise * torch.randn(3, *signal.shape, generator=generator)
    present = torch.ones(3, rows, dtype=torch.bool)
    if gaps:
        present[1:] = torch.rand(2, rows, generator=generator) > 0.2
    return Members.from_logits(NAMES, kind, raw, present), target


def takes(name, kind):
    return kind != "regression" or name not in NO_REGRESSION


RULE_KINDS = [(name, kind) for name in LATE for kind in KINDS if takes(name, kind)]


@pytest.fixture(scope="module")
def fitted():
    """(rule, kind) -> the fitted rule, its members and target; fitted once."""
    found = {}

    def get(name, kind):
        if (name, kind) not in found:
            members, target = case(kind)
            rule = rule_class(name)
            found[name, kind] = rule.fit(rule.Config(), members, target), members, target
        return found[name, kind]

    return get


def test_the_number_of_rules_is_known():
    assert len(LATE) == NUM_RULES
    assert list(LATE) == sorted(LATE)


@pytest.mark.parametrize(("name", "kind"), RULE_KINDS)
class TestEveryRule:
    def test_gives_finite_scores_of_the_members_kind(self, fitted, name, kind):
        rule, members, target = fitted(name, kind)
        scores = rule.combine(members)
        assert scores.shape == members.scores.shape[1:]
        assert scores.isfinite().all()
        if kind == "classification":
            assert torch.allclose(scores.exp().sum(1), torch.ones(len(target)).double())

    def test_survives_its_state_as_json(self, fitted, name, kind):
        rule, members, _ = fitted(name, kind)
        again = rule_from_state(json.loads(json.dumps(rule.state())))
        assert again.config == rule.config
        assert torch.equal(again.combine(members), rule.combine(members))
        assert again.member_weights() == rule.member_weights()

    def test_gives_nan_where_no_member_is_present_and_only_there(self, fitted, name, kind):
        rule, members, _ = fitted(name, kind)
        present = members.present.clone()
        present[:, ::7] = False
        gone = Members(names=members.names, kind=kind, scores=members.scores, present=present)
        empty = rule.combine(gone).isnan()
        assert empty[::7].all()
        assert not empty[present.any(0)].any()

    def test_ignores_what_absent_scores_hold(self, fitted, name, kind):
        rule, members, _ = fitted(name, kind)
        scores = members.scores.clone()
        scores[~members.present] = torch.nan
        noisy = Members(names=members.names, kind=kind, scores=scores, present=members.present)
        assert torch.equal(rule.combine(noisy), rule.combine(members))

    def test_a_member_absent_everywhere_is_a_member_that_did_not_come(self, fitted, name, kind):
        rule, members, _ = fitted(name, kind)
        present = members.present.clone()
        present[1] = False
        absent = Members(names=members.names, kind=kind, scores=members.scores, present=present)
        left_out = members.only(["sharp", "noise"])
        assert torch.equal(rule.combine(absent), rule.combine(left_out))

    def test_does_not_depend_on_the_order_of_members_or_on_other_rows(self, fitted, name, kind):
        rule, members, _ = fitted(name, kind)
        turned = rule.combine(members.only(NAMES[::-1]))
        assert torch.allclose(turned, rule.combine(members), atol=1e-12)
        few = rule.combine(members.rows(torch.tensor([5, 2])))
        assert torch.allclose(few, rule.combine(members)[[5, 2]], atol=1e-12)

    def test_weights_are_a_share_of_each_member(self, fitted, name, kind):
        rule, _, _ = fitted(name, kind)
        weights = rule.member_weights()
        assert tuple(weights) == NAMES
        assert sum(weights.values()) == pytest.approx(1)
        assert min(weights.values()) >= 0

    def test_refuses_members_it_was_not_fitted_with(self, fitted, name, kind):
        rule, members, _ = fitted(name, kind)
        other = Members(
            names=("a", "b", "c"), kind=kind, scores=members.scores, present=members.present
        )
        with pytest.raises(ValueError, match=r"members \['a', 'b', 'c'\] were not there"):
            rule.combine(other)

    def test_leaves_its_input_alone(self, name, kind):
        members, target = case(kind)
        before = members.scores.clone()
        rule = rule_class(name)
        rule.fit(rule.Config(), members, target).combine(members)
        assert torch.equal(members.scores, before)


@pytest.mark.parametrize(("name", "kind"), RULE_KINDS)
def test_fusing_keeps_most_of_what_the_best_member_knows_on_unseen_rows(name, kind):
    rule = rule_class(name)
    rule = rule.fit(rule.Config(), *case(kind, rows=1200))
    members, target = case(kind, rows=2000, seed=9)
    judge = {
        "classification": "accuracy",
        "multilabel": "multilabel_accuracy",
        "regression": "pearson",
    }
    found = metric(judge[kind])
    fused = found(probabilities(kind, rule.combine(members)), target)
    chance = {"classification": 0.25, "multilabel": 0.6, "regression": 0.0}[kind]
    assert fused > chance + 0.1
    if name not in UNFITTED:
        best = found(probabilities(kind, members.scores[0]), target)
        assert fused > best - 0.01


@pytest.mark.parametrize("name", [n for n, kind in RULE_KINDS if kind == "multilabel"])
def test_a_label_that_no_row_is_known_of_changes_no_other_label_and_is_answered(name):
    members, target = case("multilabel", rows=60)
    rule = rule_class(name)
    known = rule.fit(rule.Config(), members, target.double()).combine(members)
    target = target.double()
    target[:, 1] = torch.nan
    fused = rule.fit(rule.Config(), members, target).combine(members)
    there = members.present.any(0)
    assert fused[there].isfinite().all()
    assert torch.equal(fused[there][:, [0, 2]], known[there][:, [0, 2]])


@pytest.mark.parametrize("name", sorted(NO_REGRESSION & set(LATE)))
def test_a_rule_without_meaning_for_values_refuses_them_by_name(name):
    members, target = case("regression")
    rule = rule_class(name)
    with pytest.raises(ValueError, match=f"late rule '{name}' has no meaning for regression"):
        rule.fit(rule.Config(), members, target)


@pytest.mark.parametrize("name", LATE)
def test_every_doctest_of_a_rule_holds(name):
    assert doctest.testmod(importlib.import_module(f"fusion.late.{name}")).failed == 0


@pytest.mark.parametrize("module", ["members", "calibration"])
def test_every_doctest_of_the_shared_files_holds(module):
    result = doctest.testmod(importlib.import_module(f"fusion.late.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


class TestRefusals:
    def test_of_an_unknown_rule(self):
        with pytest.raises(ValueError, match="no late-fusion rule 'loudest'; known:"):
            rule_class("loudest")

    def test_of_the_state_of_another_rule(self, fitted):
        state = fitted("mean", "classification")[0].state()
        with pytest.raises(ValueError, match="state of 'mean', not of 'vote'"):
            rule_class("vote").from_state(state)

    def test_of_class_indices_out_of_range(self):
        members, target = case("classification")
        mean = rule_class("mean")
        with pytest.raises(ValueError, match="whole numbers from 0 to 3"):
            mean.fit(mean.Config(), members, target + 1)

    def test_of_targets_of_another_shape(self):
        members, target = case("multilabel")
        mean = rule_class("mean")
        with pytest.raises(ValueError, match="multilabel: targets"):
            mean.fit(mean.Config(), members, target[:, 0])

    def test_of_nan_in_a_present_row(self):
        scores = torch.tensor([[[1.0], [torch.nan]]])
        present = torch.tensor([[True, False]])
        Members(names=("a",), kind="regression", scores=scores, present=present)
        with pytest.raises(ValueError, match="NaN among the scores of a; mark such rows"):
            Members(names=("a",), kind="regression", scores=scores, present=~present | present)

    def test_of_nothing_to_fit_on(self):
        members, target = case("regression")
        absent = Members(
            names=members.names,
            kind="regression",
            scores=members.scores,
            present=torch.zeros_like(members.present),
        )
        mean = rule_class("mean")
        with pytest.raises(ValueError, match="no row has a member to fit on"):
            mean.fit(mean.Config(), absent, target)

    def test_of_two_members_of_one_name(self):
        with pytest.raises(ValueError, match="members share a name: a, a"):
            Members.from_logits(["a", "a"], "regression", torch.zeros(2, 3, 1))


class TestProperties:
    @given(st.lists(st.floats(0, 10), min_size=2, max_size=5), st.integers(0, 1000))
    def test_shares_lie_on_the_simplex_and_absent_members_have_none(self, weights, seed):
        present = torch.rand(len(weights), 20, generator=seeded(seed)) > 0.4
        share = shares(torch.tensor(weights, dtype=torch.float64), present)
        assert (share >= 0).all()
        assert not share[~present].any()
        assert torch.allclose(share.sum(0), present.any(0).double())

    @given(st.sampled_from([n for n in LATE if n not in ("product", "vote", "stacking")]))
    def test_members_that_agree_are_fused_into_themselves(self, name):
        """Up to temperature, which a fitted rule may change: the ranking of classes stays."""
        members, target = case("classification", gaps=False)
        same = Members(
            names=NAMES,
            kind="classification",
            scores=members.scores[:1].expand(3, -1, -1),
            present=members.present,
        )
        rule = rule_class(name)
        fused = rule.fit(rule.Config(), same, target).combine(same)
        if name in ("mean", "caruana", "confidence", "weighted"):
            assert torch.allclose(fused, same.scores[0], atol=1e-6)
        elif name in ("attention", "log_pool"):
            assert torch.equal(fused.argsort(1), same.scores[0].argsort(1))

    @given(st.integers(0, 100))
    def test_the_log_pool_finds_the_weights_that_made_the_targets(self, seed):
        logits = torch.randn(3, 6000, 4, generator=seeded(seed), dtype=torch.float64)
        members = Members.from_logits(NAMES, "classification", 1.5 * logits)
        truth = torch.tensor([1.0, 0.5, 0.0]).double()
        p = torch.softmax((truth.reshape(3, 1, 1) * members.scores).sum(0), 1)
        target = torch.multinomial(p, 1, generator=seeded(seed + 1)).squeeze(1)
        rule = rule_class("log_pool")
        found = rule.fit(rule.Config(), members, target).parts[0]["weights"][:, 0]
        assert torch.allclose(found, truth, atol=0.12)
        assert (found >= 0).all()


class TestTheLogPool:
    def test_is_the_stationary_point_of_its_objective(self):
        members, target = case("classification", gaps=False)
        rule = rule_class("log_pool")
        fitted = rule.fit(rule.Config(shrinkage=0.0, bias=True), members, target)
        weights = fitted.parts[0]["weights"].clone().requires_grad_()
        bias = fitted.parts[0]["bias"].clone().requires_grad_()
        z = (weights.unsqueeze(2) * members.scores).sum(0) + bias
        torch.nn.functional.cross_entropy(z, target).backward()
        free = weights.detach() > 0
        assert weights.grad[free].abs().max() < 1e-4
        assert (weights.grad[~free] >= -1e-6).all()
        assert bias.grad.abs().max() < 1e-4

    def test_with_strong_shrinkage_is_the_even_pool_with_a_temperature(self):
        members, target = case("classification")
        rule = rule_class("log_pool")
        weights = rule.fit(rule.Config(shrinkage=1e9), members, target).member_weights()
        assert all(share == pytest.approx(1 / 3, abs=1e-4) for share in weights.values())

    def test_unfitted_is_the_geometric_mean_and_reads_no_target(self):
        members, target = case("classification", gaps=False)
        rule = rule_class("log_pool")
        fused = rule.fit(rule.Config(fitted=False), members, target * 0).combine(members)
        assert torch.allclose(fused, torch.log_softmax(members.cleaned().scores.mean(0), 1))

    def test_keeps_its_sharpness_where_a_member_is_absent(self):
        members, target = case("classification", gaps=False)
        rule = rule_class("log_pool")
        fitted = rule.fit(rule.Config(), members, target)
        alone = fitted.combine(members.only(["sharp"]))
        total = fitted.parts[0]["weights"].sum()
        assert torch.allclose(alone, torch.log_softmax(total * members.scores[0], 1))

    def test_of_values_is_least_squares_with_weights_of_zero_or_more(self):
        members, target = case("regression", gaps=False)
        rule = rule_class("log_pool")
        members = members.only(["sharp", "blunt"])
        found = rule.fit(rule.Config(shrinkage=0.0), members, target).parts[0]["weights"]
        x = members.scores.squeeze(2).T - target.mean()
        slow = torch.linalg.lstsq(x, (target - target.mean()).unsqueeze(1)).solution
        assert (slow >= 0).all()
        assert torch.allclose(found, slow, atol=1e-4)


class TestCaruana:
    def test_a_start_in_sorted_order_is_never_worse_on_the_fitting_rows_than_the_best_member(self):
        members, target = case("classification")
        rule = rule_class("caruana")
        config = rule.Config(sorted_start=3, metric="macro_f1")
        fitted = rule.fit(config, members, target)
        best = min(fitted.parts[0]["trajectory"].tolist())
        alone = [
            -metric("macro_f1")(member.exp()[there], target[there])
            for member, there in zip(members.scores, members.present, strict=True)
        ]
        assert best <= alone[0] + 1e-6

    def test_bags_average_selections_from_parts_of_the_library(self):
        members, target = case("classification")
        rule = rule_class("caruana")
        one = rule.fit(rule.Config(), members, target).member_weights()
        many = rule.fit(rule.Config(bags=20, bag_fraction=0.34), members, target).member_weights()
        assert many["noise"] > one["noise"]

    def test_selects_in_log_space_what_lowers_the_loss_of_the_log_pool(self):
        members, target = case("classification", gaps=False)
        rule = rule_class("caruana")
        fitted = rule.fit(rule.Config(space="log"), members, target)
        loss = metric("nll")(fitted.combine(members).exp(), target)
        assert loss == pytest.approx(float(fitted.parts[0]["trajectory"].min()), abs=1e-6)


class TestVotes:
    def test_only_unanimity_leaves_the_fallback(self):
        p = torch.tensor([[[0.1, 0.9], [0.1, 0.9]], [[0.2, 0.8], [0.7, 0.3]]])
        members = Members.from_probabilities(["a", "b"], "classification", p)
        vote = rule_class("vote")
        rule = vote.fit(vote.Config(mode="unanimous"), members, torch.tensor([0, 1]))
        assert rule.combine(members).argmax(1).tolist() == [1, 0]

    def test_fitted_weights_ask_more_of_a_member_at_chance(self):
        members, target = case("classification", rows=3000)
        vote = rule_class("vote")
        weights = vote.fit(vote.Config(mode="weighted"), members, target).member_weights()
        assert weights["sharp"] > weights["blunt"] > weights["noise"]
        assert weights["noise"] < 0.1

    def test_the_four_words_count_positive_votes(self):
        from fusion.late.vote import verdict_words

        votes = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]])
        p = torch.nn.functional.one_hot(votes, 2).double()
        members = Members.from_probabilities(NAMES, "classification", p)
        assert verdict_words(members) == [
            "Positive",
            "Slight Negative",
            "Negative",
            "Strong Negative",
        ]
