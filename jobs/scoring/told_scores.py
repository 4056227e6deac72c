"""What a large model said of the clips of a dataset, looked up by clip."""

import numpy as np
import torch
from torch import Tensor

from cluster import storage


class ToldScores:
    """What a large model was found to say of the clips of a dataset.

    Args:
        uri: table of clip_id, ascending, and scores.
    """

    def __init__(self, uri: str) -> None:
        table = storage.read_table(uri)
        self._clip_id = table["clip_id"].to_numpy()
        self._scores = table["scores"].combine_chunks().flatten().to_numpy(zero_copy_only=False)

    def of(self, clip_id: np.ndarray, outputs: int) -> tuple[Tensor, Tensor]:
        """Scores [clip output] of some clips, and whether there are any [clip]."""
        scores = np.zeros((len(clip_id), outputs))
        known = np.isin(clip_id, self._clip_id)
        at = np.searchsorted(self._clip_id, clip_id[known])
        scores[known] = self._scores.reshape(-1, outputs)[at]
        return torch.from_numpy(scores), torch.from_numpy(known)
