"""Figures against raters, with SciPy and slow loops as referees."""

import doctest
import importlib
import textwrap

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.metrics import SOFT, metric
from fusion.metrics.raters import Votes


def distributions(seed, rows=40, classes=5):
    draws = np.random.default_rng(seed)
    found = draws.dirichlet(np.full(classes, 0.4), rows)
    found[::7] = np.eye(classes)[draws.integers(classes, size=len(found[::7]))]
    return torch.from_numpy(found)


@pytest.mark.parametrize("name", SOFT)
def test_every_figure_has_an_example_that_holds(name):
    module = importlib.import_module(SOFT[name].partition(":")[0])
    names = {**vars(module), "metric": metric}
    example = doctest.DocTestParser().get_doctest(
        textwrap.dedent(metric(name).doc), names, name, None, 0
    )
    assert doctest.DocTestRunner().run(example).failed == 0
    assert example.examples


def test_the_example_of_votes_holds():
    module = importlib.import_module("fusion.metrics.raters")
    result = doctest.testmod(module)
    assert (result.attempted > 0, result.failed) == (True, 0)


class TestSoftFigures:
    def test_jensen_shannon_equals_scipy(self):
        p, q = distributions(0), distributions(1)
        theirs = [
            scipy.spatial.distance.jensenshannon(a, b, base=2) ** 2
            for a, b in zip(p, q, strict=True)
        ]
        assert metric("js_divergence")(p, q) == pytest.approx(np.mean(theirs), abs=1e-12)

    def test_kl_equals_scipy(self):
        p, q = distributions(0).clamp(min=1e-6), distributions(1)
        p = p / p.sum(1, keepdim=True)
        theirs = [scipy.stats.entropy(b, a) for a, b in zip(p, q, strict=True)]
        assert metric("kl_divergence")(p, q) == pytest.approx(np.mean(theirs), abs=1e-12)

    def test_the_correlation_of_entropies_equals_scipy(self):
        p, q = distributions(2), distributions(3)
        mine = metric("entropy_correlation")(p, q)
        theirs = scipy.stats.pearsonr(
            scipy.stats.entropy(p, axis=1), scipy.stats.entropy(q, axis=1)
        )
        assert mine == pytest.approx(theirs.statistic, abs=1e-10)

    def test_a_constant_entropy_correlates_with_nothing(self):
        p = torch.full((4, 3), 1 / 3, dtype=torch.float64)
        assert np.isnan(metric("entropy_correlation")(p, distributions(0, 4, 3)))

    @pytest.mark.parametrize("name", SOFT)
    def test_a_weight_counts_a_row_as_often(self, name):
        p, q = distributions(0, 6), distributions(1, 6)
        twice = torch.tensor([0, 0, 1, 2, 3, 4, 5])
        weights = torch.tensor([2.0, 1, 1, 1, 1, 1])
        judge = metric(name)
        assert judge(p, q, weights) == pytest.approx(judge(p[twice], q[twice]), abs=1e-12)

    @pytest.mark.parametrize("name", SOFT)
    def test_another_shape_is_refused(self, name):
        with pytest.raises(ValueError, match="row class"):
            metric(name)(distributions(0), torch.zeros(40, dtype=torch.int64))


def slow_ceiling(choices, classes, figure):
    """Every rater by every most chosen class of the others, one row at a time."""
    said, true, weight = [], [], []
    for votes in choices:
        if len(votes) < 2:
            continue
        for k, vote in enumerate(votes):
            rest = np.sum([v for j, v in enumerate(votes) if j != k], axis=0)
            best = np.flatnonzero(rest >= rest.max() - 1e-9)
            for c in range(classes):
                for t in best:
                    said.append(c)
                    true.append(t)
                    weight.append(vote[c] / len(best) / len(votes))
    if figure == "accuracy":
        return sklearn.metrics.accuracy_score(true, said, sample_weight=weight)
    if figure == "uar":
        present = np.unique(np.array(true)[np.array(weight) > 0])
        return sklearn.metrics.recall_score(
            true, said, sample_weight=weight, average="macro", labels=present, zero_division=0
        )
    return sklearn.metrics.f1_score(
        true, said, sample_weight=weight, average="weighted", zero_division=0
    )


def votes_of(choices, classes):
    flat = [vote for votes in choices for vote in votes]
    rows = [k for k, votes in enumerate(choices) for _ in votes]
    return Votes(
        row=torch.tensor(rows, dtype=torch.int64),
        share=torch.tensor(np.array(flat).reshape(-1, classes)),
        num_rows=len(choices),
    )


class TestHumanCeiling:
    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10**6), classes=st.integers(2, 5), split=st.booleans())
    def test_it_equals_a_slow_loop(self, seed, classes, split):
        draws = np.random.default_rng(seed)
        choices = []
        for _ in range(9):
            votes = np.eye(classes)[draws.integers(classes, size=draws.integers(0, 6))]
            if split and len(votes):
                votes[0] = 0
                votes[0, :2] = 0.5
            choices.append(list(votes))
        choices.append(list(np.eye(classes)[[0, 0, 1]]))
        votes = votes_of(choices, classes)
        for figure in ("accuracy", "weighted_f1", "uar"):
            theirs = slow_ceiling(choices, classes, figure)
            assert votes.human_ceiling(figure) == pytest.approx(theirs, abs=1e-9), figure

    def test_raters_who_agree_reach_one(self):
        votes = votes_of([np.eye(3)[[1, 1, 1]]] * 4, 3)
        assert votes.human_ceiling("accuracy") == 1

    def test_single_raters_have_no_ceiling(self):
        assert np.isnan(votes_of([np.eye(3)[[1]]], 3).human_ceiling("accuracy"))
        assert np.isnan(votes_of([[]], 3).human_ceiling("accuracy"))

    def test_raters_state_no_probabilities(self):
        with pytest.raises(ValueError, match="raters state none"):
            votes_of([np.eye(3)[[1, 1]]], 3).human_ceiling("nll")

    def test_a_row_without_votes_has_a_distribution_of_zeros(self):
        votes = votes_of([[], np.eye(2)[[0, 0, 1]]], 2)
        assert votes.distribution[0].tolist() == [0, 0]
        assert votes.distribution[1].tolist() == pytest.approx([2 / 3, 1 / 3])
