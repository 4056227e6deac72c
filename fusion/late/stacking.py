"""Stacking: a linear model on the members' scores, which are out-of-fold already.

classification: multinomial logistic regression on probabilities or log-probabilities, penalty |W|^2 / (2 C),
intercept free (two classes: one column a member and one weight vector, as in scikit-learn). regression:
ridge on values in standard deviations of the targets, alpha = 1 / C, intercept free. multi-label: one model
a label.

Absent members are not imputed. One model is fitted for all members, one for each pattern of absence among the
fitting rows, and one for each member alone, every one on all rows where its members are present. A row is
served by the model of its own pattern, else by the one of the most members that are all present.

Wolpert, Neural Networks 1992, https://doi.org/10.1016/S0893-6080(05)80023-1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fusion.late._rule import LateRule, Part
from fusion.late.members import Members

STEPS = 300
TOLERANCE = 1e-10
INTERCEPT = 1e-9
NEWTON_UP_TO = 800
"""Parameters up to which the Hessian is formed."""

MIN_ROWS = 20
"""A pattern of absence with fewer rows to learn from gets no model of its own."""


class Rule(LateRule):
    """One linear model a pattern of present members."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Features and penalty of the linear model."""

        features: Literal["probabilities", "log"] = "log"
        """How class and label scores enter; the values of a regression have no other form."""

        C: float = 0.01
        """Inverse strength of the penalty, as in scikit-learn [> 0]; probabilities want about 1."""

        def __post_init__(self) -> None:
            if self.C <= 0:
                raise ValueError(f"stacking: C is above 0, came {self.C}")

    @classmethod
    def fit_part(
        cls, config: Any, members: Members, target: Tensor, weights: Tensor
    ) -> dict[str, Tensor]:
        """The patterns [model, member], coef [model, member * column, output], intercept [model, output]."""
        patterns = _patterns(members.present)
        features = _features(config.features, members)
        width = features.shape[2]
        kept: list[Tensor] = []
        coefs, intercepts = [], []
        for pattern in patterns:
            rows = members.present[pattern].all(0)
            if rows.sum() < MIN_ROWS and len(kept) > 0:
                continue
            columns = features[pattern][:, rows].transpose(0, 1).flatten(1)
            fitted = _ridge if members.kind == "regression" else _logistic
            coef, intercept = fitted(
                columns, target[rows], weights[rows], members.outputs, config.C
            )
            whole = torch.zeros(len(pattern), width, coef.shape[1], dtype=torch.float64)
            whole[pattern] = coef.reshape(-1, width, coef.shape[1])
            kept.append(pattern)
            coefs.append(whole.flatten(0, 1))
            intercepts.append(intercept)
        return {
            "patterns": torch.stack(kept).double(),
            "coef": torch.stack(coefs),
            "intercept": torch.stack(intercepts),
        }

    def combine_part(self, part: Part, members: Members) -> Tensor:
        """[row outputs]: normalised log-probabilities, or values."""
        features = _features(self.config.features, members).transpose(0, 1).flatten(1)
        patterns, present = part["patterns"] > 0, members.present
        fits = ~(patterns.unsqueeze(2) & ~present).any(1)  # [model row]
        size = patterns.sum(1, keepdim=True) * fits
        model = size.argmax(0)
        z = torch.einsum("rf,rfo->ro", features, part["coef"][model]) + part["intercept"][model]
        unserved = ~fits.any(0)
        if members.kind == "regression":
            alone = present.unsqueeze(2) * members.scores
            mean = alone.sum(0) / present.sum(0).clamp(min=1).unsqueeze(1)
            return torch.where(unserved.unsqueeze(1), mean, z)
        z = torch.cat([torch.zeros_like(z), z], 1) if members.outputs == 2 else z
        pool = (present.unsqueeze(2) * members.scores).sum(0) / present.sum(0).clamp(min=1)[:, None]
        return torch.log_softmax(torch.where(unserved.unsqueeze(1), pool, z), 1)

    def part_shares(self, part: Part) -> Tensor:
        """Size of each member's coefficients in the model of the most members."""
        largest = int(part["patterns"].sum(1).argmax())
        return part["coef"][largest].reshape(len(self.names), -1).abs().sum(1)


