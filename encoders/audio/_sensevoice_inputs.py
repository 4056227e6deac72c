"""Frames as they are published for a net that trains SenseVoice small, and the model as a branch of it.

A step is 60 ms: seven scaled log-mel frames, and a number that is 1 where a window of the encoder begins. By
their count alone windows could not be told: a tail under one second stays with the window before it.

Shapes: batch, time, feature; window, step.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

from encoders.audio._sensevoice import ASKED, FEATURE, HOP_S, WINDOW, FrontEnd, load_net, starts_of
from encoders.audio._sensevoice_net import QUERIES
from encoders.audio._speech import windows_of
from encoders.audio._w2v_bert import RATE_HZ
from encoders.batching import check_shape, model_folder, nothing, steps, use_threads
from encoders.branch import EncoderBranch, Join, last
from encoders.checkpoints import file_of
from encoders.spec import Clip, Descriptor, Encoded


class SenseVoicePublisher:
    """Gives scaled frames, and where windows begin."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        use_threads(threads)
        self._front = FrontEnd(Path(model_folder(weights["model"])))

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """Frames of each clip; no samples give one step that is not valid."""
        return [self._encoded(clip) for clip in clips]

    def _encoded(self, clip: Clip) -> Encoded:
        windows = windows_of(clip.waveforms[RATE_HZ], WINDOW)
        if not windows:
            return nothing(clip, FEATURE + 1)
        parts = [_marked(self._front.frames(window)) for window in windows]
        start = starts_of(clip, [len(part) for part in parts])
        return steps(np.concatenate(parts), start, start + HOP_S)


class SenseVoiceBranch(EncoderBranch):
    """SenseVoice small without its tokens, from frames to states."""

    def __init__(self, descriptor: Descriptor, weights: Mapping[str, Path]) -> None:
        net = load_net(file_of(weights["model"]))
        check_shape(descriptor, net.dim, net.depth)
        super().__init__(
            net,
            dim=net.dim,
            depth=net.depth,
            lists=("encoder.encoders", "encoder.tp_encoders"),
            top=("encoder.tp_norm",),
            unused=("ctc",),
        )
        self._below_middle = len(list(net.encoder["encoders"].children()))

    def level(self, parameter: str) -> int | None:
        """Where a parameter lies; the norm in the middle belongs to the block below it."""
        if parameter.startswith("model.encoder.after_norm."):
            return self._below_middle
        return super().level(parameter)

    def forward(
        self,
        values: Float[Tensor, "batch time feature"],
        mask: Bool[Tensor, "batch time"],
        join: Join = last,
    ) -> tuple[Float[Tensor, "batch time width"], Bool[Tensor, "batch time"]]:
        """The last block's states, or what is made of all; every window is read by itself."""
        width = join([values.new_zeros(1, 1, self.dim)] * (self.depth + 1)).shape[2]
        states = values.new_zeros(*mask.shape, width)
        if not mask.any():
            return states, mask
        read = values[mask]
        window, place, lengths = _places(values[..., -1], mask)
        frames = read.new_zeros(len(lengths), int(lengths.max()), FEATURE)
        frames = frames.index_put((window, place), read[:, :-1])
        levels = self.model(frames, lengths.tolist(), ASKED)
        found = join([level[:, QUERIES:] for level in levels])[window, place]
        return states.index_put((mask,), found.to(states.dtype)), mask


def _marked(frames: Float32[np.ndarray, "steps feature"]) -> Float32[np.ndarray, "steps more"]:
    """Frames of one window, with the number that says where it begins."""
    first = np.zeros((len(frames), 1), np.float32)
    first[0] = 1
    return np.concatenate([frames, first], 1)


def _places(
    begins: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]
) -> tuple[Int[Tensor, " real"], Int[Tensor, " real"], Int[Tensor, " window"]]:
    """Of each real step its window and its place there; of each window its length."""
    of_row = mask & (mask.cumsum(1) == 1)  # what has no beginning begins with its row
    starts = (((begins > 0.5) & mask) | of_row)[mask]
    window = starts.cumsum(0) - 1
    first = starts.nonzero()[:, 0]
    place = torch.arange(len(starts), device=mask.device) - first[window]
    return window, place, torch.bincount(window)
