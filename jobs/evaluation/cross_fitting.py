"""Choosing and judging a late fusion without fooling oneself.

Everything that is chosen for a fold (members, rule, its numbers, calibration) is chosen from the other folds'
held-out rows. `cross_fitted` gives the fused scores of that procedure on all rows; the bundle ships the same
procedure fitted once on all of them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusion.late import rule_class
from fusion.late.calibration import (
    Calibration,
    Method,
    apply_members,
    calibrate_members,
)
from fusion.late.members import Members, answered, prior, probabilities
from fusion.metrics import metric
from fusion.tasks import Kind
from jobs.catalog.predictions import HeldOut

SELECTION_METRICS: Mapping[str, str] = {
    "classification": "nll",
    "multilabel": "multilabel_nll",
    "regression": "mse",
}
"""Metric that chooses between candidates: proper scores, smooth enough to separate close rules."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to fuse."""

    rule: str
    """Key of fusion.late.LATE."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the rule's Config."""

    members: tuple[str, ...] = ()
    """Members it fuses; empty: all of them."""

    calibration: Method | None = None
    """Of the fused scores, fitted on the same rows; None: the rule's own; values have none."""

    member_calibration: Method = "none"
    """Of each member before it is fused, on the same rows."""

    @property
    def key(self) -> str:
        """Equal for equal candidates only."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def title(self) -> str:
        """How tables name it."""
        own = rule_class(self.rule).calibration
        calibration = self.calibration or own
        if (
            self.rule == "mean"
            and self.member_calibration == "none"
            and calibration in ("none", own)
        ):
            plain = calibration == "none"
            if len(self.members) == 1:
                return f"{self.members[0]} alone" + ("" if plain else ", calibrated")
            if not self.members:
                return "plain mean" if plain else "calibrated mean"
        options = ",".join(f"{key}={value}" for key, value in sorted(self.options.items()))
        parts = [self.rule + (f"[{options}]" if options else "")]
        if self.members:
            parts.append("of " + "+".join(self.members))
        if self.member_calibration != "none":
            parts.append(f"after {self.member_calibration} a member")
        if calibration != own:
            parts.append("uncalibrated" if calibration == "none" else f"with {calibration}")
        return " ".join(parts)


DEFAULT = Candidate(rule="mixture")
"""What fuses where nothing is named."""

PLAIN = Candidate(rule="log_pool", options={"fitted": False})
"""Equal weights in log space, one temperature."""

PLAIN_MEAN = Candidate(rule="mean", calibration="none")
"""Equal weights, nothing fitted."""

TRIED: tuple[Candidate, ...] = (
    PLAIN,
    Candidate(rule="mean"),
    DEFAULT,
    Candidate(rule="log_pool"),
    Candidate(rule="log_pool", options={"shrinkage": 10.0}),
    Candidate(rule="log_pool", options={"bias": True}),
    Candidate(rule="mean", member_calibration="temperature"),
    Candidate(rule="caruana"),
    Candidate(rule="caruana", options={"space": "log"}),
    Candidate(rule="per_class"),
    Candidate(rule="confidence", member_calibration="temperature"),
    Candidate(rule="attention"),
    Candidate(rule="stacking"),
)
"""What `auto` tries, the simplest first: a tie goes to the earlier one."""

MAX_DROPPED = 12
"""Up to this many members, the pool without each one of them is tried as well."""


def every_candidate(kind: Kind, names: Sequence[str]) -> list[Candidate]:
    """The rules that have a meaning for a kind of task, and the pool without each of its members."""
    tried = [c for c in TRIED if kind in rule_class(c.rule).kinds]
    if kind == "regression":  # values have no confidence: the same candidate twice
        tried = [c for c in tried if c.member_calibration == "none"]
    if 2 < len(names) <= MAX_DROPPED:
        tried += [
            Candidate(rule="log_pool", members=tuple(name for name in names if name != dropped))
            for dropped in names
        ]
    return tried


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A candidate with its numbers."""

    candidate: Candidate
    members: Mapping[str, Calibration]
    """Of each member, before the rule."""

    rule: Any
    calibration: Calibration
    prior: Tensor
    """Answer to a clip of which nothing is known [output]: frequencies, or the median of the values."""

    def combine(self, members: Members) -> Tensor:
        """Fused scores [row outputs] of the members' own kind."""
        if self.candidate.members:
            members = members.only(self.candidate.members)
        return self.calibration.apply(self.rule.combine(apply_members(self.members, members)))


