"""Uncertainty over groups: coverage, pairing, exact tests, and features that know their labels."""

import doctest
import itertools
import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import fusion.ece_bound
import fusion.percentiles
import fusion.statistics
import fusion.students_t
from fusion.ece_bound import ece_bound
from fusion.metrics import metric
from fusion.percentiles import percentile_interval
from fusion.probe import ProbedSplit, leak_probe
from fusion.statistics import (
    Groups,
    bootstrap,
    holm,
    paired,
    resampled,
    sign_flip,
)
from fusion.students_t import student_t

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("AFFUSE_DATA", ROOT.parent / "shared" / "data"))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def people(groups=30, rows=20, *, spread=0.15, seed=0):
    """Right and wrong answers whose rate differs from person to person."""
    random = seeded(seed)
    rate = (0.7 + spread * torch.randn(groups, 1, generator=random)).clamp(0, 1)
    right = torch.rand(groups, rows, generator=random) < rate
    target = torch.randint(2, (groups * rows,), generator=random)
    prediction = torch.where(right.flatten(), target, 1 - target)
    return prediction, target, Groups.of(torch.arange(groups).repeat_interleave(rows))


def test_every_doctest_holds():
    for module in (fusion.ece_bound, fusion.percentiles, fusion.statistics, fusion.students_t):
        result = doctest.testmod(module)
        assert result.attempted > 0
        assert result.failed == 0


class TestBootstrap:
    def test_is_wider_over_people_than_over_rows(self):
        prediction, target, groups = people()
        over_people = bootstrap("accuracy", prediction, target, groups)
        over_rows = bootstrap("accuracy", prediction, target, Groups.of(range(len(target))))
        assert over_people.value == metric("accuracy")(prediction, target)
        wide = over_people.high - over_people.low
        assert wide > 1.3 * (over_rows.high - over_rows.low)

    def test_of_a_mean_equals_the_slow_loop(self):
        prediction, target, groups = people(8, 5)
        fast = fusion.statistics.resampled(
            "accuracy", prediction, target, groups, resamples=50, seed=3
        )
        draws = np.random.default_rng(3).multinomial(8, np.full(8, 1 / 8), size=50)
        for value, counts in zip(fast.tolist(), draws, strict=True):
            rows = np.concatenate(
                [np.flatnonzero(groups.code == g) for g, c in enumerate(counts) for _ in range(c)]
            )
            assert value == pytest.approx(metric("accuracy")(prediction[rows], target[rows]))

    def test_covers_the_truth_about_as_often_as_it_says(self):
        inside = 0
        for seed in range(60):
            found = bootstrap("accuracy", *people(25, 10, seed=seed), resamples=400)
            inside += found.low <= 0.70 <= found.high
        assert 50 <= inside <= 60

    @pytest.mark.parametrize(("groups", "low", "high"), [(6, 0.90, 0.97), (12, 0.92, 0.975)])
    def test_holds_the_truth_of_few_people_oftener_than_its_percentiles_would(
        self, groups, low, high
    ):
        hits, plain = 0, 0
        for seed in range(400):
            prediction, target, who = people(groups, seed=seed)
            found = bootstrap("accuracy", prediction, target, who, resamples=400, seed=seed)
            draws = resampled("accuracy", prediction, target, who, resamples=400, seed=seed)
            hits += found.low <= 0.7 <= found.high
            first, last = percentile_interval(draws, 0.95, 10**6)
            assert found.low <= first <= last <= found.high
            plain += first <= 0.7 <= last
        assert low <= hits / 400 <= high
        assert plain < hits

    @pytest.mark.parametrize("freedom", range(1, 20))
    @pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
    def test_its_students_t_is_that_of_scipy(self, freedom, level):
        assert student_t(level, freedom) == pytest.approx(stats.t.ppf((1 + level) / 2, freedom))

    def test_seeds_are_averaged_first(self):
        one, target, groups = people(seed=1)
        two = people(seed=1)[0].roll(1)
        both = bootstrap("macro_f1", [one, two], target, groups)
        each = [bootstrap("macro_f1", p, target, groups) for p in (one, two)]
        assert both.value == pytest.approx(np.mean([e.value for e in each]))
        assert both.high - both.low < max(e.high - e.low for e in each) + 0.02

    def test_says_when_there_are_too_few_groups(self):
        assert Groups.of(range(9)).few
        assert not Groups.of(range(10)).few
        assert Groups.of(range(10)).caution == ""

    def test_of_a_single_group_there_is_none_and_none_is_printed(self):
        prediction, target, _ = people()
        found = bootstrap("accuracy", prediction, target, Groups.of([0] * len(target)))
        assert np.isnan([found.low, found.high]).all()
        assert str(found) == f"{found.value:.3f}"
        assert Groups.of([0, 0]).caution.startswith("only 1 group: ")

    @pytest.mark.parametrize("groups", [2, 5, 12, 40])
    @pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.0])
    def test_of_an_ece_holds_the_figure_itself(self, groups, sharpness):
        for seed in range(8):
            logits = torch.randn(groups * 20, 3, generator=seeded(seed)).double()
            target = torch.multinomial(torch.softmax(logits, 1), 1, generator=seeded(seed))[:, 0]
            p = torch.softmax(sharpness * logits, 1)
            who = Groups.of(torch.arange(groups).repeat_interleave(20))
            found = bootstrap("ece", p, target, who, resamples=400)
            assert 0 <= found.low <= found.value <= found.high

    def test_of_an_ece_holds_what_other_people_show_about_as_often_as_it_says(self):
        def shown(seed):
            logits = torch.randn(600, 3, generator=seeded(seed)).double()
            target = torch.multinomial(torch.softmax(logits, 1), 1, generator=seeded(seed + 10**6))
            return torch.softmax(1.3 * logits, 1), target[:, 0]

        usual = np.mean([metric("ece")(*shown(10_000 + seed)) for seed in range(200)])
        who = Groups.of(torch.arange(30).repeat_interleave(20))
        found = [bootstrap("ece", *shown(seed), who, resamples=300) for seed in range(100)]
        assert sum(each.low <= usual <= each.high for each in found) >= 85

    def test_of_an_undefined_figure_is_nan(self):
        found = bootstrap("pearson", torch.zeros(6), torch.arange(6.0), Groups.of(range(6)))
        assert np.isnan([found.value, found.low, found.high]).all()


