"""A weight for every member and class.

    p(k | row)  ~  exp( sum_m w_mk log p_m(k | row) + b_k ),   w_mk >= 0

A voice tells anger from the rest while a face tells joy: each class may listen to another member. Fitted like
the log pool, by NLL, and shrunk towards it; multi-label tasks have their weights per label
already, here one for no and one for yes. Values have no classes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fusion.late import _pool
from fusion.late._rule import LateRule, Part
from fusion.late.members import Members


class Rule(LateRule):
    """Weights [member, class] and bias."""

    kinds = ("classification", "multilabel")

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """How the weights are fitted."""

        bias: bool = False
        """Fit one offset a class."""

        shrinkage: float = 100.0
        """Pull of a member's weights towards one for all classes, in rows' worth of evidence [>= 0]."""

        def __post_init__(self) -> None:
            if self.shrinkage < 0:
                raise ValueError(f"per_class: shrinkage is 0 or more, came {self.shrinkage}")

    @classmethod
    def fit_part(
        cls, config: Any, members: Members, target: Tensor, weights: Tensor
    ) -> dict[str, Tensor]:
        """Weights [member, class] and bias [class]."""
        problem = _pool.Problem(
            kind=members.kind,
            scores=members.scores,
            present=members.present,
            target=target,
            weights=weights,
            strength=1.0,
            class_strength=config.shrinkage,
            tied=False,
            bias=config.bias,
        )
        found, bias = _pool.solve(problem)
        return {"weights": found, "bias": bias}

    def combine_part(self, part: Part, members: Members) -> Tensor:
        """[row class]: normalised log-probabilities."""
        z = _pool.pool(part["weights"], part["bias"], members.scores, members.present)
        return torch.log_softmax(z, -1)

    def part_shares(self, part: Part) -> Tensor:
        """Mean over the classes."""
        return part["weights"].mean(1)
