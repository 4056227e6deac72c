"""The mixture of simple rules: what it promises on few people, and what its parts are."""

import numpy as np
import pytest
import torch

from fusion.late import _mixed, rule_class
from fusion.late._tempering import tempered_inverse
from fusion.late.calibration import Calibration
from fusion.late.members import Members
from fusion.late.mixture import inner_folds
from fusion.metrics import metric

MIXTURE = rule_class("mixture")
CLASSES = 4


def people(count, *, each=25, seed=0, spread=0.5, sharpness=(1.5, 1.2, 0.8)):
    """Members of falling quality over people who differ in how well they are read."""
    draws = torch.Generator().manual_seed(seed)
    group = torch.arange(count).repeat_interleave(each)
    target = torch.randint(CLASSES, (len(group),), generator=draws)
    signal = torch.nn.functional.one_hot(target, CLASSES).double()
    readable = 1 + spread * torch.randn(count, generator=draws, dtype=torch.float64)[group]
    logits = torch.stack(
        [
            s * readable.unsqueeze(1) * signal
            + torch.randn(len(group), CLASSES, generator=draws, dtype=torch.float64)
            for s in sharpness
        ]
    )
    return logits, target, group


def members(logits):
    return Members.from_logits([f"m{i}" for i in range(len(logits))], "classification", logits)


HOSTILE = {
    "copies": lambda logits, draws: logits[:1].repeat(4, 1, 1),
    "useless": lambda logits, draws: torch.randn(2, *logits.shape[1:], generator=draws).double(),
    "over-confident noise": lambda logits, draws: (
        12 * torch.randn(2, *logits.shape[1:], generator=draws).double()
    ),
    "over-confident by 10": lambda logits, draws: 10 * logits[:2],
    "anti-correlated": lambda logits, draws: -2 * logits[:1],
    "nothing": lambda logits, draws: logits[:0],
}


def nll(scores, target):
    return metric("nll")(scores.exp(), target)


def parts(fit, test):
    """NLL on the test rows of what the default is compared with."""
    losses = {}
    for name, options in (("mean", {}), ("log_pool", {"fitted": False})):
        rule = rule_class(name)
        rule = rule.fit(rule.Config(**options), fit[0], fit[1])
        heat = Calibration.fit("temperature", "classification", rule.combine(fit[0]), fit[1])
        losses[name] = nll(heat.apply(rule.combine(test[0])), test[1])
    alone = [nll(scores, fit[1]) for scores in fit[0].scores]
    best = int(np.argmin(alone))
    heat = Calibration.fit("temperature", "classification", fit[0].scores[best], fit[1])
    losses["best single"] = nll(heat.apply(test[0].scores[best]), test[1])
    return losses


MOST_REGRET = {4: 0.15, 8: 0.08, 24: 0.02, 100: 0.01}
"""NLL over that of the best rival, by the number of people; independent members want the even pool."""


@pytest.mark.parametrize("count", MOST_REGRET)
@pytest.mark.parametrize("kind", HOSTILE)
def test_it_is_hardly_worse_than_the_best_of_its_rivals_and_the_less_the_more_people(count, kind):
    gaps = []
    for seed in range(4 if count < 100 else 2):
        logits, target, group = people(count + 60, seed=seed, each=10)
        extra = HOSTILE[kind](logits, torch.Generator().manual_seed(seed))
        every = members(torch.cat([logits, extra.double()]))
        at = group < count
        fit, test = (every.rows(at), target[at]), (every.rows(~at), target[~at])
        rule = MIXTURE.fit(MIXTURE.Config(), *fit, groups=group[at])
        ours, rivals = nll(rule.combine(test[0]), test[1]), parts(fit, test)
        gaps.append(ours / min(rivals.values()) - 1)
    assert np.mean(gaps) < MOST_REGRET[count]


