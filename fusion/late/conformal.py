"""Answers that hold with a stated probability: sets of classes, sets of labels, intervals of values.

The nonconformity of a row is 1 - p(truth) of a class or label, and |target - value| of a regression. A class
is possible where its own would be no larger than a threshold; the threshold is a quantile of rows that
nothing was trained on. People are exchangeable, their rows are not: every group has the same weight, however
many rows it has, and the quantile's level is the least at which groups that are left out, in turn, are
covered as often as asked (with so few groups, a level of 0.9 covers less than 0.9 of new people). From fewer
than c / (1 - c) groups a coverage of c can be promised by nothing but the set of everything.

Sadinle, Lei & Wasserman 2019, "Least ambiguous set-valued classifiers" (https://arxiv.org/abs/1609.00451),
for the sets; Dunn, Wasserman & Ramdas 2022, "Distribution-free prediction sets for two-layer hierarchical
models" (https://arxiv.org/abs/1809.07441), for groups. What differs: the level is set by leaving groups out.
The coverage is that of an average row of an average new person of the same kind, not of each person.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from fusion.late.members import probabilities
from fusion.statistics import Groups
from fusion.tasks import Kind

COVERAGES = tuple(percent / 100 for percent in range(50, 100))
"""Coverages that a threshold is kept for."""

MAX_PARTS = 50
"""Groups are left out one by one up to so many, in so many parts of whole groups beyond."""

LEVELS = np.linspace(0.0, 1.0, 1001)
"""Levels of the quantile that are tried."""


@dataclass(frozen=True, kw_only=True)
class Conformal:
    """Thresholds for every coverage, one row a part: the task, or each label of a multi-label task."""

    kind: Kind
    groups: int
    """Number of groups that the thresholds were fitted on."""

    thresholds: tuple[tuple[float, ...], ...]
    """Nonconformity that is allowed [part coverage]; infinite where nothing less than everything holds."""

    @classmethod
    def fit(
        cls,
        kind: Kind,
        scores: Float[Tensor, "row outputs"],
        target: Shaped[Tensor, "row ..."],
        groups: Sequence[Hashable] | np.ndarray | Tensor,
    ) -> "Conformal":
        """Thresholds from rows that nothing which gave the scores was fitted on.

        Args:
            kind: of the task.
            scores: logits, log-probabilities or values; rows of NaN are left out.
            target: class indices [row], values [row], or 0 / 1 / NaN [row label].
            groups: whose row each is.
        """
        code = Groups.of(groups).code.numpy()
        wrong = nonconformity(kind, scores, target)
        parts = [_thresholds(column[known], code[known]) for column, known in wrong]
        return cls(kind=kind, groups=len(np.unique(code)), thresholds=tuple(parts))

    def allowed(self, coverage: float) -> Float[Tensor, " part"]:
        """The threshold of each part for a coverage, or for the next larger one that is kept.

        Raises:
            ValueError: no coverage from 0.5 to 0.99.
        """
        if not COVERAGES[0] <= coverage <= COVERAGES[-1]:
            raise ValueError(
                f"coverage {coverage:g}: expected {COVERAGES[0]:g} to {COVERAGES[-1]:g}"
            )
        place = math.ceil(coverage * 100 - 1e-9) - 50
        return torch.tensor([row[place] for row in self.thresholds], dtype=torch.float64)

    def measurable(self, coverage: float) -> bool:
        """Whether a group may be left out, and the others still exclude something at that coverage."""
        return _enough(self.groups - 1, coverage) and not bool(self.allowed(coverage).isinf().all())

    def possible(
        self, scores: Float[Tensor, "row outputs"], coverage: float
    ) -> Bool[Tensor, "row outputs"]:
        """Which classes or labels cannot be excluded; of classes at least the most probable one."""
        shares = _shares(self.kind, scores)
        there: Tensor = 1 - shares <= self.allowed(coverage)
        if self.kind == "classification":
            return there | (shares == shares.amax(1, keepdim=True))
        return there | (shares >= 0.5)

    def certain(
        self, scores: Float[Tensor, "row outputs"], coverage: float
    ) -> Bool[Tensor, "row outputs"]:
        """Which classes or labels nothing else is possible beside: the only class, labels surely there."""
        there = self.possible(scores, coverage)
        if self.kind == "classification":
            return there & (there.sum(1, keepdim=True) == 1)
        shares = _shares(self.kind, scores)
        return there & ~((shares <= self.allowed(coverage)) | (shares < 0.5))

    def interval(
        self, values: Float[Tensor, "row 1"], coverage: float
    ) -> tuple[Float[Tensor, " row"], Float[Tensor, " row"]]:
        """Lower and upper bounds of the values of a regression; infinite where nothing can be said."""
        reach = self.allowed(coverage)[0]
        return values.double()[:, 0] - reach, values.double()[:, 0] + reach

    def covers(
        self,
        scores: Float[Tensor, "row outputs"],
        target: Shaped[Tensor, "row ..."],
        coverage: float,
    ) -> Float[Tensor, "row part"]:
        """1 where the truth is among what is possible, 0 where it is not, NaN where it is not known."""
        columns = []
        for part, (wrong, known) in enumerate(nonconformity(self.kind, scores, target)):
            inside = wrong <= float(self.allowed(coverage)[part])
            if self.kind != "regression":  # the answer itself is never excluded
                inside |= _answered(self.kind, scores, target, part)
            columns.append(np.where(known, inside.astype(float), np.nan))
        return torch.from_numpy(np.stack(columns, 1))

    def state(self) -> dict[str, Any]:
        """Plain JSON values; an infinite threshold is null."""
        rows = [[None if math.isinf(x) else x for x in row] for row in self.thresholds]
        return {"kind": self.kind, "groups": self.groups, "thresholds": rows}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Conformal":
        """The thresholds that wrote `state`."""
        rows = [[math.inf if x is None else float(x) for x in row] for row in state["thresholds"]]
        return cls(kind=state["kind"], groups=state["groups"], thresholds=tuple(map(tuple, rows)))


def nonconformity(
    kind: Kind, scores: Float[Tensor, "row outputs"], target: Shaped[Tensor, "row ..."]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """How far each row is from its truth, and whether both are known; one pair a part."""
    there = ~scores.isnan().any(1)
    if kind == "regression":
        off = (target.double().reshape(-1) - scores.double()[:, 0]).abs()
        return [(off.numpy(), (there & ~off.isnan()).numpy())]
    shares = _shares(kind, scores)
    if kind == "classification":
        truth = shares.gather(1, target.long().reshape(-1, 1))[:, 0]
        return [((1 - truth).numpy(), there.numpy())]
    wrong = torch.where(target > 0.5, 1 - shares, shares)
    known = there[:, None] & ~target.isnan()
    return [(wrong[:, k].numpy(), known[:, k].numpy()) for k in range(wrong.shape[1])]


def _thresholds(wrong: np.ndarray, code: np.ndarray) -> tuple[float, ...]:
    """The threshold of each coverage, of one part."""
    names, code = np.unique(code, return_inverse=True)
    if not len(names):
        return (math.inf,) * len(COVERAGES)
    reached = _coverage_of_levels(wrong, code)
    everything = _quantiles(wrong, code, LEVELS)
    chosen = []
    for coverage in COVERAGES:
        places = np.flatnonzero(reached >= coverage - 1e-9)
        chosen.append(
            float(everything[places[0]])
            if _enough(len(names), coverage) and len(places)
            else math.inf
        )
    return tuple(chosen)


def _enough(groups: int, coverage: float) -> bool:
    return groups * (1 - coverage) >= coverage - 1e-9


def _coverage_of_levels(wrong: np.ndarray, code: np.ndarray) -> np.ndarray:
    """The share of left-out groups' rows that a quantile of the other groups covers [level]."""
    covered = np.zeros(len(LEVELS))
    for held in held_parts(code):
        if held.all():
            return covered
        limits = _quantiles(wrong[~held], code[~held], LEVELS)
        order = np.lexsort((wrong[held], code[held]))
        borders = np.flatnonzero(np.diff(code[held][order])) + 1
        for rows in np.split(wrong[held][order], borders):
            covered += np.searchsorted(rows, limits, side="right") / len(rows)
    return covered / len(np.unique(code))