def fit(
    held: HeldOut, candidate: Candidate, calibrated: Mapping[str, Calibration] | None = None
) -> Fitted:
    """Fit rule and calibration on these rows.

    Args:
        held: members' scores on rows they did not train on.
        candidate: what is fitted.
        calibrated: the candidate's calibration of each member, where it was fitted on these rows before.
    """
    members = held.members.only(candidate.members) if candidate.members else held.members
    calibrations: Mapping[str, Calibration] = {}
    if members.kind != "regression" and candidate.member_calibration != "none":
        found = calibrated or calibrate_members(candidate.member_calibration, members, held.target)
        calibrations = {name: found[name] for name in members.names}
        members = apply_members(calibrations, members)
    kind = rule_class(candidate.rule)
    groups = None if held.group is None else torch.from_numpy(held.group)
    rule = kind.fit(kind.Config(**candidate.options), members, held.target, groups=groups)
    method: Method = candidate.calibration or kind.calibration
    if members.kind == "regression":
        method = "none"
    calibration = Calibration.fit(method, members.kind, rule.combine(members), held.target)
    return Fitted(
        candidate=candidate,
        members=calibrations,
        rule=rule,
        calibration=calibration,
        prior=probabilities(members.kind, prior(members.kind, held.target, members.outputs)),
    )


def speaks(held: HeldOut, candidate: Candidate) -> bool:
    """Whether any of its members has a row here, without which it cannot be fitted."""
    members = held.members.only(candidate.members) if candidate.members else held.members
    return bool(members.present.any())


Judgements = Mapping[int | None, float]
"""A candidate's judge on the rows outside a fold, by fits that never saw that fold; None: on all rows."""


