"""Thresholds of coverage that know which members a row has.

What is fused of fewer members is less sure, so a threshold of all rows covers too little of those that lack
some. Rows are told apart by the members that they have, each kind with thresholds of its own: of the rows
that are so where enough people have any, else of rows that have more members, fused anew without those. A
kind of which nothing is known gets the widest thresholds of all.

Vovk 2012, "Conditional validity of inductive conformal predictors" (https://arxiv.org/abs/1209.2673), for
categories of rows. What differs: rows of a rare category are made of others.
"""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from fusion.late.conformal import Conformal, held_parts, parts_of, size_of
from fusion.statistics import Groups
from fusion.tasks import Kind

FEWEST_GROUPS = 10
"""With fewer people nothing is promised at a coverage of 0.9, so rows that they lack are made of others."""

FEWEST_ROWS = 100
"""A quantile of fewer rows is off by several points of coverage."""

MAX_MEMBERS = 4
"""Up to so many members every combination of them has thresholds; of more those that rows have, those that
lack one, and each member alone."""

Names = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class HeldRows:
    """Rows that nothing which gave the scores was fitted on."""

    kind: Kind
    scores: Float[Tensor, "row outputs"]
    """Logits, log-probabilities or values; NaN where no member is present."""

    target: Shaped[Tensor, "row ..."]
    groups: np.ndarray
    """Code of each row's group [row]."""

    members: Names
    """Those that ship; none: all rows are alike."""

    present: Bool[Tensor, "member row"]
    without: Mapping[Names, Float[Tensor, "row outputs"]] = field(default_factory=dict)
    """Members that are left -> the scores of rows that have these and more, fused of these alone."""

    @classmethod
    def alike(
        cls,
        kind: Kind,
        scores: Float[Tensor, "row outputs"],
        target: Shaped[Tensor, "row ..."],
        groups: Sequence[Hashable] | np.ndarray | Tensor,
    ) -> "HeldRows":
        """Rows of whose members nothing is known."""
        code = Groups.of(groups).code.numpy()
        present = torch.ones(0, len(scores), dtype=torch.bool)
        return cls(
            kind=kind, scores=scores, target=target, groups=code, members=(), present=present
        )

    def some(self, at: np.ndarray) -> "HeldRows":
        """Some of the rows, by a mask."""
        rows = torch.from_numpy(at)
        return replace(
            self,
            scores=self.scores[rows],
            target=self.target[rows],
            groups=self.groups[at],
            present=self.present[:, rows],
            without={names: scores[rows] for names, scores in self.without.items()},
        )


@dataclass(frozen=True, kw_only=True)
class ByPresence:
    """Thresholds of all rows, and of the rows with certain members."""

    every: Conformal
    members: Names = ()
    by: Mapping[Names, Conformal] = field(default_factory=dict)

    @classmethod
    def fit(cls, rows: HeldRows) -> "ByPresence":
        """Thresholds from rows that nothing was fitted on."""
        every = Conformal.fit(rows.kind, rows.scores, rows.target, rows.groups)
        seen = kinds_of(rows.members, rows.present)
        found = {}
        for names in dict.fromkeys([*seen, *rows.without]):
            fitted = _of_kind(rows, names, seen.get(names), every)
            if fitted.groups >= FEWEST_GROUPS:
                found[names] = fitted
        return cls(every=every, members=rows.members, by=found)

    def of(self, names: Names) -> Conformal:
        """Thresholds of rows that have these members."""
        if not self.members or names in self.by:
            return self.by.get(names, self.every)
        return self._widest

    def kinds(self, present: Bool[Tensor, "member row"]) -> Iterator[tuple[Tensor, Conformal]]:
        """Indices of the rows that have the same members, and their thresholds."""
        for names, rows in kinds_of(self.members, present).items():
            yield rows, self.of(names)

    @property
    def _widest(self) -> Conformal:
        """What covers every kind of rows that is known."""
        known = [self.every.thresholds, *(one.thresholds for one in self.by.values())]
        return replace(self.every, thresholds=tuple(
            tuple(map(max, *part, (-math.inf,) * len(part[0]))) for part in zip(*known, strict=True)
        ))  # fmt: skip

    def state(self) -> dict[str, Any]:
        """Plain JSON values: those of `Conformal`, and what knows the members."""
        by = [
            {"members": list(names), "groups": one.groups, "thresholds": one.state()["thresholds"]}
            for names, one in self.by.items()
        ]
        return {**self.every.state(), "members": list(self.members), "by_members": by}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "ByPresence":
        """The thresholds that wrote `state`; those of an earlier version are the same for all rows."""
        by = {
            tuple(one["members"]): Conformal.from_state({"kind": state["kind"], **one})
            for one in state.get("by_members", ())
        }
        return cls(
            every=Conformal.from_state(state), members=tuple(state.get("members", ())), by=by
        )


