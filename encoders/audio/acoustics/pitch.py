"""Fundamental frequency: subharmonic summation, then the cheapest path through its candidates.

Hermes, J. Acoust. Soc. Am. 83, 1988, https://doi.org/10.1121/1.396427.
"""

import numpy as np
from jaxtyping import Float

from encoders.audio.acoustics.frames import LONG_FFT, RATE_HZ

LOWEST_HZ, HIGHEST_HZ = 55.0, 1000.0
_BINS = LONG_FFT // 2 + 1
_AXIS_FROM_HZ = 25.0
_AXIS_STEP = np.log2(RATE_HZ / 2 / _AXIS_FROM_HZ) / (_BINS - 1)
"""Octaves between two points of the logarithmic axis."""
_LOWEST, _HIGHEST = np.log2(np.array([LOWEST_HZ, HIGHEST_HZ]) / _AXIS_FROM_HZ) / _AXIS_STEP
_SEARCHED = int(_LOWEST) - 1, int(_HIGHEST) + 3
"""Points of the axis between which a peak may lie."""
_HARMONICS, _COMPRESSION = 15, 0.85
_CANDIDATES = 6
_QUIETEST = 0.001
"""Root mean square of the windowed frame; a quieter one has no pitch."""
_VOICED_FROM = 0.7
_LOCAL, _BELOW = 3.0, 4.0
"""Cost of a candidate: its doubt times the first, and the second where it is below the voicing threshold."""
_UNVOICED, _THOUGH_VOICED = 2.0, 4.0
_TURN, _OCTAVE = 7.0, 10.0
"""Cost of going between voiced and unvoiced, and of an octave within voiced."""


def pitch(
    frames: Float[np.ndarray, "frames 960"], magnitude: Float[np.ndarray, "frames 513"]
) -> Float[np.ndarray, " frames"]:
    """Fundamental frequency in Hz of 60 ms frames, 0 where there is none."""
    hertz, voicing = _candidates(_summed(_on_octaves(magnitude)))
    path = _cheapest(hertz, voicing)
    loud = np.sqrt(np.mean(frames**2, axis=1)) > _QUIETEST
    return np.where(loud, path, 0.0)


def _on_octaves(magnitude: Float[np.ndarray, "frames 513"]) -> Float[np.ndarray, "frames 513"]:
    """Spectral peaks alone, smoothed, on a logarithmic axis, weighted by the sensitivity of hearing."""
    peaks = np.zeros(magnitude.shape, bool)
    inner = magnitude[:, 1:-1]
    peaks[:, 1:-1] = (inner > magnitude[:, :-2]) & (inner >= magnitude[:, 2:])
    kept = peaks.copy()
    for reach in (1, 2):
        kept[:, reach:] |= peaks[:, :-reach]
        kept[:, :-reach] |= peaks[:, reach:]
    enhanced = np.where(kept, magnitude, 0.0)
    blurred = enhanced.copy()
    blurred[:, 1:-1] = 0.5 * enhanced[:, 1:-1] + 0.25 * (enhanced[:, :-2] + enhanced[:, 2:])
    weighted: Float[np.ndarray, "frames 513"] = np.maximum(blurred @ _SPLINE, 0.0) * _SENSITIVITY
    return weighted


def _summed(octaves: Float[np.ndarray, "frames 513"]) -> Float[np.ndarray, "frames 513"]:
    total = np.zeros_like(octaves)
    for harmonic in range(1, _HARMONICS + 1):
        # Rounded with the border at 0.6.
        shift = int(np.floor(np.log2(harmonic) / _AXIS_STEP + 0.4))
        total[:, : _BINS - shift] += _COMPRESSION ** (harmonic - 1) * octaves[:, shift:]
    return total / _HARMONICS


def _candidates(
    summed: Float[np.ndarray, "frames 513"],
) -> tuple[Float[np.ndarray, "frames 6"], Float[np.ndarray, "frames 6"]]:
    """Frequencies (0 where there are fewer) and voicing of the highest peaks, best first."""
    first, end = _SEARCHED
    left, centre, right = (summed[:, first + step : end + step] for step in (-1, 0, 1))
    is_peak = (centre > left) & (centre >= right)
    offset = (
        0.5
        * np.where(is_peak, left - right, 0.0)
        / np.where(is_peak, left - 2 * centre + right, 1.0)
    )
    at = np.arange(first, end) + offset
    usable = is_peak & (at >= _LOWEST) & (at <= _HIGHEST)
    height = np.where(usable, centre - 0.25 * (left - right) * offset, 0.0)
    best = np.argsort(-height, axis=1, kind="stable")[:, :_CANDIDATES]
    score = np.take_along_axis(height, best, axis=1)
    found = score > 0
    voicing = 1 - summed.mean(axis=1, keepdims=True) / np.where(found, score, 1.0)
    return (
        np.where(
            found, _AXIS_FROM_HZ * 2 ** (np.take_along_axis(at, best, axis=1) * _AXIS_STEP), 0.0
        ),
        np.where(found, voicing, 0.0),
    )


def _cheapest(
    hertz: Float[np.ndarray, "frames 6"], voicing: Float[np.ndarray, "frames 6"]
) -> Float[np.ndarray, " frames"]:
    """Viterbi search over the candidates and one unvoiced state, the last."""
    octaves = np.log2(np.where(hertz > 0, hertz, 100.0))
    doubt = _LOCAL * (1 - voicing) + _BELOW * (voicing < _VOICED_FROM)
    surest = voicing.max(axis=1)
    silent = _UNVOICED * surest + _THOUGH_VOICED * (surest >= _VOICED_FROM)
    local = np.column_stack([np.where(hertz > 0, doubt, np.inf), silent])
    move = np.full((len(hertz), _CANDIDATES + 1, _CANDIDATES + 1), _TURN)
    move[1:, :-1, :-1] = _OCTAVE * np.abs(octaves[:-1, :, None] - octaves[1:, None, :])
    move[:, -1, -1] = 0.0
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


def _spline() -> Float[np.ndarray, "513 513"]:
    """Natural cubic spline from the linear to the logarithmic axis, as a matrix for row vectors."""
    identity = np.eye(_BINS)
    inner = _BINS - 2
    system = 4 * np.eye(inner) + np.eye(inner, k=1) + np.eye(inner, k=-1)
    bend = np.zeros((_BINS, _BINS))
    bend[1:-1] = np.linalg.solve(system, 6 * np.diff(identity, 2, axis=0))
    at = _axis_hz() * LONG_FFT / RATE_HZ
    below = np.minimum(at.astype(int), _BINS - 2)
    far = (at - below)[:, None]
    near = 1 - far
    weights = (
        near * identity[below]
        + far * identity[below + 1]
        + ((near**3 - near) * bend[below] + (far**3 - far) * bend[below + 1]) / 6
    )
    return np.ascontiguousarray(weights.T)


def _axis_hz() -> Float[np.ndarray, " 513"]:
    axis: Float[np.ndarray, " 513"] = _AXIS_FROM_HZ * 2 ** (_AXIS_STEP * np.arange(_BINS))
    return axis


_SPLINE = _spline()
_SENSITIVITY = 0.5 + np.arctan(3 * np.log2(_axis_hz() / 31.82)) / np.pi
