"""What ships is what the table shows, and is never worse there than the fusion beside it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fusion.late.members import Members
from fusion.metrics import metric
from fusion.statistics import Difference
from fusion.tasks import Task
from jobs.catalog.predictions import HeldOut
from jobs.evaluation import cross_fitting, shipping
from jobs.evaluation.cross_fitting import DEFAULT, SELECTION_METRICS, Candidate
from jobs.evaluation.judging import Judging
from jobs.evaluation.shipping import Gate

PEOPLE, EACH = 9, 6
ROWS = PEOPLE * EACH


def task_of(kind: str) -> Task:
    return Task(
        kind=kind, classes={"regression": (), "multilabel": ("a", "b")}.get(kind, ("a", "b", "c"))
    )


def held_of(kind: str, skills: tuple[float, ...], seed: int = 0) -> HeldOut:
    """Members that know the truth so well each (negative: sure and wrong)."""
    draw = torch.Generator().manual_seed(seed)
    width = {"regression": 1, "multilabel": 2, "classification": 3}[kind]
    noise = torch.randn(len(skills), ROWS, width, generator=draw, dtype=torch.float64)
    if kind == "classification":
        target = torch.randint(3, (ROWS,), generator=draw)
        truth = torch.nn.functional.one_hot(target, 3).double()
    elif kind == "multilabel":
        target = torch.randint(2, (ROWS, 2), generator=draw).double()
        truth = 2 * target - 1
    else:
        target = torch.randn(ROWS, generator=draw, dtype=torch.float64)
        truth = target.unsqueeze(1)
    scores = torch.stack(
        [
            skill * truth + noise[i] / (1 if kind != "regression" else 4)
            for i, skill in enumerate(skills)
        ]
    )
    names = tuple(f"m{i}" for i in range(len(skills)))
    members = Members.from_logits(names, kind, scores)
    people = np.arange(ROWS) // EACH
    return HeldOut(
        clip_id=np.arange(ROWS), fold=people % 3, target=target, members=members, group=people
    )


def shipped(
    held: HeldOut, *, named: bool = False
) -> tuple[cross_fitting.Verdict, shipping.Shipping]:
    judging = Judging(
        task=task_of(held.members.kind),
        target=held.target,
        groups=held.group,
        resamples=200,
        seed=0,
    )
    fused = cross_fitting.cross_fitted(held, [DEFAULT], held.fold)
    return fused, shipping.gated(held, [DEFAULT], fused, held.fold, judging, named=named)


KINDS = ("classification", "multilabel", "regression")
SKILLS = {
    "alike": (1.0, 1.0, 1.0),
    "one knows": (1.5, 0.0),
    "one lies": (1.0, 1.0, -2.0),
    "alone": (1.0,),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("skills", SKILLS.values(), ids=SKILLS)
def test_what_ships_is_no_worse_in_the_proper_score_than_the_fusion_unless_that_loses_accuracy(
    kind, skills
):
    held = held_of(kind, skills)
    fused, found = shipped(held)
    ours, theirs = (
        cross_fitting.judge(kind, one.scores, held.target) for one in (found.verdict, fused)
    )
    assert ours <= theirs or found.gate.guard.high < 0
    final = cross_fitting.choose(held, found.candidates, held.fold)
    assert final.title == found.gate.ships
    assert found.gate.said.startswith(f"ships: {final.title}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_fusion_that_was_named_ships_whatever_it_gains(kind):
    _, found = shipped(held_of(kind, (1.5, 0.0)), named=True)
    assert list(found.candidates) == [DEFAULT]
    assert found.gate.ships == "mixture"


@pytest.mark.parametrize("kind", KINDS)
def test_simplest_answers_are_told_apart_by_their_titles(kind):
    titles = [one.title for one in shipping.simplest_answers(kind, ("a", "b"))]
    assert len(set(titles)) == len(titles)
    assert titles[0] == "plain mean"


def test_the_titles_of_calibrations_say_what_differs_from_the_rules_own():
    assert Candidate(rule="mixture").title == "mixture"
    assert Candidate(rule="mixture", calibration="temperature").title == "mixture with temperature"
    assert Candidate(rule="log_pool", calibration="temperature").title == "log_pool"
    assert Candidate(rule="log_pool", calibration="none").title == "log_pool uncalibrated"
    assert Candidate(rule="mean", members=("a",)).title == "a alone, calibrated"


bounds = st.floats(-1, 1) | st.just(float("nan"))


@given(
    value=bounds, low=bounds, wide=st.floats(0, 1), guard=bounds, named=st.booleans(),
    allowed=st.floats(0, 0.2),
)  # fmt: skip
def test_a_gate_closes_by_more_than_is_allowed_in_the_proper_score_and_by_a_clear_loss(
    value, low, wide, guard, named, allowed
):
    def difference(value, low, high):
        return Difference(value=value, low=low, high=high, level=0.95, groups=9, p_value=0.5)

    gate = Gate(
        fusion="fusion", simplest="simplest", named=named, score="nll", figure="accuracy",
        gain=difference(value, low, low + wide), guard=difference(guard, guard, guard),
        allowed=allowed,
    )  # fmt: skip
    assert gate.gain.error == pytest.approx(0.0 if np.isnan(low) else wide / 3.92, abs=1e-5)
    assert gate.fusion_ships == (named or (value > -allowed and not guard < 0))
    assert gate.ships in gate.said
    assert str(Gate.from_facts(gate.facts())) == str(gate)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.01, "which gains +0.010 [-0.040, +0.060] nll over the simplest"),
        (-0.01, "ships: fusion; -0.010 [-0.060, +0.040] nll over the simplest"),
        (-0.04, "ships: simplest; fusion is worse: -0.040 [-0.090, +0.010] nll over the simplest"),
    ],
)
def test_a_gate_says_whether_a_gain_an_error_or_a_loss_decided(value, said):
    gain = Difference(
        value=value, low=value - 0.05, high=value + 0.05, level=0.95, groups=9, p_value=0.5
    )
    gate = Gate(
        fusion="fusion", simplest="simplest", named=False, score="nll", figure="accuracy",
        gain=gain, guard=gain, allowed=gain.error,
    )  # fmt: skip
    assert said in gate.said


def test_the_default_may_lose_an_error_over_groups_and_what_was_chosen_among_many_nothing():
    held = held_of("classification", SKILLS["alike"])
    _, found = shipped(held)
    assert found.gate.allowed == found.gate.gain.error > 0
    many = cross_fitting.every_candidate("classification", held.members.names)
    fused = cross_fitting.cross_fitted(held, many, held.fold)
    judging = Judging(
        task=task_of("classification"), target=held.target, groups=held.group, resamples=200, seed=0
    )
    assert shipping.gated(held, many, fused, held.fold, judging, named=False).gate.allowed == 0


def test_the_judge_of_a_gate_is_what_chooses_candidates():
    for kind in KINDS:
        assert not metric(SELECTION_METRICS[kind]).higher_is_better


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("silent", ["one fold", "all but one fold", "everywhere"])
def test_a_member_that_has_no_row_to_be_fitted_on_is_not_chosen(kind, silent):
    held = held_of(kind, (1.0, 1.5))
    known = {
        "one fold": held.fold != 0,
        "all but one fold": held.fold == 0,
        "everywhere": np.zeros(ROWS, bool),
    }[silent]
    present = torch.stack([torch.ones(ROWS, dtype=torch.bool), torch.from_numpy(known)])
    held = replace(held, members=replace(held.members, present=present))
    _, found = shipped(held)
    final = cross_fitting.choose(held, found.candidates, held.fold)
    assert cross_fitting.fit(held, final).combine(held.members).isfinite().all()
    if silent != "one fold":
        alone = replace(final, members=("m1",))
        pairs = cross_fitting.PairFits(held, held.fold)
        assert pairs.judgements(alone)[None] == float("inf")
        assert final.members != ("m1",)


def test_a_fusion_says_nothing_of_a_fold_without_which_no_row_is_known():
    held = held_of("classification", (1.0,))
    only = torch.from_numpy(held.fold == 0).unsqueeze(0)
    held = replace(held, members=replace(held.members, present=only))
    scores = cross_fitting.cross_fitted(held, [DEFAULT], held.fold).scores
    assert bool(scores.isnan().all())


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(("unit", "zero"), [(1e-6, 0.0), (1.0, 10.0), (1e6, -1e6)])
def test_values_in_another_unit_and_from_another_zero_are_judged_and_shipped_alike(
    unit, zero, named
):
    for skills in ((1.0, 1.0, 1.0), (1.0, 0.2, -1.0)):
        held = held_of("regression", skills)
        other = replace(
            held,
            target=unit * held.target + zero,
            members=replace(held.members, scores=unit * held.members.scores + zero),
        )
        (_, plain), (_, moved) = shipped(held, named=named), shipped(other, named=named)
        assert moved.gate.ships == plain.gate.ships
        assert moved.gate.guard.p_value == plain.gate.guard.p_value
        assert moved.gate.gain.p_value == plain.gate.gain.p_value
        assert moved.gate.gain.low == pytest.approx(unit**2 * plain.gate.gain.low, rel=1e-5)
        back = (moved.verdict.scores - zero) / unit
        assert torch.allclose(back, plain.verdict.scores, atol=1e-7)
