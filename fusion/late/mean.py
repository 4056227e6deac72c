"""Mean of probabilities (soft vote), or of values.

    p(k | row) = sum_m w_m p_m(k | row) / sum_m w_m

Nothing is fitted: weights are equal unless they are given. Multi-label: mean of each label's probability.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fusion.late._rule import LateRule, Part
from fusion.late.members import FLOOR, Members, shares


class Rule(LateRule):
    """Given or equal weights."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Which weights."""

        weights: tuple[float, ...] = ()
        """One a member, in the members' order; empty for equal weights."""

        def __post_init__(self) -> None:
            if any(weight < 0 for weight in self.weights):
                raise ValueError(f"mean: weights are 0 or more, came {self.weights}")

    @classmethod
    def fit_part(
        cls, config: Any, members: Members, target: Tensor, weights: Tensor
    ) -> dict[str, Tensor]:
        """The weights [member], summing to 1."""
        return {"weights": given_weights(cls.name(), config.weights, members)}

    def combine_part(self, part: Part, members: Members) -> Tensor:
        """[row outputs]: log of the mean probability, or the mean value."""
        return linear_pool(part["weights"], members)

    def part_shares(self, part: Part) -> Tensor:
        """The weights."""
        return part["weights"]


def given_weights(rule: str, weights: tuple[float, ...], members: Members) -> Tensor:
    """Weights [member] summing to 1; equal where none are given.

    Raises:
        ValueError: another number of weights than of members, or only zeros.
    """
    if not weights:
        return torch.full((len(members.names),), 1 / len(members.names), dtype=torch.float64)
    if len(weights) != len(members.names) or sum(weights) <= 0:
        raise ValueError(
            f"{rule}: weights {weights} for the members {', '.join(members.names)}; expected one "
            "each, not all zero"
        )
    given = torch.tensor(weights, dtype=torch.float64)
    return given / given.sum()


def linear_pool(weights: Tensor, members: Members) -> Tensor:
    """[row outputs]: weighted mean of values, or log of the weighted mean of probabilities."""
    share = shares(weights, members.present).unsqueeze(2)
    if members.kind == "regression":
        return (share * members.scores).sum(0)
    mixed = (share * members.scores.exp()).sum(0).clamp(min=FLOOR)
    return (mixed / mixed.sum(1, keepdim=True)).log()
