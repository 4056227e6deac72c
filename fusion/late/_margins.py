"""Error rates of many sums at once, from the margin of each other class over the true one.

    a row is right  <=>  max over k != y of (s_k - s_y) < 0,      s = a sum of members

The margins of every member are laid out once, class by class over all rows, in float32. One more member is an
addition and a maximum; rows whose largest margin lies within the rounding error of zero are decided again in
float64, so that the answer is that of the exact sums. Between two weightings each margin is a straight line,
so a row is right on one stretch of it: where it begins and ends gives the error rate of every weighting
in between (the line search of Och, ACL 2003, https://doi.org/10.3115/1075096.1075117, for 0/1 loss).

Shapes: member, row, class, candidate (a member that may be added), line, point.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fusion.late._candidates import SCREEN_CHUNK, CandidateLosses

ROUNDING = 2.0**-22
"""Rounding error of a float32 sum of a few terms, relative to the largest of them."""


class ClassMargins:
    """Margins of the other classes over the true one, for each member.

    Args:
        objective: the losses of a classification in which every member is present.
    """

    def __init__(self, objective: CandidateLosses) -> None:
        terms, _ = objective.sums
        own = objective.target.expand(len(terms), 1, -1)
        self.objective = objective
        self.margins = terms.float().transpose(1, 2).contiguous()
        self.margins -= self.margins.gather(1, own)
        self.scale = 3 * float(terms.abs().max())
        self.room = torch.empty_like(self.margins)
        self.even = bool((objective.weights == objective.weights[0]).all())

    def errors(self, total: Float[Tensor, "row class"]) -> Float[Tensor, " candidate"]:
        """Error rate with each member added to the sum of those chosen."""
        target, weights = self.objective.target, self.objective.weights
        own = target.unsqueeze(1)
        ahead = total - total.gather(1, own)
        unsure = ROUNDING * (float(ahead.abs().max()) + self.scale)
        ahead = ahead.scatter_(1, own, -torch.inf).T.float().contiguous()
        largest = torch.add(self.margins, ahead, out=self.room).amax(1)
        # NumPy compares and counts several times as fast as torch does.
        right = largest.numpy() < -unsure
        if float(largest.abs().min()) <= unsure:
            member, row = (largest.abs() <= unsure).nonzero(as_tuple=True)
            fused = total[row] + self.objective.sums[0][member, row]
            right[member.numpy(), row.numpy()] = (fused.argmax(1) == target[row]).numpy()
        if self.even:
            count = torch.tensor([np.count_nonzero(of_member) for of_member in right])
            return 1 - count.double() / len(weights)
        return 1 - torch.from_numpy(right).double() @ weights / weights.sum()

    def along(
        self,
        start: Float[Tensor, " member"],
        ends: Float[Tensor, "line member"],
        points: int,
    ) -> Float[Tensor, "line point"]:
        """Error rates of (1 - t) start + t end, t = 0, 1 / (points - 1), ..., 1, but for rounding of ties."""
        count, classes, rows = self.margins.shape
        flat = self.margins.reshape(count, -1)
        here = self._without_own((start.float() @ flat).reshape(1, classes, rows))
        found = []
        for part in torch.split(ends.float(), max(1, SCREEN_CHUNK // (classes * rows))):
            there = self._without_own((part @ flat).reshape(len(part), classes, rows))
            # A margin falls or rises along the line; it is zero at this share of it.
            cross = here / (here - there)
            first = torch.where(here < 0, -1.0, torch.where(there < 0, cross, 2.0)).amax(1)
            last = torch.where((here < 0) & (there >= 0), cross, 2.0).amin(1)
            found.append(self._counted(first, last, points))
        return torch.cat(found)

    def _without_own(self, margins: Float[Tensor, "line class row"]) -> Tensor:
        """The true class has no margin over itself: set it below zero."""
        own = self.objective.target.expand(len(margins), 1, -1)
        return margins.scatter_(1, own, -1.0)

    def _counted(
        self, first: Float[Tensor, "line row"], last: Float[Tensor, "line row"], points: int
    ) -> Float[Tensor, "line point"]:
        """Error rates at evenly spaced points where rows are right strictly between two of them."""
        weights = self.objective.weights / self.objective.weights.sum()
        steps = points - 1
        begin = (first * steps).floor_().add_(1).clamp_(0, points).long()
        end = (last * steps).ceil_().clamp_(0, points).long()
        end = torch.maximum(begin, end)
        change = torch.zeros(len(first), points + 1, dtype=torch.float64)
        share = weights.expand(len(first), -1)
        change.scatter_add_(1, begin, share).scatter_add_(1, end, -share)
        return 1 - change.cumsum(1)[:, :points]
