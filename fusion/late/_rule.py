"""What all rules share: checks, labels one by one, absent rows, and the way into a bundle.

A rule file says how one part is fitted and combined. A classification or regression is one part; a
multi-label task is one part a label, each a classification of no and yes. Values of a regression are fitted
and combined less the mean of the targets, in their standard deviations: no rule, and no penalty or tolerance
in one, depends on the unit or the zero of the scale.

Shapes: member, row, outputs (classes, labels or 1).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from fusion.late.members import Members
from fusion.tasks import Kind

Part = Mapping[str, Tensor]
"""Fitted numbers of one part, float64."""


SAME = 1e-9
"""Targets that are apart by less than this share of the largest one are the same value."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What the values of a regression are measured from, and in what; rules before had neither."""

    zero: float = 0.0
    unit: float = 1.0

    @classmethod
    def of(cls, members: Members, target: Tensor, weights: Tensor) -> "Scale":
        """Mean and standard deviation of the targets; the members' distance from them if they are all equal.

        Of classes and labels 0 and 1: their scores have no unit.
        """
        if members.kind != "regression":
            return cls()
        goal, mass = target.reshape(-1).double(), weights.double() / weights.sum()
        zero = goal @ mass
        off = (members.scores[..., 0] - zero)[members.present]
        for distance in ((goal - zero).square() @ mass, off.square().mean()):
            if distance.sqrt() > SAME * goal.abs().max():
                return cls(zero=float(zero), unit=float(distance.sqrt()))
        return cls(zero=float(zero))

    def apply(self, members: Members) -> Members:
        """The members in this scale."""
        if members.kind != "regression":
            return members
        return dataclasses.replace(members, scores=(members.scores - self.zero) / self.unit)


