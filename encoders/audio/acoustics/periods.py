"""Jitter and shimmer: how far neighbouring glottal periods differ in length and height.

Periods are marked by matching the waveform: of all lengths near the one that the pitch says, that is taken
at which two neighbouring windows of this length correlate best.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from encoders.audio.acoustics.frames import HOP, RATE_HZ

_SEARCH = 0.1
"""A period differs from the one that the pitch says by at most this share."""
_LEAST_CORRELATION = 0.5
_MOST_SHIMMER = 1.0
"""Mean difference of heights over their mean."""
_SPARE = 2
"""Samples that each of the two windows may be longer than the longest period."""


class _Period(NamedTuple):
    length: float
    """Samples, between two of them by a parabola."""
    heights: tuple[float, float]
    """Of this period and of the next one, from trough to crest."""


def jitter_shimmer(
    samples: Float[np.ndarray, " samples"], hertz: Float[np.ndarray, " frames"]
) -> Float[np.ndarray, "frames 2"]:
    """Local jitter (share of a period) and shimmer (dB) of each frame; 0 where unvoiced or unknown.

    A frame in which no period is found keeps what the frame before it had, as long as the voice goes on.
    """
    values = np.zeros((len(hertz), 2))
    sums = np.stack([np.r_[0.0, np.cumsum(samples)], np.r_[0.0, np.cumsum(samples**2)]])
    position, last, known = 0, None, (0.0, 0.0)
    for frame in np.flatnonzero(hertz > 0).tolist():
        if frame == 0 or hertz[frame - 1] == 0:
            position, last, known = frame * HOP, None, (0.0, 0.0)
        periods, position = _periods(
            samples, sums, position, (frame + 1) * HOP, RATE_HZ / float(hertz[frame])
        )
        known, last = _compared(periods, last, known)
        values[frame] = known
    return values


def _periods(
    samples: Float[np.ndarray, " samples"],
    sums: Float[np.ndarray, "2 samples1"],
    position: int,
    end: int,
    expected: float,
) -> tuple[list[_Period], int]:
    """The periods of the frame that ends at `end`, and where the first one of the next frame begins.

    The last one is searched again in the next frame where it reaches into it.
    """
    shortest, longest = int((1 - _SEARCH) * expected), int((1 + _SEARCH) * expected)
    reach = 2 * (longest + _SPARE)
    until = min(max(position + reach, end), len(samples))
    found: list[_Period] = []
    while position + reach <= until:
        match = _correlations(samples, sums, position, shortest, longest)
        inner = match[1:-1]
        peaks = (inner > match[:-2]) & (inner >= match[2:])
        length = int(expected + 0.5)
        if peaks.any():
            best = int(np.where(peaks, inner, -2.0).argmax()) + 1
            length = shortest + best
            left, top, right = match[best - 1 : best + 2].tolist()
            offset = 0.5 * (left - right) / (left - 2 * top + right)
            if top - 0.25 * (left - right) * offset >= _LEAST_CORRELATION:
                middle = position + length
                heights = [
                    float(np.ptp(samples[begin + 1 : begin + length - 1]))
                    for begin in (position, middle)
                ]
                found.append(_Period(length + offset, (heights[0], heights[1])))
        if position + length >= end:
            break
        position += length
    return found, position


def _correlations(
    samples: Float[np.ndarray, " samples"],
    sums: Float[np.ndarray, "2 samples1"],
    position: int,
    shortest: int,
    longest: int,
) -> Float[np.ndarray, " lengths"]:
    """Pearson's correlation of two neighbouring windows, for each length of theirs."""
    lengths = np.arange(shortest, longest + 1)
    at = position + np.outer([0, 1, 2], lengths)
    (total, next_total), (power, next_power) = np.diff(sums[:, at], axis=1)
    first = samples[position : position + longest]
    windows = np.lib.stride_tricks.sliding_window_view(
        samples[position + shortest : position + 2 * longest], longest
    )
    inside = np.arange(longest) < lengths[:, None]
    shared = np.einsum("lt,t->l", windows * inside, first)
    spread = (power - total**2 / lengths) * (next_power - next_total**2 / lengths)
    together = shared - total * next_total / lengths
    return np.where(spread > 0, together / np.sqrt(np.where(spread > 0, spread, 1.0)), 0.0)


def _compared(
    periods: list[_Period], last: float | None, known: tuple[float, float]
) -> tuple[tuple[float, float], float | None]:
    """Jitter and shimmer of a frame's periods, and the length of its last one.

    Args:
        periods: Of the frame.
        last: Length of the last period before the frame.
        known: What holds where the periods say nothing.
    """
    if not periods:
        return known, last
    jitter, _ = known
    lengths = [period.length for period in periods]
    before = lengths if last is None else [last, *lengths]
    if len(before) > 1:
        jitter = float(np.abs(np.diff(before)).mean() / np.mean(lengths))
    heights = np.array([period.heights for period in periods])
    shimmer = float(np.abs(heights[:, 0] - heights[:, 1]).mean() / max(heights.mean(), 1e-9))
    return (jitter, 20 * np.log10(1 + min(shimmer, _MOST_SHIMMER))), lengths[-1]
