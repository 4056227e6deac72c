"""What is written as lists of steps is read back as it was, whatever rows have none."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.tables import (
    lengths_of,
    scalar_lists,
    scalars_of,
    vector_lists,
    vectors_of,
)

ROWS = st.lists(st.none() | st.integers(0, 3), max_size=6)


def chunked(column, cuts):
    """The same rows in several chunks, some of which begin inside the memory of another."""
    edges = sorted({0, len(column), *(cut % (len(column) + 1) for cut in cuts)})
    parts = [column.slice(a, b - a) for a, b in itertools.pairwise(edges)]
    return pa.chunked_array(parts, column.type)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@given(rows=ROWS, width=st.integers(1, 3), cuts=st.lists(st.integers(0, 6), max_size=3))
def test_vectors_come_back_in_order(dtype, rows, width, cuts):
    draws = np.random.default_rng(len(rows))
    arrays = [None if n is None else draws.normal(size=(n, width)).astype(dtype) for n in rows]
    column = chunked(vector_lists(arrays, width, dtype), cuts)
    assert column.type == pa.list_(pa.list_(pa.from_numpy_dtype(dtype), width))
    assert column.null_count == rows.count(None)
    assert lengths_of(column).tolist() == [n or 0 for n in rows]
    there = [array for array in arrays if array is not None]
    expected = np.concatenate([np.zeros((0, width), dtype), *there])
    np.testing.assert_array_equal(vectors_of(column), expected)


@given(rows=ROWS, cuts=st.lists(st.integers(0, 6), max_size=3))
def test_flags_and_times_come_back_in_order(rows, cuts):
    flags = [None if n is None else np.arange(n) % 2 == 0 for n in rows]
    times = [None if n is None else np.arange(n) / 2 for n in rows]
    for arrays, dtype in ((flags, np.bool_), (times, np.float32)):
        column = chunked(scalar_lists(arrays, dtype), cuts)
        assert lengths_of(column).tolist() == [n or 0 for n in rows]
        there = [array for array in arrays if array is not None]
        assert scalars_of(column).tolist() == np.concatenate([[], *there]).tolist()


def test_a_time_that_is_not_known_is_null_where_that_is_asked_for():
    unknown = [np.array([np.nan, 1.0])]
    assert scalar_lists(unknown, np.float32, nan_is_null=True).to_pylist() == [[None, 1.0]]
    assert np.isnan(scalar_lists(unknown, np.float32).to_pylist()[0][0])
