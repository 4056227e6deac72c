"""Greedy ensemble selection with replacement.

From nothing, the member that most lowers the loss of the running mean is added, `size` times; the list is cut
at its first minimum, and a member's weight is how often it is in the list. Ties (1e-12, relative) go to a
member already chosen, then to the lower log loss if `ties` says so, then to a seeded draw; once the first
loss is above 1e-4, losses are compared to six decimals (those of values in standard deviations of the
targets, or their squares).

`sorted_start` begins with the best members taken in order of their own loss, as many as lower it most;
`bags` repeats the selection on random parts of the library and averages the weights. `space = log` averages
log-probabilities instead of probabilities.

Caruana et al., ICML 2004, https://doi.org/10.1145/1015330.1015432; ties and rounding as in AutoGluon.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fusion.late._candidates import CandidateLosses, Space, default_loss
from fusion.late._margins import ClassMargins
from fusion.late._rule import LateRule, Part
from fusion.late.mean import linear_pool
from fusion.late.members import Members, shares

DECIMALS = 6
ROUND_ABOVE = 1e-4
TIE = 1e-12


class Rule(LateRule):
    """How often each member was chosen."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Size, loss and space of the selection."""

        size: int = 50
        """Longest list [members, repeats counted]."""

        metric: str = ""
        """Name of a metric for the members' kind (multi-label: of a classification); empty: nll or mse."""

        space: Space = "linear"
        ties: Literal["random", "second_metric"] = "random"
        sorted_start: int = 0
        """Most members to start with in order of their own loss; 0 starts from nothing."""

        bags: int = 1
        """Selections, each from `bag_fraction` of the members where there are several."""

        bag_fraction: float = 0.5
        seed: int = 0

        def __post_init__(self) -> None:
            if self.size < 1 or self.bags < 1 or not 0 < self.bag_fraction <= 1:
                raise ValueError(
                    f"caruana: size and bags are 1 or more, bag_fraction in (0, 1]; came size "
                    f"{self.size}, bags {self.bags}, bag_fraction {self.bag_fraction}"
                )

    @classmethod
    def fit_part(
        cls, config: Any, members: Members, target: Tensor, weights: Tensor
    ) -> dict[str, Tensor]:
        """Weights [member], the order of choice and the loss after each choice (of the last bag)."""
        objective = CandidateLosses(
            members=members,
            target=target,
            weights=weights,
            metric=config.metric or default_loss(members),
            space=config.space,
        )
        total = torch.zeros(len(members.names), dtype=torch.float64)
        random = np.random.default_rng(config.seed)
        for _ in range(config.bags):
            count = max(1, round(config.bag_fraction * len(total)))
            library = np.sort(random.choice(len(total), count, replace=False))
            if config.bags == 1:
                library = np.arange(len(total))
            chosen = select(objective, library, config)
            counts = torch.bincount(torch.tensor(chosen.order), minlength=len(total)).double()
            total += counts / len(chosen.order)
        return {
            "weights": total / total.sum(),
            "order": torch.tensor(chosen.order, dtype=torch.float64),
            "trajectory": torch.tensor(chosen.trajectory, dtype=torch.float64),
        }

    def combine_part(self, part: Part, members: Members) -> Tensor:
        """[row outputs]: the mean in the space the members were chosen in."""
        return pooled(part["weights"], members, self.config.space)

    def part_shares(self, part: Part) -> Tensor:
        """The weights."""
        return part["weights"]


def pooled(weights: Tensor, members: Members, space: Space) -> Tensor:
    """[row outputs]: linear or normalised log pool with weights that sum to 1 in each row."""
    if space == "linear" or members.kind == "regression":
        return linear_pool(weights, members)
    share = shares(weights, members.present).unsqueeze(2)
    return torch.log_softmax((share * members.scores).sum(0), -1)


@dataclass(kw_only=True)
class Selection:
    """The list so far and its running sums."""

    order: list[int] = field(default_factory=list)
    trajectory: list[float] = field(default_factory=list)
    total: Tensor
    """Sum of the chosen members' terms [row column]."""

    count: Tensor
    """How many of them are present [row]."""

    def add(self, objective: CandidateLosses, member: int, loss: float) -> None:
        """Take one more."""
        terms, there = objective.sums
        self.order.append(member)
        self.trajectory.append(loss)
        self.total = self.total + terms[member]
        self.count = self.count + there[member]

    def fused(self, objective: CandidateLosses, library: Tensor) -> Tensor:
        """Predictions with each member of the library added [candidate row column]."""
        terms, there = objective.sums
        if len(library) < len(terms):
            terms, there = terms[library], there[library]
        if objective.gaps is None:
            return (self.total + terms).div_(len(self.order) + 1)
        return objective.divide(self.total + terms, self.count + there)

    def losses(
        self, objective: CandidateLosses, library: Tensor, margins: ClassMargins | None
    ) -> Tensor:
        """Loss with each member of the library added [candidate]."""
        if margins is None:
            return objective.judge(self.fused(objective, library))
        return margins.errors(self.total)[library]


def select(objective: CandidateLosses, library: np.ndarray, config: Any) -> Selection:
    """The list, cut at its first minimum."""
    terms, there = objective.sums
    state = Selection(total=torch.zeros_like(terms[0]), count=torch.zeros_like(there[0]))
    if config.sorted_start:
        _start(objective, state, library, config.sorted_start)
    # The legacy generator: published selections were drawn from it.
    random = np.random.RandomState(config.seed)
    rounded = bool(state.order) and state.trajectory[0] > ROUND_ABOVE
    everyone = torch.from_numpy(library)
    margins = (
        ClassMargins(objective)
        if objective.metric == "accuracy" and objective.gaps is None
        else None
    )
    for _ in range(config.size - len(state.order)):
        losses = state.losses(objective, everyone, margins).numpy()
        losses = losses.round(DECIMALS) if rounded else losses
        best = np.flatnonzero(losses <= losses.min() + TIE * abs(losses.min()))
        known = [i for i in best if library[i] in state.order]
        best = np.array(known) if len(best) > 1 and known else best
        if len(best) > 1 and _second(objective, config):
            second = objective.log_losses(state.fused(objective, everyone[best])).numpy()
            best = best[second <= second.min() + TIE * abs(second.min())]
        pick = int(random.choice(best))
        loss = float(losses[pick])
        if not state.order and abs(loss) > ROUND_ABOVE:
            rounded, loss = True, round(loss, DECIMALS)
        state.add(objective, int(library[pick]), loss)
        if len(library) == 1:
            break
    end = int(np.argmin(state.trajectory)) + 1
    state.order, state.trajectory = state.order[:end], state.trajectory[:end]
    return state


def _second(objective: CandidateLosses, config: Any) -> bool:
    return config.ties == "second_metric" and objective.members.kind == "classification"


def _start(objective: CandidateLosses, state: Selection, library: np.ndarray, most: int) -> None:
    """The first members in order of their own loss, as many as give the lowest loss."""
    own = objective.judge(state.fused(objective, torch.from_numpy(library))).numpy()
    ranked = library[np.argsort(own, kind="stable")][:most]
    trial = Selection(total=state.total, count=state.count)
    for member in ranked:
        loss = float(objective.judge(trial.fused(objective, torch.tensor([int(member)])))[0])
        trial.add(objective, int(member), loss)
    for member, loss in zip(trial.order, trial.trajectory, strict=True):
        state.add(objective, member, loss)
        if loss == min(trial.trajectory):
            break
