"""Every metric has a referee: golden values, scikit-learn, torchmetrics or a slow formula."""

import doctest
import importlib
import math
import os
import textwrap
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torch
import torchmetrics.functional
from hypothesis import given
from hypothesis import strategies as st

from fusion.metrics import METRICS, SOFT, default_metric, metric
from fusion.metrics.classification import confusion, per_class
from fusion.metrics.multilabel import per_label
from fusion.tasks import Kind

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = Path(os.environ.get("AFFUSE_GOLDEN", ROOT.parent / "shared" / "golden"))


def golden(name):
    path = GOLDEN / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"no golden values at {path}; set AFFUSE_GOLDEN")
    return np.load(path, allow_pickle=False)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class TestTheRegistry:
    def test_is_alphabetical_and_names_a_documented_function_and_its_facts(self):
        assert list(METRICS) == sorted(METRICS)
        assert len(METRICS) == 35
        assert not set(METRICS) & set(SOFT)
        for name, place in METRICS.items():
            module, _, function = place.partition(":")
            assert function == name
            assert getattr(importlib.import_module(module), function) is metric(name)
            assert metric(name).name == name
            assert metric(name).kind in Kind.__args__

    def test_refuses_an_unknown_metric_by_name(self):
        with pytest.raises(ValueError, match="no metric 'f1'; known: acc2_has_zero"):
            metric("f1")

    def test_has_a_default_for_each_kind(self):
        for kind in Kind.__args__:
            assert metric(default_metric(kind)).kind == kind

    @pytest.mark.parametrize("module", ["fusion.metrics", "fusion.metrics.classification"])
    def test_every_doctest_holds(self, module):
        result = doctest.testmod(importlib.import_module(module))
        assert result.attempted > 0
        assert result.failed == 0

    @pytest.mark.parametrize("name", METRICS)
    def test_every_metric_has_an_example_that_holds(self, name):
        module = importlib.import_module(METRICS[name].partition(":")[0])
        text = textwrap.dedent(metric(name).doc)
        assert f'metric("{name}")(' in text, "called as metrics are, not as the formula is"
        names = {**vars(module), "metric": metric}
        example = doctest.DocTestParser().get_doctest(text, names, name, None, 0)
        result = doctest.DocTestRunner().run(example)
        assert (result.attempted > 0, result.failed) == (True, 0)


class TestClassificationEqualsTheGoldenValues:
    @pytest.mark.parametrize("case", range(8))
    def test_of_every_case(self, case):
        data = golden("metrics_classification")
        truth = torch.from_numpy(data[f"input/{case:02}/truth"])
        probabilities = torch.from_numpy(data[f"input/{case:02}/prob"])
        expected = {
            "accuracy": "accuracy",
            "weighted_f1": "weighted_present/f1",
            "macro_f1": "macro_present/f1",
            "uar": "uar",
            "ece": "ece15",
            "brier": "brier",
            "nll": "nll",
            "cohen_kappa": "cohen_kappa",
            "mcc": "mcc",
        }
        for name, key in expected.items():
            value = metric(name)(probabilities, truth)
            assert value == pytest.approx(float(data[f"output/{case:02}/{key}"]), abs=1e-9), name

    @pytest.mark.parametrize("case", range(8))
    def test_of_the_confusion_and_the_table_per_class(self, case):
        data = golden("metrics_classification")
        truth = torch.from_numpy(data[f"input/{case:02}/truth"])
        labels = torch.from_numpy(data[f"input/{case:02}/pred"])
        classes = data[f"input/{case:02}/prob"].shape[1]
        cells = confusion(labels, truth, num_classes=classes)
        assert np.array_equal(cells.numpy(), data[f"output/{case:02}/confusion"])
        table = per_class(labels, truth, num_classes=classes)
        for column in ("precision", "recall", "f1", "support"):
            want = data[f"output/{case:02}/per_class/{column}"]
            np.testing.assert_allclose(getattr(table, column).numpy(), want, atol=1e-9)


NAMES = {
    "mosi": {
        "acc2_has_zero": "Has0_acc_2",
        "acc2_nonzero": "Non0_acc_2",
        "acc5": "Mult_acc_5",
        "acc7": "Mult_acc_7",
        "f1_has_zero": "Has0_F1_score",
        "f1_nonzero": "Non0_F1_score",
        "mae": "MAE",
        "pearson": "Corr",
    },
    "sims": {
        "sims_acc2": "Mult_acc_2",
        "sims_acc3": "Mult_acc_3",
        "sims_acc5": "Mult_acc_5",
        "sims_f1": "F1_score",
        "sims_mae": "MAE",
        "sims_pearson": "Corr",
    },
}