class TestPaired:
    def test_a_better_prediction_is_shown_for_losses_and_gains_alike(self):
        prediction, target, groups = people(20, 40, seed=2)
        better = torch.where(torch.rand(len(target), generator=seeded(3)) < 0.3, target, prediction)
        gain = paired("accuracy", (better, prediction), target, groups)
        assert gain.shown
        assert gain.p_value < 0.01
        confident = torch.nn.functional.one_hot(better, 2) * 0.8 + 0.1
        unsure = torch.nn.functional.one_hot(prediction, 2) * 0.8 + 0.1
        assert paired("nll", (confident, unsure), target, groups).shown

    def test_of_a_single_group_no_gain_is_shown(self):
        prediction, target, _ = people()
        gain = paired("accuracy", (target, prediction), target, Groups.of([0] * len(target)))
        assert gain.value > 0
        assert not gain.shown
        assert gain.error == 0
        assert str(gain) == f"{gain.value:+.3f}"

    @pytest.mark.parametrize("unit", [1e-9, 1e-6, 1e6])
    @pytest.mark.parametrize("count", [8, 20])
    def test_the_sign_flip_of_values_does_not_depend_on_their_unit(self, unit, count):
        x, y, truth = torch.randn(3, 60, generator=seeded(4), dtype=torch.float64)
        who = Groups.of(torch.arange(60) % count)
        plain = sign_flip("mse", x / 2 + truth, y + truth, truth, who)
        scaled = [unit * each for each in (x / 2 + truth, y + truth, truth)]
        assert plain < 1
        assert sign_flip("mse", *scaled, who) == plain

    def test_of_a_prediction_with_itself_is_nothing(self):
        prediction, target, groups = people()
        same = paired("weighted_f1", (prediction, prediction), target, groups)
        assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)

    def test_the_exact_sign_flip_equals_the_enumeration_of_differences(self):
        groups = Groups.of(torch.arange(6).repeat_interleave(3))
        x, y, truth = torch.randn(3, 18, generator=seeded(4), dtype=torch.float64)
        each = (x - truth).abs() - (y - truth).abs()
        by_group = torch.zeros(6).double().index_add_(0, groups.code, each)
        sums = [
            abs(sum(sign * value for sign, value in zip(signs, by_group.tolist(), strict=True)))
            for signs in itertools.product([1, -1], repeat=6)
        ]
        slow = np.mean(np.array(sums) >= abs(float(by_group.sum())) - 1e-12)
        assert sign_flip("mae", x, y, truth, groups) == pytest.approx(slow)

    def test_p_values_without_a_difference_are_spread_evenly(self):
        small = 0
        for seed in range(40):
            random = seeded(seed)
            x, y, truth = torch.randn(3, 60, generator=random)
            groups = Groups.of(torch.arange(20).repeat_interleave(3))
            small += sign_flip("mae", x, y, truth, groups, flips=400) < 0.1
        assert small <= 10


