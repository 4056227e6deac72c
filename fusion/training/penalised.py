"""Linear models with an L2 penalty: exact solutions along a path of penalties, and their held-out loss.

    min over W, b:   sum_ik y_ik (-log softmax_k(x_i W + b)) + penalty / 2 ||W||^2       sum_ik y_ik = 1
    min over w, b:   1 / n sum_i (y_i - x_i w - b)^2 + penalty ||w||^2

Rows are rotated first, X = Z V' with Z'Z diagonal, to min(rows, features) coordinates: by the representer
theorem the solution in Z is the one in X, and the diagonal preconditions L-BFGS. All folds, and all labels
of a multi-label task, are separate problems that are solved in one batch.

Shapes: row, feature, coordinate, problem, outputs, path.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

CLOSE, EXACT = 1e-4, 1e-7
"""Largest entry of the preconditioned gradient of solutions that choose a penalty, and of the final one."""

MOST_STEPS = 1000
"""Of L-BFGS."""

DEGENERATE = 1e-12
"""Directions with less than this share of the largest variance are dropped."""

WORSE_IN_A_ROW = 2
"""After so many penalties with a loss above the best, weaker ones are not tried."""


@dataclass(frozen=True, kw_only=True)
class Rotated:
    """Rows in coordinates whose Gram matrix is diagonal."""

    design: Float[Tensor, "row coordinate"]
    """The last coordinate is 1 in every row: the bias."""

    variance: Float[Tensor, " coordinate"]
    """Mean square of each."""

    back: Callable[[Tensor], Tensor]
    """Weights of all coordinates but the last -> weights of the features."""

    centre: Float[Tensor, " feature"]

    @property
    def total(self) -> float:
        """Sum of the features' variances."""
        return float(self.variance[:-1].sum())

    def single(self) -> "Rotated":
        """In single precision."""
        return replace(self, design=self.design.float(), variance=self.variance.float())

    def weights(self, found: Float[Tensor, "coordinate outputs"]) -> tuple[Tensor, Tensor]:
        """Weights [feature outputs] and bias [outputs] of the features as they came."""
        weight = self.back(found[:-1])
        return weight, found[-1] - self.centre @ weight


def rotate(rows: Float[Tensor, "row feature"]) -> Rotated:
    """Centre the rows and rotate them to their principal axes.

    Args:
        rows: float64, at least one.
    """
    count, width = rows.shape
    centre = rows.mean(0)
    rows = rows - centre
    wide = width > count
    squares, vectors = torch.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    kept = squares > DEGENERATE * squares.amax().clamp(min=1e-300)
    squares, vectors = squares[kept], vectors[:, kept]
    if wide:
        length = squares.sqrt()
        design = vectors * length

        def back(found: Tensor) -> Tensor:
            along: Tensor = rows.T @ (vectors @ (found / length.unsqueeze(1)))
            return along
    else:
        design = rows @ vectors

        def back(found: Tensor) -> Tensor:
            along: Tensor = vectors @ found
            return along

    ones = torch.ones(count, 1, dtype=rows.dtype)
    variance = torch.cat([squares / count, ones[0]])
    return Rotated(design=torch.cat([design, ones], 1), variance=variance, back=back, centre=centre)


def solve(
    rotated: Rotated,
    mass: Float[Tensor, "row problem outputs"],
    penalty: Float[Tensor, " problem"],
    start: Float[Tensor, "coordinate problem outputs"] | None = None,
    *,
    tolerance: float = EXACT,
) -> Float[Tensor, "coordinate problem outputs"]:
    """The minimum of several multinomial problems on the same rows.

    Args:
        rotated: the rows.
        mass: weight of a row times its target; 0 for rows that are not in a problem.
        penalty: of each problem.
        start: initial weights; by default zero, with the bias of the class frequencies.
        tolerance: see `EXACT`.
    """
    mass, unseen = mass.contiguous(), _half_a_row(mass)
    outputs = mass.shape[2]
    found = _at_shares(rotated, mass, unseen) if start is None else start
    strength = penalty.reshape(1, -1, 1).expand(len(found), -1, 1).clone()
    strength[-1] = 0
    curvature = (1 - 1 / outputs) / outputs * mass.sum((0, 2)).reshape(1, -1, 1)
    curved = curvature * rotated.variance.reshape(-1, 1, 1) + strength
    scale = curved.clamp(min=1e-12).rsqrt()  # a fold may leave a label without rows
    point = (found / scale).requires_grad_()
    optimiser = torch.optim.LBFGS(
        [point],
        max_iter=MOST_STEPS,
        max_eval=2 * MOST_STEPS,
        tolerance_grad=tolerance,
        tolerance_change=torch.finfo(mass.dtype).eps,
        history_size=20,
        line_search_fn="strong_wolfe",
    )
    total = mass.sum(2, keepdim=True)

    def value() -> Tensor:
        weights = scale * point.detach()
        log_p = _logits(rotated, weights).log_softmax(2)
        of_bias = weights[-1].log_softmax(1)
        loss = -(mass * log_p).sum() - (unseen * of_bias).sum()
        loss = loss + (strength * weights.square()).sum() / 2
        error = (total * log_p.exp() - mass).flatten(1)
        slope = (rotated.design.T @ error).reshape(weights.shape) + strength * weights
        slope[-1] += unseen.sum(1, keepdim=True) * of_bias.exp() - unseen
        point.grad = scale * slope
        return loss

    optimiser.step(value)  # type: ignore[no-untyped-call]
    return scale * point.detach()


