"""Whisper's encoder over the seconds that exist, at 50 steps a second.

Whisper was trained on windows of 30 s, silence behind the speech included, and has no mask. Here a window
ends where its sound ends: log-mel frames equal the padded ones, padding inside a batch is masked out of the
convolutions and of attention, and a 4 s clip costs 4 s. Attention then sees no silence behind the speech,
so states differ from those of the padded window; `tests/encoders/test_whisper.py` measures by how much.
Longer audio is cut into windows of 30 s.

Radford et al., 2022, https://arxiv.org/abs/2212.04356.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional as F

from encoders.audio._ctranslate2 import whisper_parameters
from encoders.audio._loud import energy_of_mels, loud_of
from encoders.batching import (
    arithmetic,
    buckets,
    check_shape,
    key_bias,
    nothing,
    padded,
    quiet,
    stacked,
    use_threads,
)
from encoders.batching import steps as as_steps
from encoders.pooling import pooled
from encoders.spec import Clip, Descriptor, Encoded

RATE_HZ = 16000
WINDOW_S = 30
STEP = 320
"""Samples of one step: 20 ms."""

_FFT, _HOP = 400, 160

TINY_EN = {
    "vocab_size": 51864,
    "num_mel_bins": 80,
    "d_model": 384,
    "encoder_layers": 4,
    "decoder_layers": 4,
    "encoder_attention_heads": 6,
    "decoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "decoder_ffn_dim": 1536,
    "decoder_start_token_id": 50257,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
    "pad_token_id": 50256,
}
"""What ``model.bin`` does not say of itself."""


class WhisperStates:
    """Wrapper of the encoder half of any Whisper."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        use_threads(threads)
        self._descriptor = descriptor
        self._device = device
        model = load_whisper(weights["model"])
        config = model.config
        check_shape(descriptor, config.d_model, config.encoder_layers)
        self._encoder = model.encoder.eval().to(device)
        self._bands = mel_bands(config.num_mel_bins).to(device)
        self._loud_db = int(descriptor.options.get("loud", 0))

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """States of each clip, one every 20 ms; no samples give one step that is not valid."""
        windows = [
            (index, window)
            for index, clip in enumerate(clips)
            for window in cut(clip.waveforms[RATE_HZ])
        ]
        lengths = [math.ceil(len(window) / STEP) for _, window in windows]
        states: dict[int, tuple[np.ndarray, Tensor]] = {}
        for group in buckets(lengths, max_items=16, max_steps=3000):
            values = self._states([windows[position][1] for position in group])
            states.update(zip(group, values, strict=True))
        parts: list[list[tuple[np.ndarray, Tensor]]] = [[] for _ in clips]
        for position, (index, _) in enumerate(windows):
            parts[index].append(states[position])
        return [self._encoded(clip, part) for clip, part in zip(clips, parts, strict=True)]

    def _encoded(self, clip: Clip, parts: list[tuple[np.ndarray, Tensor]]) -> Encoded:
        if not parts:
            return nothing(clip, self._descriptor.dim)
        values = np.concatenate([states for states, _ in parts])
        loud = loud_of(torch.cat([energy for _, energy in parts]), self._loud_db)
        start = clip.audio_start_s + np.arange(len(values)) * (STEP / RATE_HZ)
        encoded = as_steps(values, start, start + STEP / RATE_HZ)
        encoded = replace(encoded, valid=encoded.valid & loud.numpy())
        return pooled(encoded, str(self._descriptor.options["pool"]), clip.words)

    @torch.inference_mode()
    def _states(self, windows: list[np.ndarray]) -> list[tuple[np.ndarray, Tensor]]:
        """States of some windows, and the energy of their steps."""
        sizes = [len(window) for window in windows]
        lengths = [math.ceil(size / STEP) for size in sizes]
        mel = log_mel([torch.from_numpy(w) for w in windows], self._bands, self._device)
        with arithmetic(self._device):
            states = encoder_states(self._encoder, mel, lengths)
        values = stacked(states, self._descriptor.layers)
        # Of no use where all steps stay, and on a GPU a wait.
        energies = energy_of_mels(mel).cpu() if self._loud_db else torch.zeros(values.shape[:2])
        return [
            (row[:length], energy[:length])
            for row, energy, length in zip(values, energies, lengths, strict=True)
        ]