def test_a_net_that_is_sure_and_wrong_harms_less_than_in_a_pool():
    logits, target, group = people(12, seed=1)
    other, answers, _ = people(12, seed=2)
    rule = MIXTURE.fit(MIXTURE.Config(), members(logits), target, groups=group)
    spoilt = other.clone()
    spoilt[1] = -8 * spoilt[1]
    pool = rule_class("log_pool")
    pooled = pool.fit(pool.Config(), members(logits), target).combine(members(spoilt))
    assert nll(rule.combine(members(spoilt)), answers) < nll(pooled, answers)


def test_a_net_that_turns_sure_and_wrong_in_new_people_costs_two_thirds_of_what_hard_pools_cost(
    monkeypatch,
):
    logits, target, group = people(8, seed=1)
    other, answers, _ = people(40, seed=2)
    every = members(torch.cat([logits, 0.9 * logits[:1]]))
    wrong = members(torch.cat([other, -20 * other[:1]]))

    def loss(prior_groups):
        config = MIXTURE.Config(prior_groups=prior_groups)
        rule = MIXTURE.fit(config, every, target, groups=group)
        return nll(rule.combine(wrong), answers)

    soft = loss(1.0)
    monkeypatch.setattr(_mixed, "SOFT_SHARE", 0.0)
    monkeypatch.setattr(_mixed, "SHARP_SHARE", 0.0)
    assert soft < 0.65 * loss(0.0)


@pytest.mark.parametrize("count", [2, 8, 100])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_every_rule_keeps_its_part_of_the_weight_of_one_group(count, kind):
    logits, target, group = people(count, each=6, seed=3)
    scores = logits if kind == "classification" else logits[..., :1]
    goal = target if kind == "classification" else target.double()
    some = Members.from_logits(["a", "b", "c"], kind, scores)
    shares = MIXTURE.fit(MIXTURE.Config(), some, goal, groups=group).rule_shares().values()
    least = 0.0 if kind == "regression" else 1 / (count + 1) / len(shares)
    assert sum(shares) == pytest.approx(1)
    assert min(shares) >= least - 1e-12


def test_a_mixture_of_version_0_1_says_what_it_said():
    logits, target, group = people(9, seed=4)
    rule = MIXTURE.fit(MIXTURE.Config(), members(logits), target, groups=group)
    state = rule.state()
    for name in ("weights", "inverse", "variance", "shares"):
        state["parts"][0][name] = state["parts"][0][name][:5]
    del state["parts"][0]["soft"]
    del state["config"]["prior_groups"]
    part = {name: torch.tensor(value) for name, value in state["parts"][0].items()}
    pools = torch.stack(
        [
            torch.softmax(
                (part["weights"][row].reshape(-1, 1, 1) * members(logits).scores).sum(0), 1
            )
            for row in (1, 2)
        ]
    )
    old = MIXTURE.from_state(state)
    found = _mixed.rule_scores(old.parts[0], members(logits))[1:3].exp()
    assert torch.allclose(found, pools.double(), atol=1e-5)


def test_the_more_groups_the_more_one_rule_has():
    few, many = (
        max(
            MIXTURE.fit(MIXTURE.Config(), members(logits), target, groups=group)
            .rule_shares()
            .values()
        )
        for logits, target, group in (people(3, seed=3), people(300, seed=3))
    )
    assert many > few
    assert few < 0.9


def test_rows_of_one_group_are_never_on_both_sides_of_the_inner_cross_validation(monkeypatch):
    logits, target, group = people(7, each=6)
    seen = []
    plain = _mixed.fit_rules

    def spy(some, goal, weights, prior_rows):
        seen.append(some.num_rows)
        return plain(some, goal, weights, prior_rows)

    monkeypatch.setattr(_mixed, "fit_rules", spy)
    MIXTURE.fit(MIXTURE.Config(), members(logits), target, groups=group)
    assert len(seen) == 1 + 4 * 4
    assert all(rows % 6 == 0 for rows in seen)
    for repeat in range(4):
        assert sum(42 - rows for rows in seen[1 + 4 * repeat :][:4]) == 42


