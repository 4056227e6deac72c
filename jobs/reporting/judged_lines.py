"""The lines of a report, all evaluated on the same rows; speaker-normalised runs are listed separately."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fusion.late.members import answered
from fusion.statistics import Difference, Interval
from jobs.catalog.predictions import HeldOut
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


def judged_lines(
    root: str,
    name: str,
    held: HeldOut,
    fused: Mapping[Role, Tensor],
    configs: Configs,
    fused_runs: Sequence[str],
    judging: Judging,
) -> Judged:
    """Judge the members, their baselines and a bundle.

    Args:
        root: of the dataset.
        name: of the task.
        held: the members on the rows.
        fused: scores of a bundle on the same rows.
        configs: of all runs.
        fused_runs: what the bundle was made of.
        judging: the rows.
    """
    own = normalised_runs(configs, held.members.names)
    raw = [member for member in held.members.names if member not in own]
    fused_own = normalised_runs(configs, fused_runs)
    folds = held.fold if len(np.unique(held.fold)) > 1 else judging.groups % 5
    known = metadata_out_of_fold(root, held, folds, name, judging.task)
    comparable = {} if raw and fused_own else fused
    shown = held.only(raw) if raw else held
    linear = linear_on(root, configs, shown.members.names, held, name, judging.task)
    others = other_baselines(None if known is None else known.scores, linear.scores, linear.title)
    normalised: list[NormalisedRun] = []
    if raw:
        guess = priors(held, folds)
        normalised = compare_normalised(root, configs, own, held, guess, name, judging)
        if fused_own:
            normalised += _fused_normalised(guess, fused, fused_own, judging)
    return Judged(
        lines=_lines(shown, others, comparable, folds, judging),
        normalised=normalised,
        transductive=not raw,
        metadata=() if known is None else known.facts,
        linear=linear,
    )


def _lines(
    held: HeldOut,
    others: Sequence[NamedScores],
    fused: Mapping[Role, Tensor],
    folds: np.ndarray,
    judging: Judging,
) -> list[Line]:
    """Baselines, each member, plain fusions of several, the fusion and what ships; on the same rows."""
    guess = priors(held, folds)
    named = [*baselines(guess, others), *member_lines(held)]
    if len(held.members.names) > 1:
        named += plain_fusions(held, folds)
    named += [NamedScores(role, role, scores) for role, scores in fused.items()]
    judged = with_answers(named, guess)
    best = best_member(judged, judging)
    return [
        Line(
            name=one.name,
            role=one.role,
            scores=one.scores,
            n=num_answered(one.scores),
            figures=judging.figures(line.scores),
            gain=judging.gain(line.scores, best.scores)
            if one.role in ("mean", "pool", "ensemble", "shipped")
            else None,
        )
        for one, line in zip(named, judged, strict=True)
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
