"""Log-linear pool, the default rule.

    p(k | row)  ~  exp( sum_m w_m log p_m(k | row) + b_k ),   w_m >= 0

The weights are free: their sum is the inverse temperature, so that calibration comes with the fusion. They
are fitted by NLL on rows the members did not train on and shrunk towards equal weights. The bias is fitted
only on request: where members used class weights or balanced sampling. In a multi-label task every label has
its own weights; a regression is pooled as sum_m w_m v_m (+ b) by squared error.

Genest and Zidek, Statistical Science 1986, https://doi.org/10.1214/ss/1177013825.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fusion.late import _pool
from fusion.late._rule import LateRule, Part
from fusion.late.members import Members


class Rule(LateRule):
    """Weights and bias of the pool."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """How the pool is fitted."""

        fitted: bool = True
        """False: every member has weight 1 / members, and no row is looked at."""

        bias: bool = False
        """Fit one offset a class."""

        shrinkage: float = 1.0
        """Pull towards equal weights, in rows' worth of evidence [>= 0]."""

        def __post_init__(self) -> None:
            if self.shrinkage < 0:
                raise ValueError(f"log_pool: shrinkage is 0 or more, came {self.shrinkage}")

    @classmethod
    def fit_part(
        cls, config: Any, members: Members, target: Tensor, weights: Tensor
    ) -> dict[str, Tensor]:
        """Weights [member, 1] and bias [class]."""
        if not config.fitted:
            even = torch.full((len(members.names), 1), 1 / len(members.names), dtype=torch.float64)
            return {"weights": even, "bias": torch.zeros(members.outputs, dtype=torch.float64)}
        problem = _pool.Problem(
            kind=members.kind,
            scores=members.scores,
            present=members.present,
            target=target,
            weights=weights,
            strength=config.shrinkage,
            bias=config.bias,
        )
        pooled, bias = _pool.solve(problem)
        return {"weights": pooled, "bias": bias}

    def combine_part(self, part: Part, members: Members) -> Tensor:
        """[row outputs]: normalised log-probabilities, or values."""
        z = _pool.pool(part["weights"], part["bias"], members.scores, members.present)
        return z if members.kind == "regression" else torch.log_softmax(z, -1)

    def part_shares(self, part: Part) -> Tensor:
        """Weights as fitted."""
        return part["weights"][:, 0]
