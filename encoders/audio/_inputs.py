"""Sound as it is published for a net that trains a speech model, and those models as branches of it.

A step is 20 ms. Whisper reads two log-mel frames a step, the self-supervised models 320 samples; the last
step of a clip is filled up with silence. Both cut windows of 30 s and mask what lies behind a clip; models
that normalise over the whole recording run on rows of equal length.

Shapes: batch, time, feature.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from cluster.errors import ConfigError
from encoders.audio._loud import energy_of_mels, energy_of_samples, loud_steps
from encoders.audio._speech import (
    FIELD,
    HOP,
    RATE_HZ,
    is_normalised,
    needs_equal_lengths,
    normalised,
    num_steps,
)
from encoders.audio._whisper import (
    STEP,
    TINY_EN,
    WINDOW_S,
    cut,
    encoder_states,
    load_whisper,
    log_mel,
    mel_bands,
)
from encoders.batching import (
    check_shape,
    model_folder,
    nothing,
    quiet,
    states_of,
    steps,
    use_threads,
)
from encoders.branch import EncoderBranch, Join, last
from encoders.spec import Clip, Descriptor, Encoded

WINDOW_STEPS = WINDOW_S * RATE_HZ // STEP


class MelPublisher:
    """Gives Whisper's log-mel frames, two a step."""

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
        num_mels = _num_mels(weights["model"])
        if 2 * num_mels != self._dim:
            raise ConfigError(
                f"{descriptor.name}: the weights read {num_mels} mel bands, expected {self._dim // 2}"
                + ("; type mels=" + str(num_mels) if "mels" in descriptor.options else "")
            )
        self._bands = mel_bands(num_mels).to(device)
        self._device = device

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """Frames of each clip; no samples give one step that is not valid."""
        return [self._encoded(clip) for clip in clips]

    def _encoded(self, clip: Clip) -> Encoded:
        windows = cut(clip.waveforms[RATE_HZ])
        if not windows:
            return nothing(clip, self._dim)
        # A window by itself: its loudest frame bounds it.
        mels = [log_mel([torch.from_numpy(w)], self._bands, self._device)[0] for w in windows]
        values = torch.cat(mels, 1).T.reshape(-1, self._dim)
        return in_steps(clip, values.cpu().numpy())


class WhisperBranch(EncoderBranch):
    """The encoder half of any Whisper, from log-mel frames to states."""

    def __init__(self, descriptor: Descriptor, weights: Mapping[str, Path]) -> None:
        model = load_whisper(weights["model"])
        config = model.config
        check_shape(descriptor, config.d_model, config.encoder_layers)
        super().__init__(
            model.encoder, dim=config.d_model, depth=config.encoder_layers, top=("layer_norm",)
        )
        self._loud_db = int(descriptor.options.get("loud", 0))

    def forward(
        self,
        values: Float[Tensor, "batch time feature"],
        mask: Bool[Tensor, "batch time"],
        join: Join = last,
    ) -> tuple[Float[Tensor, "batch time width"], Bool[Tensor, "batch time"]]:
        """The last block's states, normalised as the model ends, or what is made of all."""

        def run(part: Tensor, inside: Tensor) -> Tensor:
            return join(encoder_states(self.model, mels_of(part), inside.sum(1).tolist()))

        states = windowed(values, mask, width_of(join, self), run)
        if not self._loud_db:
            return states, mask
        return states, loud_steps(energy_of_mels(mels_of(values)), mask, self._loud_db)


