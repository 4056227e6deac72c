"""Machines in words are read strictly, and what is not understood is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ConfigError
from cluster.nodes import GPU_GB, MOST, Nodes, nodes_of, parse_nodes

KINDS = st.sampled_from([*GPU_GB, "RTX-6000", "MI300X"])


@st.composite
def groups(draw):
    """A group and the words for it, in any order and case."""
    count, cpus = draw(st.integers(1, MOST["machines"])), draw(st.integers(1, MOST["CPUs"]))
    gpus = draw(st.none() | st.tuples(st.integers(1, MOST["GPUs"]), KINDS))
    memory = draw(st.none() | st.integers(1, MOST["GB"]))
    parts = [f"{cpus}cpu"]
    if gpus:
        short = gpus[1] if gpus[0] == 1 else f"{gpus[0]}x{gpus[1]}"
        parts.append(draw(st.sampled_from([short, f"{gpus[0]}x{gpus[1]}"])))
    if memory:
        parts.append(f"{memory}gb")
    words = f"{count}x{':'.join(draw(st.permutations(parts)))}"
    return (count, cpus, gpus, memory), draw(st.sampled_from([words, words.upper(), words.lower()]))


@given(st.lists(groups(), min_size=1, max_size=3))
def test_what_is_written_is_what_is_read(expected):
    found = parse_nodes(" + ".join(words for _, words in expected))
    for nodes, ((count, cpus, gpus, memory), _) in zip(found, expected, strict=True):
        assert (nodes.count, nodes.cpus) == (count, cpus)
        assert (nodes.gpus, nodes.gpu_kind) == (gpus or (0, ""))
        total = nodes.memory_gb + nodes.object_store_gb
        assert total == pytest.approx(memory or 4 * cpus)


@given(st.text(alphabet="0123456789xX:+ cpugbhL-", max_size=20))
def test_anything_else_is_refused_in_one_line_or_makes_sense(text):
    try:
        found, said = parse_nodes(text), repr(text)
    except ConfigError as error:
        found, said = [], str(error)
    assert repr(text) in said
    assert "\n" not in said
    assert all(nodes.count >= 1 and nodes.cpus >= 1 for nodes in found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "begin with their number"),
        ("H100:16cpu", "begin with their number"),
        ("8xH100", r"does not say its CPUs; expected e.g. 8xH100:16cpu"),
        ("0x16cpu", "0 machines; expected 1 to"),
        ("8x0cpu", "0 CPUs; expected 1 to"),
        ("8x16cpu:8cpu", "says its CPUs twice"),
        ("8xL4:T4:16cpu", "says its GPUs twice"),
        ("8x16cpu:1.5gb", "'1.5gb' is no part of a machine"),
        ("8xcpu", "'cpu' is no part of a machine"),
        ("8x16cpu+", "'' does not begin"),
    ],
)
def test_a_refusal_says_what_came_and_what_was_expected(text, said):
    with pytest.raises(ConfigError, match=said):
        parse_nodes(text)


def test_the_memory_that_is_not_known_is_that_of_like_machines():
    known = nodes_of(2, {"CPU": 4, "memory": 8e9, "object_store_memory": 2e9})
    assert (known.memory_gb, known.object_store_gb) == (8, 2)
    like = nodes_of(1, {"CPU": 8, "GPU": 1}, like=[known])
    assert (like.memory_gb, like.object_store_gb) == (16, 4)
    assert like.bundle() == {"CPU": 8, "GPU": 1}


def test_machines_are_printed_as_a_person_counts_them():
    assert str(Nodes(count=3, cpus=16, memory_gb=1, object_store_gb=1)) == "3 x (16 CPU)"
    (group,) = parse_nodes("2x8xH100:192cpu")
    assert str(group) == "2 x (8 H100, 192 CPU)"
