"""The tokens of a text as they are published, and the text transformer that a net trains on them.

A step is a token: its id, and 1 where it is the clip's own or 0 where it belongs to a neighbouring utterance
(option `context`), which the model reads and whose states are dropped.

Shapes: batch, time, feature.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from encoders.batching import check_shape, model_folder, quiet, states_of
from encoders.branch import EncoderBranch, Join, attended, last
from encoders.spec import Clip, Descriptor, Encoded
from encoders.text._transformer import TextTransformer, Tokens, loaded, token_times

ABOVE = ("norm", "final_norm", "final_layer_norm")
"""What models call the part above their blocks."""


class TokenPublisher(TextTransformer):
    """Gives the tokens that the model would read."""

    def _loaded(self, folder: str) -> Any:
        from transformers import AutoConfig, AutoModel

        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        # Its shape alone: nothing runs through the model.
        with torch.device("meta"):
            return AutoModel.from_config(config)

    def _states(self, ids: list[list[int]]) -> list[np.ndarray]:
        return [np.array(row, np.float32) for row in ids]

    def _encoded(self, clip: Clip, tokens: Tokens, values: np.ndarray) -> Encoded:
        own = np.zeros(len(values), np.float32)
        own[tokens.kept] = 1
        words = np.full(len(values), -1)
        words[tokens.kept] = tokens.words
        start, end = token_times(clip, words.tolist())
        return Encoded(
            values=np.stack([values, own], 1),
            step_start_s=start,
            step_end_s=end,
            valid=np.ones(len(values), bool),
            side={"word": words.astype(np.float32)[:, None]},
            partial=f"text cut at {self._room} tokens" if tokens.cut else None,
        )


class TextBranch(EncoderBranch):
    """Any text transformer, from tokens to the states of the clip's own ones."""

    def __init__(self, descriptor: Descriptor, weights: Mapping[str, Path]) -> None:
        quiet()
        model = loaded(model_folder(weights["model"]))
        config = model.config
        check_shape(descriptor, config.hidden_size, config.num_hidden_layers)
        top = tuple(name for name in ABOVE if hasattr(model, name))
        super().__init__(model, dim=config.hidden_size, depth=config.num_hidden_layers, top=top)

    def forward(
        self,
        values: Float[Tensor, "batch time 2"],
        mask: Bool[Tensor, "batch time"],
        join: Join = last,
    ) -> tuple[Float[Tensor, "batch time width"], Bool[Tensor, "batch time"]]:
        """The last block's states, or what is made of all."""
        known = values.masked_fill(~mask.unsqueeze(-1), 0)
        ids = known[..., 0].long()
        result = self.model(
            input_ids=ids,
            attention_mask=attended(mask).long(),
            output_hidden_states=True,
        )
        states = join(states_of(result))
        return states, mask & (known[..., 1] > 0)
