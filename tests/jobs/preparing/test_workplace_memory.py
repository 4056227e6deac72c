"""The database of `prepare` holds no more for many rows, and says in one line what does not fit."""

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import MachineError
from jobs.preparing import workplace as module
from jobs.preparing.workplace import workplace

WIDE, BYTES = 100_000, 400


def texts(rows, width=BYTES):
    """Rows in a random order of `n`, with a text that cannot be made small."""
    draws = np.random.default_rng(0)
    said = draws.integers(97, 122, size=(rows, width), dtype=np.uint8)
    flat = pa.py_buffer(said.tobytes())
    ends = pa.py_buffer((np.arange(rows + 1, dtype=np.int32) * width).tobytes())
    return pa.table(
        {
            "n": pa.array(draws.permutation(rows), pa.int64()),
            "text": pa.StringArray.from_buffers(rows, ends, flat),
        }
    )


def test_rows_are_ordered_in_less_memory_than_they_take(monkeypatch):
    monkeypatch.setattr(module, "RANGE_ROWS", 2048)
    with workplace() as place:
        place.run("set memory_limit = '16MB'")
        place.run("set threads = 1")
        rows = texts(WIDE)
        place.add("rows", rows)
        found = [n for part in place.in_order("select * from rows", "n", "rows") for n in part["n"]]
        assert pa.array(found).to_pylist() == list(range(WIDE))


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
