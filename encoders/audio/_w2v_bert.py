"""Hidden states of w2v-BERT 2.0, one every 20 ms, from log-mel frames as Kaldi makes them.

Eighty bands every 10 ms, each brought to mean 0 and variance 1 over the whole clip; two frames are a step,
and an odd last one is dropped (the original masks it). Longer sound is cut into windows of 30 s.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Float64

from encoders.batching import (
    arithmetic,
    buckets,
    check_shape,
    model_folder,
    nothing,
    padded,
    quiet,
    stacked,
    states_of,
    steps,
    use_threads,
)
from encoders.pooling import pooled
from encoders.spec import Clip, Descriptor, Encoded

RATE_HZ = 16000
FRAME, HOP, FFT = 400, 160, 512
BANDS = 80
STEP, FIELD = 2 * HOP, FRAME + HOP
"""Samples from one step to the next, and those that one step is made of."""

WINDOW = 30 * RATE_HZ // STEP
"""Steps of a window."""


class W2vBert:
    """Wrapper of w2v-BERT 2.0 and models of its shape."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        from transformers import Wav2Vec2BertModel

        use_threads(threads)
        quiet()
        self._descriptor = descriptor
        self._device = device
        model = Wav2Vec2BertModel.from_pretrained(
            model_folder(weights["model"]), local_files_only=True, dtype=torch.float32
        )
        self._model = model.eval().to(device)
        check_shape(descriptor, model.config.hidden_size, model.config.num_hidden_layers)

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """States of each clip; no samples give one step that is not valid."""
        windows = [
            (index, window)
            for index, clip in enumerate(clips)
            for window in frames_of(clip.waveforms[RATE_HZ])
        ]
        states: dict[int, np.ndarray] = {}
        lengths = [len(window) for _, window in windows]
        for group in buckets(lengths, max_items=16, max_steps=2 * WINDOW):
            values = self._states([windows[position][1] for position in group])
            states.update(zip(group, values, strict=True))
        parts: list[list[np.ndarray]] = [[] for _ in clips]
        for position, (index, _) in enumerate(windows):
            parts[index].append(states[position])
        return [self._encoded(clip, part) for clip, part in zip(clips, parts, strict=True)]

    @torch.inference_mode()
    def _states(self, windows: list[np.ndarray]) -> list[np.ndarray]:
        width = windows[0].shape[1]
        flat = padded([torch.from_numpy(window.reshape(-1)) for window in windows])
        mask = padded([torch.ones(len(window), dtype=torch.long) for window in windows])
        with arithmetic(self._device):
            result = self._model(
                flat.reshape(len(windows), -1, width).to(self._device),
                attention_mask=mask.to(self._device),
                output_hidden_states=True,
            )
        values = stacked(states_of(result), self._descriptor.layers)
        return [row[: len(window)] for row, window in zip(values, windows, strict=True)]

    def _encoded(self, clip: Clip, parts: list[np.ndarray]) -> Encoded:
        if not parts:
            return nothing(clip, self._descriptor.dim)
        values = np.concatenate(parts)
        start = clip.audio_start_s + np.arange(len(values)) * (STEP / RATE_HZ)
        encoded = steps(values, start, start + FIELD / RATE_HZ)
        return pooled(encoded, str(self._descriptor.options["pool"]), clip.words)


def frames_of(samples: Float32[np.ndarray, " samples"]) -> list[np.ndarray]:
    """Steps of at most 30 s each; sound shorter than a step is followed by silence."""
    if not len(samples):
        return []
    frames = log_mel(np.pad(samples, (0, max(0, FIELD - len(samples)))))
    scaled = (frames - frames.mean(0)) / np.sqrt(frames.var(0, ddof=1) + 1e-7)
    pairs = scaled[: len(scaled) // 2 * 2].reshape(-1, 2 * BANDS).astype(np.float32)
    return [pairs[i : i + WINDOW] for i in range(0, len(pairs), WINDOW)]


def log_mel(
    samples: Float32[np.ndarray, " samples"], shape: str = "povey"
) -> Float64[np.ndarray, "frames bands"]:
    """Natural logarithm of Kaldi's mel bands of samples in [-1, 1], one frame every 10 ms.

    Args:
        samples: at least `FRAME` of them.
        shape: of the window, povey or hamming.
    """
    filters = _filters()
    window = np.hamming(FRAME) if shape == "hamming" else np.hanning(FRAME) ** 0.85
    scaled = samples.astype(np.float64) * 2**15  # Kaldi reads whole numbers of 16 bits
    frames = np.lib.stride_tricks.sliding_window_view(scaled, FRAME)[::HOP]
    frames = frames - frames.mean(1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], 1)
    spectrum = np.fft.rfft((frames - 0.97 * before) * window, FFT, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    logs: np.ndarray = np.log(np.maximum(power @ filters, np.finfo(np.float32).eps))
    return logs


@functools.cache
def _filters() -> np.ndarray:
    """The mel bands [bins bands]."""
    from transformers.audio_utils import mel_filter_bank

    filters: np.ndarray = mel_filter_bank(
        num_frequency_bins=1 + FFT // 2,
        num_mel_filters=BANDS,
        min_frequency=20,
        max_frequency=RATE_HZ // 2,
        sampling_rate=RATE_HZ,
        norm=None,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )
    return filters
