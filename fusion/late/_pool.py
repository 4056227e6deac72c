"""The solver of pools: non-negative weights and a bias, by projected Newton in float64.

Scores of class k in row i are pooled as

    z_ik = S_k * (sum_m w_mk a_im l_imk) / (sum_m w_mk a_im) + b_k,   S_k = sum_m w_mk

with l the members' scores and a their presence, so that an absent member hands its share to the others while
the total S_k (the inverse temperature) stays. Without gaps this is sum_m w_mk l_imk + b_k, the loss is
convex, and each step is an exact Newton step; with gaps it is Gauss-Newton. `tied` weights are the same in
all classes.

Loss: cross-entropy of softmax(z), or squared error over twice the targets' variance; mean over the rows'
weights, plus strength / rows * (spread of the members' w around their mean, and size of b), so that few rows
leave the weights equal, plus total_strength / (2 rows) * (S - 1)^2, which draws the temperature to 1.

Shapes: member, row, class, parameter.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from fusion.tasks import Kind

CHUNK = 2_000_000
"""Numbers of the Jacobian held at once."""

STEPS = 60
TOLERANCE = 1e-10
ANCHOR = 1e-6
"""Pull of the mean weight towards an even pool: it decides only where the data say nothing."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One pool to fit."""

    kind: Kind
    scores: Float[Tensor, "member row class"]
    present: Bool[Tensor, "member row"]
    target: Shaped[Tensor, " row"]
    weights: Float[Tensor, " row"]
    strength: float
    """Pull of the members' weights towards each other, in rows."""

    class_strength: float = 1.0
    """Pull of a member's weights in different classes towards each other, in rows."""

    total_strength: float = 0.0
    """Pull of the members' total weight (the inverse temperature) to 1, in rows; of tied weights."""

    tied: bool = True
    bias: bool = False

    @property
    def num_weights(self) -> int:
        """Free weights: one a member, or one a member and class."""
        return len(self.scores) * (1 if self.tied else self.scores.shape[2])

    @property
    def size(self) -> int:
        """All parameters."""
        return self.num_weights + (self.scores.shape[2] if self.bias else 0)

    @cached_property
    def pull(self) -> Tensor:
        """The shrinkage as a quadratic form [parameter parameter] around equal weights and no bias."""
        count, members, mass = self.num_weights, len(self.scores), self.weights.sum()
        free = count // members
        same = torch.full(
            (free, free), 1 / free, dtype=torch.float64
        )  # mean over a member's classes
        between = torch.kron(torch.eye(members, dtype=torch.float64) - 1 / members, same)
        within = torch.kron(torch.eye(members, dtype=torch.float64), torch.eye(free) - same)
        to_others = max(self.strength, ANCHOR)
        quadratic = 2 * to_others * torch.eye(self.size, dtype=torch.float64) / mass
        quadratic[:count, :count] = 2 * (to_others * between + self.class_strength * within) / mass
        quadratic[:count, :count] += 2 * ANCHOR / count + self.total_strength / mass / free**2
        return quadratic

    @cached_property
    def scale(self) -> Tensor:
        """Variance of the targets of a regression."""
        return self.target.double().var(correction=0).clamp(min=1e-300)

    def unpack(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Weights [member, 1 or class] and bias [class]."""
        classes = self.scores.shape[2]
        weights = theta[: self.num_weights].reshape(len(self.scores), -1)
        bias = theta[self.num_weights :] if self.bias else theta.new_zeros(classes)
        return weights, bias


class Evaluated(NamedTuple):
    """The objective at some parameters, its gradient [parameter] and Hessian [parameter parameter]."""

    theta: Tensor
    value: Tensor
    gradient: Tensor
    curvature: Tensor


def solve(problem: Problem) -> tuple[Float[Tensor, "member free"], Float[Tensor, " class"]]:
    """Weights [member, 1] (tied) or [member, class] and bias [class] at the minimum."""
    theta = torch.zeros(problem.size, dtype=torch.float64)
    theta[: problem.num_weights] = 1 / len(problem.scores)
    bounded = torch.arange(problem.size) < problem.num_weights
    at = _evaluate(problem, theta)
    for _ in range(STEPS):
        free = ~(bounded & (at.theta <= 1e-12) & (at.gradient > 0))
        if at.gradient[free].abs().max().item() < TOLERANCE if free.any() else True:
            break
        better = _line_search(problem, at, _newton_step(at, free), bounded)
        if better is None:
            break
        at = better
    return problem.unpack(at.theta)


def pool(
    weights: Float[Tensor, "member free"],
    bias: Float[Tensor, " class"],
    scores: Float[Tensor, "member row class"],
    present: Bool[Tensor, "member row"],
) -> Float[Tensor, "row class"]:
    """The z of the formula above, not normalised over classes."""
    return _pooled(weights, scores, present)[0] + bias


def _pooled(weights: Tensor, scores: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """S * mean, the mean [row class], and each member's share [member row 1-or-class]."""
    given = weights.unsqueeze(1) * present.unsqueeze(2)
    total = given.sum(0)
    alike = present.to(given.dtype).unsqueeze(2).expand_as(given)
    given = torch.where(total > 0, given, alike)
    share = given / given.sum(0).clamp(min=1e-300)
    mean = (share * scores).sum(0)
    return weights.sum(0) * mean, mean, share


def _jacobian(problem: Problem, theta: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """Pooled z [row class] and dz / dtheta [row class parameter]."""
    weights, bias = problem.unpack(theta)
    scores, present = problem.scores[:, rows], problem.present[:, rows]
    pooled, mean, _ = _pooled(weights, scores, present)
    total = weights.sum(0)
    there = (weights.unsqueeze(1) * present.unsqueeze(2)).sum(0)
    pull = torch.where(there > 0, total / there.clamp(min=1e-300), 0.0)
    slope = mean + pull * present.unsqueeze(2) * (scores - mean)  # [member row class]
    count, classes = slope.shape[1:]
    if problem.tied:
        jacobian = slope.permute(1, 2, 0)
    else:
        jacobian = torch.diag_embed(slope.permute(1, 0, 2))  # [row member class class]
        jacobian = jacobian.transpose(1, 2).reshape(count, classes, -1)
    if problem.bias:
        eye = torch.eye(classes, dtype=torch.float64).expand(count, classes, classes)
        jacobian = torch.cat([jacobian, eye], 2)
    return pooled + bias, jacobian


def _evaluate(problem: Problem, theta: Tensor) -> Evaluated:
    """Objective, gradient and (Gauss-Newton) Hessian."""
    rows, classes = problem.scores.shape[1:]
    mass = problem.weights.sum()
    value, gradient = _penalty(problem, theta)
    curvature = problem.pull
    chunk = max(1, CHUNK // max(1, classes * max(problem.size, len(problem.scores))))
    for start in range(0, rows, chunk):
        part = slice(start, start + chunk)
        z, jacobian = _jacobian(problem, theta, part)
        loss, residual, metric = _loss(problem, z, part)
        weight = problem.weights[part] / mass
        value = value + loss @ weight
        gradient = gradient + torch.einsum("r,rk,rkp->p", weight, residual, jacobian)
        if problem.kind != "regression":  # the softmax sees differences between classes only
            jacobian = jacobian - (metric.unsqueeze(2) * jacobian).sum(1, keepdim=True)
        scaled = (jacobian * (metric * weight.unsqueeze(1)).sqrt().unsqueeze(2)).flatten(0, 1)
        curvature = curvature + scaled.T @ scaled
    return Evaluated(theta, value, gradient, curvature)


def _objective(problem: Problem, theta: Tensor) -> Tensor:
    weights, bias = problem.unpack(theta)
    z = pool(weights, bias, problem.scores, problem.present)
    loss = _loss(problem, z, slice(None))[0]
    return loss @ problem.weights / problem.weights.sum() + _penalty(problem, theta)[0]


def _loss(problem: Problem, z: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Loss [row], its gradient in z [row class], and the diagonal metric of its curvature."""
    target = problem.target[rows]
    if problem.kind == "regression":
        error = z.squeeze(1) - target
        slope = (error / problem.scale).unsqueeze(1)
        return error.square() / (2 * problem.scale), slope, torch.ones_like(slope) / problem.scale
    log_p = torch.log_softmax(z, 1)
    truth = torch.nn.functional.one_hot(target.long(), z.shape[1])
    return -log_p.gather(1, target.long().unsqueeze(1)).squeeze(1), log_p.exp() - truth, log_p.exp()


def _penalty(problem: Problem, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Shrinkage of the weights towards their mean and of the bias towards zero, and its gradient."""
    away = theta.clone()
    away[: problem.num_weights] -= 1 / len(problem.scores)
    gradient = problem.pull @ away
    return away @ gradient / 2, gradient


def _newton_step(at: Evaluated, free: Tensor) -> Tensor:
    step = torch.zeros_like(at.gradient)
    inner = at.curvature[free][:, free]
    ridge = 1e-12 * inner.diagonal().mean().clamp(min=1e-300)
    step[free] = -torch.linalg.solve(
        inner + ridge * torch.eye(len(inner), dtype=inner.dtype), at.gradient[free]
    )
    return step


def _line_search(
    problem: Problem, at: Evaluated, step: Tensor, bounded: Tensor
) -> Evaluated | None:
    """The first halving of the step that lowers the objective enough; None if none does."""
    for halvings in range(40):
        moved = at.theta + step / 2**halvings
        moved = torch.where(bounded, moved.clamp(min=0.0), moved)
        decrease = at.gradient @ (moved - at.theta)
        bound = at.value + 1e-4 * decrease
        if decrease >= 0 or (halvings and _objective(problem, moved) > bound):
            continue
        # Mostly the whole step is taken: then its value comes with the gradient that is needed next.
        found = _evaluate(problem, moved)
        if halvings or found.value <= bound:
            return found
    return None
