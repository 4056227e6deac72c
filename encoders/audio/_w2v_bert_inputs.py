"""Frames as they are published for a net that trains w2v-BERT 2.0, and the model as a branch of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from encoders.audio._inputs import in_steps, width_of, windowed
from encoders.audio._w2v_bert import BANDS, RATE_HZ, frames_of
from encoders.batching import check_shape, model_folder, nothing, quiet, states_of, use_threads
from encoders.branch import EncoderBranch, Join, last
from encoders.spec import Clip, Descriptor, Encoded


class FramePublisher:
    """Gives two log-mel frames a step of 20 ms, scaled over the clip."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        use_threads(threads)

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """Frames of each clip; no samples give one step that is not valid."""
        return [self._encoded(clip) for clip in clips]

    def _encoded(self, clip: Clip) -> Encoded:
        windows = frames_of(clip.waveforms[RATE_HZ])
        return in_steps(clip, np.concatenate(windows)) if windows else nothing(clip, 2 * BANDS)


class W2vBertBranch(EncoderBranch):
    """w2v-BERT 2.0 and models of its shape, from log-mel frames to states."""

    def __init__(self, descriptor: Descriptor, weights: Mapping[str, Path]) -> None:
        from transformers import Wav2Vec2BertModel

        quiet()
        model = Wav2Vec2BertModel.from_pretrained(
            model_folder(weights["model"]),
            local_files_only=True,
            dtype=torch.float32,
            # Both draw outside of the seeds of a run.
            apply_spec_augment=False,
            layerdrop=0.0,
        )
        config = model.config
        check_shape(descriptor, config.hidden_size, config.num_hidden_layers)
        super().__init__(
            model,
            dim=config.hidden_size,
            depth=config.num_hidden_layers,
            unused=("masked_spec_embed", "adapter"),
        )

    def forward(
        self,
        values: Float[Tensor, "batch time feature"],
        mask: Bool[Tensor, "batch time"],
        join: Join = last,
    ) -> tuple[Float[Tensor, "batch time width"], Bool[Tensor, "batch time"]]:
        """The last block's states, or what is made of all."""

        def run(part: Tensor, inside: Tensor) -> Tensor:
            result = self.model(part, attention_mask=inside.long(), output_hidden_states=True)
            return join(states_of(result))

        return windowed(values, mask, width_of(join, self), run), mask
