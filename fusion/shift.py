"""What accuracy to expect of a collection without labels, and whether it looks like the training data.

A row's expectation is the probability that its answer is right, from how sure the fusion is and how many of
its members give the same answer:

    logit(expected) = offset + slope . (logit(confidence), agreement - 1)

fitted on cross-fitted rows, which nothing was trained on; each combination of members that a row may have has
its own offset, also those that were made by taking members away. The mean over a collection is the accuracy
to expect, while its clips are of the kind that the rows were of. How far it is off is measured on people who
were left out, so the interval knows how few they were.

Confidence: Guillory et al. 2021, "Predicting with confidence on unseen distributions"
(https://arxiv.org/abs/2107.03315). Agreement: Baek et al. 2022, "Agreement-on-the-line"
(https://arxiv.org/abs/2206.13089). What differs: both enter one regression, row by row.

Shapes: row, member, outputs, feature.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fusion.late.members import Members, probabilities
from fusion.late.presence import Names, kinds_of
from fusion.students_t import student_t

MOST_LOGIT = 10.0
"""Confidences beyond this logit say no more."""

PARTS = 5
"""Parts of whole groups that the fit leaves out in turn."""

RIDGE = 1.0
"""Pull of the slopes towards zero, in rows."""

STEPS = 30


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What is known of rows without their truth."""

    confidence: Float[Tensor, " row"]
    """Probability of the answer; the mean over labels."""

    agreement: Float[Tensor, " row"]
    """Share of the members there that give the answer by themselves; the mean over labels."""

    present: Bool[Tensor, "member row"]

    @classmethod
    def of(cls, fused: Float[Tensor, "row outputs"], members: Members) -> "Signals":
        """Signals of rows of classes or labels.

        Args:
            fused: normalised log-probabilities, or logits of labels; NaN where no member is present.
            members: what was fused.
        """
        shares = probabilities(members.kind, fused)
        if members.kind == "classification":
            confidence, answer = shares.max(1)
            same = (members.scores.argmax(2) == answer).double()
        else:
            confidence = torch.maximum(shares, 1 - shares).mean(1)
            same = ((members.scores >= 0) == (shares >= 0.5)).double().mean(2)
        count = members.present.sum(0).clamp(min=1)
        return cls(
            confidence=confidence,
            agreement=(same * members.present).sum(0) / count,
            present=members.present,
        )

    def inputs(self) -> Float[Tensor, "row 2"]:
        """What the regression reads."""
        sure = torch.logit(self.confidence, 1e-9).clamp(-MOST_LOGIT, MOST_LOGIT)
        return torch.stack([sure, self.agreement - 1], 1)


