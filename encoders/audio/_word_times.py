"""Times of the words, from the cross-attention of the decoder to the sound.

A few heads of Whisper's cross-attention follow the speech. Their maps are standardised over tokens, smoothed
over time and averaged; the cheapest monotonic path through the result gives each token its time.
As in https://github.com/openai/whisper (timing.py), MIT; times are good to about 0.1 s.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.signal import medfilt

from encoders.spec import Word

_SMOOTHED_STEPS = 7


def token_steps(
    attention: Float[np.ndarray, "heads tokens time"],
) -> Int[np.ndarray, " tokens"]:
    """Time step at which each token begins."""
    scaled = (attention - attention.mean(1, keepdims=True)) / (
        attention.std(1, keepdims=True) + 1e-9
    )
    smooth = np.stack([[medfilt(row, _SMOOTHED_STEPS) for row in head] for head in scaled])
    return monotonic_path(-smooth.mean(0))


def monotonic_path(cost: Float[np.ndarray, "tokens time"]) -> Int[np.ndarray, " tokens"]:
    """First time step of each token on the cheapest path that never goes back.

    >>> monotonic_path(np.array([[0.0, 0.0, 5.0], [5.0, 5.0, 0.0]])).tolist()
    [0, 2]
    """
    tokens, length = cost.shape
    total = np.full((tokens + 1, length + 1), np.inf)
    total[0, 0] = 0.0
    came = np.zeros((tokens + 1, length + 1), np.int8)
    for i in range(1, tokens + 1):
        for j in range(1, length + 1):
            before = (total[i - 1, j - 1], total[i - 1, j], total[i, j - 1])
            came[i, j] = int(np.argmin(before))
            total[i, j] = cost[i - 1, j - 1] + before[came[i, j]]
    first = np.zeros(tokens, int)
    i, j = tokens, length
    while i > 0 and j > 0:
        first[i - 1] = j - 1
        step = came[i, j]
        i, j = i - (step != 2), j - (step != 1)
    return first


def words_of(pieces: Sequence[str], start_s: Sequence[float], end_s: float) -> list[Word]:
    """Join word pieces; a piece that begins with a blank begins a word.

    >>> words_of([" so", " fun", "ny"], [0.0, 0.5, 0.7], 1.0)
    [Word(text='so', start_s=0.0, end_s=0.5), Word(text='funny', start_s=0.5, end_s=1.0)]
    """
    words: list[Word] = []
    for index, piece in enumerate(pieces):
        end = float(start_s[index + 1]) if index + 1 < len(pieces) else end_s
        if words and not piece.startswith(" "):
            last = words.pop()
            words.append(Word(last.text + piece, last.start_s, end))
        else:
            words.append(Word(piece.strip(), float(start_s[index]), end))
    return [word for word in words if word.text]
