"""Product of experts: what Bayes' rule gives for members that err independently.

    p(k | row)  ~  prod_m p_m(k | row) / prior(k)^(present members - 1)

With the prior uniform this is the plain product. For a regression the experts are Gaussians around their
values, with the spread that each showed on the fitting rows: the mean weighted by precision.

Kittler et al., PAMI 1998, https://doi.org/10.1109/34.667881.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fusion.late._rule import LateRule, Part
from fusion.late.members import Members, shares


class Rule(LateRule):
    """The prior of the classes, or the precisions of the experts."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Which prior."""

        prior: Literal["uniform", "fitted"] = "uniform"
        """`fitted`: class frequencies of the fitting rows, one row added to each class."""

    @classmethod
    def fit_part(
        cls, config: Any, members: Members, target: Tensor, weights: Tensor
    ) -> dict[str, Tensor]:
        """log_prior [class] and precision [member]."""
        count = len(members.names)
        log_prior = torch.zeros(members.outputs, dtype=torch.float64)
        precision = torch.ones(count, dtype=torch.float64)
        if members.kind == "regression":
            error = (members.scores.squeeze(2) - target).square() * members.present * weights
            seen = (members.present * weights).sum(1)
            # A member that was never there counts as one of middling precision.
            variance = error.sum(1) / seen.clamp(min=1e-300)
            middle = variance[seen > 0].median().clamp(min=1e-12)
            precision = 1 / torch.where(seen > 0, variance, middle).clamp(min=1e-12 * middle)
        elif config.prior == "fitted":
            counts = torch.bincount(target, weights, members.outputs) + 1
            log_prior = (counts / counts.sum()).log()
        return {"log_prior": log_prior, "precision": precision}

    def combine_part(self, part: Part, members: Members) -> Tensor:
        """[row outputs]: normalised log-probabilities, or values."""
        if members.kind == "regression":
            share = shares(part["precision"], members.present).unsqueeze(2)
            return (share * members.scores).sum(0)
        experts = members.present.sum(0).unsqueeze(1)
        return torch.log_softmax(members.scores.sum(0) - (experts - 1) * part["log_prior"], -1)

    def part_shares(self, part: Part) -> Tensor:
        """Equal for classes, precisions for values."""
        return part["precision"]
