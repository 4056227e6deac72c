"""How figures are written: targets may be of any size, and so may the errors of their predictions."""

import math

NOISE = 1e-15
"""Differences of figures that are equal but for rounding stay below; they are written as zero."""


def figure_text(value: float, *beside: float, digits: int = 3, sign: str = "") -> str:
    """A figure with so many decimals.

    In scientific notation where all of them would be zero, and without any from 10,000 on.

    Args:
        value: the figure.
        *beside: others of its size, such as its bounds: all are written alike.
        digits: decimals.
        sign: "+" writes that of positive figures too.

    >>> figure_text(0.81234), figure_text(2.31e-6), figure_text(0.0), figure_text(509000.4)
    ('0.812', '2.31e-06', '0.000', '509000')
    >>> figure_text(0.0001, -0.01, 0.02, sign="+")
    '+0.000'
    """
    size = max((abs(each) for each in (value, *beside) if math.isfinite(each)), default=0.0)
    value = 0.0 if abs(value) <= NOISE else value  # of either sign
    decimals = 0 if size >= 10_000 else digits
    style = "2e" if NOISE < size < 0.5 * 10**-digits else f"{decimals}f"
    return f"{value:{sign}.{style}}"


def bounded_text(value: float, low: float, high: float, *, sign: str = "") -> str:
    """A figure and its bounds, all written alike.

    >>> bounded_text(2.3e-6, 1e-6, 4e-6)
    '2.30e-06 [1.00e-06, 4.00e-06]'
    """
    texts = [figure_text(each, value, low, high, sign=sign) for each in (value, low, high)]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"