@pytest.mark.parametrize(("count", "divisions"), [(1, 0), (2, 1), (4, 1), (5, 4), (50, 4), (51, 1)])
def test_every_division_keeps_groups_whole_and_is_another_one(count, divisions):
    group = torch.arange(count).repeat_interleave(3)
    folds = inner_folds(MIXTURE.Config(), group)
    assert len(folds) == divisions
    for fold in folds:
        assert len(torch.unique(torch.stack([group, fold]), dim=1).T) == count
        sizes = torch.bincount(fold) // 3
        assert int(sizes.max() - sizes.min()) <= 1
    assert len({tuple(fold.tolist()) for fold in folds}) == divisions


def test_shares_depend_less_on_the_luck_of_a_division_where_it_is_repeated():
    logits, target, group = people(9, each=8, seed=5, sharpness=(1.2, 1.2, 1.1))

    def spread(repeats):
        shares = [
            list(
                MIXTURE.fit(
                    MIXTURE.Config(repeats=repeats, seed=seed),
                    members(logits),
                    target,
                    groups=group,
                )
                .rule_shares()
                .values()
            )
            for seed in range(8)
        ]
        return np.array(shares).std(0).max()

    assert spread(4) < 0.7 * spread(1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("folds", 1), ("repeats", 0), ("draws", 0), ("prior_groups", -1.0), ("prior_rows", -1.0)],
)
def test_an_option_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"mixture: {name} {value}; expected"):
        MIXTURE.Config(**{name: value})


def test_a_single_group_leaves_the_shares_even():
    logits, target, group = people(1)
    rule = MIXTURE.fit(MIXTURE.Config(), members(logits), target, groups=group)
    assert list(rule.rule_shares().values()) == pytest.approx([1 / 7] * 7)


def test_the_simplex_is_the_maximum_of_its_posterior():
    logits, target, _ = people(10)
    some = members(logits)
    weights = torch.ones(len(target)).double()
    found = _mixed.fit_rules(some, target, weights, 25.0)["weights"][_mixed.RULES.index("simplex")]
    p = some.scores.gather(2, target.expand(3, -1).unsqueeze(2)).squeeze(2).exp()

    def posterior(v):
        return (v @ p).log().sum() + (20 / 3) * v.log().sum()

    draws = np.random.default_rng(0).dirichlet(200 * found.numpy(), size=300)
    assert all(posterior(torch.from_numpy(v)) <= posterior(found) + 1e-6 for v in draws)


@pytest.mark.parametrize("name", _mixed.POOL_STRENGTHS)
def test_a_pool_is_the_stationary_point_of_its_objective(name):
    logits, target, _ = people(6, seed=4)
    some, strength = members(logits), _mixed.POOL_STRENGTHS[name]
    found = _mixed.fit_rules(some, target, torch.ones(len(target)).double(), 25.0)["weights"]
    soft = _mixed.SOFT_SHARE if name in _mixed.SOFT_POOLS else _mixed.SHARP_SHARE
    log_q = ((1 - soft) * some.scores.exp() + soft / CLASSES).log()
    w = found[_mixed.RULES.index(name)].clone().requires_grad_()
    u = len(w) * w
    loss = torch.nn.functional.cross_entropy(
        (w.reshape(-1, 1, 1) * log_q).sum(0), target, reduction="sum"
    )
    loss = loss + 25 / 2 * (u.mean() - 1) ** 2
    if strength < torch.inf:
        loss = loss + strength / 2 * (u - u.mean()).square().sum()
    loss.backward()
    # Gradients are of a loss in rows: 150 of them.
    if strength == torch.inf:
        assert torch.equal(w.detach(), w.detach()[:1].expand(3))
        assert w.grad.sum().abs() < 0.05
    else:
        assert w.grad[w > 0].abs().max() < 0.05
        assert (w.grad[w == 0] > -0.05).all()