class WavePublisher:
    """Gives samples, 320 a step, brought to mean 0 and variance 1 where the model wants that."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        use_threads(threads)
        folder = Path(model_folder(weights["model"]))
        self._normalised = is_normalised(folder / "preprocessor_config.json")

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """Samples of each clip; none give one step that is not valid."""
        return [self._encoded(clip) for clip in clips]

    def _encoded(self, clip: Clip) -> Encoded:
        samples = clip.waveforms[RATE_HZ]
        if not len(samples):
            return nothing(clip, HOP)
        samples = self._scaled(samples)
        # Shorter than what one step of the model sees, a clip is extended by silence.
        size = HOP * math.ceil(max(len(samples), FIELD) / HOP)
        return in_steps(clip, np.pad(samples, (0, size - len(samples))).reshape(-1, HOP))

    def _scaled(self, samples: np.ndarray) -> np.ndarray:
        return normalised(samples) if self._normalised else samples


class SpeechBranch(EncoderBranch):
    """wav2vec 2.0, HuBERT, WavLM and models of their shape, from samples to states."""

    lists: tuple[str, ...] = ()
    unused: tuple[str, ...] = ("masked_spec_embed", "adapter")

    def __init__(self, descriptor: Descriptor, weights: Mapping[str, Path]) -> None:
        model = self._loaded(descriptor, weights["model"])
        config = model.config
        check_shape(descriptor, config.hidden_size, config.num_hidden_layers)
        super().__init__(
            model,
            dim=config.hidden_size,
            depth=config.num_hidden_layers,
            lists=self.lists,
            top=("encoder.layer_norm",) if getattr(config, "do_stable_layer_norm", False) else (),
            unused=self.unused,
        )
        self._equal_lengths = needs_equal_lengths(config)
        self._loud_db = int(descriptor.options.get("loud", 0))

    def _loaded(self, descriptor: Descriptor, path: Path) -> Any:
        from transformers import AutoModel

        quiet()
        model = AutoModel.from_pretrained(
            model_folder(path),
            local_files_only=True,
            dtype=torch.float32,
            # Both draw outside of the seeds of a run.
            apply_spec_augment=False,
            layerdrop=0.0,
        )
        # Without this it keeps what frozen convolutions made, for gradients that nobody asks for.
        model.feature_extractor._requires_grad = False
        return model

    def forward(
        self,
        values: Float[Tensor, "batch time feature"],
        mask: Bool[Tensor, "batch time"],
        join: Join = last,
    ) -> tuple[Float[Tensor, "batch steps width"], Bool[Tensor, "batch steps"]]:
        """The last block's states, or what is made of all, one step less a window than there were."""
        rows = len(mask)
        windows, inside = windows_with(values, mask)
        lengths = inside.sum(1)
        count = num_steps(HOP * windows.shape[1])
        states = windows.new_zeros(len(windows), count, width_of(join, self))
        said = torch.zeros(len(windows), count, dtype=torch.bool, device=mask.device)
        for length, chosen in self._alike(lengths):
            part = windows[chosen, :length].reshape(len(chosen), -1)
            attention = inside[chosen, :length].repeat_interleave(HOP, 1).long()
            result = self.model(
                part,
                attention_mask=None if self._equal_lengths else attention,
                output_hidden_states=True,
            )
            found = join(states_of(result))
            steps_of = torch.tensor([num_steps(HOP * int(n)) for n in lengths[chosen]])
            here = torch.arange(count, device=mask.device) < steps_of.to(mask.device).unsqueeze(1)
            found = pad(found, (0, 0, 0, count - found.shape[1])).to(states.dtype)
            states = states.index_copy(0, chosen, found)
            said = said.index_copy(0, chosen, here)
        said = said.reshape(rows, -1)
        if self._loud_db:
            # Of a window the last block of samples has no state of its own.
            energy = energy_of_samples(windows)[:, :count].reshape(rows, -1)
            said = loud_steps(energy, said, self._loud_db)
        return states.reshape(rows, -1, states.shape[2]), said

    def _alike(self, lengths: Tensor) -> list[tuple[int, Tensor]]:
        """Rows that run together, and how many steps of them: those of no sound do not run."""
        long = lengths >= math.ceil(FIELD / HOP)
        if not self._equal_lengths:
            return runs_of(torch.where(long, lengths, 0))
        return [
            (length, (lengths == length).nonzero()[:, 0])
            for length in sorted(set(lengths[long].tolist()))
        ]


def mels_of(values: Float[Tensor, "batch time feature"]) -> Float[Tensor, "batch mels frames"]:
    """Whisper's frames out of steps of two."""
    return values.reshape(len(values), 2 * values.shape[1], -1).transpose(1, 2)


def in_steps(clip: Clip, values: np.ndarray) -> Encoded:
    """Steps of 20 ms from where a clip's sound begins."""
    start = clip.audio_start_s + np.arange(len(values)) * (HOP / RATE_HZ)
    return steps(values, start, start + HOP / RATE_HZ)


def windows_with(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rows cut into windows of 30 s, silence where there is nothing: [batch x window, time, ...]."""
    known = values.masked_fill(~mask.unsqueeze(-1), 0)
    time = mask.shape[1]
    if time <= WINDOW_STEPS:
        return known, mask
    more = -time % WINDOW_STEPS
    known, mask = pad(known, (0, 0, 0, more)), pad(mask, (0, more))
    return known.reshape(-1, WINDOW_STEPS, known.shape[2]), mask.reshape(-1, WINDOW_STEPS)


def windowed(
    values: Float[Tensor, "batch time feature"],
    mask: Bool[Tensor, "batch time"],
    width: int,
    run: Callable[[Tensor, Tensor], Tensor],
) -> Float[Tensor, "batch time width"]:
    """States of rows that a model reads in windows of 30 s; zeros where a window has no step.

    Args:
        values: what the model is given.
        mask: its real steps.
        width: of the states.
        run: states of some windows and their masks, a step for each of theirs.
    """
    windows, inside = windows_with(values, mask)
    states = windows.new_zeros(*inside.shape, width)
    for longest, chosen in runs_of(inside.sum(1)):
        found = run(windows[chosen, :longest], inside[chosen, :longest])
        found = pad(found, (0, 0, 0, states.shape[1] - longest)).to(states.dtype)
        states = states.index_copy(0, chosen, found)
    return states.reshape(len(mask), -1, width)[:, : mask.shape[1]]


def width_of(join: Join, branch: EncoderBranch) -> int:
    """Width of what is made of all states of a branch."""
    return join([torch.zeros(1, 1, branch.dim)] * (branch.depth + 1)).shape[2]


def runs_of(lengths: Tensor) -> list[tuple[int, Tensor]]:
    """Windows that run together, and the steps of the longest: full ones and all others.

    One long clip in a batch cuts the rest of its row, and every other row, into windows of 30 s of which
    most are empty or nearly so. Those of no sound do not run.
    """
    full, some = lengths == WINDOW_STEPS, (lengths > 0) & (lengths < WINDOW_STEPS)
    return [
        (int(lengths[kind].max()), kind.nonzero()[:, 0])
        for kind in (full, some)
        if bool(kind.any())
    ]


def _num_mels(path: Path) -> int:
    from transformers import WhisperConfig

    if not path.is_dir():
        return TINY_EN["num_mel_bins"]
    config: Any = WhisperConfig.from_pretrained(path, local_files_only=True)
    return int(config.num_mel_bins)
