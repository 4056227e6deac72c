"""VGGish: 128 numbers for every 0.96 s of sound, or its convolutional map averaged over time.

The original front end (25 ms windows, 10 ms hop, 64 HTK bands of 125 to 7500 Hz, log(mel + 0.01), patches of
96 frames, the rest dropped) and the original stack with its closing ReLU. No weights are published in a safe
place: name a checkpoint with the parameter names of torchvggish (`features.0.weight`, `embeddings.0.weight`),
safetensors or .pth, as `vggish:weights=file:///path/vggish.pth`. `kind=map` keeps 512 channels of 4 bands.

Hershey et al., 2017, https://arxiv.org/abs/1609.09430.
Shapes: batch, channels, time (96), band (64).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from encoders.options import OneOf
from encoders.pooling import pooled
from encoders.spec import Clip, Descriptor, Encoded, EncoderSpec, Inputs

SPEC = EncoderSpec(
    name="vggish",
    modality="audio",
    summary="VGGish: 128 numbers per 0.96 s (kind=map: 2048); weights=CHECKPOINT",
    implementation="encoders.audio.vggish:Vggish",
    weights=(),
    own_weights=True,
    dim=128,
    widths={"embedding": 128, "map": 2048},
    hop_s=0.96,
    rate_hz=16000,
    licence="Apache-2.0",
    memory_gb=1.0,
    seconds_per_clip_second=0.05,
    options={"kind": OneOf("embedding", ("embedding", "map"))},
    inputs=Inputs(
        dim=96 * 64,
        dtype="float16",
        publisher="encoders.audio._vggish_inputs:PatchPublisher",
        branch="encoders.audio._vggish_inputs:VggishBranch",
        stages={"embedding": 6, "map": 5},
        convolutions=5,
    ),
)

RATE_HZ = 16000
PATCH_S = 0.96
_BATCH = 16


class Vggish:
    """Wrapper of the network in `_vggish_net` over the patches of each clip."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        from encoders.audio._vggish_net import load_net
        from encoders.batching import use_threads

        use_threads(threads)
        self._descriptor = descriptor
        self._device = device
        self._net = load_net(weights["model"]).eval().to(device)

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """One step a patch; a clip under 0.96 s is followed by silence."""
        from encoders.audio._vggish_net import patches_of

        parts = [patches_of(clip.waveforms[RATE_HZ]) for clip in clips]
        every = np.concatenate(parts) if parts else np.zeros((0, 96, 64))
        values = [self._values(every[i : i + _BATCH]) for i in range(0, len(every), _BATCH)]
        joined = np.concatenate(values) if values else np.zeros((0, self._descriptor.dim))
        rows = np.split(joined, np.cumsum([len(part) for part in parts])[:-1]) if parts else []
        return [self._encoded(clip, row) for clip, row in zip(clips, rows, strict=True)]

    def _values(self, batch: np.ndarray) -> np.ndarray:
        import torch

        from encoders.batching import arithmetic

        with torch.inference_mode(), arithmetic(self._device):
            sound = torch.from_numpy(batch.astype(np.float32))[:, None].to(self._device)
            if self._descriptor.options["kind"] == "map":
                out = self._net.time_mean(sound)
            else:
                out = self._net(sound)
        values: np.ndarray = out.float().cpu().numpy()
        return values

    def _encoded(self, clip: Clip, values: np.ndarray) -> Encoded:
        from encoders.batching import steps

        start = clip.audio_start_s + PATCH_S * np.arange(len(values))
        heard = np.full(len(values), len(clip.waveforms[RATE_HZ]) > 0)
        encoded = steps(values, start, start + PATCH_S, valid=heard)
        return pooled(encoded, str(self._descriptor.options["pool"]), clip.words)
