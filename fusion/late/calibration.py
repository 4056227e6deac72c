"""Calibration of one set of scores, and label decisions separate from it.

`Calibration` changes probabilities: `temperature` (one number), `bias` (a temperature and one offset a class,
for members that trained with class weights, focal loss, label smoothing or mixup) or `vector` (one scale and
one offset a class). `Decision` leaves probabilities alone and chooses the label: class offsets or label
thresholds that are best for a named metric. Both are fitted on rows the scores' model did not train on, and
both travel as plain JSON.

Guo et al., ICML 2017, https://arxiv.org/abs/1706.04599. From about 200 rows (several classes) or 1000 (two
classes) on, calibration may be expected to help.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from fusion.late import _pool
from fusion.late._rule import check_target, split
from fusion.late.members import Members, probabilities
from fusion.metrics import default_metric
from fusion.metrics import metric as find_metric
from fusion.tasks import Kind

Method = Literal["none", "temperature", "bias", "vector"]
RANGE = (1e-4, 1e4)
"""Inverse temperatures considered; separable data would ask for an infinite one."""

SWEEPS = 3


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """scores -> scale * scores + bias, per part (a classification is one part, each label one)."""

    method: Method
    kind: Kind
    scale: tuple[tuple[float, ...], ...] = ()
    bias: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def fit(
        cls,
        method: Method,
        kind: Kind,
        scores: Float[Tensor, "row outputs"],
        target: Shaped[Tensor, "row ..."],
        *,
        weights: Shaped[Tensor, " row"] | None = None,
    ) -> "Calibration":
        """The method's numbers at the minimum of the NLL.

        Args:
            method: `none` leaves scores as they are.
            kind: of the task.
            scores: logits or log-probabilities, label logits; rows of NaN are left out.
            target: class indices [row], or 0 / 1 / NaN [row label].
            weights: how much each row counts.

        Raises:
            ValueError: a regression (its values have no confidence), or targets that do not fit.
        """
        if method == "none":
            return cls(method=method, kind=kind)
        if kind == "regression":
            raise ValueError(
                "values of a regression have no confidence to calibrate; use method none"
            )
        kept = ~scores.isnan().any(1)
        members = Members.from_logits(["scores"], kind, scores[kept].unsqueeze(0))
        check_target(members, target[kept])
        even = torch.ones(len(target)) if weights is None else weights
        fitted = [
            _fit_part(method, part, goal, mass)
            for part, goal, mass in split(members.cleaned(), target[kept], even[kept].double())
        ]
        return cls(
            method=method,
            kind=kind,
            scale=tuple(tuple(scale.tolist()) for scale, _ in fitted),
            bias=tuple(tuple(bias.tolist()) for _, bias in fitted),
        )

    @property
    def temperature(self) -> tuple[float, ...]:
        """One a part; the geometric mean over classes where each has its own scale."""
        scales = [torch.tensor(scale, dtype=torch.float64) for scale in self.scale]
        return tuple(float((-scale.clamp(min=1e-12).log().mean()).exp()) for scale in scales)

    def apply(self, scores: Float[Tensor, "row outputs"]) -> Float[Tensor, "row outputs"]:
        """Calibrated scores of the same kind (log-probabilities come out normalised)."""
        if self.method == "none":
            return scores
        scale = torch.tensor(self.scale, dtype=torch.float64)
        bias = torch.tensor(self.bias, dtype=torch.float64)
        if self.kind == "classification":
            log_p = torch.log_softmax(scores.double(), 1)
            return torch.log_softmax(log_p * scale[0] + bias[0], 1)
        # A label is a classification of no and yes; its logit is the difference of the two.
        no = torch.nn.functional.logsigmoid(-scores.double())
        yes = torch.nn.functional.logsigmoid(scores.double())
        return yes * scale[:, -1] + bias[:, -1] - no * scale[:, 0] - bias[:, 0]

    def state(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "method": self.method,
            "kind": self.kind,
            "scale": [list(scale) for scale in self.scale],
            "bias": [list(bias) for bias in self.bias],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Calibration":
        """The calibration that wrote `state`."""
        return cls(
            method=state["method"],
            kind=state["kind"],
            scale=tuple(tuple(scale) for scale in state["scale"]),
            bias=tuple(tuple(bias) for bias in state["bias"]),
        )


def temperature(
    scores: Float[Tensor, "row class"],
    target: Shaped[Tensor, " row"],
    weights: Shaped[Tensor, " row"] | None = None,
) -> float:
    """The temperature T at which softmax(scores / T) has the lowest NLL, exactly.

    The derivative of the NLL by 1/T, the mean of E[z] - z_true, is monotone: Newton's steps on log T, and
    bisection wherever a step would leave the bracket or creep.

    >>> z = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]]).double()
    >>> t = temperature(z, torch.tensor([0, 0, 0, 1]))  # right three times of four
    >>> round(float(torch.softmax(z[0] / t, 0)[0]), 6)
    0.75
    """
    mass = (torch.ones(len(target)) if weights is None else weights).double()
    z = scores.double() - scores.double().amax(1, keepdim=True)
    truth = z.gather(1, target.long().unsqueeze(1)).squeeze(1)

    def slope(log_beta: float) -> tuple[float, float]:
        """The derivative by 1/T, and its own by log 1/T."""
        beta = math.exp(log_beta)
        p = torch.softmax(z * beta, 1)
        mean = (p * z).sum(1)
        spread = (p * z.square()).sum(1) - mean.square()
        return float((mean - truth) @ mass), beta * float(spread @ mass)

    low, high = map(math.log, RANGE)
    at, moved = 0.0, high - low
    while abs(moved) > 1e-9:  # the last of Newton's steps squares what is left
        value, change = slope(at)
        low, high = (low, at) if value > 0 else (at, high)
        step = -value / change if change > 0 else math.inf
        # A step that isn't half the last one creeps: where all rows are right the slope never is zero.
        creeps = not (low <= at + step <= high and abs(step) <= abs(moved) / 2)
        moved = (low + high) / 2 - at if creeps else step
        at += moved
    return math.exp(-at)


def _fit_part(
    method: Method, members: Members, target: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Scale and bias [class] of one part."""
    classes = members.outputs
    if method == "temperature":
        value = 1 / temperature(members.scores[0], target, weights) if len(target) else 1.0
        return torch.full((classes,), value, dtype=torch.float64), torch.zeros(classes)
    problem = _pool.Problem(
        kind="classification",
        scores=members.scores,
        present=members.present,
        target=target,
        weights=weights,
        strength=1.0,
        tied=method == "bias",
        bias=True,
    )
    scale, bias = _pool.solve(problem)
    return scale[0].expand(classes), bias