def _patterns(present: Tensor) -> list[Tensor]:
    """All members where they ever meet, the patterns of the rows, and each member alone."""
    count = len(present)
    seen = {tuple(row) for row in torch.unique(present.T, dim=0).tolist()}
    alone = {tuple(place == i for place in range(count)) for i in range(count)}
    usable = [p for p in sorted(seen | alone, key=lambda p: (-sum(p), p)) if any(p)]
    return [torch.tensor(p) for p in usable if present[torch.tensor(p)].all(0).any()]


def _features(kind: str, members: Members) -> Tensor:
    """[member row column]."""
    if members.kind == "regression":
        return members.scores
    scores = members.scores
    if kind == "log":
        if members.outputs == 2:
            return scores[..., 1:] - scores[..., :1]
        return scores
    p = scores.exp()
    return p[..., 1:] if members.outputs == 2 else p


def _logistic(
    x: Tensor, target: Tensor, weights: Tensor, classes: int, inverse: float
) -> tuple[Tensor, Tensor]:
    """Coefficients [column output] and intercept [output]; one output for two classes."""
    outputs = 1 if classes == 2 else classes
    x = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1)
    # The intercept is free; a trace of a penalty keeps the direction that all classes share in place.
    penalty = torch.full((x.shape[1], 1), 1 / inverse, dtype=torch.float64)
    penalty[-1] = INTERCEPT
    theta = torch.zeros(x.shape[1], outputs, dtype=torch.float64)

    def loss_of(theta: Tensor) -> Tensor:
        z = x @ theta
        z = torch.cat([torch.zeros_like(z), z], 1) if outputs == 1 else z
        each = torch.nn.functional.cross_entropy(z, target, reduction="none")
        return each @ weights + (penalty * theta.square()).sum() / 2

    solve = _newton if theta.numel() <= NEWTON_UP_TO else _quasi_newton
    theta = solve(loss_of, theta, x, target, weights, penalty)
    return theta[:-1], theta[-1]


def _newton(
    loss_of: Callable[[Tensor], Tensor],
    theta: Tensor,
    x: Tensor,
    target: Tensor,
    weights: Tensor,
    penalty: Tensor,
) -> Tensor:
    """Damped Newton steps: few, and exact to the last digits."""
    columns, outputs = theta.shape
    truth = torch.nn.functional.one_hot(target, max(2, outputs)).double()[:, -outputs:]
    value = loss_of(theta)
    for _ in range(STEPS):
        z = x @ theta
        p = torch.sigmoid(z) if outputs == 1 else torch.softmax(z, 1)
        gradient = x.T @ (weights.unsqueeze(1) * (p - truth)) + penalty * theta
        if gradient.abs().max() < TOLERANCE * weights.sum():
            break
        scaled = (p.unsqueeze(2) * x.unsqueeze(1)).flatten(1)  # [row output * column]
        curvature = -scaled.T @ (scaled * weights.unsqueeze(1))
        blocks = curvature.reshape(outputs, columns, outputs, columns)
        for place in range(outputs):
            own = weights * p[:, place]
            blocks[place, :, place] += x.T @ (x * own.unsqueeze(1)) + penalty.flatten().diag()
        step = torch.linalg.solve(curvature, gradient.T.reshape(-1)).reshape(outputs, columns).T
        length = 1.0
        while loss_of(theta - length * step) > value and length > 1e-6:
            length /= 2
        theta = theta - length * step
        value = loss_of(theta)
    return theta


def _quasi_newton(
    loss_of: Callable[[Tensor], Tensor],
    theta: Tensor,
    x: Tensor,
    target: Tensor,
    weights: Tensor,
    penalty: Tensor,
) -> Tensor:
    """L-BFGS, where a Hessian would be too large."""
    theta = theta.clone().requires_grad_()
    solver = torch.optim.LBFGS(
        [theta], max_iter=STEPS, tolerance_grad=1e-8, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = loss_of(theta) / weights.sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(closure)  # type: ignore[no-untyped-call]
    return theta.detach()


def _ridge(
    x: Tensor, target: Tensor, weights: Tensor, classes: int, inverse: float
) -> tuple[Tensor, Tensor]:
    """Coefficients [column 1] and intercept [1] in closed form."""
    mean_x = (weights @ x) / weights.sum()
    mean_y = (weights @ target) / weights.sum()
    centred = x - mean_x
    gram = centred.T @ (centred * weights.unsqueeze(1))
    gram = gram + torch.eye(len(gram), dtype=torch.float64) / inverse
    coef = torch.linalg.solve(gram, centred.T @ (weights * (target - mean_y)))
    return coef.unsqueeze(1), (mean_y - mean_x @ coef).reshape(1)