class LateRule:
    """Base of every `Rule`: subclasses give `fit_part`, `combine_part` and `part_shares`."""

    Config: ClassVar[Any]
    kinds: ClassVar[tuple[Kind, ...]] = ("classification", "multilabel", "regression")
    calibration: ClassVar[Literal["none", "temperature"]] = "temperature"
    """What its scores need before they may be called probabilities, where nothing else is named."""

    def __init__(
        self,
        config: Any,
        kind: Kind,
        names: Sequence[str],
        parts: Sequence[Part],
        scale: Scale | None = None,
    ) -> None:
        self.config = config
        self.kind = kind
        self.names = tuple(names)
        self.parts = tuple(parts)
        self.scale = scale or Scale()

    @classmethod
    def name(cls) -> str:
        """The rule's name: its file's."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def fit(
        cls,
        config: Any,
        members: Members,
        target: Shaped[Tensor, "row ..."],
        *,
        weights: Shaped[Tensor, " row"] | None = None,
        groups: Shaped[Tensor, " row"] | None = None,
    ) -> "LateRule":
        """Learn the rule from rows that no member trained on.

        Args:
            config: the rule's `Config`.
            members: their scores on these rows; rows without any member are left out.
            target: class indices [row], 0 / 1 / NaN (unknown) [row label], or values [row].
            weights: how much each row counts; 1 by default.
            groups: group (speaker, dialogue ...) of each row, for rules that choose inside by
                cross-validation over groups; by default every row stands for itself.

        Raises:
            ValueError: a kind of task the rule has no meaning for, or targets that do not fit the members.
        """
        if members.kind not in cls.kinds:
            raise ValueError(
                f"late rule {cls.name()!r} has no meaning for {members.kind}; it takes "
                f"{' and '.join(cls.kinds)}; try log_pool, mean or stacking"
            )
        check_target(members, target)
        weights = torch.ones(len(target)) if weights is None else weights
        groups = torch.arange(len(target)) if groups is None else groups
        kept = members.present.any(0)
        if not kept.any():
            raise ValueError(f"late rule {cls.name()!r}: no row has a member to fit on")
        members = members.cleaned()
        if not kept.all():
            members, target, weights = members.rows(kept), target[kept], weights[kept]
            groups = groups[kept]
        scale = Scale.of(members, target, weights)
        if members.kind == "regression":
            members, target = scale.apply(members), (target.double() - scale.zero) / scale.unit
        columns = split(members, target, torch.stack([weights.double(), groups.double()], 1))
        parts = [
            cls.fit_grouped(config, part, goal, rows[:, 0], rows[:, 1].long())
            for part, goal, rows in (
                each if len(each[1]) else _undecided(members) for each in columns
            )
        ]
        return cls(config, members.kind, members.names, parts, scale)

    def combine(self, members: Members) -> Float[Tensor, "row outputs"]:
        """Fused scores of the members' own kind; NaN in rows without any member.

        Members may come in any order, and some may not come at all.

        Raises:
            ValueError: a member or a kind of task the rule was not fitted with.
        """
        if members.kind != self.kind:
            raise ValueError(f"the rule was fitted for {self.kind}, not for {members.kind}")
        members = self.scale.apply(members.aligned(self.names)).cleaned()
        if self.kind == "multilabel":
            if members.outputs != len(self.parts):
                raise ValueError(
                    f"the rule was fitted with {len(self.parts)} labels, {members.outputs} came"
                )
            pairs = [self.combine_part(part, members.label(i)) for i, part in enumerate(self.parts)]
            scores = torch.stack([pair[:, 1] - pair[:, 0] for pair in pairs], 1)
        else:
            scores = self.combine_part(self.parts[0], members) * self.scale.unit + self.scale.zero
        return scores.masked_fill(~members.present.any(0).unsqueeze(1), torch.nan)

    def member_weights(self) -> dict[str, float]:
        """Share of each member in the verdict, summing to 1; the mean over labels."""
        each = torch.stack([self.part_shares(part) for part in self.parts])
        total = each.sum(1, keepdim=True)
        even = torch.full_like(each, 1 / len(self.names))
        mean = torch.where(total > 0, each / total.clamp(min=1e-300), even).mean(0)
        return dict(zip(self.names, mean.tolist(), strict=True))

    def state(self) -> dict[str, Any]:
        """Plain JSON values from which `from_state` makes the same rule."""
        return {
            "rule": self.name(),
            "config": dataclasses.asdict(self.config),
            "kind": self.kind,
            "members": list(self.names),
            **dataclasses.asdict(self.scale),
            "parts": [{key: value.tolist() for key, value in p.items()} for p in self.parts],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "LateRule":
        """The rule that wrote `state`.

        Raises:
            ValueError: the state of another rule.
        """
        if state["rule"] != cls.name():
            raise ValueError(f"this is the state of {state['rule']!r}, not of {cls.name()!r}")
        config = cls.Config(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in state["config"].items()}
        )
        parts = [
            {key: torch.tensor(value, dtype=torch.float64) for key, value in part.items()}
            for part in state["parts"]
        ]
        scale = Scale(zero=state.get("zero", 0.0), unit=state.get("unit", 1.0))
        return cls(config, state["kind"], state["members"], parts, scale)

    @classmethod
    def fit_grouped(
        cls, config: Any, members: Members, target: Tensor, weights: Tensor, groups: Tensor
    ) -> dict[str, Tensor]:
        """The same for a rule that chooses inside by group; most rules do not."""
        return cls.fit_part(config, members, target, weights)

    @classmethod
    def fit_part(
        cls, config: Any, members: Members, target: Tensor, weights: Tensor
    ) -> dict[str, Tensor]:
        """The numbers of one part; `members` is clean and every row has a member."""
        raise NotImplementedError

    def combine_part(self, part: Part, members: Members) -> Tensor:
        """[row outputs] of one part; rows without a member may hold anything finite."""
        raise NotImplementedError

    def part_shares(self, part: Part) -> Tensor:
        """[member], not negative: how much each member counts."""
        raise NotImplementedError


def split(
    members: Members, target: Tensor, weights: Tensor
) -> list[tuple[Members, Tensor, Tensor]]:
    """The parts of a task: itself, or one yes-or-no classification a label on the known rows."""
    if members.kind == "regression":
        return [(members, target.reshape(-1).double(), weights)]
    if members.kind == "classification":
        return [(members, target.long(), weights)]
    parts = []
    for label in range(members.outputs):
        known = ~target[:, label].isnan() if target.is_floating_point() else target[:, label] >= 0
        goal = target[known, label].long()
        parts.append((members.label(label).rows(known), goal, weights[known]))
    return parts


def _undecided(members: Members) -> tuple[Members, Tensor, Tensor]:
    """What a label that is known of no row is fitted on: two rows that favour no member and no answer."""
    even = -torch.full((len(members.names), 2, 2), 2.0, dtype=torch.float64).log()
    part = Members(
        names=members.names,
        kind="classification",
        scores=even,
        present=torch.ones(len(members.names), 2, dtype=torch.bool),
    )
    return part, torch.tensor([0, 1]), torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)


def check_target(members: Members, target: Tensor) -> None:
    """Refuse targets that do not belong to these members.

    Raises:
        ValueError: wrong shape, a class index out of range, or NaN where it has no meaning.
    """
    shape = (members.num_rows, members.outputs)
    wanted: dict[Kind, list[tuple[int, ...]]] = {
        "classification": [shape[:1]],
        "multilabel": [shape],
        "regression": [shape[:1], (shape[0], 1)],
    }
    if tuple(target.shape) not in wanted[members.kind]:
        raise ValueError(
            f"{members.kind}: targets {tuple(target.shape)} for scores [row outputs] = {shape}"
        )
    if members.kind == "classification":
        outside = (target < 0) | (target >= members.outputs)
        if target.is_floating_point() or outside.any():
            raise ValueError(f"class indices are whole numbers from 0 to {members.outputs - 1}")
    if members.kind == "regression" and target.isnan().any():
        raise ValueError("regression targets hold NaN; leave rows without a target out")
