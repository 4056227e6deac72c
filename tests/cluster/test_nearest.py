"""A name that is proposed is one that a person may have meant; where none is, all are listed."""

import doctest
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import nearest
from cluster.nearest import nearest_of, num_edits
from encoders import ENCODERS
from fusion.metrics import METRICS
from fusion.nets import NETS
from jobs import JOBS

WORDS = st.text(string.ascii_lowercase + "_", min_size=1, max_size=12)
REGISTRIES = {"encoders": ENCODERS, "jobs": JOBS, "metrics": METRICS, "nets": NETS}


def common_letters(first, second):
    """Letters of the longest common subsequence, by a plain recursion over a table."""
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            longest = max(table[i][j + 1], table[i + 1][j])
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else longest
    return table[-1][-1]


@given(WORDS, st.lists(WORDS, max_size=6))
def test_what_is_proposed_has_most_of_the_letters_in_order_or_is_the_word_written_out(word, known):
    found = nearest_of(word, known)
    if found is not None and found != word:
        shorter, longer = sorted((word, found), key=len)
        begun = len(shorter) >= 3 and longer.startswith(shorter)
        assert begun or (
            len(longer) >= 3 and 3 * common_letters(word, found) >= 2 * len(longer) - 2
        )


@pytest.mark.parametrize("registry", REGISTRIES)
@pytest.mark.parametrize("word", ["x", "xy", "a", "zz", "ok", "no", "id", "q1"])
def test_two_letters_that_are_no_name_propose_none(registry, word):
    assert nearest_of(word, REGISTRIES[registry]) is None


@pytest.mark.parametrize("registry", REGISTRIES)
@given(data=st.data())
def test_one_slip_in_a_name_is_answered_by_a_name_one_slip_away(registry, data):
    names = [name for name in REGISTRIES[registry] if len(name) > 3]
    name = data.draw(st.sampled_from(names))
    at = data.draw(st.integers(0, len(name) - 2))
    letter = data.draw(st.sampled_from(string.ascii_lowercase))
    slips = {
        "dropped": name[:at] + name[at + 1 :],
        "added": name[:at] + letter + name[at:],
        "changed": name[:at] + letter + name[at + 1 :],
        "swapped": name[:at] + name[at + 1] + name[at] + name[at + 2 :],
    }
    slip = slips[data.draw(st.sampled_from(sorted(slips)))]
    found = nearest_of(slip, REGISTRIES[registry])
    assert found is not None
    assert num_edits(slip, found) <= num_edits(slip, name) <= 1


@given(WORDS, WORDS)
def test_edits_are_the_same_both_ways_and_none_only_for_equal_words(first, second):
    assert num_edits(first, second) == num_edits(second, first)
    assert (num_edits(first, second) == 0) == (first == second)
    assert num_edits(first, second) <= max(len(first), len(second))


def test_capitals_are_no_slip():
    assert nearest_of("HAPPY", ["hippy", "Happy"]) == "Happy"


def test_every_doctest_holds():
    assert doctest.testmod(nearest).failed == 0
