"""The simple rules that `mixture` mixes.

    mean       mean of the probabilities, then a temperature
    pool       softmax(sum_m w_m log q_m): members far apart in weight are allowed
    even_pool  the same, weights held close together
    best       the member of least NLL, as it is
    simplex    sum_m v_m p_m with v on the simplex (MAP under a Dirichlet prior), then a temperature
    free_pool  the same, weights hardly held at all
    level_pool the same, one weight for all

The pools take q = (1 - s) p + s / classes: without s a member that is sure and wrong vetoes all others, with
much of it those that are right to be sure lose. The first two have 2 %, the last two 0.5 %. Every number that
sets sharpness has a prior that few rows cannot overrule (`fusion.late._tempering`, `total_strength` of the
pools). Of values (a regression) all but `simplex` are taken, each with the variance of its errors, so that
all kinds of tasks are judged by a log-likelihood. Their pools weigh distances from the mean of the targets:
the total of the weights draws what members overstate towards that mean, wherever the zero of the scale is.

Shapes: rule, member, row, outputs.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from fusion.late import _pool
from fusion.late._tempering import tempered_inverse
from fusion.late.mean import linear_pool
from fusion.late.members import FLOOR, Members, shares

RULES = ("mean", "pool", "even_pool", "best", "simplex", "free_pool", "level_pool")
"""In the order of their numbers; mixtures of before have the first five of them."""

VALUE_RULES = tuple(name for name in RULES if name != "simplex")
SOFT_POOLS = {"pool": 1.0, "even_pool": 16.0}
SHARP_POOLS = {"free_pool": 0.05, "level_pool": torch.inf}
POOL_STRENGTHS = {**SOFT_POOLS, **SHARP_POOLS}
"""Pull of the relative weights M w_m towards each other, in rows."""

SOFT_SHARE = 0.02
SHARP_SHARE = 0.005
"""Share s of a member's probability that soft and sharp pools spread evenly over the classes."""

SIMPLEX_PRIOR_ROWS = 20.0
"""Dirichlet prior of the simplex weights: each member counts as 20 / M rows of responsibility."""

SIMPLEX_STEPS = 100

Numbers = Mapping[str, Tensor]
"""weights [rule member], inverse [rule] (temperatures, 1 where it has none), variance [rule], soft and sharp
(the s of the pools), centre (what pools measure values from). Mixtures of before have no sharp pools, those
of version 0.1 neither a centre nor an s: their pools took members as they are."""


def names(kind: str) -> tuple[str, ...]:
    """The rules of a kind of task, in the order of their numbers."""
    return VALUE_RULES if kind == "regression" else RULES


def fit_rules(members: Members, target: Tensor, weights: Tensor, prior_rows: float) -> Numbers:
    """The numbers of all rules, fitted on the same rows.

    Args:
        members: clean; every row has a member.
        target: class indices or values [row].
        weights: how much each row counts [row].
        prior_rows: rows' worth of belief that probabilities need no temperature.
    """
    even = torch.full((len(members.names),), 1 / len(members.names), dtype=torch.float64)
    rows = {"mean": even, "best": _best(members, target, weights)}
    soft = torch.tensor(SOFT_SHARE, dtype=torch.float64)
    sharp = torch.tensor(SHARP_SHARE, dtype=torch.float64)
    centre = torch.zeros((), dtype=torch.float64)
    if members.kind == "regression":
        centre = target.double() @ weights / weights.sum()
    aim = target - centre if members.kind == "regression" else target
    pooled = _pooled_by_name(members, soft, sharp, centre)
    for name, strength in POOL_STRENGTHS.items():
        rows[name] = _pool_weights(pooled[name], aim, weights, strength, prior_rows)
    if members.kind != "regression":
        rows["simplex"] = _simplex(members, target, weights)
    table = torch.stack([rows[name] for name in names(members.kind)])
    inverse = torch.ones(len(table), dtype=torch.float64)
    variance = torch.ones(len(table), dtype=torch.float64)
    shape = {"weights": table, "inverse": inverse, "soft": soft, "sharp": sharp, "centre": centre}
    raw = rule_scores(shape, members)
    for index, name in enumerate(names(members.kind)):
        if members.kind == "regression":
            errors = (raw[index, :, 0] - target).square()
            variance[index] = (errors @ weights / weights.sum()).clamp(min=1e-12)
        elif name in ("mean", "simplex"):
            inverse[index] = tempered_inverse(raw[index], target, weights, prior_rows)
    return {**shape, "variance": variance}


