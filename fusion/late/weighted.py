"""Weights on the simplex, chosen by a named metric.

    p(k | row)  ~  sum_m w_m p_m(k | row)      (space = linear)
    p(k | row)  ~  prod_m p_m(k | row)^w_m     (space = log),   w_m >= 0, sum_m w_m = 1

Metrics of labels have no gradient, so the simplex is searched: its corners, its centre, random draws, then
draws around the best with a shrinking radius, scored many at a time. By accuracy whole ways are scored:
from the best towards each member, away from each, and to some draws. Log loss under linear mixing is convex
and is finished by expectation maximisation. Equal weights win a tie. Members are drawn for in the order of
their names, in whichever they came.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fusion.late._candidates import CandidateLosses, Space, default_loss
from fusion.late._margins import ClassMargins
from fusion.late._rule import LateRule, Part
from fusion.late.caruana import pooled
from fusion.late.members import FLOOR, Members

LINE_COST = 5
"""Scoring a whole line takes about as long as so many single candidates."""

POINTS = 129
"""Of a line that are scored."""

ROUNDS = 8
KEPT = 8
FINALISTS = 32
"""Candidates that are scored exactly at the end."""

EM_STEPS = 500
TIE = 1e-9
"""Of losses: equal weights are kept where nothing is better by more. Of weights: they no longer move."""


class Rule(LateRule):
    """Weights that sum to 1."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Space, size and loss of the search."""

        metric: str = ""
        """Name of a metric for the members' kind (multi-label: of a classification); empty: nll or mse."""

        space: Space = "linear"
        candidates: int = 4096
        """Number of weightings to try."""

        seed: int = 0

    @classmethod
    def fit_part(
        cls, config: Any, members: Members, target: Tensor, weights: Tensor
    ) -> dict[str, Tensor]:
        """The best weights [member]."""
        order = sorted(members.names)
        objective = CandidateLosses(
            members=members.only(order),
            target=target,
            weights=weights,
            metric=config.metric or default_loss(members),
            space=config.space,
        )
        best = search(objective, config.candidates, config.seed)
        if objective.columns_only:
            best = _expectation_maximisation(objective, best)
        return {"weights": best[[order.index(name) for name in members.names]]}

    def combine_part(self, part: Part, members: Members) -> Tensor:
        """[row outputs]: the pool in the space of the search."""
        return pooled(part["weights"], members, self.config.space)

    def part_shares(self, part: Part) -> Tensor:
        """The weights."""
        return part["weights"]


def search(objective: CandidateLosses, candidates: int, seed: int) -> Tensor:
    """The best weights [member] among so many candidates."""
    count = len(objective.members.names)
    random = torch.Generator().manual_seed(seed)
    even = torch.full((1, count), 1 / count, dtype=torch.float64)
    batch = max(1, candidates // (ROUNDS + 1))
    tried = torch.cat(
        [even, torch.eye(count, dtype=torch.float64), _draw(even, 1.0, batch, random)]
    )
    losses = objective.screen(tried)
    if objective.metric == "accuracy" and objective.gaps is None:
        tried, losses = _along_lines(objective, tried, losses, candidates - batch, random)
        return _exact_best(objective, tried, losses)
    for radius in torch.logspace(-0.5, -2.5, ROUNDS).tolist():
        order = torch.argsort(losses, stable=True)[:KEPT]
        tried, losses = tried[order], losses[order]
        centre = tried[torch.randint(len(tried), (batch,), generator=random)]
        near = (1 - radius) * centre + radius * _draw(even, 0.3, batch, random)
        tried = torch.cat([tried, near])
        losses = torch.cat([losses, objective.screen(near)])
    return _exact_best(objective, tried, losses)


def _exact_best(objective: CandidateLosses, tried: Tensor, losses: Tensor) -> Tensor:
    """The best [member] of the most promising; equal weights unless something is better."""
    even = torch.full_like(tried[:1], 1 / tried.shape[1])
    best = tried[torch.argsort(losses, stable=True)[:FINALISTS]]
    losses = objective.losses(torch.cat([even, best]))
    return best[int(losses[1:].argmin())] if losses[1:].min() < losses[0] - TIE else even[0]


def _along_lines(
    objective: CandidateLosses,
    tried: Tensor,
    losses: Tensor,
    candidates: int,
    random: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The tried weightings, and the best on lines between them, in the time of so many more candidates."""
    margins = ClassMargins(objective)
    corners = torch.eye(tried.shape[1], dtype=torch.float64)
    even = torch.full_like(tried[:1], 1 / len(corners))
    per_round = LINE_COST * (2 * len(corners) + KEPT)
    for _ in range(max(1, candidates // per_round)):
        order = torch.argsort(losses, stable=True)[:FINALISTS]
        tried, losses = tried[order], losses[order]
        best = tried[0]
        without = best * (1 - corners)
        without = without[(best > 0) & (without.sum(1) > 0)]
        ends = torch.cat(
            [corners, without / without.sum(1, keepdim=True), _draw(even, 0.3, KEPT, random)]
        )
        least, at = margins.along(best, ends, POINTS).min(1)
        share = (at.double() / (POINTS - 1)).unsqueeze(1)
        tried = torch.cat([tried, (1 - share) * best + share * ends])
        losses = torch.cat([losses, least])
    return tried, losses


def _draw(even: Tensor, concentration: float, batch: int, random: torch.Generator) -> Tensor:
    """[batch member]: points of the simplex; a concentration below 1 favours its edges."""
    # Powers of exponentials: a Dirichlet at concentration 1, and like one at the edges below it.
    draws = torch.empty(batch, even.shape[1], dtype=torch.float64).exponential_(generator=random)
    powered = draws.clamp(min=1e-12) ** (1 / concentration)
    return powered / powered.sum(1, keepdim=True)


def _expectation_maximisation(objective: CandidateLosses, start: Tensor) -> Tensor:
    """Raise the likelihood of a mixture from `start`; rows with gaps mix their present members."""
    terms, there = objective.terms.squeeze(2).clamp(min=FLOOR), objective.members.present.double()
    mass = objective.weights / objective.weights.sum()
    if objective.gaps is not None:
        return start  # the weights renormalise per row: the closed form does not hold
    weights = start.clamp(min=1e-9)
    for _ in range(EM_STEPS):
        share = weights.unsqueeze(1) * terms * there
        raised = (share / share.sum(0)) @ mass
        if (raised - weights).abs().max() < TIE:
            break
        weights = raised
    return weights / weights.sum()