def calibrate_members(
    method: Method,
    members: Members,
    target: Shaped[Tensor, "row ..."],
    *,
    weights: Shaped[Tensor, " row"] | None = None,
) -> dict[str, Calibration]:
    """One calibration a member, each on the rows where it is present."""
    even = torch.ones(members.num_rows) if weights is None else weights
    return {
        name: Calibration.fit(
            method if bool(there.any()) else "none",
            members.kind,
            scores[there],
            target[there],
            weights=even[there],
        )
        for name, scores, there in zip(members.names, members.scores, members.present, strict=True)
    }


def apply_members(calibrations: Mapping[str, Calibration], members: Members) -> Members:
    """The members with their own calibrations applied; those without one stay as they are."""
    scores = [
        calibrations[name].apply(member) if name in calibrations else member
        for name, member in zip(members.names, members.scores, strict=True)
    ]
    return replace(members, scores=torch.stack(scores))


@dataclass(frozen=True, kw_only=True)
class Decision:
    """From scores to labels, by offsets or thresholds that optimise one metric.

    classification: the largest of log p + offset. multilabel: probability >= threshold, one a label.
    """

    kind: Kind
    metric: str
    offsets: tuple[float, ...]

    @classmethod
    def plain(cls, kind: Kind, outputs: int) -> "Decision":
        """The most probable class; labels at 0.5."""
        value = 0.5 if kind == "multilabel" else 0.0
        return cls(kind=kind, metric="", offsets=(value,) * outputs)

    @classmethod
    def fit(
        cls,
        kind: Kind,
        scores: Float[Tensor, "row outputs"],
        target: Shaped[Tensor, "row ..."],
        *,
        metric: str = "",
    ) -> "Decision":
        """Offsets or thresholds by coordinate search; plain decisions where nothing beats them.

        Raises:
            ValueError: a regression, or a metric that does not judge labels of this kind.
        """
        if kind == "regression":
            raise ValueError("values of a regression need no decision")
        name = metric or default_metric(kind)
        found = find_metric(name)
        if found.kind != kind or found.needs_probabilities:
            raise ValueError(f"decisions need a metric of {kind} labels, came {name}")
        kept = ~scores.isnan().any(1)
        plain = cls.plain(kind, scores.shape[1])
        best = list(plain.offsets)
        steps = (
            torch.arange(0.05, 1.0, 0.05) if kind == "multilabel" else torch.arange(-2, 2.05, 0.1)
        )

        def loss(offsets: list[float]) -> float:
            trial = replace(plain, offsets=tuple(offsets))
            return found.loss(found(trial.decide(scores[kept]), target[kept]))

        lowest = loss(best)
        for _ in range(SWEEPS):
            before = lowest
            for place in range(len(best)):
                for step in steps.tolist():
                    trial = [*best[:place], round(step, 4), *best[place + 1 :]]
                    value = loss(trial)
                    if value < lowest - 1e-12:
                        lowest, best = value, trial
            if lowest == before:
                break
        return cls(kind=kind, metric=name, offsets=tuple(best))

    def decide(self, scores: Float[Tensor, "row outputs"]) -> Shaped[Tensor, "row ..."]:
        """Class indices [row], or decisions [row label]; class 0 or no where scores are NaN."""
        offsets = torch.tensor(self.offsets, dtype=torch.float64)
        if self.kind == "multilabel":
            return probabilities(self.kind, scores.double()) >= offsets
        return torch.argmax(scores.double().nan_to_num(0.0) + offsets, 1)

    def state(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"kind": self.kind, "metric": self.metric, "offsets": list(self.offsets)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Decision":
        """The decision that wrote `state`."""
        return cls(kind=state["kind"], metric=state["metric"], offsets=tuple(state["offsets"]))