def _quantiles(wrong: np.ndarray, code: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The least values below which lies a share of the groups' rows, each group weighing the same."""
    sizes = np.bincount(code)
    order = np.argsort(wrong, kind="stable")
    mass = np.cumsum(1 / sizes[code[order]])
    places = np.searchsorted(mass, levels * mass[-1] * (1 - 1e-12))
    return np.asarray(wrong[order][np.minimum(places, len(order) - 1)])


def held_parts(code: np.ndarray) -> list[np.ndarray]:
    """The rows of each group, or of each part of whole groups where there are many."""
    groups = np.unique(code)
    parts = min(len(groups), MAX_PARTS)
    return [np.isin(code, groups[part::parts]) for part in range(parts)]


def _answered(kind: Kind, scores: Tensor, target: Tensor, part: int) -> np.ndarray:
    """Whether the plain answer is the truth."""
    shares = _shares(kind, scores)
    if kind == "classification":
        truth = shares.gather(1, target.long().reshape(-1, 1))[:, 0]
        return np.asarray(truth == shares.amax(1))
    return np.asarray((shares[:, part] >= 0.5) == (target[:, part] > 0.5))


def _shares(kind: Kind, scores: Tensor) -> Tensor:
    """Probabilities that sum to 1, also of logits."""
    normal = scores.double().log_softmax(1) if kind == "classification" else scores.double()
    return probabilities(kind, normal)


def parts_of(kind: Kind, scores: Tensor) -> int:
    """Columns of `Conformal.covers`: one a label of a multi-label task, else one."""
    return scores.shape[1] if kind == "multilabel" else 1


def size_of(
    fitted: Conformal, scores: Float[Tensor, "row outputs"], coverage: float
) -> Float[Tensor, " row"]:
    """Size of each answer: possible classes, labels left open, or the width of the interval."""
    if fitted.kind == "regression":
        low, high = fitted.interval(scores, coverage)
        return high - low
    there = fitted.possible(scores, coverage)
    if fitted.kind == "multilabel":
        there = there & ~fitted.certain(scores, coverage)
    return there.sum(1).double()
