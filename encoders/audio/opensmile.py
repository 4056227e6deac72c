"""openSMILE's own eGeMAPS and ComParE features, for those who may use it.

Its licence (audEERING) allows research and private use only, so it is an extra of its own and in no default.
`kind=egemaps` gives 88 functionals of the clip, `compare` 6373, `lld` the 25 eGeMAPS descriptors every 10 ms.
The encoder `egemaps` has the values of the first and the last without this licence; see docs/encoders.md.

Eyben, Wollmer and Schuller, 2010, https://doi.org/10.1145/1873951.1874246.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cluster.errors import MissingExtraError
from encoders.options import OneOf
from encoders.pooling import pooled
from encoders.spec import Clip, Descriptor, Encoded, EncoderSpec

SPEC = EncoderSpec(
    name="opensmile",
    modality="audio",
    summary="openSMILE: 88 eGeMAPS functionals (kind=compare: 6373, kind=lld: 25 per 10 ms)",
    implementation="encoders.audio.opensmile:OpenSmile",
    weights=(),
    dim=88,
    widths={"egemaps": 88, "compare": 6373, "lld": 25},
    rate_hz=16000,
    dtype="float32",
    licence="audEERING, non-commercial",
    memory_gb=0.3,
    seconds_per_clip_second=0.015,
    options={"kind": OneOf("egemaps", ("egemaps", "compare", "lld"))},
    extra="opensmile",
)

_RATE_HZ = 16000
_HOP_S = 0.01
_SHORTEST = 1024
"""Samples; anything shorter is followed by silence, else openSMILE returns nothing."""


class OpenSmile:
    """Wrapper of the native library."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        try:
            import opensmile
        except ImportError as error:
            raise MissingExtraError("the opensmile encoder", "opensmile") from error
        self._pool = str(descriptor.options["pool"])
        kind = descriptor.options["kind"]
        sets, levels = opensmile.FeatureSet, opensmile.FeatureLevel
        self._per_step = kind == "lld"
        self._smile = opensmile.Smile(
            sets.ComParE_2016 if kind == "compare" else sets.eGeMAPSv02,
            levels.LowLevelDescriptors if self._per_step else levels.Functionals,
        )

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """One step a clip, or one every 10 ms; no samples give steps that are not valid."""
        return [pooled(self._encode(clip), self._pool, clip.words) for clip in clips]

    def _encode(self, clip: Clip) -> Encoded:
        samples = clip.waveforms[_RATE_HZ]
        sound = np.pad(samples, (0, max(0, _SHORTEST - len(samples))))
        values = self._smile.process_signal(sound, _RATE_HZ).to_numpy(np.float32)
        if self._per_step:
            start = clip.audio_start_s + _HOP_S * np.arange(len(values))
            end = start + _HOP_S
            valid = np.arange(len(values)) * int(_HOP_S * _RATE_HZ) < len(samples)
        else:
            start, end = np.zeros(1), np.array([clip.duration_s])
            valid = np.array([len(samples) > 0])
        return Encoded(
            values=np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0),
            step_start_s=start,
            step_end_s=end,
            valid=valid,
        )
