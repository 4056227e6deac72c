"""Patches as they are published for a net that trains VGGish, and the network as a branch of it.

A step is a patch of 0.96 s, 96 frames of 64 log-mel bands. The first convolution stands for the embedding;
the others are blocks, and the dense layers together the last one.

Shapes: batch, time, feature.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from encoders.audio._vggish_net import VggishNet, load_net, patches_of
from encoders.audio.vggish import PATCH_S, RATE_HZ
from encoders.batching import nothing, steps, use_threads
from encoders.branch import EncoderBranch, Join, last
from encoders.spec import Clip, Descriptor, Encoded

AT_ONCE = 64
"""Patches that run together: the maps of one take 10 MB."""


class PatchPublisher:
    """Gives patches of log-mel frames; of the network nothing is read."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        use_threads(threads)
        self._dim = descriptor.dim

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """Patches of each clip; no samples give one step that is not valid."""
        return [self._encoded(clip) for clip in clips]

    def _encoded(self, clip: Clip) -> Encoded:
        samples = clip.waveforms[RATE_HZ]
        if not len(samples):
            return nothing(clip, self._dim)
        values = patches_of(samples).reshape(-1, self._dim).astype(np.float32)
        start = clip.audio_start_s + PATCH_S * np.arange(len(values))
        return steps(values, start, start + PATCH_S)


class VggishBranch(EncoderBranch):
    """VGGish, from patches to its embedding or its map averaged over time."""

    has_levels = False

    def __init__(self, descriptor: Descriptor, weights: Mapping[str, Path]) -> None:
        net = load_net(weights["model"])
        layers = enumerate(net.features.children())
        convolutions = [f"features.{at}" for at, each in layers if isinstance(each, nn.Conv2d)]
        mapped = descriptor.options["kind"] == "map"
        dense = ("embeddings",)
        blocks = (*convolutions[1:], *(() if mapped else dense))
        super().__init__(
            net,
            dim=descriptor.layer_dim,
            depth=len(blocks),
            blocks=blocks,
            unused=dense if mapped else (),
        )
        self._mapped = mapped

    def forward(
        self,
        values: Float[Tensor, "batch time feature"],
        mask: Bool[Tensor, "batch time"],
        join: Join = last,
    ) -> tuple[Float[Tensor, "batch time width"], Bool[Tensor, "batch time"]]:
        """What the network ends with; only patches with sound are read."""
        states = values.new_zeros(*mask.shape, self.dim)
        if not mask.any():
            return states, mask
        given = torch.split(values[mask].reshape(-1, 1, 96, 64), AT_ONCE)
        found = torch.cat([self._read(part) for part in given])
        joined = join([found.unsqueeze(1)])[:, 0]
        return states.index_put((mask,), joined.to(states.dtype)), mask

    def _read(self, patches: Float[Tensor, "batch 1 frame band"]) -> Float[Tensor, "batch width"]:
        found: Tensor = self._net.time_mean(patches) if self._mapped else self._net(patches)
        return found

    @property
    def _net(self) -> VggishNet:
        assert isinstance(self.model, VggishNet)
        return self.model