def cut(samples: Float32[np.ndarray, " samples"]) -> list[Float32[np.ndarray, " window"]]:
    """Windows of at most 30 s; none of nothing."""
    size = WINDOW_S * RATE_HZ
    return [samples[i : i + size] for i in range(0, len(samples), size)]


def encoder_states(
    encoder: Any, mel: Float[Tensor, "batch mels frames"], lengths: Sequence[int]
) -> list[Float[Tensor, "batch time dim"]]:
    """Embeddings and the output of every block, the last one normalised, padding masked out.

    Args:
        encoder: ``transformers`` WhisperEncoder.
        mel: log-mel frames, two a step.
        lengths: steps of each item.
    """
    longest = mel.shape[-1] // 2
    device = str(mel.device)
    bias = key_bias(lengths, longest, device)
    frames = torch.arange(2 * longest, device=mel.device)
    inside = frames[None] < 2 * torch.tensor(lengths, device=mel.device)[:, None]
    hidden = F.gelu(encoder.conv1(mel)) * inside[:, None]
    hidden = F.gelu(encoder.conv2(hidden)).transpose(1, 2)
    hidden = hidden + encoder.embed_positions.weight[:longest]
    states = [hidden]
    for layer in encoder.layers:
        result = layer(hidden, attention_mask=bias)
        hidden = result if isinstance(result, Tensor) else result[0]
        states.append(hidden)
    states[-1] = encoder.layer_norm(hidden)
    return states


def log_mel(
    windows: Sequence[Float32[Tensor, " _"]],
    bands: Float32[Tensor, "bins mels"],
    device: str,
) -> Float32[Tensor, "batch mels frames"]:
    """Whisper's log-mel frames, two for each 20 ms begun, zeros beyond the end of each window.

    Each window is followed by silence, as in the padded original, so that its last frames are the same.
    """
    lengths = [2 * math.ceil(len(window) / STEP) for window in windows]
    size = max(lengths) * _HOP + _FFT
    sound = padded([_followed(window) for window in windows], size).to(device)
    spectrum = torch.stft(
        sound, _FFT, _HOP, window=torch.hann_window(_FFT, device=device), return_complex=True
    )
    power = spectrum.abs().square()[..., : max(lengths)]
    logs = torch.clamp(bands.T @ power, min=1e-10).log10()
    inside = torch.arange(max(lengths), device=device) < torch.tensor(
        lengths, device=device
    ).unsqueeze(1)
    loudest = logs.masked_fill(~inside[:, None], -10.0).amax((1, 2), keepdim=True)
    logs = (torch.maximum(logs, loudest - 8.0) + 4.0) / 4.0
    return logs * inside[:, None]


def _followed(window: Float32[Tensor, " samples"]) -> Tensor:
    """A full window is mirrored at its end, a shorter one followed by silence, as in the original."""
    if len(window) < WINDOW_S * RATE_HZ:
        return window
    return torch.cat([window, window[-_FFT // 2 - 1 : -1].flip(0)])


def mel_bands(num_mels: int) -> Float32[Tensor, "bins mels"]:
    """Slaney-style mel filters of Whisper's front end."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        num_frequency_bins=1 + _FFT // 2,
        num_mel_filters=num_mels,
        min_frequency=0.0,
        max_frequency=8000.0,
        sampling_rate=RATE_HZ,
        norm="slaney",
        mel_scale="slaney",
    )
    return torch.from_numpy(filters).float()


def load_whisper(path: Path) -> Any:
    """``transformers`` WhisperModel from its folder, or from CTranslate2's ``model.bin`` of tiny.en."""
    from transformers import WhisperConfig, WhisperModel

    quiet()
    if path.is_dir():
        return WhisperModel.from_pretrained(path, local_files_only=True, dtype=torch.float32)
    with torch.device("meta"):
        model = WhisperModel(WhisperConfig(**TINY_EN))
    model.load_state_dict(whisper_parameters(path), assign=True)
    return model
