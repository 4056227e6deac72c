"""Faces as they are published for a net that trains EmotiEffNet, and the EfficientNet as a branch of it.

A step is one picture, as bytes; a frame without a face is not valid. The blocks are the seven stages; what
stands below them counts as the embedding, the wide convolution above them to the last one.

Shapes: batch, time, feature.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cluster.errors import ConfigError
from encoders.batching import nothing, steps, use_threads
from encoders.branch import EncoderBranch, Join, last
from encoders.spec import Clip, Descriptor, Encoded
from encoders.video._efficientnet import STRIDES, EfficientNet
from encoders.video._emotieffnet import MEAN, STD, WIDE, load_net, own_px, square_of
from encoders.video._transformer import face_finder, scaled


class SquarePublisher:
    """Gives the pictures that the net would read."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        use_threads(threads)
        policy = descriptor.frame_policy
        assert policy is not None
        # Loaded and let go: what it does not read is refused before anything is published.
        self._px = _side(descriptor, load_net(descriptor, weights["model"]))
        self._policy, self._dim = policy, descriptor.dim
        self._finder = face_finder(descriptor, weights, threads)

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """Pictures of each clip; no frames give one step that is not valid."""
        return [self._encoded(clip) for clip in clips]

    def _encoded(self, clip: Clip) -> Encoded:
        frames = clip.frames[self._policy]
        if not len(frames.pixels):
            return nothing(clip, self._dim)
        squares = [square_of(frame, self._finder, self._px) for frame in frames.pixels]
        values = np.zeros((len(squares), self._dim), np.uint8)
        for row, square in zip(values, squares, strict=True):
            if square is not None:
                row[:] = np.asarray(square).reshape(-1)
        ends = np.append(frames.times_s[1:], max(clip.duration_s, frames.times_s[-1]))
        seen = np.array([square is not None for square in squares])
        return steps(values, frames.times_s, ends, valid=seen)


class EmotiEffNetBranch(EncoderBranch):
    """EmotiEffNet without its classes, from pictures to features."""

    has_levels = False
    colours: Tensor

    def __init__(self, descriptor: Descriptor, weights: Mapping[str, Path]) -> None:
        net = load_net(descriptor, weights["model"])
        super().__init__(
            net,
            dim=net.dim,
            depth=len(STRIDES),
            lists=("blocks",),
            top=("conv_head", "bn2"),
            unused=("classifier",),
        )
        self._px = _side(descriptor, net)
        colours = torch.tensor([MEAN, STD])[..., None, None]
        self.register_buffer("colours", colours, persistent=False)

    def forward(
        self,
        values: Float[Tensor, "batch time feature"],
        mask: Bool[Tensor, "batch time"],
        join: Join = last,
    ) -> tuple[Float[Tensor, "batch time width"], Bool[Tensor, "batch time"]]:
        """Features of each picture; only what shows something is read."""
        states = values.new_zeros(*mask.shape, self.dim)
        if not mask.any():
            return states, mask
        shown = values[mask].reshape(-1, self._px, self._px, 3)
        given = scaled(shown, torch.ones_like(shown[:, 0, 0, 0], dtype=torch.bool), self.colours)
        features, _ = self.model(given)
        joined = join([features.unsqueeze(1)])[:, 0]
        return states.index_put((mask,), joined.to(states.dtype)), mask


def _side(descriptor: Descriptor, net: EfficientNet) -> int:
    """Side of the published pictures.

    Raises:
        ConfigError: the usual one for a net that was trained on larger ones.
    """
    px, own = int(descriptor.options["px"]), own_px(net)
    if net.dim == WIDE and px < own:
        raise ConfigError(
            f"{descriptor.name}: the weights were trained on pictures of {own} px, and px={px} came; "
            f"type px={own}"
        )
    return px
