"""Pool the steps of an encoder: to one for the clip, or one for each word."""

from collections.abc import Sequence

import numpy as np

from encoders.spec import Encoded, Word


def pooled(encoded: Encoded, pool: str, words: Sequence[Word] | None = None) -> Encoded:
    """Reduce the valid steps as the option `pool` says.

    Args:
        encoded: steps as the model made them.
        pool: ``none``, ``mean``, ``mean_std``, ``cls`` or ``words``.
        words: the clip's timed words, which ``words`` needs.

    Returns:
        One step, zero and not valid where no step was; or a step a word.
    """
    if pool == "none":
        return encoded
    if pool == "words":
        return _over_words(encoded, words or ())
    kept = encoded.values[encoded.valid]
    width = encoded.values.shape[1] * (2 if pool == "mean_std" else 1)
    if len(kept) == 0:
        values = np.zeros((1, width), np.float32)
    elif pool == "mean":
        values = kept.mean(0, keepdims=True)
    elif pool == "mean_std":
        values = np.concatenate([kept.mean(0), kept.std(0)])[None]
    else:
        values = kept[:1]
    return Encoded(
        values=values.astype(np.float32),
        step_start_s=encoded.step_start_s[:1] if len(encoded.step_start_s) else np.zeros(1),
        step_end_s=encoded.step_end_s[-1:] if len(encoded.step_end_s) else np.zeros(1),
        valid=np.array([len(kept) > 0]),
        side={name: _mean(column, encoded.valid)[None] for name, column in encoded.side.items()},
        partial=encoded.partial,
    )


def _over_words(encoded: Encoded, words: Sequence[Word]) -> Encoded:
    """Each step belongs to the words its time overlaps; a word without a valid step is not valid."""
    if not words:
        return _no_words(encoded)
    start = np.array([word.start_s for word in words])
    end = np.array([word.end_s for word in words])
    overlap = np.minimum(end[:, None], encoded.step_end_s) - np.maximum(
        start[:, None], encoded.step_start_s
    )
    # A step longer than the word and around it (the whole clip) is about more than the word.
    inside = (
        (overlap > 0) & encoded.valid & (2 * overlap >= encoded.step_end_s - encoded.step_start_s)
    )
    inside |= (overlap > 0) & encoded.valid & ~inside.any(1, keepdims=True)
    return Encoded(
        values=np.stack([_mean(encoded.values, row) for row in inside]),
        step_start_s=start,
        step_end_s=end,
        valid=inside.any(1),
        side={
            name: np.stack([_mean(column, row) for row in inside])
            for name, column in encoded.side.items()
        },
        partial=encoded.partial,
    )


def _no_words(encoded: Encoded) -> Encoded:
    width = encoded.values.shape[1]
    return Encoded(
        values=np.zeros((1, width), np.float32),
        step_start_s=encoded.step_start_s[:1],
        step_end_s=encoded.step_end_s[-1:],
        valid=np.zeros(1, bool),
        side={
            name: np.zeros((1, column.shape[1]), np.float32)
            for name, column in encoded.side.items()
        },
        partial="the clip has no timed words",
    )


def _mean(column: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Mean over the chosen rows, zero of none."""
    mean = column[rows].mean(0) if rows.any() else np.zeros(column.shape[1])
    return mean.astype(np.float32)
