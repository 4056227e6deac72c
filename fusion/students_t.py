"""Student's t distribution, without scipy."""

import math


def student_t(level: float, freedom: int) -> float:
    """The t with P(|T| < t) = level, by bisection on the series of Abramowitz & Stegun, 26.7.3 and 26.7.4.

    >>> round(student_t(0.95, 7), 4)
    2.3646
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        low, high = (angle, high) if _inside(angle, freedom) < level else (low, angle)
    return math.sqrt(freedom) * math.tan(low)


def _inside(angle: float, freedom: int) -> float:
    """P(|T| < t) at t = sqrt(freedom) tan(angle)."""
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for step in range(2 + odd, freedom, 2):
        term *= (step - 1) / step * math.cos(angle) ** 2
        total += term
    share = math.sin(angle) * total
    return 2 / math.pi * (angle + share) if odd else share
