"""Hidden states of the self-supervised speech transformers, one every 20 ms.

The base models normalise their first convolution over the whole recording (group norm), so that padding
would change every step; they run in batches of exactly equal length. Models with layer norm are padded and
masked. A recording is brought to mean 0 and variance 1 where the model's preprocessor says so, over the whole
clip, and cut into windows of 30 s.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from encoders.audio._loud import energy_of_samples, loud_of
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
HOP, FIELD = 320, 400
"""Samples from one step to the next, and the receptive field of a step [samples]."""

WINDOW = 30 * RATE_HZ


class SpeechTransformer:
    """Wrapper of wav2vec 2.0, HuBERT, WavLM and models of their shape."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        use_threads(threads)
        quiet()
        folder = model_folder(weights["model"])
        self._descriptor = descriptor
        self._layers = descriptor.layers
        self._device = device
        self._model = self._loaded(weights["model"]).eval().to(device)
        self._loud_db = int(descriptor.options.get("loud", 0))
        config = self._model.config
        check_shape(descriptor, config.hidden_size, config.num_hidden_layers)
        self._equal_lengths = needs_equal_lengths(config)
        self._normalised = is_normalised(Path(folder) / "preprocessor_config.json")

    def _loaded(self, path: Path) -> Any:
        """The model of a folder, or of a file in it."""
        from transformers import AutoModel

        folder = model_folder(path)
        return AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """States of each clip; no samples give one step that is not valid."""
        windows = [
            (index, window)
            for index, clip in enumerate(clips)
            for window in windows_of(self._scaled(clip.waveforms[RATE_HZ]), WINDOW)
        ]
        lengths = [len(window) for _, window in windows]
        slack = 1.0 if self._equal_lengths else 1.25
        states: dict[int, np.ndarray] = {}
        for group in buckets(lengths, max_items=16, max_steps=2 * WINDOW, slack=slack):
            values = self._states([windows[position][1] for position in group])
            states.update(zip(group, values, strict=True))
        parts: list[list[np.ndarray]] = [[] for _ in clips]
        for position, (index, _) in enumerate(windows):
            parts[index].append(states[position])
        return [self._encoded(clip, part) for clip, part in zip(clips, parts, strict=True)]

    def _scaled(self, samples: Float32[np.ndarray, " samples"]) -> np.ndarray:
        return normalised(samples) if self._normalised and len(samples) else samples

    @torch.inference_mode()
    def _states(self, windows: list[np.ndarray]) -> list[np.ndarray]:
        sound = padded([torch.from_numpy(window) for window in windows]).to(self._device)
        mask = None
        if not self._equal_lengths:
            mask = padded([torch.ones(len(w), dtype=torch.long) for w in windows]).to(self._device)
        with arithmetic(self._device):
            result = self._model(sound, attention_mask=mask, output_hidden_states=True)
        values = stacked(states_of(result), self._layers)
        return [row[: num_steps(len(window))] for row, window in zip(values, windows, strict=True)]

    def _encoded(self, clip: Clip, parts: list[np.ndarray]) -> Encoded:
        values = np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)
        side = self._side(values)
        if not parts:
            return nothing(clip, self._descriptor.dim, side)
        # The last step of a full window and the first of the next are a hop apart, but for 5 ms.
        starts = [
            (number * WINDOW + np.arange(len(part)) * HOP) / RATE_HZ
            for number, part in enumerate(parts)
        ]
        start = clip.audio_start_s + np.concatenate(starts)
        kept = values[:, : self._descriptor.width]
        encoded = replace(steps(kept, start, start + FIELD / RATE_HZ), side=side)
        if self._loud_db:
            at = np.concatenate(starts) * (RATE_HZ / HOP)
            encoded = replace(
                encoded, valid=encoded.valid & self._loud(clip)[at.round().astype(int)]
            )
        return pooled(encoded, str(self._descriptor.options["pool"]), clip.words)

    def _loud(self, clip: Clip) -> np.ndarray:
        """Which steps of a clip, one every 20 ms, are loud."""
        samples = torch.from_numpy(self._scaled(clip.waveforms[RATE_HZ]))
        blocks = torch.nn.functional.pad(samples, (0, -len(samples) % HOP)).reshape(1, -1, HOP)
        loud: np.ndarray = loud_of(energy_of_samples(blocks)[0], self._loud_db).numpy()
        return loud

    def _side(self, values: Float32[np.ndarray, "steps width"]) -> dict[str, np.ndarray]:
        """Further columns of a clip, one row a step, of its states; of no states one row."""
        return {}


def windows_of(
    samples: Float32[np.ndarray, " samples"], size: int, shortest: int = RATE_HZ
) -> list[np.ndarray]:
    """Windows of `size` samples; a tail under `shortest` stays with the window before it.

    A recording shorter than what one step sees is extended by silence; of nothing there are no windows.
    """
    if len(samples) == 0:
        return []
    if len(samples) < FIELD:
        return [np.pad(samples, (0, FIELD - len(samples)))]
    cuts = list(range(size, len(samples), size))
    if cuts and len(samples) - cuts[-1] < shortest:
        cuts.pop()
    return np.split(samples, cuts)


def needs_equal_lengths(config: Any) -> bool:
    """Whether padding would change the steps of a model, mask or not.

    Group norm reads the whole recording; data2vec's stacked convolutions over positions carry padding into
    the steps beside it.
    """
    return bool(config.model_type == "data2vec-audio" or config.feat_extract_norm == "group")


def num_steps(samples: int) -> int:
    """Steps that the seven convolutions make of so many samples."""
    for kernel, stride in ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)):
        samples = (samples - kernel) // stride + 1
    return samples


def normalised(samples: Float32[np.ndarray, " samples"]) -> Float32[np.ndarray, " samples"]:
    """Mean 0 and variance 1."""
    scaled: np.ndarray = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    return scaled


def is_normalised(path: Path) -> bool:
    """What the model's preprocessor says; the classes' own default where it says nothing."""
    return bool(json.loads(path.read_text()).get("do_normalize", True)) if path.exists() else True
