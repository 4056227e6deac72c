"""CLAP: one vector of 512 for every 10 s of any sound, in a space shared with sentences about sound.

The sound is read at 48 kHz in windows of 10 s; a shorter one is repeated until it fills the window, as the
model was trained. Wu et al., 2023, https://arxiv.org/abs/2211.06687.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from encoders.options import WIDTH
from encoders.pooling import pooled
from encoders.spec import Clip, Descriptor, Encoded, EncoderSpec, Inputs, Weights

SPEC = EncoderSpec(
    name="clap",
    modality="audio",
    summary="CLAP (HTSAT, unfused): 512 numbers per 10 s",
    implementation="encoders.audio.clap:Clap",
    weights=(
        Weights(
            name="model",
            uri="hf://laion/clap-htsat-unfused@8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a",
            sha256=None,
            licence="Apache-2.0",
            size_mb=615.0,
        ),
    ),
    dim=512,
    hop_s=10.0,
    rate_hz=48000,
    licence="Apache-2.0",
    memory_gb=2.0,
    seconds_per_clip_second=0.08,
    options={"dim": WIDTH},
    inputs=Inputs(
        dim=1001 * 64,
        dtype="float16",
        publisher="encoders.audio._clap_inputs:ClapPublisher",
        branch="encoders.audio._clap_inputs:ClapBranch",
        stages={"": 4},
    ),
)

RATE_HZ = 48000
WINDOW_S = 10
_BATCH = 8
_SHORTEST_TAIL_S = 1


class Clap:
    """Wrapper of CLAP's audio tower and its projection."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        import torch
        from transformers import ClapAudioModelWithProjection, ClapFeatureExtractor

        from encoders.batching import model_folder, quiet, use_threads

        use_threads(threads)
        quiet()
        folder = model_folder(weights["model"])
        self._descriptor = descriptor
        self._device = device
        self._extract = ClapFeatureExtractor.from_pretrained(folder, local_files_only=True)
        model = ClapAudioModelWithProjection.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32
        )
        self._model = model.eval().to(device)

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """One step for every 10 s; no samples give one step that is not valid."""
        parts = [windows(clip.waveforms[RATE_HZ]) for clip in clips]
        every = [window for part in parts for window in part]
        values = [
            vector
            for first in range(0, len(every), _BATCH)
            for vector in self._vectors(every[first : first + _BATCH])
        ]
        rows = iter(values)
        return [
            self._encoded(clip, [next(rows) for _ in part])
            for clip, part in zip(clips, parts, strict=True)
        ]

    def _vectors(self, sound: list[np.ndarray]) -> np.ndarray:
        import torch

        from encoders.batching import arithmetic

        inputs = self._extract(
            sound, sampling_rate=RATE_HZ, padding="repeatpad", return_tensors="pt"
        )
        with torch.inference_mode(), arithmetic(self._device):
            result = self._model(
                input_features=inputs["input_features"].to(self._device),
                is_longer=inputs["is_longer"].to(self._device),
            )
        vectors: np.ndarray = result.audio_embeds.float().cpu().numpy()
        return vectors

    def _encoded(self, clip: Clip, vectors: list[np.ndarray]) -> Encoded:
        from encoders.batching import nothing, steps

        if not vectors:
            return nothing(clip, self._descriptor.dim)
        encoded = steps(np.stack(vectors), *times_of(clip, len(vectors)))
        return pooled(encoded, str(self._descriptor.options["pool"]), clip.words)


def windows(samples: Float32[np.ndarray, " samples"]) -> list[np.ndarray]:
    """Windows of 10 s at most; what is left of a tail under one second is dropped."""
    from encoders.audio._speech import windows_of

    cut = windows_of(samples, WINDOW_S * RATE_HZ, _SHORTEST_TAIL_S * RATE_HZ)
    return [window[: WINDOW_S * RATE_HZ] for window in cut]


def times_of(clip: Clip, count: int) -> tuple[np.ndarray, np.ndarray]:
    """When each of a clip's windows begins and ends [s]."""
    start = clip.audio_start_s + WINDOW_S * np.arange(count)
    return start, np.append(start[1:], max(clip.duration_s, start[-1]))
