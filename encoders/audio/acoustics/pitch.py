"""Fundamental frequency: subharmonic summation, then the cheapest path through its candidates.

Hermes, J. Acoust. Soc. Am. 83, 1988, https://doi.org/10.1121/1.396427.
"""

from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg.blas import daxpy

from encoders.audio.acoustics.frames import LONG_FFT, RATE_HZ, long_frames, long_levels, magnitudes

LOWEST_HZ, HIGHEST_HZ = 55.0, 1000.0
_BINS = LONG_FFT // 2 + 1
_BIN_HZ = RATE_HZ / LONG_FFT
_AXIS_FROM_HZ = 25.0
_AXIS_STEP = np.log2(RATE_HZ / 2 / _AXIS_FROM_HZ) / (_BINS - 1)
"""Octaves between two points of the logarithmic axis."""
_HARMONICS, _COMPRESSION = 15, 0.85
_CANDIDATES = 6
_AT_ONCE = 64
"""Frames whose spectra go through together: what they need stays in the processor's cache."""
_QUIETEST = 0.001
"""Root mean square of the windowed frame; a quieter one has no pitch."""
_CONTEXT = 20
"""Frames before and after a loud one that are searched with it."""
_NOTHING = 1e-11
_VOICED_FROM = 0.7
_LOCAL, _LEAST_VOICING = 2.0, 0.01
_THRESHOLD = 8.0
"""Cost of a candidate below the voicing threshold, and of no pitch where one lies above it."""
_TURN, _STILL_UNVOICED = 10.0, 1.0
"""Cost of going between voiced and unvoiced, and of staying unvoiced."""
_CHANGE = 10.0
"""Cost of a change of pitch by the factor e."""


def pitch(
    samples: Float[np.ndarray, " samples"],
) -> tuple[Float[np.ndarray, " frames"], Float[np.ndarray, "voiced 513"]]:
    """Fundamental frequency in Hz of 60 ms frames, 0 where there is none, and spectra of those with one."""
    loud = long_levels(samples) > _QUIETEST
    hertz = np.zeros(len(loud))
    spectra = [np.zeros((0, _BINS))]
    edges = np.flatnonzero(np.diff(_widened(loud).astype(int), prepend=0, append=0))
    for begin, end in edges.reshape(-1, 2).tolist():
        parts = []
        for start in range(begin, end, _AT_ONCE):
            frames = long_frames(samples, start, min(start + _AT_ONCE, end))
            magnitude = magnitudes(frames, LONG_FFT)
            parts.append((*_candidates(_summed(_on_octaves(magnitude))), magnitude))
        candidates, voicing, magnitude = (
            np.concatenate(columns) for columns in zip(*parts, strict=True)
        )
        path = np.where(loud[begin:end], _cheapest(candidates, voicing, opens=begin == 0), 0.0)
        hertz[begin:end] = path
        spectra.append(magnitude[path > 0])
    return hertz, np.concatenate(spectra)


def _widened(loud: Bool[np.ndarray, " frames"]) -> Bool[np.ndarray, " frames"]:
    """The frames that may sway the path in a loud one: a path forgets what lies further off."""
    counts = np.cumsum(np.pad(loud.astype(int), (_CONTEXT + 1, _CONTEXT)))
    near: Bool[np.ndarray, " frames"] = counts[2 * _CONTEXT + 1 :] > counts[: -2 * _CONTEXT - 1]
    return near


def _on_octaves(magnitude: Float[np.ndarray, "frames 513"]) -> Float[np.ndarray, "frames 513"]:
    """Spectral peaks alone, smoothed, on a logarithmic axis, weighted by the sensitivity of hearing."""
    enhanced = np.where(_near_peaks(magnitude), magnitude, 0.0)
    blurred = 0.5 * enhanced
    blurred[:, 1:] += 0.25 * enhanced[:, :-1]
    blurred[:, :-1] += 0.25 * enhanced[:, 1:]
    blurred[:, -1] = enhanced[:, -1]
    weighted = np.empty_like(blurred)
    for points, bins, weights in _SPLINE:
        np.matmul(blurred[:, bins], weights, out=weighted[:, points])
    np.maximum(weighted, 0.0, out=weighted)
    weighted *= _SENSITIVITY
    return weighted