@dataclass(frozen=True, kw_only=True)
class KnownRows:
    """Signals of rows that nothing was trained on, and whether their answers were right."""

    signals: Signals
    right: Float[Tensor, " row"]
    """1 or 0; the share of the labels that are right."""

    groups: np.ndarray
    """Code of each row's group [row]."""

    def some(self, at: np.ndarray) -> "KnownRows":
        """Some of the rows, by a mask."""
        rows = torch.from_numpy(at)
        signals = Signals(
            confidence=self.signals.confidence[rows],
            agreement=self.signals.agreement[rows],
            present=self.signals.present[:, rows],
        )
        return KnownRows(signals=signals, right=self.right[rows], groups=self.groups[at])


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """A fitted regression from signals to the probability of a right answer."""

    members: Names
    slopes: tuple[float, ...]
    offsets: Mapping[Names, float]
    """Members that a row has -> offset; other rows take the lowest."""

    accuracy: float
    """Of the rows that it was fitted on, every group weighing the same."""

    groups: int
    spread: float
    """Standard deviation, over people left out, of the accuracy less the expected one."""

    @classmethod
    def fit(cls, members: Names, real: KnownRows, made: Sequence[KnownRows] = ()) -> "Expectation":
        """Fit on rows as they are, and on such as were made by taking members away.

        Args:
            members: in the order of the rows of `present`.
            real: rows as they are.
            made: rows of the same people, each set with other members left.
        """
        groups = np.unique(real.groups)
        off = []
        for part in range(min(PARTS, len(groups))):
            held = groups[part :: min(PARTS, len(groups))]
            if len(held) == len(groups):
                break
            slopes, offsets = _fitted(
                members, [rows.some(~np.isin(rows.groups, held)) for rows in (real, *made)]
            )
            for group in held:
                rows = real.some(real.groups == group)
                guess = _expected(members, slopes, offsets, rows.signals)
                off.append(float((rows.right - guess).mean()))
        slopes, offsets = _fitted(members, (real, *made))
        each = [float(real.right[torch.from_numpy(real.groups == g)].mean()) for g in groups]
        return cls(
            members=members,
            slopes=tuple(slopes.tolist()),
            offsets=offsets,
            accuracy=float(np.mean(each)),
            groups=len(groups),
            spread=float(np.std(off, ddof=1)) if len(off) > 1 else math.inf,
        )

    def of(self, signals: Signals) -> Float[Tensor, " row"]:
        """Probability that each answer is right; NaN where no member is present."""
        slopes = torch.tensor(self.slopes, dtype=torch.float64)
        return _expected(self.members, slopes, self.offsets, signals)

    def margin(self, people: int, clips: int, expected: float) -> float:
        """Half the width of the 95 % interval of the accuracy of a collection.

        Args:
            people: in the collection.
            clips: that have an answer.
            expected: the mean expectation.
        """
        if self.groups < 2 or not people or not clips or math.isinf(self.spread):
            return 1.0
        chance = expected * (1 - expected) / clips
        people_and_fit = self.spread**2 * (1 / people + 1 / self.groups)
        reach = student_t(0.95, self.groups - 1) * math.sqrt(people_and_fit + chance)
        return min(1.0, reach)

    def state(self) -> dict[str, Any]:
        """Plain JSON values; an infinite spread is null."""
        return {
            "members": list(self.members),
            "slopes": list(self.slopes),
            "offsets": [[list(names), value] for names, value in self.offsets.items()],
            "accuracy": self.accuracy,
            "groups": self.groups,
            "spread": None if math.isinf(self.spread) else self.spread,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Expectation":
        """The regression that wrote `state`."""
        return cls(
            members=tuple(state["members"]),
            slopes=tuple(state["slopes"]),
            offsets={tuple(names): value for names, value in state["offsets"]},
            accuracy=state["accuracy"],
            groups=state["groups"],
            spread=math.inf if state["spread"] is None else state["spread"],
        )


def _fitted(members: Names, sets: Sequence[KnownRows]) -> tuple[Tensor, dict[Names, float]]:
    """Slopes that all sets share, and an offset a combination of members."""
    pieces = []
    for rows in sets:
        for names, at in kinds_of(members, rows.signals.present).items():
            pieces.append((names, rows.signals.inputs()[at], rows.right[at]))
    kinds = list(dict.fromkeys(names for names, _, _ in pieces))
    code = torch.cat([torch.full((len(y),), kinds.index(names)) for names, _, y in pieces])
    ones = torch.nn.functional.one_hot(code, len(kinds)).double()
    matrix = torch.cat([torch.cat([x for _, x, _ in pieces]), ones], 1)
    right = torch.cat([y for _, _, y in pieces]).double()
    found = _logistic(matrix, right)
    slopes = found[: matrix.shape[1] - len(kinds)]
    return slopes, dict(zip(kinds, found[len(slopes) :].tolist(), strict=True))


def _logistic(matrix: Tensor, right: Tensor) -> Tensor:
    """Weights of a slightly penalised logistic regression, by Newton's steps."""
    weights = torch.zeros(matrix.shape[1], dtype=torch.float64)
    pull = RIDGE * torch.eye(len(weights), dtype=torch.float64)
    for _ in range(STEPS):
        guess = torch.sigmoid(matrix @ weights)
        slope = matrix.T @ (right - guess) - RIDGE * weights
        curve = (matrix * (guess * (1 - guess))[:, None]).T @ matrix + pull
        step = torch.linalg.solve(curve, slope)
        weights = weights + step.clamp(-2, 2)
        if float(step.abs().max()) < 1e-9:
            break
    return weights


def _expected(
    members: Names, slopes: Tensor, offsets: Mapping[Names, float], signals: Signals
) -> Tensor:
    found = torch.full((len(signals.confidence),), torch.nan, dtype=torch.float64)
    inputs, lowest = signals.inputs(), min(offsets.values())
    for names, at in kinds_of(members, signals.present).items():
        found[at] = torch.sigmoid(inputs[at] @ slopes + offsets.get(names, lowest))
    return found
