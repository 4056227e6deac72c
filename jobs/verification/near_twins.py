"""Clips of different splits whose features are almost equal.

Shapes: clip, dim.
"""

import numpy as np

from cluster.tables import SPLITS

LIKENESS = 0.999
"""Cosine of scaled features from which two clips count as one recording."""

SAME_LENGTH = 0.05
"""Share by which the lengths of their vectors may differ."""

FEWEST = 5
"""Columns that differ from clip to clip: by fewer many clips are alike that are not the same."""

MOST_WORK = 2e11
"""Multiplications at most; beyond it the larger side is thinned out evenly."""

BLOCK = 2048


def near_twins(
    features: np.ndarray, rows: np.ndarray, split: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of clips on both sides of a split.

    Args:
        features: [clip dim].
        rows: clips that have features [row].
        split: of every clip, None where it has none.

    Returns:
        Clips outside the training split, and of each the clip of another split that it is most like.
    """
    rows = rows[np.isin(split[rows], np.array(SPLITS, object))]
    empty = np.zeros(0, np.int64)
    if len(rows) < 3:
        return empty, empty
    scaled, length = _unit(features[rows])
    if not scaled.shape[1]:
        return empty, empty
    told = split[rows]
    found_one, found_other = [empty], [empty]
    names = [name for name in SPLITS if (told == name).any()]
    for k, name in enumerate(names[1:], 1):
        mine, theirs = (
            np.flatnonzero(told == name),
            np.flatnonzero(np.isin(told, np.array(names[:k], object))),
        )
        most = max(1, int(MOST_WORK / (len(mine) * scaled.shape[1])))
        theirs = theirs[:: -(-len(theirs) // most)]
        for start in range(0, len(mine), BLOCK):
            part = mine[start : start + BLOCK]
            best, place = _nearest(scaled[part], scaled[theirs])
            one, other = length[part], length[theirs[place]]
            close = (best >= LIKENESS) & (abs(one - other) <= SAME_LENGTH * np.maximum(one, other))
            found_one.append(rows[part[close]])
            found_other.append(rows[theirs[place[close]]])
    return np.concatenate(found_one), np.concatenate(found_other)


def _nearest(some: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest cosine of each of some vectors with others, and whose it is."""
    best, place = np.full(len(some), -1.0, np.float32), np.zeros(len(some), np.int64)
    for start in range(0, len(others), BLOCK):
        likeness = some @ others[start : start + BLOCK].T
        at = likeness.argmax(1)
        value = likeness[np.arange(len(some)), at]
        better = value > best
        best[better], place[better] = value[better], start + at[better]
    return best, place


def _unit(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every column scaled to mean 0 and deviation 1, every row then to length 1; and the length it had.

    Columns that never change are left out, and all are where too few are left. A row of means stays zero.
    """
    spread = features.std(0, dtype=np.float64)
    kept = spread > 1e-9
    if kept.sum() < FEWEST:
        kept[:] = False
    wide = features[:, kept].astype(np.float64)
    scaled = (wide - wide.mean(0)) / spread[kept]
    length = np.linalg.norm(scaled, axis=1)
    unit = scaled / np.where(length > 1e-9, length, np.inf)[:, None]
    return unit.astype(np.float32), length
