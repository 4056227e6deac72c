"""Mixture of simple rules, for few people: each harms somewhere, together they rarely do.

    p(k | row) = sum_r v_r p_r(k | row)

The rules r are those of `fusion.late._mixed`. Each is fitted on some groups and judged on the others (inner
cross-validation over groups); v_r is the share of the draws of a Bayesian bootstrap over groups (weights from
a flat Dirichlet) in which r foresaw the held-out rows best, drawn towards even shares by a prior worth one
group. Which groups are left out together is luck as well: the inner cross-validation is repeated, the shares
are means. With many groups one rule gets it all; with few the weight is spread, so that luck on a handful of
speakers decides nothing. The mixture is linear because a linear one bounds the loss of every row by
-log p_r - log v_r of any rule: one overconfident net cannot veto the others, and the prior keeps -log v_r
small for new people whom another rule suits. Of a regression values are mixed by the same shares.

Rubin, The Bayesian bootstrap, Annals of Statistics 1981, https://doi.org/10.1214/aos/1176345338; what differs
is that rules are weighted by it, not parameters.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fusion.late import _mixed
from fusion.late._rule import LateRule, Part
from fusion.late.members import FLOOR, Members

MANY_GROUPS = 50
"""With more groups the inner cross-validation is not repeated."""


class Rule(LateRule):
    """Numbers of the rules and their shares."""

    calibration = "none"  # its rules have their temperatures, and a mixture of them needs no other

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """How the shares are found."""

        folds: int = 4
        """Parts of the inner cross-validation over groups [>= 2]; fewer groups: one is left out a time."""

        repeats: int = 4
        """Divisions of up to 50 groups into parts that the shares are averaged over [>= 1]; of more, one."""

        draws: int = 200
        """Draws of the bootstrap over groups."""

        prior_groups: float = 1.0
        """Groups' worth of belief that no rule is better than another [>= 0]; of values there is none."""

        prior_rows: float = 25.0
        """Rows' worth of belief that probabilities need no temperature [>= 0]."""

        seed: int = 0
        """Seed of the folds and draws."""

        def __post_init__(self) -> None:
            least = {"folds": 2, "repeats": 1, "draws": 1, "prior_groups": 0, "prior_rows": 0}
            for name, low in least.items():
                if getattr(self, name) < low:
                    raise ValueError(
                        f"mixture: {name} {getattr(self, name)}; expected {low} or more"
                    )

    @classmethod
    def fit_grouped(
        cls, config: Any, members: Members, target: Tensor, weights: Tensor, groups: Tensor
    ) -> dict[str, Tensor]:
        """Numbers of the rules fitted on all rows, and the shares [rule]."""
        numbers = _mixed.fit_rules(members, target, weights, config.prior_rows)
        group = torch.unique(groups, return_inverse=True)[1]
        seen = [
            held_out_likelihood(config, members, target, weights, fold)
            for fold in inner_folds(config, group)
        ] or [torch.zeros(len(numbers["weights"]), len(target), dtype=torch.float64)]
        drawn = torch.stack([bootstrap_shares(config, each * weights, group) for each in seen])
        # A mean of values has no bound by its best part: a rule that is far off harms with any share.
        prior = 0.0 if members.kind == "regression" else config.prior_groups
        count = int(group.max()) + 1
        even = prior / drawn.shape[1]
        return {**numbers, "shares": (count * drawn.mean(0) + even) / (count + prior)}

    def combine_part(self, part: Part, members: Members) -> Tensor:
        """[row outputs]: log of the mixed probabilities, or the mixed values."""
        scores = _mixed.rule_scores(part, members)
        shares = part["shares"].reshape(-1, 1, 1)
        if members.kind == "regression":
            return (shares * scores).sum(0)
        mixed = (shares * scores.exp()).sum(0).clamp(min=FLOOR)
        return (mixed / mixed.sum(1, keepdim=True)).log()

    def part_shares(self, part: Part) -> Tensor:
        """Each member's share of each rule, weighted by the rules' shares."""
        weights = part["weights"]
        alike = weights / weights.sum(1, keepdim=True).clamp(min=1e-300)
        return part["shares"] @ alike

    def rule_shares(self) -> dict[str, float]:
        """Share of each simple rule; the mean over labels."""
        mean = torch.stack([part["shares"] for part in self.parts]).mean(0)
        return dict(zip(_mixed.names(self._part_kind), mean.tolist(), strict=False))

    @property
    def _part_kind(self) -> str:
        return "regression" if self.kind == "regression" else "classification"


def inner_folds(config: Any, group: Int[Tensor, " row"]) -> list[Int[Tensor, " row"]]:
    """Parts of whole groups for each repeat; none of one group, which says nothing of others.

    >>> [fold.tolist() for fold in inner_folds(Rule.Config(), torch.tensor([0, 0, 1]))]
    [[0, 0, 1]]
    """
    count = int(group.max()) + 1
    parts = min(config.folds, count)
    if parts < 2:
        return []
    draws = torch.Generator().manual_seed(config.seed)
    found = []
    # Where each group is a part there is one division; of many groups any is like another.
    for _ in range(1 if parts == count or count > MANY_GROUPS else config.repeats):
        part_of = torch.empty(count, dtype=torch.int64)
        part_of[torch.randperm(count, generator=draws)] = torch.arange(count) % parts
        found.append(part_of[group])
    return found


def held_out_likelihood(
    config: Any, members: Members, target: Tensor, weights: Tensor, fold: Int[Tensor, " row"]
) -> Float[Tensor, "rule row"]:
    """Log-likelihood of each row under each rule, fitted without the row's part of the groups."""
    rules = len(_mixed.names(members.kind))
    found = torch.zeros(rules, len(target), dtype=torch.float64)
    for number in range(int(fold.max()) + 1):
        at = fold == number
        numbers = _mixed.fit_rules(members.rows(~at), target[~at], weights[~at], config.prior_rows)
        found[:, at] = _mixed.log_likelihood(numbers, members.rows(at), target[at])
    return found


def bootstrap_shares(
    config: Any, foreseen: Float[Tensor, "rule row"], group: Int[Tensor, " row"]
) -> Float[Tensor, " rule"]:
    """Share of the draws over groups in which each rule is best; rules that tie share a draw.

    >>> config = Rule.Config()
    >>> always = torch.tensor([[0.0, 0.0, 0.0], [-1.0, -1.0, -1.0]])
    >>> bootstrap_shares(config, always, torch.arange(3)).tolist()
    [1.0, 0.0]
    >>> bootstrap_shares(config, torch.zeros(2, 3), torch.arange(3)).tolist()
    [0.5, 0.5]
    """
    count = int(group.max()) + 1
    by_group = torch.zeros(len(foreseen), count, dtype=torch.float64)
    by_group.index_add_(1, group, foreseen.double())
    # A flat Dirichlet is a row of exponentials over their sum, which no comparison needs.
    uniform = torch.rand(
        config.draws,
        count,
        generator=torch.Generator().manual_seed(config.seed),
        dtype=torch.float64,
    )
    totals = -(1 - uniform).log() @ by_group.T
    best = totals.amax(1, keepdim=True)
    winners = (totals >= best - 1e-12 * best.abs()).double()
    return (winners / winners.sum(1, keepdim=True)).mean(0)
