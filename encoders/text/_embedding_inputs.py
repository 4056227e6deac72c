"""The tokens of a text as they are published, and the embedding model that a net trains on them.

A step is a token's id, with the prompt and all that the tokenizer adds; the branch makes one vector of all.

Shapes: batch, time, feature.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from encoders.batching import states_of
from encoders.branch import Join, attended, last
from encoders.spec import Clip, Descriptor, Encoded
from encoders.text._embedding import EmbeddingModel
from encoders.text._inputs import TextBranch


class EmbeddingTokenPublisher(EmbeddingModel):
    """Gives the tokens that the model would read."""

    def _loaded(self, folder: str) -> Any:
        from transformers import AutoConfig

        # The configuration alone: nothing runs through the model.
        return AutoConfig.from_pretrained(folder, local_files_only=True)

    def _vectors(self, ids: list[list[int]]) -> list[np.ndarray]:
        return [np.array(row, np.float32) for row in ids]

    def _encoded(self, clip: Clip, vector: np.ndarray, *, cut: bool) -> Encoded:
        count = len(vector)
        return Encoded(
            values=vector[:, None],
            step_start_s=np.zeros(count),
            step_end_s=np.full(count, clip.duration_s),
            valid=np.ones(count, bool),
            partial=f"text cut at {self._max_tokens} tokens" if cut else None,
        )


class EmbeddingBranch(TextBranch):
    """Any embedding model, from tokens to one vector a text."""

    def __init__(self, descriptor: Descriptor, weights: Mapping[str, Path]) -> None:
        super().__init__(descriptor, weights)
        self._pooling = str(descriptor.options["pooling"])

    def forward(
        self,
        values: Float[Tensor, "batch time 1"],
        mask: Bool[Tensor, "batch time"],
        join: Join = last,
    ) -> tuple[Float[Tensor, "batch 1 width"], Bool[Tensor, "batch 1"]]:
        """The last block's vector of each text, or what is made of those of all blocks."""
        ids = values[..., 0].masked_fill(~mask, 0).long()
        read = attended(mask)
        result = self.model(input_ids=ids, attention_mask=read.long(), output_hidden_states=True)
        share = self._shares(read).to(values.dtype).unsqueeze(1)
        vectors = join([share @ level for level in states_of(result)])
        return vectors, mask.any(1, keepdim=True)

    def _shares(self, read: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        """What each token counts for in the vector of its text."""
        if self._pooling == "mean":
            return read / read.sum(1, keepdim=True)
        order = torch.arange(read.shape[1], device=read.device)
        if self._pooling == "last":
            at = torch.where(read, order, -1).argmax(1)
        else:
            at = torch.where(read, order, len(order)).argmin(1)
        return torch.nn.functional.one_hot(at, len(order)).float()
