"""Frames as they are published for a net that trains CLAP, and its audio tower as a branch of it.

A step is a window of 10 s, 1001 frames of 64 log-mel bands as the model's own feature extractor makes them.
The blocks are the stages of the tower, which halve the map and double its width.

Shapes: batch, time, feature.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cluster.errors import ConfigError
from encoders.audio.clap import RATE_HZ, times_of, windows
from encoders.batching import model_folder, nothing, quiet, steps, use_threads
from encoders.branch import EncoderBranch, Join, last
from encoders.spec import Clip, Descriptor, Encoded

FRAMES, BANDS = 1001, 64
AT_ONCE = 8
"""Windows that run together where nothing is trained: each is a picture of 256 x 256."""

TOWER = "audio_model.audio_encoder"


class ClapPublisher:
    """Gives log-mel frames, a window a step."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        from transformers import ClapFeatureExtractor

        use_threads(threads)
        folder = model_folder(weights["model"])
        self._extract = ClapFeatureExtractor.from_pretrained(folder, local_files_only=True)
        self._dim = descriptor.dim
        shape = self._frames(np.zeros(RATE_HZ, np.float32)).shape
        if shape != (1, FRAMES, BANDS):
            raise ConfigError(
                f"{descriptor.name}: the weights read {' x '.join(map(str, shape))} numbers a window, "
                f"expected 1 x {FRAMES} x {BANDS} of a CLAP without fusion; leave publish=inputs out"
            )

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """Frames of each clip; no samples give one step that is not valid."""
        return [self._encoded(clip) for clip in clips]

    def _encoded(self, clip: Clip) -> Encoded:
        cut = windows(clip.waveforms[RATE_HZ])
        if not cut:
            return nothing(clip, self._dim)
        values = np.stack([self._frames(window).reshape(-1) for window in cut])
        return steps(values, *times_of(clip, len(values)))

    def _frames(self, window: np.ndarray) -> np.ndarray:
        given = self._extract(
            window, sampling_rate=RATE_HZ, padding="repeatpad", return_tensors="np"
        )
        frames: np.ndarray = given["input_features"][0].astype(np.float32)
        return frames


class ClapBranch(EncoderBranch):
    """CLAP's audio tower and its projection, from log-mel frames to a vector a window."""

    has_levels = False

    def __init__(self, descriptor: Descriptor, weights: Mapping[str, Path]) -> None:
        from transformers import ClapAudioModelWithProjection

        quiet()
        model = ClapAudioModelWithProjection.from_pretrained(
            model_folder(weights["model"]), local_files_only=True, dtype=torch.float32
        )
        if (dim := model.config.projection_dim) != descriptor.layer_dim:
            raise ConfigError(
                f"{descriptor.name}: the weights give {dim} numbers, expected {descriptor.layer_dim}; "
                f"type {descriptor.name}:weights=...,dim={dim}"
            )
        super().__init__(
            model,
            dim=dim,
            depth=len(model.config.depths),
            lists=(f"{TOWER}.layers",),
            top=(f"{TOWER}.norm", "audio_projection"),
            unused=(),
        )

    def forward(
        self,
        values: Float[Tensor, "batch time feature"],
        mask: Bool[Tensor, "batch time"],
        join: Join = last,
    ) -> tuple[Float[Tensor, "batch time width"], Bool[Tensor, "batch time"]]:
        """A vector for each window with sound."""
        states = values.new_zeros(*mask.shape, self.dim)
        if not mask.any():
            return states, mask
        given = values[mask].reshape(-1, 1, FRAMES, BANDS)
        parts = torch.split(given, len(given) if torch.is_grad_enabled() else AT_ONCE)
        found = torch.cat([self.model(input_features=part).audio_embeds for part in parts])
        joined = join([found.unsqueeze(1)])[:, 0]
        return states.index_put((mask,), joined.to(states.dtype)), mask
