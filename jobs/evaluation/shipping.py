"""What ships: the fusion, or the simplest answer where the fusion is worse than it.

The simplest answers are means and members that look at no more than one temperature. One of them is chosen
inside the cross-fitting, as everything else is. The default fusion may be worse than it by one standard error
over groups in the proper score that chooses (NLL, or the squared error of values), one that was chosen among
many has to be better; and neither may be clearly below it in the figure that is shown first. A gain need not
be shown: with few people that is rare even where there is one, and the simplest answer chosen inside is the
noisier of the two (docs/results.md has what each way of deciding costs). It is decided once, on all rows: the
scores of what ships owe that one decision to the labels of their own fold. A fusion that was named ships as
it was asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from fusion.late.members import answered
from fusion.statistics import Difference
from fusion.tasks import Kind
from jobs.catalog.predictions import HeldOut
from jobs.evaluation import cross_fitting
from jobs.evaluation.cross_fitting import PLAIN_MEAN, Candidate, Verdict
from jobs.evaluation.judging import Judging


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a fusion gained over the simplest answer, and what follows from it."""

    fusion: str
    simplest: str
    named: bool
    """Whether the fusion was asked for by name and ships in any case."""

    score: str
    """The proper score."""

    gain: Difference
    """Of the fusion in the proper score; positive is better."""

    figure: str
    guard: Difference
    """Of the fusion in the figure that is shown first."""

    allowed: float = 0.0
    """Loss in the proper score at which the fusion still ships."""

    @property
    def passed(self) -> bool:
        """Whether no more is lost than is allowed."""
        return self.gain.value > -self.allowed and not self.guard.high < 0

    @property
    def fusion_ships(self) -> bool:
        """Whether the fusion is what ships."""
        return self.named or self.passed

    @property
    def ships(self) -> str:
        """Title of what ships."""
        return self.fusion if self.fusion_ships else self.simplest

    @property
    def said(self) -> str:
        """What ships, what the fusion gained, and why, in one sentence."""
        gained = f"{self.gain} {self.score}"
        over = f"over the simplest answer chosen inside (on all rows: {self.simplest})"
        if self.passed and self.gain.value > 0:
            sure = "" if self.gain.shown else " (not beyond the interval)"
            return f"ships: {self.fusion}, which gains {gained} {over}{sure}"
        if self.passed:
            return f"ships: {self.fusion}; {gained} {over} is within its error"
        lost = f"{self.fusion} is worse: {gained} {over}"
        if self.guard.high < 0:
            lost = f"{self.fusion} loses {self.figure}: {self.guard} {over} ({gained})"
        return f"ships: {self.ships}{', as named' if self.named else ''}; {lost}"

    def facts(self) -> dict[str, Any]:
        """As JSON values; an undefined number is NaN."""
        return {**asdict(self), "ships": self.ships}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "Gate":
        """The gate that wrote `facts`, undefined numbers as null or NaN."""
        kept = {name: facts[name] for name in cls.__dataclass_fields__ if name in facts}
        for name in ("gain", "guard"):
            kept[name] = Difference.from_facts(facts[name])
        return cls(**kept)


@dataclass(frozen=True, kw_only=True)
class Shipping:
    """What ships."""

    gate: Gate
    candidates: Sequence[Candidate]
    """What is chosen from on all rows."""

    verdict: Verdict
    """Cross-fitted scores of choosing from them."""


def simplest_answers(kind: Kind, names: Sequence[str]) -> list[Candidate]:
    """Plain mean, calibrated mean, equal log pool, each member alone: raw and with a temperature."""
    plain, calibrated = PLAIN_MEAN, Candidate(rule="mean")
    means = [plain] if kind == "regression" else [plain, calibrated]
    if len(names) == 1:
        return means
    pools = [] if kind == "regression" else [cross_fitting.PLAIN]
    alone = [replace(mean, members=(name,)) for mean in means for name in names]
    return [*means, *pools, *alone]


def gated(
    held: HeldOut,
    candidates: Sequence[Candidate],
    fused: Verdict,
    folds: np.ndarray,
    judging: Judging,
    *,
    named: bool,
) -> Shipping:
    """Compare a cross-fitted fusion with the simplest answer chosen inside, and say what ships.

    Args:
        held: members on rows they did not train on.
        candidates: what the fusion was chosen from.
        fused: its cross-fitted scores.
        folds: fold of each row.
        judging: the rows.
        named: whether the fusion was asked for by name.
    """
    simple = simplest_answers(held.members.kind, held.members.names)
    plain = cross_fitting.cross_fitted(held, simple, folds)
    guess = cross_fitting.priors(held, folds)
    ours, theirs = (answered(verdict.scores, guess) for verdict in (fused, plain))
    gate = gate_of(ours, theirs, judging, named=named, alone=len(candidates) == 1, titles=(
        candidates[0].title if len(candidates) == 1 else "the chosen fusion",
        cross_fitting.choose(held, simple, folds).title,
    ))  # fmt: skip
    if gate.fusion_ships:
        return Shipping(gate=gate, candidates=candidates, verdict=fused)
    return Shipping(gate=gate, candidates=simple, verdict=plain)


def gate_of(
    ours: Tensor,
    theirs: Tensor,
    judging: Judging,
    *,
    named: bool,
    alone: bool,
    titles: tuple[str, str],
) -> Gate:
    """The gate between a fusion's scores and those of the simplest answer; `alone`: it was not chosen."""
    score = cross_fitting.SELECTION_METRICS[judging.task.kind]
    gain = judging.gain(ours, theirs, score)
    return Gate(
        fusion=titles[0],
        simplest=titles[1],
        named=named,
        score=score,
        gain=gain,
        figure=judging.main,
        guard=judging.gain(ours, theirs),
        allowed=gain.error if alone else 0.0,
    )
