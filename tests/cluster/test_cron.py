"""A schedule is a line of cron that Kubernetes takes; another one is refused before it is written."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ConfigError
from cluster.rendering import Deployment, render

CRON = (
    ("minute", 0, 59, ""),
    ("hour", 0, 23, ""),
    ("day", 1, 31, ""),
    ("month", 1, 12, "jan feb mar apr may jun jul aug sep oct nov dec"),
    ("weekday", 0, 6, "sun mon tue wed thu fri sat"),
)
"""Name, first and last number of each field of a line of cron, and the names of the numbers."""


def cron_field(place):
    """A list that Kubernetes takes: numbers, names in any case, ranges, steps."""
    _, first, last, names = CRON[place]
    steps = st.just("") | st.integers(1, 99).map("/{}".format)

    def spelt(number):
        known = names.split()
        ways = [str(number), f"{number:02}"]
        ways += [known[number - first], known[number - first].upper()] if known else []
        return st.sampled_from(ways)

    numbers = st.integers(first, last)
    one = numbers.flatmap(spelt)
    pair = st.tuples(numbers, numbers).map(sorted)
    spans = pair.flatmap(lambda ends: st.tuples(*map(spelt, ends))).map("-".join)
    parts = st.tuples(st.just("*") | one | spans, steps).map("".join)
    return st.lists(parts, min_size=1, max_size=3).map(",".join)


def cron_fault(place):
    """A part of a list that Kubernetes does not take."""
    _, first, last, _ = CRON[place]
    beyond = st.integers(last + 1, 10**6) | st.integers(-99, first - 1)
    backwards = st.tuples(st.integers(first, last - 1), st.integers(1, 9)).map(
        lambda ends: f"{min(ends[0] + ends[1], last)}-{ends[0]}"
    )
    odd = ["", "*/0", "*/", "/2", "1-", "-1", "1-2-3", "*-3", "1/2/3", "**", "xyz", "1.5", "1;2"]
    return (
        beyond.map(str)
        | beyond.map(lambda number: f"{first}-{number}")
        | backwards
        | st.sampled_from(odd)
    )


@given(fields=st.tuples(*map(cron_field, range(5))))
def test_a_schedule_that_kubernetes_takes_arrives(fields):
    line = " ".join(fields)
    cron = next(yaml.safe_load_all(render("kuberay", Deployment(), schedule=line)))
    assert cron["spec"]["schedule"] == line


@given(
    fields=st.tuples(*map(cron_field, range(5))),
    place=st.integers(0, 4),
    part=st.integers(0, 2),
    data=st.data(),
)
def test_one_part_that_is_out_of_range_is_refused_by_the_name_of_its_field(
    fields, place, part, data
):
    wrong = data.draw(cron_fault(place))
    listed = fields[place].split(",")
    listed.insert(part, wrong)
    line = " ".join([*fields[:place], ",".join(listed), *fields[place + 1 :]])
    with pytest.raises(ConfigError, match=f"{CRON[place][0]} .*expected {CRON[place][1]} to"):
        render("kuberay", Deployment(), schedule=line)


@pytest.mark.parametrize(
    "bad",
    [
        "61 3 * * *",
        "0 25 * * 9",
        "0 3 * * ;",
        "0 3 * * 7",
        "? 3 * * $(id)",
        "0 3 \u0663 * *",
        "0 3 * * \u017fun",
    ],
)
def test_a_schedule_that_kubernetes_refuses_is_refused_here(bad):
    with pytest.raises(ConfigError, match=r"expected \d+ to \d+.*, \*, or lists"):
        render("kuberay", Deployment(), schedule=bad)
