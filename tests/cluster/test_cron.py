"""A schedule is a line of cron that Kubernetes takes; another one is refused before it is written."""

import datetime

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from cluster.errors import ConfigError
from cluster.rendering import Deployment, render
from cluster.rendering.cron import check_cron

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


def comes(line):
    """Whether some day of 28 years, after which the calendar repeats, is one of a line's.

    Kubernetes reads it by robfig/cron, to which */2 is a list as any other, and * and */1 are none.
    """
    _, _, day, month, weekday = line.split(" ")
    sets = [expanded(place, text) for place, text in ((2, day), (3, month), (4, weekday))]
    starred = {"*", "*/1", "*/01"} & {part for text in (day, weekday) for part in text.split(",")}
    first = datetime.date(2001, 1, 1)
    for number in range(28 * 366):
        date = first + datetime.timedelta(number)
        by_day, by_weekday = date.day in sets[0], date.isoweekday() % 7 in sets[2]
        right = by_day and by_weekday if starred else by_day or by_weekday
        if date.month in sets[1] and right:
            return True
    return False


def expanded(place, text):
    """All numbers of a list, one at a time."""
    _, first, last, names = CRON[place]

    def number(word):
        return int(word) if word.isdigit() else names.split().index(word.lower()) + first

    found = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        low, _, high = span.partition("-")
        begin = first if low == "*" else number(low)
        end = number(high) if high else last if low == "*" or step else begin
        found.update(each for each in range(begin, end + 1) if not (each - begin) % int(step or 1))
    return found


@given(
    day=st.sampled_from(["28", "29", "30", "31", "31,30", "30-31", "30/1"]) | cron_field(2),
    month=st.sampled_from(["2", "feb", "2,2", "2/12", "4", "jun,9-9", "11,6"]) | cron_field(3),
    weekday=st.sampled_from(["*", "*", "*/1", "1,*", "1", "*/2", "sun-sat"]) | cron_field(4),
)
def test_days_that_never_come_are_refused_and_all_others_taken(day, month, weekday):
    line = f"0 3 {day} {month} {weekday}"
    if comes(line):
        check_cron(line)
    else:
        with pytest.raises(ConfigError, match=r"never comes; expected a day up to (29|30), or"):
            check_cron(line)


@pytest.mark.parametrize(
    "line", ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 31 2 */1", "0 0 30/1 feb *", "0 0 31 JUN *"]
)
def test_a_day_that_no_month_has_is_refused_by_name(line):
    with pytest.raises(ConfigError, match=f"day '{line.split()[2]}' of month .* never comes"):
        render("kuberay", Deployment(), schedule=line)


@pytest.mark.parametrize(
    "line",
    ["0 0 29 2 *", "0 0 30 2 1", "0 0 31 2,3 *", "0 0 1,31 2 *", "0 0 */30 2 *", "0 0 31 2 */2"],
)
def test_a_day_that_comes_in_some_year_or_on_a_weekday_is_taken(line):
    render("kuberay", Deployment(), schedule=line)


@given(fields=st.tuples(*map(cron_field, range(5))))
def test_a_schedule_that_kubernetes_takes_arrives(fields):
    line = " ".join(fields)
    assume(comes(line))
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
