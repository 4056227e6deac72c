"""Jitter and shimmer: how far neighbouring glottal periods differ in length and height.

Periods are marked by matching the waveform: of all lengths near the one that the pitch says, that is taken
at which two neighbouring windows of this length correlate best.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from encoders.audio.acoustics.frames import HOP, RATE_HZ
from encoders.audio.acoustics.pitch import LOWEST_HZ

_SEARCH = 0.1
"""A period differs from the one that the pitch says by at most this share."""
_LEAST_CORRELATION = 0.5
_MOST_SHIMMER = 1.0
"""Mean difference of heights over their mean."""
_TINY = 1e-20
_LONGEST = int((1 + _SEARCH) * RATE_HZ / LOWEST_HZ) + 1
_SPARE = 2
"""Samples that each of the two windows may be longer than the longest period."""


class _Sound(NamedTuple):
    """A clip prepared for windows at any place."""

    samples: Float[np.ndarray, " samples"]
    windows: Float[np.ndarray, "places longest"]
    sums: Float[np.ndarray, "2 samples1"]
    """Of samples and of their squares, before each place."""


class _Period(NamedTuple):
    begin: int
    width: int
    length: float
    """Samples, between two of them by a parabola."""


def jitter_shimmer(
    samples: Float[np.ndarray, " samples"], hertz: Float[np.ndarray, " frames"]
) -> Float[np.ndarray, "frames 2"]:
    """Local jitter (share of a period) and shimmer (dB) of each frame; 0 where unvoiced or unknown.

    A frame in which no period is found keeps what the frame before it had, as long as the voice goes on.
    """
    values = np.zeros((len(hertz), 2))
    voiced = np.flatnonzero(hertz > 0).tolist()
    if not voiced:
        return values
    sound, found, position = _prepared(samples), [], 0
    for frame in voiced:
        if frame == 0 or hertz[frame - 1] == 0:
            position = frame * HOP
        periods, position = _periods(
            sound, position, (frame + 1) * HOP, RATE_HZ / float(hertz[frame])
        )
        found.append(periods)
    heights = iter(_heights(samples, [period for periods in found for period in periods]))
    last: float | None = None
    known = (0.0, 0.0)
    for frame, periods in zip(voiced, found, strict=True):
        if frame == 0 or hertz[frame - 1] == 0:
            last, known = None, (0.0, 0.0)
        if periods:
            lengths = [period.length for period in periods]
            known = (_jitter(lengths, last, known[0]), _shimmer([next(heights) for _ in lengths]))
            last = lengths[-1]
        values[frame] = known
    return values


def _prepared(samples: Float[np.ndarray, " samples"]) -> _Sound:
    padded = np.concatenate([samples, np.zeros(_LONGEST)])
    sums = np.zeros((2, len(samples) + 1))
    np.cumsum([samples, samples**2], axis=1, out=sums[:, 1:])
    return _Sound(samples, np.lib.stride_tricks.sliding_window_view(padded, _LONGEST), sums)


def _periods(sound: _Sound, position: int, end: int, expected: float) -> tuple[list[_Period], int]:
    """The periods of the frame that ends at `end`, and where the first one of the next frame begins.

    The last one is searched again in the next frame where it reaches into it.
    """
    shortest, longest = int((1 - _SEARCH) * expected), int((1 + _SEARCH) * expected)
    reach = 2 * (longest + _SPARE)
    until = min(max(position + reach, end), len(sound.samples))
    found: list[_Period] = []
    while position + reach <= until:
        match = _correlations(sound, position, shortest, longest).tolist()
        width, highest = int(expected + 0.5), -2.0
        for index in range(1, len(match) - 1):
            top = match[index]
            if top > highest and match[index - 1] < top >= match[index + 1]:
                width, highest = shortest + index, top
        if highest > -2.0:
            left, right = match[width - shortest - 1], match[width - shortest + 1]
            offset = 0.5 * (left - right) / (left - 2 * highest + right)
            if highest - 0.25 * (left - right) * offset >= _LEAST_CORRELATION:
                found.append(_Period(position, width, width + offset))
        if position + width >= end:
            break
        position += width
    return found, position


def _correlations(
    sound: _Sound, position: int, shortest: int, longest: int
) -> Float[np.ndarray, " lengths"]:
    """Pearson's correlation of two neighbouring windows, for each length of theirs."""
    lengths = _LENGTHS[shortest : longest + 1]
    middle = position + shortest
    after = slice(position + 2 * shortest, position + 2 * longest + 1, 2)
    until = sound.sums[:, middle : position + longest + 1]
    total, power = until - sound.sums[:, position, None]
    next_total, next_power = sound.sums[:, after] - until
    windows = sound.windows[middle : position + longest + 1, :longest]
    inside = _INSIDE[shortest : longest + 1, :longest]
    together = (windows * inside) @ sound.samples[position : position + longest]
    together -= total * next_total / lengths
    spread = (power - total * total / lengths) * (next_power - next_total * next_total / lengths)
    correlations: Float[np.ndarray, " lengths"] = together / np.sqrt(np.maximum(spread, _TINY))
    return correlations


def _heights(
    samples: Float[np.ndarray, " samples"], periods: list[_Period]
) -> list[tuple[float, float]]:
    """From trough to crest of each period and of the one after it, without their first and last samples."""
    if not periods:
        return []
    begin = np.array([period.begin for period in periods])
    width = np.array([period.width for period in periods])
    starts = np.stack([begin, begin + width], axis=1).ravel()
    bounds = np.stack([starts + 1, starts + np.repeat(width, 2) - 1], axis=1).ravel()
    padded = np.append(samples, 0.0)
    crests = np.maximum.reduceat(padded, bounds)[::2]
    troughs = np.minimum.reduceat(padded, bounds)[::2]
    return [(first, second) for first, second in (crests - troughs).reshape(-1, 2).tolist()]


def _jitter(lengths: list[float], last: float | None, known: float) -> float:
    """Mean change from one length to the next over their mean; `known` where there is but one.

    Args:
        lengths: Of the frame's periods.
        last: Length of the last period before the frame.
        known: Of the frame before.
    """
    before = lengths if last is None else [last, *lengths]
    if len(before) < 2:
        return known
    changes = [abs(after - ahead) for ahead, after in pairwise(before)]
    return sum(changes) / len(changes) * len(lengths) / sum(lengths)


def _shimmer(heights: list[tuple[float, float]]) -> float:
    """Mean change from one height to the next over their mean, in dB."""
    total = sum(first + second for first, second in heights) / 2
    share = sum(abs(first - second) for first, second in heights) / max(total, _TINY)
    return 20 * math.log10(1 + min(share, _MOST_SHIMMER))


_LENGTHS = np.arange(_LONGEST + 1)
_INSIDE = (np.arange(_LONGEST) < _LENGTHS[:, None]).astype(float)
