"""The lines of a report, all evaluated on the same rows; speaker-normalised runs are listed separately."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fusion.late.members import answered
from fusion.statistics import Difference, Interval
from jobs.catalog.predictions import HeldOut
from jobs.evaluation.bundle_scores import BundleSaid
from jobs.evaluation.cross_fitting import priors
from jobs.evaluation.judging import Judging
from jobs.evaluation.linear_baseline import LinearBaseline, linear_on
from jobs.evaluation.metadata_baseline import metadata_out_of_fold
from jobs.evaluation.results_table import (
    NamedScores,
    Role,
    baselines,
    best_member,
    member_lines,
    num_answered,
    other_baselines,
    plain_fusions,
    with_answers,
)
from jobs.evaluation.sibling_runs import Configs
from jobs.evaluation.speaker_normalised import NormalisedRun, compare_normalised, normalised_runs

BESIDE = "(not in the bundle)"
"""Follows the name of a run that is shown beside a bundle which it is no member of."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One way to answer, judged on every row."""

    name: str
    role: Role
    scores: Tensor
    """[row outputs], NaN where it has nothing to say; judged with the prior there."""

    n: int
    """Rows that it answers of itself."""

    figures: Mapping[str, Interval]
    gain: Difference | None
    """Of the first figure over the best single member; positive is better."""

    fused: bool = True
    """Whether it is a member of the bundle, where there is one; others are beside it."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Everything that has figures on the held-out rows."""

    lines: Sequence[Line]
    normalised: Sequence[NormalisedRun]
    """Runs normalised by their speaker, where raw ones stand among the lines."""

    transductive: bool
    """Whether all of the lines are of runs normalised by their speaker, or fuse some."""

    metadata: Sequence[str]
    """What the baseline that sees no content knows of a clip; empty where there is none."""

    linear: LinearBaseline
    """Where the linear model of the same features is from."""

    pooled: Sequence[str]
    """Members that the plain fusions are of, normalised ones only if all lines are; empty where none is."""

    unshown: Sequence[str]
    """Members of the bundle that stand nowhere in the report."""


def judged_lines(
    root: str,
    name: str,
    held: HeldOut,
    bundle: BundleSaid | None,
    configs: Configs,
    judging: Judging,
) -> Judged:
    """Judge the members, their baselines and a bundle.

    Args:
        root: of the dataset.
        name: of the task.
        held: the members on the rows.
        bundle: what it is made of, and says of the same rows.
        configs: of all runs.
        judging: the rows.
    """
    own = normalised_runs(configs, held.members.names)
    raw = [member for member in held.members.names if member not in own]
    fused_own = {} if bundle is None else normalised_runs(configs, bundle.runs)
    folds = _folds(held, judging.groups) if bundle is None else bundle.folds
    known = metadata_out_of_fold(root, held, folds, name, judging.task)
    comparable = None if raw and fused_own else bundle
    shown = held.only(raw) if raw else held
    runs = shown.members.names if comparable is None else comparable.runs
    linear = linear_on(root, configs, runs, held, name, judging.task)
    others = other_baselines(None if known is None else known.scores, linear.scores, linear.title)
    normalised: list[NormalisedRun] = []
    if raw:
        guess = priors(held, folds)
        normalised = compare_normalised(root, configs, own, held, guess, name, judging)
        if bundle is not None and fused_own:
            normalised += _fused_normalised(guess, bundle.scores, fused_own, judging)
    fused = shown.members.names if bundle is None else bundle.members
    # Raw lines stand beside raw ones alone: their plain fusions are of no normalised member either.
    members = [each for each in fused if comparable is not None or each not in fused_own]
    scores = {} if comparable is None else comparable.scores
    return Judged(
        lines=_lines(shown, others, scores, members, folds, judging),
        normalised=normalised,
        transductive=not raw,
        metadata=() if known is None else known.facts,
        linear=linear,
        pooled=_pooled(shown, members),
        unshown=[each for each in fused if each not in held.members.names],
    )


def _folds(held: HeldOut, groups: np.ndarray) -> np.ndarray:
    """Fold of each row, where no bundle has a table of its own."""
    return held.fold if len(np.unique(held.fold)) > 1 else groups % 5


def _pooled(held: HeldOut, members: Sequence[str]) -> Sequence[str]:
    """What the plain fusions are of: all members of the bundle; nothing where some of them are not shown."""
    there = set(members) <= set(held.members.names) and len(members) > 1
    return [name for name in held.members.names if name in members] if there else []


def _lines(
    held: HeldOut,
    others: Sequence[NamedScores],
    fused: Mapping[Role, Tensor],
    members: Sequence[str],
    folds: np.ndarray,
    judging: Judging,
) -> list[Line]:
    """Baselines, each member, plain fusions of several, the fusion and what ships; on the same rows."""
    guess = priors(held, folds)
    named = [*baselines(guess, others), *member_lines(held)]
    if pooled := _pooled(held, members):
        named += plain_fusions(held.only(pooled), folds)
    named += [NamedScores(role, role, scores) for role, scores in fused.items()]
    judged = with_answers(named, guess)
    beside = {name for name in held.members.names if name not in members}
    own = [line for line in judged if line.role == "member" and line.name not in beside]
    best = best_member(own or judged, judging)
    return [
        Line(
            name=f"{one.name} {BESIDE}" if is_beside else one.name,
            role=one.role,
            scores=one.scores,
            n=num_answered(one.scores),
            figures=judging.figures(line.scores),
            gain=judging.gain(line.scores, best.scores)
            if one.role in ("mean", "pool", "ensemble", "shipped")
            else None,
            fused=not is_beside,
        )
        for one, line in zip(named, judged, strict=True)
        for is_beside in [one.role == "member" and one.name in beside]
    ]


def _fused_normalised(
    guess: Tensor, fused: Mapping[Role, Tensor], own: Mapping[str, str], judging: Judging
) -> list[NormalisedRun]:
    """Figures of an ensemble that some normalised run is part of."""
    hows = "+".join(sorted(set(own.values())))
    return [
        NormalisedRun(
            name=name,
            how=hows,
            n=num_answered(scores),
            figures=judging.figures(answered(scores, guess)),
        )
        for name, scores in fused.items()
    ]
