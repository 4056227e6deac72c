"""Statistics of contours: moments, percentiles, slopes between peaks, and lengths of segments."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

_FRAME_S = 0.01
_PEAK_SHARE = 0.1
"""A peak stands out of its valleys by this share of the contour's range."""
_HIGHER = 1.05
_SHORTEST_SEGMENT = 3


class Turn(NamedTuple):
    """An end of the contour, a peak or a valley."""

    frame: int
    value: float
    is_peak: bool


def moments(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Mean, and standard deviation over mean; 0, 0 of nothing."""
    if len(values) == 0:
        return 0.0, 0.0
    mean = float(values.mean())
    return mean, float(values.std()) / mean if mean != 0 else 0.0


def moments_where(
    contours: Float[np.ndarray, "frames n"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """As `moments`, of each column's values that are not 0."""
    there = contours != 0
    counts = np.maximum(there.sum(axis=0), 1)
    means = contours.sum(axis=0) / counts
    spread = np.sqrt((np.where(there, contours - means, 0.0) ** 2).sum(axis=0) / counts)
    return means, spread / np.where(means != 0, means, np.inf)


def percentiles(values: Float[np.ndarray, " n"]) -> list[float]:
    """20th, 50th, 80th percentile, and the range between the outer two."""
    if len(values) == 0:
        return [0.0] * 4
    low, middle, high = np.percentile(values, (20, 50, 80))
    return [float(low), float(middle), float(high), float(high - low)]


def slopes(contour: Float[np.ndarray, " n"], points: list[Turn]) -> list[float]:
    """Mean and deviation of rising, then of falling slopes between its turns, per second.

    The contour's end closes the last slope. As in the reference, that one counts as it goes (a last fall is
    negative), and the deviation leaves it out of its sum but not out of its count.
    """
    if not points:
        return [0.0] * 4
    per_second: dict[bool, list[float]] = {True: [], False: []}
    before = Turn(0, float(contour[0]), False)
    for after in points:
        slope = (after.value - before.value) / ((after.frame - before.frame) * _FRAME_S)
        per_second[after.is_peak].append(slope if after.is_peak else -slope)
        before = after
    tail = (float(contour[-1]) - before.value) / ((len(contour) - 1 - before.frame) * _FRAME_S)
    values: list[float] = []
    for rising in (True, False):
        known = np.array(per_second[rising])
        closed = np.append(known, tail) if before.is_peak != rising else known
        mean = float(closed.mean()) if len(closed) else 0.0
        values += [mean, float(np.sqrt(((known - mean) ** 2).sum() / max(len(closed), 1)))]
    return values


def turns(contour: Float[np.ndarray, " n"]) -> list[Turn]:
    """Peaks and valleys in turn, each further from the one before than a tenth of the range.

    A deeper valley takes the place of the one before it; a higher peak does so only where the dip between
    them stands out too, or where it is higher by a twentieth.
    """
    change = np.sign(np.diff(contour))
    moving = np.flatnonzero(change)
    bends = moving[1:][change[moving[1:]] != change[moving[:-1]]]
    least = _PEAK_SHARE * float(np.ptp(contour)) if len(contour) else 0.0
    found: list[Turn] = []
    for frame in bends:
        turn = Turn(int(frame), float(contour[frame]), bool(change[frame] < 0))
        since = contour[found[-1].frame : frame + 1] if found else contour[[0, frame]]
        stands_out = (
            turn.value - since.min() if turn.is_peak else since.max() - turn.value
        ) > least
        if not found or found[-1].is_peak != turn.is_peak:
            if stands_out:
                found.append(turn)
        elif turn.is_peak:
            if turn.value > found[-1].value and (
                stands_out or turn.value > _HIGHER * found[-1].value
            ):
                found[-1] = turn
        elif turn.value < found[-1].value:
            found[-1] = turn
    return found


def segment_lengths(inside: Bool[np.ndarray, " frames"]) -> Float[np.ndarray, " segments"]:
    """Seconds of each run of frames; a gap of one frame is bridged, and runs under three frames are none.

    A run's length is that between its first and last frame.
    """
    edges = np.diff(np.concatenate([[0], inside.astype(int), [0]]))
    begins, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    apart = begins[1:] - ends[:-1] > 1
    begins, ends = begins[np.r_[True, apart][: len(begins)]], ends[np.r_[apart, True][: len(ends)]]
    long = ends - begins >= _SHORTEST_SEGMENT
    begins, ends = begins[long], ends[long]
    lengths: Float[np.ndarray, " segments"] = (ends - begins - 1) * _FRAME_S
    return lengths
