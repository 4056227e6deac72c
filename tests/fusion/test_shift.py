"""The accuracy that is expected of rows without labels: of people alike, of missing members, of shifts."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.late.members import Members
from fusion.shift import Expectation, KnownRows, Signals

NAMES = ("face", "voice")


def people(
    seed: int, *, groups: int = 30, sharp: float = 1.5, uneven: float = 0.3, kept: str = ""
) -> KnownRows:
    """KnownRows of people who are unequally hard to read; `kept` leaves one member."""
    draw = np.random.default_rng(seed)
    code = np.repeat(np.arange(groups), 40)
    truth = draw.integers(0, 4, len(code))
    strength = (sharp * np.exp(uneven * draw.normal(size=groups)))[code]
    said = draw.normal(size=(2, len(code), 4))
    said[:, np.arange(len(code)), truth] += strength
    present = torch.ones(2, len(code), dtype=torch.bool)
    if kept:
        present[1 - NAMES.index(kept)] = False
    members = Members.from_logits(NAMES, "classification", torch.from_numpy(1.5 * said), present)
    share = present.double() / present.sum(0)
    fused = (share[..., None] * members.scores).sum(0).log_softmax(1)
    right = (fused.argmax(1) == torch.from_numpy(truth)).double()
    return KnownRows(signals=Signals.of(fused, members), right=right, groups=code)


def fitted(seed: int = 0, **options: float) -> Expectation:
    made = [people(seed, kept=name, **options) for name in NAMES]  # the same draws, one member less
    return Expectation.fit(NAMES, people(seed, **options), made)


@pytest.mark.parametrize("sharp", [1.25, 1.5, 2.0, 2.5])
def test_somewhat_harder_and_easier_people_than_in_training_are_foreseen(sharp: float) -> None:
    new = people(7, sharp=sharp)
    expected = float(fitted().of(new.signals).mean())
    assert expected == pytest.approx(float(new.right.mean()), abs=0.05)


def test_of_much_harder_people_too_much_is_expected_but_less_than_of_those_in_training() -> None:
    """What a row says of itself is believed as it was in training; ranges of features say the rest."""
    hard, alike = (people(7, sharp=sharp) for sharp in (0.5, 1.5))
    expected = float(fitted().of(hard.signals).mean())
    assert float(hard.right.mean()) < expected < float(fitted().of(alike.signals).mean()) - 0.1


@pytest.mark.parametrize("kept", NAMES)
def test_people_who_all_lack_a_member_are_foreseen_though_nobody_in_training_did(kept: str) -> None:
    new = people(7, kept=kept)
    expected = float(fitted().of(new.signals).mean())
    assert expected == pytest.approx(float(new.right.mean()), abs=0.05)
    assert expected < float(fitted().of(people(7).signals).mean()) - 0.05


def test_the_interval_holds_the_accuracy_of_new_people_as_often_as_it_says() -> None:
    hits = []
    for seed in range(60):
        expectation = Expectation.fit(NAMES, people(seed, groups=8, uneven=0.8))
        new = people(1000 + seed, groups=5, uneven=0.8)
        expected = float(expectation.of(new.signals).mean())
        reach = expectation.margin(5, len(new.right), expected)
        hits.append(abs(expected - float(new.right.mean())) <= reach)
    assert 0.88 <= np.mean(hits) <= 1.0


def test_fewer_people_in_training_or_in_the_collection_widen_the_interval() -> None:
    few, many = (replace(fitted(), groups=count, spread=0.1) for count in (5, 50))
    assert few.margin(10, 400, 0.8) > many.margin(10, 400, 0.8) > many.margin(100, 4000, 0.8)
    assert many.margin(1, 40, 0.8) > 0.2
    assert many.margin(0, 0, 0.8) == replace(many, groups=1).margin(5, 100, 0.8) == 1.0


def test_an_unknown_combination_of_members_takes_the_lowest_offset() -> None:
    alone = Expectation.fit(NAMES, people(0), [people(0, kept="voice")])
    rows = people(1, kept="face")
    assert ("face",) not in alone.offsets
    lowest = replace(alone, offsets={("face",): min(alone.offsets.values())})
    assert torch.equal(alone.of(rows.signals), lowest.of(rows.signals))


def test_rows_without_members_have_no_expectation() -> None:
    rows = people(0)
    nobody = replace(rows.signals, present=torch.zeros_like(rows.signals.present))
    assert bool(fitted().of(nobody).isnan().all())


def test_of_labels_the_share_that_is_right_is_expected() -> None:
    draw = torch.Generator().manual_seed(0)
    truth = torch.rand(2000, 3, generator=draw) < 0.5
    noise = torch.randn(2, 2000, 3, generator=draw, dtype=torch.float64)
    logits = 1.5 * (truth * 2.0 - 1) + noise
    members = Members.from_logits(NAMES, "multilabel", 2 * logits)
    fused = members.scores.mean(0)
    right = ((fused >= 0) == truth).double().mean(1)
    rows = KnownRows(signals=Signals.of(fused, members), right=right, groups=np.arange(2000) % 20)
    expectation = Expectation.fit(NAMES, rows)
    assert float(expectation.of(rows.signals).mean()) == pytest.approx(
        float(right.mean()), abs=0.01
    )


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 12),
    groups=st.integers(1, 4),
    right=st.sampled_from([None, 0.0, 1.0]),
)
def test_any_few_rows_give_finite_numbers_and_the_state_comes_back(
    seed: int, rows: int, groups: int, right: float | None
) -> None:
    """All right, all wrong, one row, one person, certain answers."""
    draw = np.random.default_rng(seed)
    members = Members.from_logits(
        NAMES, "classification", torch.from_numpy(50 * draw.normal(size=(2, rows, 3)))
    )
    signals = Signals.of(members.scores.mean(0).log_softmax(1), members)
    truth = torch.from_numpy(draw.integers(0, 2, rows)).double()
    data = KnownRows(
        signals=signals,
        right=truth if right is None else torch.full_like(truth, right),
        groups=np.arange(rows) % groups,
    )
    expectation = Expectation.fit(NAMES, data)
    said = expectation.of(signals)
    assert bool(((said >= 0) & (said <= 1)).all())
    assert 0 <= expectation.margin(3, 30, float(said.mean())) <= 1
    assert Expectation.from_state(json.loads(json.dumps(expectation.state()))) == expectation
