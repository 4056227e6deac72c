"""Figures of any size can be read."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.number_format import bounded_text, figure_text
from fusion.statistics import Difference, Interval


@given(st.floats(1e-12, 1e12) | st.floats(-1e12, -1e-12), st.integers(2, 4))
def test_a_figure_that_is_not_zero_is_never_written_as_zero(value, digits):
    written = float(figure_text(value, digits=digits))
    assert written == pytest.approx(value, rel=6e-3, abs=0.51 * 10**-digits)
    assert written != 0


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-17, -3e-16])
def test_what_is_left_of_rounding_is_zero(value):
    assert figure_text(value) == "0.000"
    assert figure_text(value, 0.2, sign="+") == "+0.000"


def test_figures_side_by_side_are_written_alike():
    assert bounded_text(1e-6, -0.5, 0.5, sign="+") == "+0.000 [-0.500, +0.500]"
    assert bounded_text(2e-6, 1e-7, 3e-4) == "2.00e-06 [1.00e-07, 3.00e-04]"


def test_what_is_not_defined_says_so():
    assert figure_text(math.nan) == "nan"
    assert figure_text(0.5, math.nan) == "0.500"


def test_intervals_of_small_errors_can_be_told_apart():
    facts = {"level": 0.95, "groups": 9}
    error = Interval(value=2.4e-6, low=1.1e-6, high=3.9e-6, **facts)
    gain = Difference(value=-2e-7, low=-1e-6, high=5e-7, p_value=0.5, **facts)
    assert str(error) == "2.40e-06 [1.10e-06, 3.90e-06]"
    assert str(gain) == "-2.00e-07 [-1.00e-06, +5.00e-07]"
