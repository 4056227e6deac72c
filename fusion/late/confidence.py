"""Weights of the members for each row, by their confidence in it.

    p(k | row) = sum_m c_m p_m(k | row) / sum_m c_m,   c_m = confidence_m(row)^power

entropy: 1 - H(p) / log(classes). margin: the largest probability less the second. max_prob: how far the
largest lies above chance, (p - 1/K) / (1 - 1/K). All run from 0 to 1. The power is fitted by NLL (0 is the
mean, a large one picks the surest) unless it is given. Members must be comparably calibrated. Values have no
confidence.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fusion.late._rule import LateRule, Part
from fusion.late.members import FLOOR, Members

POWERS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 64.0)
Measure = Literal["entropy", "margin", "max_prob"]


class Rule(LateRule):
    """The power, and the mean share of each member."""

    kinds = ("classification", "multilabel")

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Measure of confidence, and its power."""

        measure: Measure = "entropy"
        power: float | None = None
        """None: the best of a grid from 0 to 64 by NLL."""

        def __post_init__(self) -> None:
            if self.power is not None and self.power < 0:
                raise ValueError(f"confidence: power is 0 or more, came {self.power}")

    @classmethod
    def fit_part(
        cls, config: Any, members: Members, target: Tensor, weights: Tensor
    ) -> dict[str, Tensor]:
        """The power [1] and the mean share of each member [member]."""
        powers = POWERS if config.power is None else (config.power,)
        losses = []
        for power in powers:
            log_p = _mixed(members, _trust(members, config.measure, power))
            truth = log_p.gather(1, target.unsqueeze(1)).squeeze(1)
            losses.append(-float(truth @ weights))
        power = powers[losses.index(min(losses))]
        trust = _trust(members, config.measure, power)
        return {
            "power": torch.tensor([power], dtype=torch.float64),
            "listened": trust @ weights / weights.sum(),
        }

    def combine_part(self, part: Part, members: Members) -> Tensor:
        """[row class]: log of the mixture."""
        return _mixed(members, _trust(members, self.config.measure, float(part["power"][0])))

    def part_shares(self, part: Part) -> Tensor:
        """Mean share over the fitting rows."""
        return part["listened"]


def _trust(members: Members, measure: Measure, power: float) -> Tensor:
    """[member row]: shares that sum to 1 over the present members."""
    p = members.scores.exp()
    classes = torch.tensor(float(members.outputs), dtype=torch.float64)
    if measure == "entropy":
        sure = 1 + (p * members.scores).sum(2) / classes.log()
    elif measure == "margin":
        top = p.topk(2, dim=2).values
        sure = top[..., 0] - top[..., 1]
    else:
        sure = (p.amax(2) - 1 / classes) / (1 - 1 / classes)
    # A row where nobody is sure of anything is shared alike.
    weight = sure.clamp(min=1e-6).pow(power) * members.present
    return weight / weight.sum(0).clamp(min=1e-300)


def _mixed(members: Members, trust: Tensor) -> Tensor:
    mixed = (trust.unsqueeze(2) * members.scores.exp()).sum(0).clamp(min=FLOOR)
    return (mixed / mixed.sum(1, keepdim=True)).log()