def cross_fitted(
    held: HeldOut,
    candidates: Sequence[Candidate],
    folds: np.ndarray,
    known: Mapping[str, Judgements] | None = None,
) -> "Verdict":
    """Fused scores of every row by a procedure that never saw the row's fold.

    Args:
        held: members' scores on rows they did not train on.
        candidates: what may be chosen from; with one, nothing is chosen. It says nothing of a fold without
            which none of its members has a row.
        folds: fold of each row [row]; at least two folds.
        known: judgements that were made elsewhere, by `Candidate.key`.

    Raises:
        ValueError: fewer than two folds.
    """
    names = np.unique(folds)
    if len(names) < 2:
        raise ValueError("cross-fitting needs two folds or more")
    scores = torch.full((len(folds), held.members.scores.shape[2]), torch.nan, dtype=torch.float64)
    chosen, fits = {}, {}
    pairs = PairFits(held, folds, known)
    for fold in names:
        best = pairs.best(candidates, without=int(fold)) if len(candidates) > 1 else candidates[0]
        chosen[int(fold)] = best
        at = folds == fold
        others = held.rows(~at)
        if speaks(others, best):
            fits[int(fold)] = fit(others, best)
            scores[torch.from_numpy(at)] = fits[int(fold)].combine(held.rows(at).members)
    return Verdict(scores=scores, chosen=chosen, fits=fits)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Result of cross-fitting."""

    scores: Tensor
    """[row outputs], NaN where no member was present."""

    chosen: Mapping[int, Candidate]
    """Fold -> the candidate that the other folds chose for it."""

    fits: Mapping[int, Fitted]
    """Fold -> that candidate fitted on the other folds; none where it says nothing."""


def choose(
    held: HeldOut,
    candidates: Sequence[Candidate],
    folds: np.ndarray,
    known: Mapping[str, Judgements] | None = None,
) -> Candidate:
    """The candidate with the best cross-fitted judge over all folds: what a bundle ships."""
    if len(candidates) == 1:
        return candidates[0]
    return PairFits(held, folds, known).best(candidates, without=None)


def priors(held: HeldOut, folds: np.ndarray) -> Tensor:
    """Scores of a member that knows only how often each class (label, value) occurs elsewhere."""
    kind, width = held.members.kind, held.members.scores.shape[2]
    scores = torch.zeros(len(folds), width, dtype=torch.float64)
    for fold in np.unique(folds):
        at = torch.from_numpy(folds == fold)
        scores[at] = prior(kind, held.target[~at], width)
    return scores


def judge(kind: Kind, scores: Tensor, target: Tensor) -> float:
    """Lower is better; of scores that answer every row, so that candidates are compared on the same ones."""
    return metric(SELECTION_METRICS[kind])(probabilities(kind, scores), target)


class PairFits:
    """Scores of candidates on one fold, fitted without that fold and without a second one.

    Leaving out {k, j} serves fold k's choice (scored on j) and fold j's choice (scored on k) alike, so
    that a nested choice costs half of what it seems to.

    Args:
        held: members' scores on rows they did not train on.
        folds: fold of each row [row].
        known: judgements that were made elsewhere, by `Candidate.key`.
    """

    def __init__(
        self, held: HeldOut, folds: np.ndarray, known: Mapping[str, Judgements] | None = None
    ) -> None:
        self.held = held
        self.folds = folds
        self.known = known or {}
        self.names = [int(name) for name in np.unique(folds)]
        self.cache: dict[tuple[str, frozenset[int]], Fitted] = {}
        self.calibrated: dict[tuple[Method, frozenset[int]], Mapping[str, Calibration]] = {}

    def judgements(self, candidate: Candidate) -> Judgements:
        """Everything that a choice needs to know of one candidate."""
        # Of two folds none is left to fit on without both.
        without = self.names if len(self.names) > 2 else []
        return {fold: self.judge(candidate, without=fold) for fold in [None, *without]}

    def best(self, candidates: Sequence[Candidate], *, without: int | None) -> Candidate:
        """The best on the rows outside the fold `without`, each of them scored by a fit without it."""
        if len(self.names) - (without is not None) < 2:
            return candidates[0]
        judged = [self.judge(candidate, without=without) for candidate in candidates]
        return candidates[int(np.argmin(judged))]

    def judge(self, candidate: Candidate, *, without: int | None) -> float:
        """Lower is better; of the rows outside the fold `without`. Infinite where it cannot be fitted."""
        if candidate.key in self.known:
            return self.known[candidate.key][without]
        scores, targets = [], []
        for fold in self.names:
            if fold == without:
                continue
            left_out = frozenset({fold} if without is None else {fold, without})
            if not speaks(self.held.rows(~np.isin(self.folds, list(left_out))), candidate):
                return float("inf")
            rows = self.held.rows(self.folds == fold)
            said = self._fitted(candidate, left_out).combine(rows.members)
            scores.append(answered(said, self._prior(left_out)))
            targets.append(rows.target)
        return judge(self.held.members.kind, torch.cat(scores), torch.cat(targets))

    def _prior(self, left_out: frozenset[int]) -> Tensor:
        """What answers rows of which a candidate's members know nothing."""
        known = self.held.target[torch.from_numpy(~np.isin(self.folds, list(left_out)))]
        return prior(self.held.members.kind, known, self.held.members.outputs)

    def _fitted(self, candidate: Candidate, left_out: frozenset[int]) -> Fitted:
        key = (candidate.key, left_out)
        if key not in self.cache:
            rows = self.held.rows(~np.isin(self.folds, list(left_out)))
            calibrated = self._calibrated(candidate.member_calibration, rows, left_out)
            self.cache[key] = fit(rows, candidate, calibrated)
        return self.cache[key]

    def _calibrated(
        self, method: Method, rows: HeldOut, left_out: frozenset[int]
    ) -> Mapping[str, Calibration]:
        """Of all members: the same for every candidate."""
        if rows.members.kind == "regression" or method == "none":
            return {}
        key = (method, left_out)
        if key not in self.calibrated:
            self.calibrated[key] = calibrate_members(method, rows.members, rows.target)
        return self.calibrated[key]