def test_what_was_written_as_strict_json_is_read_back_with_what_is_undefined():
    groups = Groups.of(range(6))
    undefined = bootstrap("pearson", torch.zeros(6), torch.arange(6.0), groups)
    gain = paired("pearson", (torch.zeros(6), torch.arange(6.0)), torch.arange(6.0), groups)
    for one in (undefined, gain, bootstrap("mae", torch.zeros(6), torch.arange(6.0), groups)):
        facts = {k: None if v != v else v for k, v in asdict(one).items()}
        again = type(one).from_facts(json.loads(json.dumps(facts, allow_nan=False)))
        assert str(again) == str(one)
        assert asdict(again) == pytest.approx(asdict(one), nan_ok=True)


class TestHolm:
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
    def test_never_lowers_a_p_value_nor_changes_their_order(self, values):
        names = [f"c{i}" for i in range(len(values))]
        adjusted = holm(dict(zip(names, values, strict=True)))
        for name, value in zip(names, values, strict=True):
            assert value <= adjusted[name] <= 1
        ranked = sorted(names, key=lambda n: values[names.index(n)])
        assert [adjusted[n] for n in ranked] == sorted(adjusted.values())

    @given(st.lists(st.floats(0, 1), max_size=5), st.integers(0, 5), st.integers(1, 3))
    def test_comparisons_without_a_p_value_change_no_other(self, values, at, count):
        known = {f"c{i}": value for i, value in enumerate(values)}
        absent = {f"x{i}": float("nan") for i in range(count)}
        before = dict([*known.items()][:at])
        assert holm({**before, **absent, **known}) == holm(known)


class TestEceBound:
    def test_a_perfectly_calibrated_model_of_1440_rows_shows_two_percent(self):
        p = torch.softmax(5 * torch.randn(1440, 8, generator=seeded()).double(), 1)
        bound = ece_bound(p)
        assert 0.01 < bound.mean < 0.03
        assert bound.mean < bound.high < 0.045
        drawn = torch.multinomial(p, 1, generator=seeded(1)).squeeze(1)
        assert metric("ece")(p, drawn) < bound.high * 1.3


class TestTheLeakProbe:
    def split(self, groups, *, leak, seed, kind="classification"):
        random = seeded(seed)
        person = Groups.of(torch.arange(groups).repeat_interleave(20))
        target = torch.randint(2, (groups * 20,), generator=random)
        x = torch.randn(len(target), 30, generator=random)
        x[:, 0] += (1.0 + leak) * (2 * target - 1)
        return ProbedSplit(
            features=x,
            target=target if kind == "classification" else target + x[:, 1],
            groups=person,
        )

    def test_is_silent_where_both_splits_are_alike(self):
        report = leak_probe(
            "classification", self.split(40, leak=0, seed=0), self.split(20, leak=0, seed=1)
        )
        assert not report.leaks
        assert not report.message.startswith("LEAK")

    def test_speaks_where_train_is_known(self):
        report = leak_probe(
            "classification", self.split(40, leak=2, seed=0), self.split(20, leak=0, seed=1)
        )
        assert report.leaks
        assert "validate inside the other split only" in report.message

    def test_of_values_compares_correlations(self):
        report = leak_probe(
            "regression",
            self.split(30, leak=2, seed=0, kind="regression"),
            self.split(30, leak=0, seed=1, kind="regression"),
        )
        assert report.metric == "pearson"
        assert report.inside_train > report.inside_other

    def test_refuses_several_labels_and_too_few_groups(self):
        few = self.split(3, leak=0, seed=0)
        with pytest.raises(ValueError, match="3 groups cannot make 5 folds"):
            leak_probe("classification", few, few)
        with pytest.raises(ValueError, match="probe label by label"):
            leak_probe("multilabel", few, few)

    @pytest.mark.parametrize(
        ("modality", "leaks"), [("text", True), ("video", True), ("audio", False)]
    )
    def test_finds_the_leak_of_the_published_mosi_features(self, modality, leaks):
        path = DATA / "mosi" / "mosi_utt.npz"
        if not path.exists():
            pytest.skip(f"no MOSI features at {path}; set AFFUSE_DATA")
        data = np.load(path, allow_pickle=False)
        splits = []
        for name in ("train", "test"):
            at = data["split_bclstm"] == name
            splits.append(
                ProbedSplit(
                    features=torch.from_numpy(data[modality][at]),
                    target=torch.from_numpy(data["label_binary"][at].astype(np.int64)),
                    groups=Groups.of(data["video_id"][at]),
                )
            )
        report = leak_probe("classification", *splits)
        assert report.leaks is leaks, report.message
        if modality == "text":
            assert report.inside_train > 0.95
            assert 0.70 < report.inside_other < 0.80
