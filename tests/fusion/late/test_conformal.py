"""What a set of classes, labels or an interval promises, and to whom."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.late.conformal import COVERAGES, Conformal, nonconformity
from fusion.late.presence import HeldRows, left_out


def people(seed: int, groups: int, rows: int = 30, classes: int = 5) -> tuple[torch.Tensor, ...]:
    """Log-probabilities of people who are unequally hard to read, their truth, whose row each is."""
    draw = np.random.default_rng(seed)
    code = np.repeat(np.arange(groups), draw.integers(rows // 2, rows + 1, groups))
    truth = draw.integers(0, classes, len(code))
    logits = draw.normal(size=(len(code), classes))
    logits[np.arange(len(code)), truth] += draw.gamma(4.0, 0.5, groups)[code]
    return torch.from_numpy(logits).log_softmax(1), torch.from_numpy(truth), torch.from_numpy(code)


def plain_threshold(wrong: list[list[float]], coverage: float) -> float:
    """The definition, word by word: `wrong` holds one list a person."""
    if len(wrong) * (1 - coverage) < coverage - 1e-9:
        return math.inf

    def quantile(lists: list[list[float]], level: float) -> float:
        pairs = sorted((x, 1 / len(rows)) for rows in lists for x in rows)
        mass = 0.0
        for x, weight in pairs:
            mass += weight
            if mass >= level * len(lists) * (1 - 1e-12):
                return x
        return pairs[-1][0]

    for level in np.linspace(0, 1, 1001):
        shares = []
        for k, rows in enumerate(wrong):
            limit = quantile([*wrong[:k], *wrong[k + 1 :]], level)
            shares.append(sum(x <= limit for x in rows) / len(rows))
        if sum(shares) / len(shares) >= coverage - 1e-9:
            return quantile(wrong, level)
    return math.inf


class TestThreshold:
    def test_it_is_the_one_of_its_definition(self) -> None:
        scores, truth, code = people(0, 12, rows=6)
        ((wrong, _),) = nonconformity("classification", scores, truth)
        lists = [wrong[code.numpy() == k].tolist() for k in range(12)]
        fitted = Conformal.fit("classification", scores, truth, code)
        for coverage in (0.5, 0.75, 0.9, 0.95):
            assert float(fitted.allowed(coverage)[0]) == pytest.approx(
                plain_threshold(lists, coverage)
            )

    def test_every_person_weighs_the_same_however_many_rows_are_theirs(self) -> None:
        scores, truth, code = people(1, 10)
        more = torch.cat([torch.arange(len(code)), *[torch.nonzero(code == 3)[:, 0]] * 5])
        once = Conformal.fit("classification", scores, truth, code)
        again = Conformal.fit("classification", scores[more], truth[more], code[more])
        assert again.thresholds[0] == pytest.approx(once.thresholds[0])

    @pytest.mark.parametrize(("count", "coverage"), [(1, 0.5), (8, 0.9), (18, 0.95)])
    def test_too_few_people_promise_nothing_but_everything(
        self, count: int, coverage: float
    ) -> None:
        scores, truth, code = people(2, count)
        fitted = Conformal.fit("classification", scores, truth, code)
        if count == 1:
            assert math.isinf(fitted.allowed(coverage)[0])
        assert math.isinf(fitted.allowed(max(coverage, 0.9))[0])
        assert bool(fitted.possible(scores, 0.99).all())
        assert not bool(fitted.certain(scores, 0.99).any())

    @pytest.mark.parametrize(("count", "measurable"), [(1, False), (9, False), (10, True)])
    def test_it_is_measured_only_where_a_person_can_be_spared(self, count, measurable):
        scores, truth, code = people(3, count)
        fitted = Conformal.fit("classification", scores, truth, code)
        assert fitted.measurable(0.9) is measurable
        covered, _ = left_out(HeldRows.alike("classification", scores, truth, code), 0.9)
        assert covered.shape == (len(code), 1)

    def test_a_coverage_that_no_threshold_is_kept_for_is_refused(self) -> None:
        fitted = Conformal.fit("classification", *people(3, 9))
        with pytest.raises(ValueError, match=r"coverage 1: expected 0\.5 to 0\.99"):
            fitted.allowed(1.0)

    @settings(deadline=None, max_examples=30)
    @given(st.integers(0, 10_000), st.integers(2, 30))
    def test_more_coverage_never_excludes_more(self, seed: int, groups: int) -> None:
        scores, truth, code = people(seed, groups, rows=8)
        fitted = Conformal.fit("classification", scores, truth, code)
        before = fitted.possible(scores, COVERAGES[0])
        for coverage in COVERAGES[1:]:
            now = fitted.possible(scores, coverage)
            assert bool((now | ~before).all())
            before = now

    def test_it_travels_as_plain_json(self) -> None:
        fitted = Conformal.fit("classification", *people(4, 12))
        state = json.loads(json.dumps(fitted.state(), allow_nan=False))
        assert Conformal.from_state(state) == fitted


class TestCoverage:
    @pytest.mark.parametrize("groups", [12, 24])
    def test_new_people_are_covered_as_often_as_asked(self, groups: int) -> None:
        seen = []
        for seed in range(40):
            scores, truth, code = people(seed, groups + 40)
            known, new = code < groups, code >= groups
            fitted = Conformal.fit("classification", scores[known], truth[known], code[known])
            covered = fitted.covers(scores[new], truth[new], 0.9)[:, 0]
            seen.append(
                np.mean([float(covered[code[new] == k].mean()) for k in code[new].unique()])
            )
        assert np.mean(seen) == pytest.approx(0.9, abs=0.02)

    def test_rows_taken_for_people_would_cover_less(self) -> None:
        """The trap: with few people, the plain quantile of the rows promises more than it keeps."""
        seen = []
        for seed in range(60):
            scores, truth, code = people(seed, 50)
            known, new = code < 10, code >= 10
            ((wrong, _),) = nonconformity("classification", scores, truth)
            limit = np.quantile(wrong[known.numpy()], 0.9)
            seen.append(float((wrong[new.numpy()] <= limit).mean()))
        assert np.mean(seen) < 0.895

    def test_what_new_people_would_meet_is_measured_on_people_left_out(self) -> None:
        scores, truth, code = people(5, 24)
        covered, size = left_out(HeldRows.alike("classification", scores, truth, code), 0.9)
        rest = code != 7
        fitted = Conformal.fit("classification", scores[rest], truth[rest], code[rest])
        at = code == 7
        assert torch.equal(covered[at], fitted.covers(scores[at], truth[at], 0.9))
        assert torch.equal(size[at], fitted.possible(scores[at], 0.9).sum(1).double())
        assert float(covered.mean()) == pytest.approx(0.9, abs=0.05)

    def test_a_row_without_scores_is_neither_covered_nor_missed(self) -> None:
        scores, truth, code = people(6, 24)
        clean = Conformal.fit("classification", scores, truth, code)
        scores = torch.cat([scores, torch.full((5, 5), torch.nan)])
        truth, code = torch.cat([truth, truth[:5]]), torch.cat([code, code[:5]])
        fitted = Conformal.fit("classification", scores, truth, code)
        assert fitted == clean
        covered, size = left_out(HeldRows.alike("classification", scores, truth, code), 0.8)
        assert bool(covered[-5:].isnan().all())
        assert bool(size[-5:].isnan().all())


class TestAnswers:
    def test_the_most_probable_class_is_never_excluded(self) -> None:
        scores, truth, code = people(7, 12)
        fitted = Conformal.fit("classification", scores + 20 * (scores.argmax(1) == truth)[:, None]
                               * torch.eye(5)[truth], truth, code)  # fmt: skip
        there = fitted.possible(scores, 0.5)
        assert bool(there.gather(1, scores.argmax(1, keepdim=True)).all())

    def test_a_class_is_certain_where_it_is_the_only_possible_one(self) -> None:
        scores, truth, code = people(8, 12)
        fitted = Conformal.fit("classification", scores, truth, code)
        there, sure = fitted.possible(scores, 0.8), fitted.certain(scores, 0.8)
        assert torch.equal(sure.any(1), there.sum(1) == 1)
        assert bool((there | ~sure).all())

    def test_logits_and_log_probabilities_get_the_same_set(self) -> None:
        scores, truth, code = people(9, 12)
        fitted = Conformal.fit("classification", scores + 3.0, truth, code)
        normal = Conformal.fit("classification", scores, truth, code)
        assert fitted.thresholds[0] == pytest.approx(normal.thresholds[0])

    def test_each_label_has_a_threshold_of_its_own_from_the_rows_where_it_is_known(self) -> None:
        draw = torch.Generator().manual_seed(0)
        code = torch.arange(24).repeat_interleave(40)
        target = (torch.rand(len(code), 3, generator=draw) < 0.4).double()
        scores = (target - 0.5) * torch.tensor([8.0, 2.0, 0.5]) + torch.randn(
            len(code), 3, generator=draw
        )
        target[::7, 1] = torch.nan
        fitted = Conformal.fit("multilabel", scores, target, code)
        easy, middle, hard = fitted.allowed(0.9).tolist()
        assert easy < middle < hard
        covered, _ = left_out(HeldRows.alike("multilabel", scores, target, code), 0.9)
        assert bool(covered[::7, 1].isnan().all())
        assert covered[:, 1:].nanmean(0).tolist() == pytest.approx([0.9, 0.9], abs=0.02)
        sure = fitted.certain(scores, 0.9)
        assert bool((fitted.possible(scores, 0.9) | ~sure).all())
        assert float((target[:, 0][sure[:, 0]]).mean()) > 0.9

    def test_an_interval_holds_the_value(self) -> None:
        draw = torch.Generator().manual_seed(1)
        code = torch.arange(24).repeat_interleave(40)
        value = torch.randn(len(code), 1, generator=draw)
        offset = torch.randn(24, generator=draw)[code] * 0.3
        target = value[:, 0] + offset + 0.5 * torch.randn(len(code), generator=draw)
        fitted = Conformal.fit("regression", value, target, code)
        low, high = fitted.interval(value, 0.9)
        inside = (low <= target) & (target <= high)
        assert torch.equal(inside, fitted.covers(value, target, 0.9)[:, 0].bool())
        covered, width = left_out(HeldRows.alike("regression", value, target, code), 0.9)
        assert float(covered.mean()) == pytest.approx(0.9, abs=0.03)
        assert bool((width > 0).all())