def kinds_of(members: Names, present: Bool[Tensor, "member row"]) -> dict[Names, Tensor]:
    """Members that rows have -> the indices of those rows; of rows without any there are none."""
    if not members:
        return {(): torch.arange(present.shape[1])}
    kinds, code = torch.unique(present, dim=1, return_inverse=True)
    return {
        tuple(n for n, there in zip(members, kind.tolist(), strict=True) if there): rows
        for index, kind in enumerate(kinds.T)
        if len(rows := (code == index).nonzero()[:, 0]) and bool(kind.any())
    }


def combinations_of(members: Names, present: Bool[Tensor, "member row"]) -> list[Names]:
    """The members that rows may be left with: a few combinations, in the order of their size."""
    sizes: Sequence[int] = range(1, len(members) + 1)
    if len(members) > MAX_MEMBERS:
        sizes = (1, len(members) - 1, len(members))
    drawn = [names for size in sizes for names in combinations(members, size)]
    return [*dict.fromkeys([*drawn, *kinds_of(members, present)])]


def left_out(
    rows: HeldRows, coverage: float
) -> tuple[Float[Tensor, "row part"], Float[Tensor, " row"]]:
    """What new people would meet: each group answered with thresholds that were fitted on the others.

    Returns:
        Whether the truth is covered, as `Conformal.covers` says it, and the size of each answer: the number
        of possible classes, of labels that are neither surely there nor surely not, the width of an interval.
    """
    code = rows.groups
    seen = kinds_of(rows.members, rows.present)
    needed = {names: scores for names, scores in rows.without.items() if names in seen}
    rows = replace(rows, without=needed)
    parts = parts_of(rows.kind, rows.scores)
    covered = torch.full((len(code), parts), torch.nan, dtype=torch.float64)
    size = torch.full((len(code),), torch.nan, dtype=torch.float64)
    for held in held_parts(code):
        fitted = ByPresence.fit(rows.some(~held))
        inside = torch.from_numpy(np.flatnonzero(held))
        for index, conformal in fitted.kinds(rows.present[:, inside]):
            at = inside[index]
            covered[at] = conformal.covers(rows.scores[at], rows.target[at], coverage)
            size[at] = size_of(conformal, rows.scores[at], coverage)
    size[rows.scores.isnan().any(1)] = torch.nan
    return covered, size


def _of_kind(rows: HeldRows, names: Names, at: Tensor | None, every: Conformal) -> Conformal:
    """Thresholds of rows that have these members and no others, or of such as were made of others."""
    if at is not None and len(at) == len(rows.scores):
        return every
    groups = rows.groups
    if at is not None:
        fitted = Conformal.fit(rows.kind, rows.scores[at], rows.target[at], groups[at.numpy()])
        enough = fitted.groups >= FEWEST_GROUPS and len(at) >= FEWEST_ROWS
        if enough or names not in rows.without:
            return fitted
    scores = rows.without[names]
    known = ~scores.isnan().any(1)
    return Conformal.fit(rows.kind, scores[known], rows.target[known], groups[known.numpy()])