def _near_peaks(magnitude: Float[np.ndarray, "frames 513"]) -> Bool[np.ndarray, "frames 513"]:
    """The bins at most two from a peak, and those before the first peak and after the last."""
    peaks = np.empty(magnitude.shape, bool)
    rising = magnitude[:, 1:] > magnitude[:, :-1]
    peaks[:, 0] = magnitude[:, 0] > magnitude[:, 1]
    peaks[:, 1:-1] = rising[:, :-1] & ~rising[:, 1:]
    peaks[:, -1] = rising[:, -1]
    near = peaks.copy()
    for reach in (1, 2):
        near[:, reach:] |= peaks[:, :-reach]
        near[:, :-reach] |= peaks[:, reach:]
    bins = np.arange(_BINS)
    near |= bins < peaks.argmax(axis=1)[:, None]
    near |= bins[::-1] < peaks[:, ::-1].argmax(axis=1)[:, None]
    return near


def _summed(octaves: Float[np.ndarray, "frames 513"]) -> Float[np.ndarray, "frames 513"]:
    padded = np.zeros((len(octaves), _BINS + _SHIFTS[-1]))
    padded[:, :_BINS] = octaves
    source = padded.ravel()
    total = source.copy()
    for shift, weight in zip(_SHIFTS, _WEIGHTS, strict=True):
        # In place; what comes from the next row is the padding of this one.
        daxpy(source, total, n=len(source) - shift, a=weight, offx=shift)
    summed: Float[np.ndarray, "frames 513"] = total.reshape(padded.shape)[:, :_BINS]
    summed /= _HARMONICS
    return summed


def _candidates(
    summed: Float[np.ndarray, "frames 513"],
) -> tuple[Float[np.ndarray, "frames 6"], Float[np.ndarray, "frames 6"]]:
    """Frequencies (0 where there are fewer) and voicing (0 to 1) of the highest peaks, best first.

    The highest are drawn from the whole axis, by the height of their points; then those outside the range of
    voices are left out. First stands the one whose parabola is the highest, the others keep their order.
    """
    left, centre, right = summed[:, :-2], summed[:, 1:-1], summed[:, 2:]
    height = np.where((centre > left) & (centre >= right), centre, 0.0)
    rows = np.arange(len(height))
    best = np.empty((len(height), _CANDIDATES), dtype=np.intp)
    for rank in range(_CANDIDATES):
        best[:, rank] = height.argmax(axis=1)
        height[rows, best[:, rank]] *= -1.0
    low, top, high = (np.take_along_axis(side, best, axis=1) for side in (left, centre, right))
    is_peak = np.take_along_axis(height, best, axis=1) < 0
    offset = 0.5 * (low - high) / np.where(is_peak, low - 2 * top + high, 1.0)
    score = top - 0.25 * (low - high) * offset
    hertz = _AXIS_FROM_HZ * 2 ** ((best + 1 + offset) * _AXIS_STEP)
    usable = is_peak & (hertz >= LOWEST_HZ) & (hertz <= HIGHEST_HZ)
    voicing = 1 - summed.mean(axis=1, keepdims=True) / np.where(usable, score, 1.0)
    order = np.argsort(~usable, axis=1, kind="stable")
    hertz = np.take_along_axis(np.where(usable, hertz, 0.0), order, axis=1)
    voicing = np.take_along_axis(np.where(usable, np.maximum(voicing, 0.0), 0.0), order, axis=1)
    surest = voicing.argmax(axis=1)
    for values in (hertz, voicing):
        values[rows, 0], values[rows, surest] = values[rows, surest], values[rows, 0]
    return hertz, voicing


def _cheapest(
    hertz: Float[np.ndarray, "frames 6"], voicing: Float[np.ndarray, "frames 6"], *, opens: bool
) -> Float[np.ndarray, " frames"]:
    """Viterbi search over the candidates and one unvoiced state, the last; `opens` where the clip begins."""
    doubt = -_LOCAL * np.log(np.maximum(voicing, _LEAST_VOICING)) + _out_of_range(hertz)
    doubt += _THRESHOLD * (voicing < _VOICED_FROM)
    silent = _THRESHOLD * (voicing[:, 0] >= _VOICED_FROM)
    local = np.column_stack([np.where(hertz > 0, doubt, np.inf), silent])
    move = _moves(hertz)
    if opens and len(hertz) > 1 and hertz[:2, 0].all():
        # The reference counts the first change of a clip from a fall by the factor e.
        change = float(np.log(hertz[0, 0] / hertz[1, 0]))
        move[1, 0, 0] = _CHANGE * (abs(change) + abs(change + 1))
    came_from = np.zeros(local.shape, dtype=np.intp)
    cost = local[0]
    for frame in range(1, len(local)):
        reached = cost[:, None] + move[frame]
        came_from[frame] = reached.argmin(axis=0)
        cost = reached.min(axis=0) + local[frame]
    state = int(cost.argmin())
    chosen = np.zeros(len(local), dtype=np.intp)
    for frame in range(len(local) - 1, -1, -1):
        chosen[frame] = state
        state = int(came_from[frame, state])
    with_none = np.column_stack([hertz, np.zeros(len(hertz))])
    path: Float[np.ndarray, " frames"] = with_none[np.arange(len(hertz)), chosen]
    return path


