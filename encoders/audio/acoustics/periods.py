"""Jitter and shimmer: how far neighbouring glottal periods differ in length and height."""

import numpy as np
from jaxtyping import Float

from encoders.audio.acoustics.frames import HOP, RATE_HZ

_SEARCH = 0.1
"""A period differs from the one that the pitch says by at most this share."""
_LEAST_CORRELATION = 0.5


def jitter_shimmer(
    samples: Float[np.ndarray, " samples"], hertz: Float[np.ndarray, " frames"]
) -> Float[np.ndarray, "frames 2"]:
    """Local jitter (share of a period) and shimmer (dB) of each frame; 0 where unvoiced or unknown."""
    values = np.zeros((len(hertz), 2))
    voiced = np.flatnonzero(hertz > 0).tolist()
    position, known = 0.0, (0.0, 0.0)
    for index, frame in enumerate(voiced):
        follows = index > 0 and voiced[index - 1] == frame - 1
        start = frame * HOP
        position = position if follows and position >= start - HOP else float(start)
        if not follows:
            known = (0.0, 0.0)
        lengths, heights, position = _periods(
            samples, position, start + HOP, RATE_HZ / hertz[frame]
        )
        known = _differences(lengths, heights) or known
        values[frame] = known
    return values


def _periods(
    samples: Float[np.ndarray, " samples"], position: float, end: int, expected: float
) -> tuple[list[float], list[float], float]:
    """Lengths and heights of the periods that begin before `end`, and where the next one begins."""
    lengths: list[float] = []
    heights: list[float] = []
    shortest, longest = int((1 - _SEARCH) * expected), int(np.ceil((1 + _SEARCH) * expected))
    width = round(expected)
    while position < end:
        start = round(position)
        window = samples[start : start + width + longest]
        if len(window) < width + longest or shortest < 2:
            break
        template = window[:width]
        shifted = np.lib.stride_tricks.sliding_window_view(window, width)[shortest : longest + 1]
        energy = np.sqrt(
            np.maximum((template @ template) * np.einsum("lt,lt->l", shifted, shifted), 1e-20)
        )
        match = shifted @ template / energy
        best = int(match.argmax())
        length = float(shortest + best)
        if 0 < best < len(match) - 1:
            left, top, right = match[best - 1 : best + 2]
            length += 0.5 * (left - right) / min(left - 2 * top + right, -1e-12)
        if match[best] >= _LEAST_CORRELATION:
            lengths.append(length)
            heights.append(float(np.ptp(window[:width])))
        position += length
    return lengths, heights, position


def _differences(lengths: list[float], heights: list[float]) -> tuple[float, float] | None:
    if len(lengths) < 2:
        return None
    spans, tops = np.array(lengths), np.maximum(np.array(heights), 1e-6)
    return (
        float(np.abs(np.diff(spans)).mean() / spans.mean()),
        float(np.abs(20 * np.log10(tops[1:] / tops[:-1])).mean()),
    )