def test_equal_members_that_are_too_sure_are_fused_better_on_few_people_by_one_weight(monkeypatch):
    def loss(seed):
        logits, target, group = people(4, each=10, seed=seed, sharpness=(1.5,) * 6)
        other, answers, _ = people(60, seed=50 + seed, sharpness=(1.5,) * 6)
        rule = MIXTURE.fit(MIXTURE.Config(), members(3 * logits), target, groups=group)
        return nll(rule.combine(members(3 * other)), answers)

    ours = np.array([loss(seed) for seed in range(4)])
    monkeypatch.setattr(_mixed, "RULES", _mixed.RULES[:5])
    monkeypatch.setattr(_mixed, "POOL_STRENGTHS", _mixed.SOFT_POOLS)
    assert (ours < 0.97 * np.array([loss(seed) for seed in range(4)])).all()


def test_few_rows_hardly_move_a_temperature_and_many_find_it():
    draws = torch.Generator().manual_seed(0)
    z = torch.randn(20000, CLASSES, generator=draws, dtype=torch.float64) * 2
    target = torch.multinomial(torch.softmax(z, 1), 1, generator=draws).squeeze(1)
    sharp = torch.log_softmax(3 * z, 1)
    ones = torch.ones(len(target)).double()
    assert tempered_inverse(sharp, target, ones, 25.0) == pytest.approx(1 / 3, abs=0.01)
    few = tempered_inverse(sharp[:20], target[:20], ones[:20], 25.0)
    assert 0.4 < few < 1


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_other_kinds_are_not_worse_than_the_mean_on_unseen_people(kind):
    logits, target, group = people(40, seed=5)
    if kind == "regression":
        goal = target.double()
        scores = goal.reshape(1, -1, 1) + torch.tensor([0.5, 1.0, 4.0]).reshape(3, 1, 1) * (
            logits[..., :1] - logits[..., :1].mean()
        )
        judge = "mse"
    else:
        goal = torch.nn.functional.one_hot(target, CLASSES).double()
        scores, judge = 2 * logits, "multilabel_nll"
    every = Members.from_logits(["a", "b", "c"], kind, scores)
    at = group < 12
    loss = {}
    for name in ("mean", "mixture"):
        rule = rule_class(name)
        fitted = rule.fit(rule.Config(), every.rows(at), goal[at], groups=group[at])
        said = fitted.combine(every.rows(~at))
        said = torch.sigmoid(said) if kind == "multilabel" else said
        loss[name] = metric(judge)(said, goal[~at])
    assert loss["mixture"] < loss["mean"] * 1.01


@pytest.mark.parametrize(("slope", "zero"), [(1.0, 100.0), (0.01, -3.0), (30.0, 0.0)])
def test_values_on_another_scale_are_fused_alike(slope, zero):
    logits, target, group = people(6, seed=5)
    values, goal = logits[..., :1], target.double()

    def fused(change):
        some = Members.from_logits(["a", "b", "c"], "regression", change(values))
        return MIXTURE.fit(MIXTURE.Config(), some, change(goal), groups=group).combine(some)

    moved = fused(lambda some: slope * some + zero)
    assert torch.allclose(moved, slope * fused(lambda some: some) + zero, atol=1e-4 * slope)


def test_values_that_overstate_are_drawn_to_the_mean_of_the_targets_wherever_zero_is():
    draws = torch.Generator().manual_seed(0)
    goal = 50 + torch.randn(120, generator=draws, dtype=torch.float64)
    loud = 50 + 8 * (goal - 50 + torch.randn(3, 120, generator=draws, dtype=torch.float64))
    some = Members.from_logits(["a", "b", "c"], "regression", loud.unsqueeze(2))
    rule = MIXTURE.fit(MIXTURE.Config(), some, goal, groups=torch.arange(120) % 12)
    error = (rule.combine(some).squeeze(1) - goal).square().mean()
    assert error < 0.6  # one member has 127, and the mean of the targets 1
