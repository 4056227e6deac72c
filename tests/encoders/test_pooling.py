"""Pooling sees valid steps only, and knows which step belongs to which word."""

import numpy as np

from encoders.pooling import pooled
from encoders.spec import Encoded, Word


def encoded(values, valid=None, hop=0.5):
    values = np.array(values, np.float32).reshape(len(values), -1)
    start = hop * np.arange(len(values))
    return Encoded(
        values=values,
        step_start_s=start,
        step_end_s=start + hop,
        valid=np.ones(len(values), bool) if valid is None else np.array(valid),
        side={"presence": values[:, :1]},
    )


def test_the_mean_and_its_deviation_are_of_valid_steps_only():
    one = pooled(encoded([1, 3, 100], [True, True, False]), "mean_std")
    np.testing.assert_allclose(one.values, [[2, 1]])
    np.testing.assert_allclose(one.side["presence"], [[2]])


def test_without_a_valid_step_the_one_step_is_not_valid():
    one = pooled(encoded([1, 3], [False, False]), "mean")
    assert one.values.tolist() == [[0]]
    assert one.side["presence"].shape == (1, 1)
    assert not one.valid.any()


def test_a_word_takes_the_mean_of_its_steps():
    words = [Word("so", 0.0, 1.0), Word("funny", 1.0, 2.0)]
    both = pooled(encoded([1, 3, 10, 20]), "words", words)
    np.testing.assert_allclose(both.values, [[2], [15]])
    np.testing.assert_allclose(both.step_start_s, [0, 1])


def test_a_word_shorter_than_a_step_takes_the_step_around_it():
    word = pooled(encoded([1, 3]), "words", [Word("a", 0.6, 0.7)])
    np.testing.assert_allclose(word.values, [[3]])


def test_a_word_where_nothing_is_valid_is_not_valid():
    words = [Word("so", 0.0, 0.5), Word("funny", 0.5, 1.0)]
    both = pooled(encoded([1, 3], [True, False]), "words", words)
    assert both.valid.tolist() == [True, False]


def test_without_timed_words_it_says_so():
    assert pooled(encoded([1, 3]), "words").partial == "the clip has no timed words"