def held_out_loss(
    rotated: Rotated,
    mass: Float[Tensor, "row problem outputs"],
    fold: Int[Tensor, " row"],
    path: Float[Tensor, " path"],
) -> tuple[Float[Tensor, "path problem"], Float[Tensor, "path coordinate problem outputs"]]:
    """Log loss of each problem on held-out rows, and the mean solution of the folds, by penalty.

    In single precision, to `CLOSE`: twice as fast, and a penalty that is chosen by it is the same.

    Args:
        rotated: the rows.
        mass: of all of them.
        fold: in which a row is held out; a penalty is relative to the weight of all rows in every fold.
        path: penalties, the strongest first: each solution is the start of the next.
    """
    rotated, mass, path = rotated.single(), mass.float(), path.float()
    _, problems, outputs = mass.shape
    number = int(fold.max()) + 1
    held = (fold.unsqueeze(1) == torch.arange(number)).to(mass.dtype)  # [row fold]
    # One problem for each fold and problem, folds outside: [row fold * problem outputs].
    seen = ((1 - held)[:, :, None, None] * mass.unsqueeze(1)).flatten(1, 2)
    judged = (held[:, :, None, None] * mass.unsqueeze(1)).flatten(1, 2)
    losses = torch.full((len(path), problems), torch.inf, dtype=mass.dtype)
    means: list[Tensor] = []
    found = None
    for at, penalty in enumerate(path):
        strength = penalty.repeat(number * problems)
        found = solve(rotated, seen, strength, found, tolerance=CLOSE)
        log_p = _logits(rotated, found).log_softmax(2)
        loss = -(judged * log_p).sum((0, 2)).reshape(number, problems)
        losses[at] = loss.sum(0)
        means.append(found.reshape(len(found), number, problems, outputs).mean(1))
        if at >= WORSE_IN_A_ROW and bool((losses[at - 1 : at + 1] > losses.amin(0)).all()):
            break
    means += [means[-1]] * (len(path) - len(means))
    return losses.double(), torch.stack(means).double()


def ridge(
    rotated: Rotated, target: Float[Tensor, " row"], penalty: Tensor
) -> Float[Tensor, " coordinate"]:
    """The closed solution of least squares."""
    correlated = rotated.design.T @ target / len(target)
    return correlated / (rotated.variance + _free_bias(rotated, penalty))


def held_out_error(
    rotated: Rotated,
    target: Float[Tensor, " row"],
    fold: Int[Tensor, " row"],
    path: Float[Tensor, " path"],
) -> Float[Tensor, " path"]:
    """Mean squared error of ridge on held-out rows by penalty, in closed form.

    The residuals of a fold f that is left out are (I - H_ff)^-1 (y - H y)_f, H the hat matrix of all rows.
    """
    number = int(fold.max()) + 1
    if number == 1:
        return torch.zeros_like(path)  # no row would be left to fit on
    errors = []
    for penalty in path:
        shrunk = rotated.variance + _free_bias(rotated, penalty)
        halved = rotated.design / (shrunk * len(target)).sqrt()
        residual = target - halved @ (halved.T @ target)
        squares = torch.zeros((), dtype=target.dtype)
        for each in range(number):
            rows = fold == each
            own = halved[rows] @ halved[rows].T
            squares += (
                torch.linalg.solve(torch.eye(len(own), dtype=own.dtype) - own, residual[rows])
                .square()
                .sum()
            )
        errors.append(squares / len(target))
    return torch.stack(errors)


def _logits(rotated: Rotated, weights: Tensor) -> Float[Tensor, "row problem outputs"]:
    return (rotated.design @ weights.flatten(1)).reshape(-1, *weights.shape[1:])


def _half_a_row(mass: Float[Tensor, "row problem outputs"]) -> Float[Tensor, "problem outputs"]:
    """Half a pseudo-row at the centre for each class without rows in a problem; its bias would diverge."""
    seen = mass.sum(0)
    rows = (mass.sum(2) > 0).sum(0).clamp(min=1)
    one = seen.sum(1) / rows  # weight of a row of each problem
    return torch.where(seen > 0, 0.0, one.clamp(min=1e-12).unsqueeze(1) / 2)


def _at_shares(rotated: Rotated, mass: Tensor, unseen: Tensor) -> Tensor:
    """Zero weights, and the bias of the class frequencies."""
    found = torch.zeros(len(rotated.variance), *mass.shape[1:], dtype=mass.dtype)
    found[-1] = (mass.sum(0) + unseen).log()
    return found


def _free_bias(rotated: Rotated, penalty: Tensor) -> Tensor:
    strength = penalty.expand(len(rotated.variance)).clone()
    strength[-1] = 0
    return strength