class TestRegressionEqualsTheGoldenValues:
    @pytest.mark.parametrize("protocol", ["mosi", "sims"])
    @pytest.mark.parametrize("case", range(12))
    def test_of_every_case_in_float32(self, case, protocol):
        data = golden("metrics_regression")
        if data[f"error/{case:02}/{protocol}"]:
            pytest.skip("the reference fails here: no row has a target other than zero")
        prediction = torch.from_numpy(data[f"input/{case:02}/pred"])
        truth = torch.from_numpy(data[f"input/{case:02}/truth"])
        for name, key in NAMES[protocol].items():
            want = float(data[f"output/{case:02}/{protocol}/{key}"])
            got = metric(name)(prediction, truth)
            limit = 1e-6 if key in ("MAE", "Corr") else 1e-12
            assert got == pytest.approx(want, abs=limit, nan_ok=True), name

    @pytest.mark.parametrize("case", range(12))
    def test_of_three_classes_where_the_reference_returns_none(self, case):
        data = golden("metrics_regression")
        prediction = torch.from_numpy(data[f"input/{case:02}/pred"])
        truth = torch.from_numpy(data[f"input/{case:02}/truth"])
        assert metric("acc3")(prediction, truth) == pytest.approx(
            float(data[f"check/{case:02}/mosi/Mult_acc_3"]), abs=1e-12
        )

    def test_without_a_nonzero_target_the_nonzero_figures_are_undefined(self):
        assert math.isnan(metric("acc2_nonzero")(torch.ones(3), torch.zeros(3)))
        assert math.isnan(metric("f1_nonzero")(torch.ones(3), torch.zeros(3)))

    def test_bins_are_compared_in_the_type_that_came(self):
        edge = torch.tensor([0.1])
        assert metric("sims_acc3")(edge, torch.tensor([0.0])) == 1.0
        assert metric("sims_acc3")(edge.double(), torch.tensor([0.0]).double()) == 0.0


class TestReferees:
    def test_ccc_equals_torchmetrics_to_a_millionth_after_the_population_correction(self):
        x = torch.randn(40, generator=seeded(), dtype=torch.float64)
        y = 0.6 * x + 0.3 + torch.randn(40, generator=seeded(1), dtype=torch.float64)
        # torchmetrics divides the variances by N - 1: the slow formula has N, as Lin's paper.
        slow = 2 * np.cov(x, y, ddof=0)[0, 1]
        slow /= x.var(correction=0) + y.var(correction=0) + (x.mean() - y.mean()) ** 2
        assert metric("ccc")(x, y) == pytest.approx(float(slow), abs=1e-12)
        theirs = float(torchmetrics.functional.concordance_corrcoef(x, y))
        assert abs(theirs - metric("ccc")(x, y)) < 0.02

    def test_pearson_equals_torchmetrics(self):
        x, y = torch.randn(2, 50, generator=seeded(2), dtype=torch.float64)
        theirs = float(torchmetrics.functional.pearson_corrcoef(x, y))
        assert metric("pearson")(x, y) == pytest.approx(theirs, abs=1e-9)

    @pytest.mark.parametrize(
        ("ours", "average"),
        [
            ("multilabel_macro_f1", "macro"),
            ("multilabel_micro_f1", "micro"),
            ("multilabel_weighted_f1", "weighted"),
        ],
    )
    def test_multilabel_f1_equals_scikit_learn(self, ours, average):
        p = torch.rand(60, 5, generator=seeded(3))
        y = (torch.rand(60, 5, generator=seeded(4)) > 0.6).double()
        theirs = sklearn.metrics.f1_score(y, p >= 0.5, average=average, zero_division=0)
        assert metric(ours)(p, y) == pytest.approx(theirs, abs=1e-12)

    def test_multilabel_losses_equal_scikit_learn(self):
        p = torch.rand(60, 5, generator=seeded(3), dtype=torch.float64)
        y = (torch.rand(60, 5, generator=seeded(4)) > 0.6).double()
        slow = [sklearn.metrics.log_loss(y[:, i], p[:, i]) for i in range(5)]
        assert metric("multilabel_nll")(p, y) == pytest.approx(np.mean(slow), abs=1e-12)
        exact = sklearn.metrics.accuracy_score(y, p >= 0.5)
        assert metric("multilabel_exact")(p, y) == pytest.approx(exact)
        hamming = sklearn.metrics.hamming_loss(y, p >= 0.5)
        assert metric("multilabel_accuracy")(p, y) == pytest.approx(1 - hamming)

    def test_the_weighted_accuracy_equals_its_formula_label_by_label(self):
        p = torch.rand(60, 5, generator=seeded(5))
        y = (torch.rand(60, 5, generator=seeded(6)) > 0.7).double()
        y[:7, 1] = torch.nan
        y[:, 3] = 0.0
        each = []
        for k in range(5):
            known = ~y[:, k].isnan()
            said, true = p[known, k] >= 0.5, y[known, k] > 0.5
            positives, negatives = int(true.sum()), int((~true).sum())
            hits, rejected = int((said & true).sum()), int((~said & ~true).sum())
            weighted = (
                (hits * negatives / positives + rejected) / (2 * negatives)
                if positives and negatives
                else np.nan
            )
            each.append(weighted)
        assert metric("multilabel_weighted_accuracy")(p, y) == pytest.approx(np.nanmean(each))
        table = per_label(p, y)
        np.testing.assert_allclose(table.weighted_accuracy.numpy(), each)
        theirs = sklearn.metrics.f1_score(y[:, 0], p[:, 0] >= 0.5)
        assert float(table.f1[0]) == pytest.approx(theirs)
        assert table.support[3] == 0

    def test_an_unknown_label_counts_for_nothing(self):
        p = torch.tensor([[0.9, 0.9], [0.1, 0.2]])
        y = torch.tensor([[1.0, torch.nan], [0.0, 0.0]])
        for name in ("multilabel_accuracy", "multilabel_exact", "multilabel_micro_f1"):
            assert metric(name)(p, y) == 1.0

    @pytest.mark.parametrize("name", [n for n in METRICS if n != "ece"])
    def test_a_row_of_weight_two_counts_as_two_rows(self, name):
        generator = seeded(5)
        if metric(name).kind == "regression":
            x = torch.randn(30, generator=generator)
            y = (2 * torch.randn(30, generator=generator)).round() / 2
        elif metric(name).kind == "multilabel":
            x = torch.rand(30, 4, generator=generator)
            y = (torch.rand(30, 4, generator=generator) > 0.5).double()
        else:
            x = torch.rand(30, 4, generator=generator).softmax(1)
            y = torch.randint(4, (30,), generator=generator)
        counts = torch.randint(1, 4, (30,), generator=generator)
        repeated = metric(name)(x.repeat_interleave(counts, 0), y.repeat_interleave(counts, 0))
        assert metric(name)(x, y, counts) == pytest.approx(repeated, abs=1e-9)


