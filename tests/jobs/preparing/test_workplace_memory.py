"""The database of `prepare` holds more where rows are many, and says in one line when they are too many."""

import pyarrow as pa
import pytest

from cluster.errors import MachineError
from jobs.preparing.workplace import LEAST_MB, MOST_MB, workplace


@pytest.mark.parametrize(
    ("rows", "limit"),
    [
        (0, LEAST_MB),
        (1_000_000, LEAST_MB),
        (2_000_000, LEAST_MB),
        (4_000_000, 1000),
        (10**8, MOST_MB),
    ],
)
def test_the_memory_grows_with_the_rows_between_its_bounds(rows, limit):
    with workplace() as place:
        place.make_room(rows)
        value, unit = place.one("select current_setting('memory_limit')").split()
    held = float(value) * {"MiB": 2**20, "GiB": 2**30}[unit]
    assert held == pytest.approx(limit * 1e6, rel=0.06)  # a tenth of its unit is all that is said


def planned_in(limit, rows):
    with workplace() as place:
        place.run(f"set memory_limit = '{limit}'")
        place.run("set temp_directory = ''")
        place.add("rows", pa.table({"x": pa.array(range(rows), pa.int64())}))
        return place.one("select len(list(x)) from rows")


def test_rows_that_do_not_fit_end_in_one_line_that_says_what_to_do():
    assert planned_in("500MB", 10**6) == 10**6
    with pytest.raises(
        MachineError, match=r"too many to be planned in .*; prepare them as several"
    ):
        planned_in("5MB", 10**6)
