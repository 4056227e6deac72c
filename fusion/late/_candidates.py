"""Many weightings of the same members, scored at once.

A candidate is a fused prediction. Log loss under a linear pool needs the probability of the true class only
(member x row); a sum of logarithms is taken as the logarithm of products of eight, so that one logarithm
serves eight rows; right or wrong needs all classes. Any other metric is scored candidate by candidate.
`screen` ranks candidates in float32, `losses` is exact.

Shapes: candidate, member, row, column (class, or 1 where the true class suffices).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from fusion.late.members import FLOOR, Members
from fusion.metrics import metric as find_metric

Space = Literal["linear", "log"]
FACTORS = 8  # 1e-15 to the eighth is 1e-120: far from the smallest float64
SCREEN_FACTORS = 2  # 1e-30 is still a normal float32
CHUNK = 4_000_000
"""Numbers of the fused predictions held at once."""

SCREEN_CHUNK = 200_000
"""The same while screening: small enough to stay in a core's cache."""


@dataclass(frozen=True, kw_only=True)
class CandidateLosses:
    """Losses of candidate weightings of the same members, for one metric."""

    members: Members
    """Clean; every row has a member."""

    target: Shaped[Tensor, " row"]
    weights: Float[Tensor, " row"]
    metric: str
    space: Space = "linear"

    def __post_init__(self) -> None:
        found = find_metric(self.metric)
        if found.kind != self.members.kind:
            raise ValueError(
                f"metric {self.metric} is for {found.kind}, the members are for {self.members.kind}"
            )

    @cached_property
    def columns_only(self) -> bool:
        """Whether the true class's probabilities suffice."""
        return self.metric == "nll" and self.space == "linear"

    @cached_property
    def terms(self) -> Float[Tensor, "member row column"]:
        """The averaged terms: probabilities (of the true class alone), log-probabilities or values."""
        scores = self.members.scores
        if self.members.kind == "regression":
            return scores
        if self.columns_only:
            truth = self.target.expand(len(scores), -1).unsqueeze(2)
            scores = scores.gather(2, truth)
        # Floored here once: no mean of floored probabilities lies below the floor.
        return scores if self.space == "log" else scores.exp().clamp_(min=FLOOR)

    @cached_property
    def gaps(self) -> Bool[Tensor, "member row"] | None:
        """Where members are absent; None if they never are."""
        return None if bool(self.members.present.all()) else ~self.members.present

    @cached_property
    def sums(self) -> tuple[Float[Tensor, "member row column"], Float[Tensor, "member row"]]:
        """Terms and counts as they enter running sums: zero where absent."""
        there = self.members.present.double()
        if self.gaps is None:
            return self.terms, there
        return self.terms * there.unsqueeze(2), there

    @cached_property
    def fallback(self) -> Float[Tensor, "row column"]:
        """Equal weights, for a row of which no present member has a weight."""
        terms, there = self.sums
        return terms.sum(0) / there.sum(0).unsqueeze(1)

    def losses(self, weights: Float[Tensor, "candidate member"]) -> Float[Tensor, " candidate"]:
        """Loss of each weighting (rows of non-negative weights), lower is better."""
        terms, there = self.sums
        rows, columns = terms.shape[1:]
        chunk = max(1, CHUNK // (rows * columns))
        found = []
        for part in torch.split(weights, chunk):
            total = (part @ terms.reshape(len(terms), -1)).reshape(len(part), rows, columns)
            if self.gaps is None:
                mean = total / part.sum(1)[:, None, None]
            else:
                mean = self.divide(total, part @ there)
            found.append(self.judge(mean))
        return torch.cat(found)

    @cached_property
    def _screened(self) -> Float[Tensor, "member column row"]:
        return self.sums[0].transpose(1, 2).float().contiguous()

    def screen(self, weights: Float[Tensor, "candidate member"]) -> Float[Tensor, " candidate"]:
        """Losses to about six digits, several times as fast where the metric allows it."""
        if self.gaps is not None or not self._even or self.metric not in ("nll", "accuracy"):
            return self.losses(weights)
        columns, rows = self._screened.shape[1:]
        flat = self._screened.reshape(len(self._screened), -1)
        simplex = (weights / weights.sum(1, keepdim=True)).float()
        found = []
        for part in torch.split(simplex, max(1, SCREEN_CHUNK // (rows * columns))):
            fused = part @ flat
            if self.columns_only:
                found.append(_mean_negative_log(fused, SCREEN_FACTORS))
                continue
            fused = fused.reshape(len(part), columns, rows)
            truth = fused.gather(1, self.target.expand(len(part), 1, -1)).squeeze(1)
            if self.metric == "nll":
                found.append((fused.logsumexp(1) - truth).mean(1))
            else:
                found.append(1 - (truth >= fused.amax(1)).float().mean(1))
        return torch.cat(found).double()

    def divide(self, total: Tensor, count: Tensor) -> Float[Tensor, "candidate row column"]:
        """Means of what is present; equal weights where nothing is."""
        share = total / count.clamp(min=1e-300).unsqueeze(-1)
        return torch.where(count.unsqueeze(-1) > 0, share, self.fallback)

    def judge(self, fused: Float[Tensor, "candidate row column"]) -> Float[Tensor, " candidate"]:
        """Loss of fused predictions."""
        return self._judge(fused)

    def log_losses(
        self, fused: Float[Tensor, "candidate row column"]
    ) -> Float[Tensor, " candidate"]:
        """NLL of fused predictions, whichever metric is chosen."""
        if self.space == "log":
            return self._log_space_nll(fused)
        if not self.columns_only:
            fused = fused.gather(2, self.target.expand(len(fused), -1).unsqueeze(2))
        return self._mean_negative_log(fused.squeeze(2))

    @cached_property
    def _judge(self) -> Callable[[Tensor], Tensor]:
        if self.metric == "nll":
            return self.log_losses
        if self.metric == "accuracy":
            return self._error_rate
        if self.metric in ("mae", "mse", "rmse"):
            return self._error
        return self._one_by_one

    def _mean_negative_log(self, truth: Tensor) -> Tensor:
        if not self._even:
            return -(truth.log() @ self.weights) / self.weights.sum()
        return _mean_negative_log(truth, FACTORS)

    @cached_property
    def _even(self) -> bool:
        return bool((self.weights == self.weights[0]).all())

    def _log_space_nll(self, fused: Tensor) -> Tensor:
        log_p = torch.log_softmax(fused, 2)
        truth = self.target.expand(len(fused), -1).unsqueeze(2)
        return -(log_p.gather(2, truth).squeeze(2) @ self.weights) / self.weights.sum()

    def _error_rate(self, fused: Tensor) -> Tensor:
        right = (fused.argmax(2) == self.target).double()
        return 1 - (right @ self.weights) / self.weights.sum()

    def _error(self, fused: Tensor) -> Tensor:
        error = fused.squeeze(2) - self.target
        error = error.abs() if self.metric == "mae" else error.square()
        mean = (error @ self.weights) / self.weights.sum()
        return mean.sqrt() if self.metric == "rmse" else mean

    def _one_by_one(self, fused: Tensor) -> Tensor:
        found = find_metric(self.metric)
        if self.members.kind == "classification":
            fused = torch.softmax(fused, 2) if self.space == "log" else fused
        else:
            fused = fused.squeeze(2)
        each = [found.loss(found(p, self.target, self.weights)) for p in fused]
        return torch.tensor(each, dtype=torch.float64).nan_to_num(torch.inf)


def _mean_negative_log(values: Tensor, factors: int) -> Tensor:
    """Mean of -log over the last axis, by logarithms of products of so many values."""
    whole = values.shape[1] // factors * factors
    product = values[:, :whole].reshape(len(values), factors, -1)
    while product.shape[1] > 1:
        half = product.shape[1] // 2
        product = product[:, :half] * product[:, half:]
    logs = product.log().sum((1, 2)) + values[:, whole:].log().sum(1)
    return -logs / values.shape[1]


def default_loss(members: Members) -> str:
    """Log loss for classes, squared error for values."""
    return "mse" if members.kind == "regression" else "nll"