def rule_scores(numbers: Numbers, members: Members) -> Float[Tensor, "rule row outputs"]:
    """Log-probabilities (or values) of every rule; finite also in rows without a member."""
    none = torch.zeros((), dtype=torch.float64)
    centre = numbers.get("centre", none)
    soft, sharp = (numbers.get(name, none) for name in ("soft", "sharp"))
    pooled = _pooled_by_name(members, soft, sharp, centre)
    found = []
    for index, (name, weights) in enumerate(
        zip(names(members.kind), numbers["weights"], strict=False)
    ):
        if name in pooled:
            some, bias = pooled[name], centre.expand(members.outputs)
            scores = _pool.pool(weights.unsqueeze(1), bias, some.scores, some.present)
        else:
            scores = linear_pool(weights, members)
        if members.kind != "regression":
            scores = torch.log_softmax(numbers["inverse"][index] * scores, 1)
        found.append(scores)
    return torch.stack(found)


def _pooled_by_name(
    members: Members, soft: Tensor, sharp: Tensor, centre: Tensor
) -> dict[str, Members]:
    """What each pool weighs: softened probabilities, or the distances of values from the centre."""
    if members.kind == "regression":
        return dict.fromkeys(POOL_STRENGTHS, replace(members, scores=members.scores - centre))
    return {
        **dict.fromkeys(SOFT_POOLS, _softened(members, soft)),
        **dict.fromkeys(SHARP_POOLS, _softened(members, sharp)),
    }


def _softened(members: Members, share: Tensor) -> Members:
    """A share of each member's probability spread evenly over the classes."""
    kept = members.scores + (1 - share).log()
    return replace(members, scores=torch.logaddexp(kept, (share / members.outputs).log()))


def log_likelihood(numbers: Numbers, members: Members, target: Tensor) -> Float[Tensor, "rule row"]:
    """Log-likelihood of each row under each rule."""
    scores = rule_scores(numbers, members)
    if members.kind == "regression":
        variance = numbers["variance"].unsqueeze(1)
        return -((scores[..., 0] - target).square() / variance + variance.log()) / 2
    return scores.gather(2, target.long().expand(len(scores), -1).unsqueeze(2)).squeeze(2)


def _best(members: Members, target: Tensor, weights: Tensor) -> Tensor:
    """One-hot weights [member] of the member of least loss, each judged where it is present."""
    if members.kind == "regression":
        losses = (members.scores[..., 0] - target).square()
    else:
        truth = target.long().expand(len(members.scores), -1).unsqueeze(2)
        losses = -members.scores.gather(2, truth).squeeze(2)
    there = members.present * weights
    mean = (losses * there).sum(1) / there.sum(1).clamp(min=1e-300)
    mean[there.sum(1) == 0] = torch.inf
    return torch.nn.functional.one_hot(mean.argmin(), len(mean)).double()


def _pool_weights(
    members: Members, target: Tensor, weights: Tensor, strength: float, prior_rows: float
) -> Tensor:
    """Weights [member] of a log pool (of values: a linear one)."""
    count = len(members.names)
    level = strength == torch.inf  # one weight for all: that of their even pool
    scores, present = members.scores, members.present
    if level:
        even = torch.full((count,), 1 / count, dtype=torch.float64)
        share = shares(even, present).unsqueeze(2)
        scores, present = (share * scores).sum(0, keepdim=True), present.any(0, keepdim=True)
    problem = _pool.Problem(
        kind=members.kind,
        scores=scores,
        present=present,
        target=target,
        weights=weights,
        # The solver's strength is on w; relative weights are u = M w.
        strength=0.0 if level else strength * count**2 / 2,
        total_strength=prior_rows,
    )
    found = _pool.solve(problem)[0][:, 0]
    return found.expand(count) / count if level else found


def _simplex(members: Members, target: Tensor, weights: Tensor) -> Tensor:
    """Mixing weights [member] by expectation-maximisation."""
    count = len(members.names)
    truth = target.long().expand(count, -1).unsqueeze(2)
    p = members.scores.gather(2, truth).squeeze(2).exp().clamp(min=FLOOR) * members.present
    found = torch.full((count,), 1 / count, dtype=torch.float64)
    for _ in range(SIMPLEX_STEPS):
        joint = (
            found.unsqueeze(1) * p
        )  # what absent members hand to others cancels in the next line
        blame = joint / joint.sum(0).clamp(min=1e-300)
        found = blame @ weights + SIMPLEX_PRIOR_ROWS / count
        found = found / found.sum()
    return found
