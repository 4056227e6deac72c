"""Labels of two datasets are joined by name, and a loss has an interval over the groups of both."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ConfigError
from fusion.tasks import Task
from jobs.evaluation.other_labels import OneCorpus, drop, join_labels


def classes(*names):
    return Task(kind="classification", classes=names)


def joined(ours, theirs, **aliases):
    found = join_labels(classes(*ours), classes(*theirs), aliases)
    return {theirs[k]: ours[place] for k, place in found.of_theirs.items()}


@pytest.mark.parametrize(
    ("ours", "theirs", "aliases", "expected"),
    [
        (("sad", "glad"), ("glad", "sad"), {}, {"glad": "glad", "sad": "sad"}),
        (("sad", "glad"), ("GLAD", "Sad"), {}, {"GLAD": "glad", "Sad": "sad"}),
        (("sad", "glad"), ("joy", "sad"), {"joy": "glad"}, {"joy": "glad", "sad": "sad"}),
        (
            ("sad", "glad"), ("joy", "glad", "sad"), {"joy": "glad"},
            {"joy": "glad", "glad": "glad", "sad": "sad"},
        ),
        (("sad", "glad"), ("sad", "glad"), {"sad": "glad", "glad": "sad"}, {"sad": "glad", "glad": "sad"}),
        # Two classes of ours differ in the case of a letter alone: only the exact name is taken.
        (("A", "a", "b"), ("a", "b"), {}, {"a": "a", "b": "b"}),
        (("A", "a", "b", "c"), ("Á", "b", "C"), {}, {"b": "b", "C": "c"}),
    ],
)  # fmt: skip
def test_names_are_joined(ours, theirs, aliases, expected):
    assert joined(ours, theirs, **aliases) == expected


@pytest.mark.parametrize(
    ("ours", "theirs", "aliases", "said"),
    [
        (("sad", "glad"), ("joy", "sad"), {}, r"1 in common.*--labels THEIRS=OURS, e\.g\. joy=sad"),
        (("sad", "glad"), ("a", "b"), {}, "0 in common"),
        (("sad", "glad"), ("joy", "sad"), {"jo": "glad"}, "other dataset has no class 'jo'"),
        (("sad", "glad"), ("joy", "sad"), {"joy": "gla"}, "the model has no class 'gla'"),
        (("sad", "glad"), ("joy", "sad"), {"joy": "sad"}, "1 in common"),
    ],
)
def test_too_few_common_classes_and_unknown_names_are_refused(ours, theirs, aliases, said):
    with pytest.raises(ConfigError, match=said):
        joined(ours, theirs, **aliases)


@given(
    st.integers(2, 5).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=2))
    )
)
def test_probabilities_are_renormalised_over_the_common_classes(drawn):
    count, kept = drawn
    names = [f"c{k}" for k in range(count)]
    labels = join_labels(classes(*names), classes(*(f"C{k}" for k in sorted(kept))), {})
    p = torch.rand(4, count, generator=torch.Generator().manual_seed(count)).double() + 0.01
    p = p / p.sum(1, keepdim=True)
    ours = labels.narrowed(p.log()).exp()
    part = p[:, sorted(kept)]
    torch.testing.assert_close(ours, part / part.sum(1, keepdim=True))
    places = labels.places(torch.arange(count)).tolist()
    assert [places[k] for k in sorted(kept)] == list(range(len(kept)))
    assert all(places[k] == -1 for k in set(range(count)) - kept)


class TestDrop:
    def side(self, right, groups):
        target = torch.zeros(len(right), dtype=torch.int64)
        p = torch.tensor([[0.9, 0.1] if hit else [0.2, 0.8] for hit in right])
        return OneCorpus(prediction=p, target=target, groups=np.array(groups))

    def test_it_is_the_difference_and_positive_where_it_is_worse_there(self):
        here = self.side([1, 1, 1, 0], [0, 0, 1, 1])
        there = self.side([1, 0, 0, 0], [0, 1, 2, 3])
        figure = drop("accuracy", here, there, resamples=200, seed=0)
        assert figure.value == pytest.approx(0.5)
        assert figure.groups == 2
        assert figure.low <= 0.5 <= figure.high
        assert drop("nll", here, there, resamples=200, seed=0).value > 0

    def test_a_dataset_against_itself_loses_nothing(self):
        side = self.side([1, 0] * 20, list(range(40)))
        figure = drop("accuracy", side, side, resamples=500, seed=0)
        assert figure.value == 0
        assert figure.low < 0 < figure.high
