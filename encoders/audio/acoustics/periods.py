"""Jitter and shimmer: how far neighbouring glottal periods differ in length and height.

Periods are marked by matching the waveform: of all lengths near the one that the pitch says, that is taken
at which two neighbouring windows of this length correlate best.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

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
    voiced = np.flatnonzero(hertz > 0)
    if len(voiced) == 0:
        return values
    begins = np.diff(voiced, prepend=-2) > 1
    sound, position = _prepared(samples), 0
    found: list[_Period] = []
    counts = np.zeros(len(voiced), dtype=np.intp)
    for index, (frame, starts) in enumerate(zip(voiced.tolist(), begins.tolist(), strict=True)):
        position = frame * HOP if starts else position
        periods, position = _periods(
            sound, position, (frame + 1) * HOP, RATE_HZ / float(hertz[frame])
        )
        found += periods
        counts[index] = len(periods)
    if found:
        values[voiced] = _compared(samples, found, counts, np.cumsum(begins))
    return values


def _compared(
    samples: Float[np.ndarray, " samples"],
    periods: list[_Period],
    counts: Int[np.ndarray, " voiced"],
    stretch: Int[np.ndarray, " voiced"],
) -> Float[np.ndarray, "voiced 2"]:
    """Jitter and shimmer of voiced frames: mean changes over means, within each stretch of voice.

    Args:
        samples: Of the clip.
        periods: Of all voiced frames, in turn.
        counts: How many of them each frame has.
        stretch: Which stretch of voice each frame belongs to.
    """
    frame = np.repeat(np.arange(len(counts)), counts)
    length = np.array([period.length for period in periods])
    first, second = _heights(samples, periods)
    follows = np.diff(stretch[frame], prepend=-1) == 0
    change = np.where(follows, np.abs(np.diff(length, prepend=0.0)), 0.0)
    changes, lengths, steps, height = (
        np.bincount(frame, weights, len(counts))
        for weights in (change, length, follows.astype(float), (first + second) / 2)
    )
    swing = np.bincount(frame, np.abs(first - second), len(counts))
    jitter = changes / np.maximum(steps, 1.0) * counts / np.maximum(lengths, _TINY)
    share = np.minimum(swing / np.maximum(height, _TINY), _MOST_SHIMMER)
    return np.column_stack(
        [
            _held(jitter, steps > 0, stretch),
            _held(20 * np.log10(1 + share), counts > 0, stretch),
        ]
    )


def _held(
    values: Float[np.ndarray, " voiced"],
    known: Bool[np.ndarray, " voiced"],
    stretch: Int[np.ndarray, " voiced"],
) -> Float[np.ndarray, " voiced"]:
    """Each unknown value becomes the last known one of its stretch, or 0."""
    source = np.maximum.accumulate(np.where(known, np.arange(len(values)), -1))
    holds = (source >= 0) & (stretch[source] == stretch)
    return np.where(holds, values[source], 0.0)


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
) -> tuple[Float[np.ndarray, " periods"], Float[np.ndarray, " periods"]]:
    """From trough to crest of each period and of the one after it, without their first and last samples."""
    begin = np.array([period.begin for period in periods])
    width = np.array([period.width for period in periods])
    starts = np.stack([begin, begin + width], axis=1).ravel()
    bounds = np.stack([starts + 1, starts + np.repeat(width, 2) - 1], axis=1).ravel()
    padded = np.append(samples, 0.0)
    spans = np.maximum.reduceat(padded, bounds)[::2] - np.minimum.reduceat(padded, bounds)[::2]
    return spans[::2], spans[1::2]


_LENGTHS = np.arange(_LONGEST + 1)
_INSIDE = (np.arange(_LONGEST) < _LENGTHS[:, None]).astype(float)