class TestProperties:
    values = st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=2, max_size=20)

    @given(values)
    def test_ccc_is_never_above_the_absolute_correlation(self, pairs):
        x, y = torch.tensor(pairs, dtype=torch.float64).T
        correlation = metric("pearson")(x, y)
        if not math.isnan(correlation):
            assert abs(metric("ccc")(x, y)) <= abs(correlation) + 1e-9

    @given(values, st.floats(0.1, 10), st.floats(-100, 100))
    def test_correlation_ignores_scale_and_offset(self, pairs, scale, offset):
        x, y = torch.tensor(pairs, dtype=torch.float64).T
        before = metric("pearson")(x, y)
        after = metric("pearson")(x * scale + offset, y)
        if not (math.isnan(before) or math.isnan(after)) and x.std() > 1e-3 and y.std() > 1e-3:
            assert after == pytest.approx(before, abs=1e-6)

    @given(st.integers(2, 6), st.integers(1, 40), st.integers(0, 10_000))
    def test_shares_lie_between_zero_and_one_and_weighted_recall_is_accuracy(self, k, n, seed):
        p = torch.rand(n, k, generator=seeded(seed), dtype=torch.float64).softmax(1)
        y = torch.randint(k, (n,), generator=seeded(seed + 1))
        for name in ("accuracy", "weighted_f1", "macro_f1", "uar", "ece"):
            assert 0 <= metric(name)(p, y) <= 1
        table = per_class(p, y, num_classes=k)
        recall = float((table.recall * table.support).sum() / n)
        assert recall == pytest.approx(metric("accuracy")(p, y))


class TestRefusals:
    def test_of_lengths_that_disagree(self):
        with pytest.raises(ValueError, match="accuracy: 2 predictions for 3 targets"):
            metric("accuracy")(torch.tensor([0, 1]), torch.tensor([0, 1, 1]))

    def test_of_labels_where_probabilities_are_needed(self):
        with pytest.raises(ValueError, match=r"needs probabilities \[row class\]"):
            metric("nll")(torch.tensor([0, 1]), torch.tensor([0, 1]))

    def test_of_real_numbers_as_classes(self):
        with pytest.raises(ValueError, match="class predictions are probabilities"):
            metric("accuracy")(torch.tensor([0.2, 0.7]), torch.tensor([0, 1]))

    def test_of_several_values_a_row_in_a_regression(self):
        with pytest.raises(ValueError, match="expected one value a row"):
            metric("mae")(torch.zeros(3, 2), torch.zeros(3))