def _moves(hertz: Float[np.ndarray, "frames 6"]) -> Float[np.ndarray, "frames 7 7"]:
    """Cost of coming to each state of a frame (last axis) from each of the frame before.

    A change of pitch counts twice from the first candidate; from another one it counts once, and with it how
    far that one lies from the candidate before it: the reference's path has this in it.
    """
    octaves = np.log(np.where(hertz > 0, hertz, 100.0))
    before = octaves[:-1]
    change = np.abs(before[:, :, None] - octaves[1:, None, :])
    move = np.full((len(hertz), _CANDIDATES + 1, _CANDIDATES + 1), _TURN)
    move[:, -1, -1] = _STILL_UNVOICED
    move[1:, 0, :-1] = 2 * _CHANGE * change[:, 0]
    apart = np.abs(np.diff(before, axis=1))[:, :, None]
    move[1:, 1:-1, :-1] = _CHANGE * (change[:, 1:] + apart)
    return move


def _out_of_range(hertz: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Cost of a pitch below 100 or above 350 Hz."""
    high = np.where(hertz < 600, (hertz - 350) / 250, 1.2)
    return np.maximum(np.maximum((100 - hertz) / 100, high), 0.0)


def _blocks(
    weights: Float[np.ndarray, "513 513"],
) -> list[tuple[slice, slice, Float[np.ndarray, "bins points"]]]:
    """A matrix in bands of points, each with the bins that count for it."""
    edges = [0, *range(_BINS - 448, _BINS + 1, 64)]
    blocks = []
    for first, end in pairwise(edges):
        bins = np.flatnonzero(np.abs(weights[:, first:end]).max(axis=1) > _NOTHING)
        span = slice(int(bins[0]), int(bins[-1]) + 1)
        blocks.append((slice(first, end), span, np.ascontiguousarray(weights[span, first:end])))
    return blocks


def _spline() -> Float[np.ndarray, "513 513"]:
    """Natural cubic spline over the logarithm of frequency, bins to points, as a matrix for row vectors.

    The bin at 0 Hz stands where half a bin would.
    """
    identity = np.eye(_BINS)
    knots = np.log2(np.maximum(np.arange(_BINS), 0.5))
    width = np.diff(knots)
    system = np.diag(2 * (width[:-1] + width[1:]))
    system += np.diag(width[1:-1], k=1) + np.diag(width[1:-1], k=-1)
    bend = np.zeros((_BINS, _BINS))
    bend[1:-1] = np.linalg.solve(
        system, 6 * np.diff(np.diff(identity, axis=0) / width[:, None], axis=0)
    )
    at = np.log2(_axis_hz() / _BIN_HZ)
    below = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, _BINS - 2)
    step = width[below][:, None]
    far = (at - knots[below])[:, None] / step
    near = 1 - far
    weights = (
        near * identity[below]
        + far * identity[below + 1]
        + ((near**3 - near) * bend[below] + (far**3 - far) * bend[below + 1]) * step**2 / 6
    )
    matrix: Float[np.ndarray, "513 513"] = weights.T
    return matrix


def _axis_hz() -> Float[np.ndarray, " 513"]:
    axis: Float[np.ndarray, " 513"] = _AXIS_FROM_HZ * 2 ** (_AXIS_STEP * np.arange(_BINS))
    return axis


# Points from the fundamental to each harmonic above it, rounded with the border at 0.6.
_SHIFTS = [
    int(np.floor(np.log2(harmonic) / _AXIS_STEP + 0.4)) for harmonic in range(2, _HARMONICS + 1)
]
_WEIGHTS = [_COMPRESSION ** (harmonic - 1) for harmonic in range(2, _HARMONICS + 1)]
_SPLINE = _blocks(_spline())
_SENSITIVITY = 0.5 + np.arctan(3 * (_BINS - 1) / _BINS * np.log2(_axis_hz() / 31.792)) / np.pi
