"""eGeMAPS acoustic parameters, computed by afx-audio in pure Python.

`kind=functionals` gives the 88 statistics of a clip as one step; `kind=lld` the 25 descriptors every 10 ms,
zero where a descriptor is undefined (unvoiced frames). Eyben et al., IEEE Trans. Affective Computing 2016,
https://doi.org/10.1109/TAFFC.2015.2457417. Several parameters differ from openSMILE's: a model trained on
the one must not be fed the other.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cluster.errors import MissingExtraError
from encoders.options import OneOf
from encoders.pooling import pooled
from encoders.spec import Clip, Descriptor, Encoded, EncoderSpec

SPEC = EncoderSpec(
    name="afx_egemaps",
    modality="audio",
    summary="eGeMAPS as afx-audio computes it: 88 functionals, or 25 descriptors per 10 ms (kind=lld)",
    implementation="encoders.audio.afx_egemaps:AfxEgemaps",
    weights=(),
    dim=88,
    widths={"functionals": 88, "lld": 25},
    rate_hz=16000,
    dtype="float32",
    licence="MIT",
    memory_gb=0.3,
    seconds_per_clip_second=0.016,
    options={"kind": OneOf("functionals", ("functionals", "lld"))},
    extra="offline",
)

_HOP_S = 0.01
_FRAME_S = 0.02
_SHORTEST = 1024
"""Samples; anything shorter is extended by silence, since pitch needs a 60 ms window."""


class AfxEgemaps:
    """Wrapper of afx-audio; clips are independent of each other by nature."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        try:
            from afx_audio.extractors import egemaps
        except ImportError as error:
            raise MissingExtraError("the afx_egemaps encoder", "offline") from error
        self._afx = egemaps
        self._descriptor = descriptor

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """88 numbers, or 25 every 10 ms, of each clip; no samples give one step that is not valid."""
        lld = self._descriptor.options["kind"] == "lld"
        rows = [self._contours(clip) if lld else self._functionals(clip) for clip in clips]
        pool = str(self._descriptor.options["pool"])
        return [pooled(row, pool, clip.words) for row, clip in zip(rows, clips, strict=True)]

    def _functionals(self, clip: Clip) -> Encoded:
        samples = clip.waveforms[16000]
        values = self._afx.extract_egemaps(_long_enough(samples), 16000)["egemaps"].T
        return Encoded(
            values=_finite(values),
            step_start_s=np.zeros(1),
            step_end_s=np.array([clip.duration_s]),
            valid=np.array([len(samples) > 0]),
        )

    def _contours(self, clip: Clip) -> Encoded:
        samples = clip.waveforms[16000]
        values = self._afx.extract_egemaps_lld(_long_enough(samples), 16000)["egemaps_lld"].T
        start = clip.audio_start_s + _HOP_S * np.arange(len(values))
        return Encoded(
            values=_finite(values),
            step_start_s=start,
            step_end_s=start + _FRAME_S,
            valid=np.arange(len(values)) * int(_HOP_S * 16000) < len(samples),
        )


def _long_enough(samples: np.ndarray) -> np.ndarray:
    return np.pad(samples, (0, max(0, _SHORTEST - len(samples))))


def _finite(values: np.ndarray) -> np.ndarray:
    finite: np.ndarray = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)
    return finite
