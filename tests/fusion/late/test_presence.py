"""Coverage of clips that lack members: of those seen in training, of those never seen there."""

import json

import numpy as np
import pytest
import torch

from fusion.late.conformal import COVERAGES, Conformal
from fusion.late.presence import ByPresence, HeldRows, combinations_of, kinds_of, left_out

NAMES = ("face", "voice")


def people(seed: int, lacking: float, groups: int = 40, kind: str = "classification") -> HeldRows:
    """Two members, the first the stronger one, which a share of the rows lacks."""
    draw = np.random.default_rng(seed)
    code = np.repeat(np.arange(groups), 30)
    present = torch.ones(2, len(code), dtype=torch.bool)
    present[0] = torch.from_numpy(draw.random(len(code)) >= lacking)
    if kind == "regression":
        target = draw.normal(size=len(code))
        said = np.stack([target + draw.normal(size=len(code)) * s for s in (0.1, 1.0)])[:, :, None]
        weights = torch.tensor([0.99, 0.01], dtype=torch.float64)
    else:
        target = draw.integers(0, 5, len(code))
        said = draw.normal(size=(2, len(code), 5))
        said[0, np.arange(len(code)), target] += 2.5
        said[1, np.arange(len(code)), target] += 0.5
        weights = torch.ones(2, dtype=torch.float64)
    members = torch.from_numpy(said)

    def fused(there: torch.Tensor) -> torch.Tensor:
        share = weights[:, None] * there
        mixed = (share[..., None] * members).sum(0) / share.sum(0)[:, None]
        return mixed if kind == "regression" else mixed.log_softmax(1)

    without = {}
    for names in combinations_of(NAMES, present):
        left = torch.tensor([name in names for name in NAMES])[:, None]
        without[names] = fused(present & left & present[left[:, 0]].all(0))
    return HeldRows(
        kind=kind, scores=fused(present), target=torch.from_numpy(target), groups=code,
        members=NAMES, present=present, without=without,
    )  # fmt: skip


def covered(fitted: ByPresence, rows: HeldRows) -> np.ndarray:
    found = torch.zeros(len(rows.scores), dtype=torch.float64)
    for at, conformal in fitted.kinds(rows.present):
        found[at] = conformal.covers(rows.scores[at], rows.target[at], 0.9)[:, 0]
    return found.numpy()


@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("trained_lacking", [0.0, 0.02, 0.3])
class TestNewPeople:
    """Training in which nobody, hardly anybody, or many lack the stronger member."""

    def test_clips_with_and_without_a_member_are_covered_alike(self, kind, trained_lacking):
        fitted = ByPresence.fit(people(0, trained_lacking, kind=kind))
        new = people(1, 0.5, kind=kind)
        hits, lacks = covered(fitted, new), ~new.present[0].numpy()
        for rows in (lacks, ~lacks):
            assert hits[rows].mean() == pytest.approx(0.9, abs=0.035)

    def test_a_threshold_of_all_rows_covers_too_few_of_those_that_lack_it(
        self, kind, trained_lacking
    ):
        alike = ByPresence(every=ByPresence.fit(people(0, trained_lacking, kind=kind)).every)
        new = people(1, 0.5, kind=kind)
        lacks = ~new.present[0].numpy()
        assert covered(alike, new)[lacks].mean() < 0.8


def test_what_new_people_would_meet_is_measured_with_the_thresholds_of_their_kind():
    rows = people(0, 0.3)
    lacks = ~rows.present[0].numpy()
    hits, size = (each.numpy() for each in left_out(rows, 0.9))
    assert hits[lacks].mean() == pytest.approx(0.9, abs=0.03)
    assert hits[~lacks].mean() == pytest.approx(0.9, abs=0.03)
    assert size[lacks].mean() > size[~lacks].mean() + 1


def test_a_kind_that_too_few_people_have_and_nothing_was_made_of_gets_the_widest_thresholds():
    rows = people(0, 0.0)
    fitted = ByPresence.fit(
        HeldRows(**{**vars(rows), "without": {("voice",): rows.without["voice",]}})
    )
    assert ("face",) not in fitted.by
    assert fitted.of(("face",)).thresholds == fitted.by["voice",].thresholds


def test_rows_that_all_have_the_same_members_get_the_thresholds_of_all_rows():
    rows = people(0, 0.0)
    plain = Conformal.fit(rows.kind, rows.scores, rows.target, rows.groups)
    assert ByPresence.fit(rows).of(NAMES) == plain


def test_every_row_is_of_one_kind_and_rows_without_members_of_none():
    present = torch.tensor([[True, False, True, False], [True, True, False, False]])
    kinds = kinds_of(NAMES, present)
    assert {names: rows.tolist() for names, rows in kinds.items()} == {
        NAMES: [0], ("voice",): [1], ("face",): [2]
    }  # fmt: skip


def test_many_members_have_few_combinations():
    names = tuple(f"m{i}" for i in range(30))
    present = torch.ones(30, 10, dtype=torch.bool)
    present[3:20, 4] = False
    found = combinations_of(names, present)
    assert len(found) == 30 + 30 + 1 + 1
    assert (*names[:3], *names[20:]) in found


class TestState:
    def test_it_comes_back_from_json(self):
        fitted = ByPresence.fit(people(0, 0.3))
        assert ByPresence.from_state(json.loads(json.dumps(fitted.state()))) == fitted

    def test_that_of_an_earlier_version_is_the_same_for_all_rows(self):
        rows = people(0, 0.3)
        plain = Conformal.fit(rows.kind, rows.scores, rows.target, rows.groups)
        fitted = ByPresence.from_state(plain.state())
        assert [one for _, one in fitted.kinds(rows.present)] == [plain]
        assert fitted.of(("voice",)) == plain

    def test_an_earlier_version_reads_the_thresholds_of_all_rows(self):
        fitted = ByPresence.fit(people(0, 0.3))
        assert Conformal.from_state(fitted.state()) == fitted.every
        assert len(fitted.state()["thresholds"][0]) == len(COVERAGES)
