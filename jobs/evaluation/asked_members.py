"""Whether members that nobody trained earn their place in an ensemble: only where they show a gain.

A large model that was asked, or an encoder that itself says what a clip is, has seen none of the rows, but
nobody knows whether it understands the task, and it costs its time. The default fusion is cross-fitted with
and without it on the same rows; it stays where the interval of its gain in the proper score, resampled over
groups, lies above 0. One that knows nothing passes in fewer than one of forty collections. The decision is
taken once, on all held-out rows; it compares two procedures by an interval, so that the figures of what
stays owe next to nothing to it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusion.late.members import answered
from fusion.statistics import Difference
from jobs.catalog import bundles
from jobs.catalog.predictions import HeldOut
from jobs.evaluation import cross_fitting
from jobs.evaluation.judging import Judging


def with_those_that_gain(
    held: HeldOut, asked: Sequence[str], folds: np.ndarray, judging: Judging
) -> HeldOut:
    """The members without those untrained ones that show no gain, and the rows that any of them answers.

    What each gains is printed.

    Args:
        held: members on rows they did not train on.
        asked: which of them nobody trained; each is judged beside those before it.
        folds: fold of each row.
        judging: the rows.
    """
    kept = [name for name in held.members.names if name not in asked]
    if not kept:
        return held
    for name in asked:
        gain = gain_of(held.only([*kept, name]), name, folds, judging)
        score = cross_fitting.SELECTION_METRICS[judging.task.kind]
        said = f"{gain} {score}"
        if gain.low > 0:
            kept.append(name)
            print(f"{name}: gains {said} over the other members, and is fused with them")
        else:
            print(f"{name}: shows no gain, {said} over the other members, and is left out")
    held = held.only(kept)
    return held.rows(held.members.present.any(0).numpy())


def gain_of(held: HeldOut, name: str, folds: np.ndarray, judging: Judging) -> Difference:
    """What the default fusion gains by a member in the proper score; positive is better."""
    kind = held.members.kind
    others = held.only([each for each in held.members.names if each != name])
    guess = cross_fitting.priors(held, folds)
    ours, theirs = (
        answered(cross_fitting.cross_fitted(some, [cross_fitting.DEFAULT], folds).scores, guess)
        for some in (held, others)
    )
    return judging.gain(ours, theirs, cross_fitting.SELECTION_METRICS[kind])


def say_mute(facts: Mapping[str, Any]) -> None:
    """Say which members of a bundle cannot be asked about raw clips."""
    asked = bundles.asked_members(facts)
    mute = [name for name in bundles.members_elsewhere(facts) if name not in asked]
    if asked and not mute and len(facts["rule"]["members"]) > len(asked):
        print(
            f"{', '.join(asked)}: a large model's answers; `affuse score` leaves it out of other clips"
        )
    elif mute := [*mute, *asked]:
        print(
            f"{', '.join(mute)}: predictions alone, so the bundle judges these clips and scores no others; "
            "for those leave them out of --runs and --imported, under another --bundle"
        )
