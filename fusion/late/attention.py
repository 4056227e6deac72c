"""A small gating net: weights of the members for each row.

    a_m = g(x_m) + u_m,   w = softmax of a over the present members
    p(k | row)  ~  exp( s sum_m w_m log p_m(k | row) )      (values: sum_m w_m v_m)

g is one hidden layer, shared by the members; x_m holds the member's log-probabilities, its entropy, margin
and largest probability (values: the value and its distance from the mean of the present members, in standard
deviations of the targets), so that absent members simply leave the softmax. The first layer is drawn alike
for all classes and learns them apart: their order decides nothing. s is the sharpness. It starts as the even
log pool, is trained by NLL or squared error on the out-of-fold rows with L-BFGS and weight decay towards that
start, and is deterministic for a seed.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fusion.late._rule import LateRule, Part
from fusion.late.members import Members


class Rule(LateRule):
    """Weights of the gating net."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Size and training of the gate."""

        hidden: int = 8
        decay: float = 10.0
        """Penalty on the gate's weights, in rows' worth of evidence [>= 0]."""

        steps: int = 60
        """Iterations of L-BFGS."""

        seed: int = 0

        def __post_init__(self) -> None:
            if self.hidden < 1 or self.steps < 1 or self.decay < 0:
                raise ValueError(
                    f"attention: hidden and steps are 1 or more, decay 0 or more; came "
                    f"{self.hidden}, {self.steps}, {self.decay}"
                )

    @classmethod
    def fit_part(
        cls, config: Any, members: Members, target: Tensor, weights: Tensor
    ) -> dict[str, Tensor]:
        """Layers of the gate, what scales its inputs, and the mean share of each member."""
        scale = torch.tensor([0.0, 1.0], dtype=torch.float64)
        if members.kind == "regression":
            scale = torch.stack([target.mean(), target.std(correction=0).clamp(min=1e-12)])
        inputs = _inputs(members, scale)
        flat = inputs[members.present]
        centre, spread = flat.mean(0), flat.std(0, correction=0).clamp(min=1e-6)
        random = torch.Generator().manual_seed(config.seed)
        width, count = inputs.shape[2], len(members.names)
        layers = {
            "first": _first_layer(width, members.outputs, config.hidden, random),
            "first_bias": torch.zeros(config.hidden, dtype=torch.float64),
            "second": torch.zeros(config.hidden, dtype=torch.float64),
            "member": torch.zeros(count, dtype=torch.float64),
            "log_sharpness": torch.zeros(1, dtype=torch.float64),
        }
        fixed = {"scale": scale, "centre": centre, "spread": spread}
        _train(config, layers, fixed, members, target, weights)
        part = {**{name: value.detach() for name, value in layers.items()}, **fixed}
        listened = _gate(part, members) @ weights / weights.sum()
        return {**part, "listened": listened}

    def combine_part(self, part: Part, members: Members) -> Tensor:
        """[row outputs]: the gated pool, or the gated value."""
        return _mixed(part, members)

    def part_shares(self, part: Part) -> Tensor:
        """Mean share over the fitting rows."""
        return part["listened"]


def _first_layer(width: int, outputs: int, hidden: int, random: torch.Generator) -> Tensor:
    """[column hidden]: random weights of the inputs; of classes those of the mean of their scores."""
    columns = width - outputs + 1
    drawn = torch.randn(columns, hidden, generator=random, dtype=torch.float64) / columns**0.5
    return torch.cat([drawn[:1].expand(outputs, hidden) / outputs, drawn[1:]])


def _inputs(members: Members, scale: Tensor) -> Tensor:
    """[member row column]: input of the gate; zero where absent."""
    there = members.present.unsqueeze(2)
    if members.kind == "regression":
        values = (members.scores - scale[0]) / scale[1]
        mean = (values * there).sum(0) / there.sum(0).clamp(min=1)
        return torch.cat([values, (values - mean).abs()], 2) * there
    p = members.scores.exp()
    top = p.topk(2, dim=2).values
    entropy = -(p * members.scores).sum(2, keepdim=True)
    margin = top[..., :1] - top[..., 1:]
    return torch.cat([members.scores, entropy, margin, top[..., :1]], 2) * there


def _gate(part: Part, members: Members) -> Tensor:
    """[member row]: shares over the present members."""
    inputs = (_inputs(members, part["scale"]) - part["centre"]) / part["spread"]
    hidden = torch.tanh(inputs @ part["first"] + part["first_bias"])
    score = hidden @ part["second"] + part["member"].unsqueeze(1)
    score = score.masked_fill(~members.present, -torch.inf)
    # Rows without a member: any finite share will do, they come out as NaN.
    score = torch.where(members.present.any(0), score, 0.0)
    return torch.softmax(score, 0)


def _mixed(part: Part, members: Members) -> Tensor:
    """[row outputs]: values, or normalised log-probabilities."""
    pooled = (_gate(part, members).unsqueeze(2) * members.scores).sum(0)
    if members.kind == "regression":
        return pooled
    return torch.log_softmax(part["log_sharpness"].exp() * pooled, 1)


def _train(
    config: Any,
    layers: dict[str, Tensor],
    fixed: dict[str, Tensor],
    members: Members,
    target: Tensor,
    weights: Tensor,
) -> None:
    """Move `layers` to the penalised minimum, in place."""
    start = {name: value.clone() for name, value in layers.items()}
    for value in layers.values():
        value.requires_grad_()
    solver = torch.optim.LBFGS(
        list(layers.values()), max_iter=config.steps, line_search_fn="strong_wolfe"
    )
    mass = weights.sum()

    def closure() -> Tensor:
        solver.zero_grad()
        fused = _mixed({**layers, **fixed}, members)
        if members.kind == "regression":
            each = ((fused.squeeze(1) - target) / fixed["scale"][1]).square() / 2
        else:
            each = -fused.gather(1, target.unsqueeze(1)).squeeze(1)
        away = torch.stack([(layers[name] - start[name]).square().sum() for name in layers]).sum()
        loss: Tensor = (each @ weights + config.decay * away) / mass
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(closure)  # type: ignore[no-untyped-call]
