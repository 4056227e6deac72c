"""39 statistics of a clip, from spectra alone: the fallback without any pretrained model.

Of the log-mel spectrogram (128 Slaney bands, dB) mean, deviation, maximum, minimum and median; of 13
cepstral coefficients mean and deviation; of zero-crossing rate, centroid, 85 % roll-off and bandwidth mean
and deviation. Window 2048, hop 512 at 16 kHz, centred, as is usual in speech-emotion baselines.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from encoders.pooling import pooled
from encoders.spec import Clip, Descriptor, Encoded, EncoderSpec

SPEC = EncoderSpec(
    name="logmel_stats",
    modality="audio",
    summary="39 statistics of log-mel, MFCC, zero crossings and spectral shape",
    implementation="encoders.audio.logmel_stats:LogmelStats",
    weights=(),
    dim=39,
    rate_hz=16000,
    dtype="float32",
    licence="Apache-2.0",
    memory_gb=0.3,
    seconds_per_clip_second=0.001,
)

RATE_HZ = 16000
_FFT, _HOP, _BANDS, _CEPSTRA = 2048, 512, 128, 13
_FLOOR = 1e-10
_ROLLOFF = 0.85


class LogmelStats:
    """Signal processing in NumPy; clips are independent of each other by nature."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        self._pool = str(descriptor.options["pool"])
        self._bands = mel_filters()

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """One step a clip; no samples give one that is not valid."""
        return [pooled(self._encode(clip), self._pool, clip.words) for clip in clips]

    def _encode(self, clip: Clip) -> Encoded:
        samples = clip.waveforms[RATE_HZ].astype(np.float64)
        values = statistics(samples, self._bands) if len(samples) else np.zeros(SPEC.dim)
        return Encoded(
            values=values.astype(np.float32)[None],
            step_start_s=np.zeros(1),
            step_end_s=np.array([clip.duration_s]),
            valid=np.array([len(samples) > 0]),
        )


def statistics(
    samples: Float[np.ndarray, " samples"], bands: Float[np.ndarray, "mels bins"]
) -> Float[np.ndarray, " 39"]:
    """The 39 numbers in the order of the module's sentence."""
    from scipy.fft import dct

    frames = framed(samples)
    magnitude = np.abs(np.fft.rfft(frames * _hann(), axis=1))
    decibels = 10 * np.log10(np.maximum(magnitude**2 @ bands.T, _FLOOR))
    cepstra = dct(decibels, type=2, norm="ortho", axis=1)[:, :_CEPSTRA]
    contours = np.stack([zero_crossings(frames), *spectral_shape(magnitude)])
    whole = [decibels.mean(), decibels.std(), decibels.max(), decibels.min(), np.median(decibels)]
    pairs = np.stack([contours.mean(1), contours.std(1)], 1).ravel()
    return np.concatenate([whole, cepstra.mean(0), cepstra.std(0), pairs])


def framed(samples: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "frames 2048"]:
    """Centred frames, silence before and behind."""
    sound = np.pad(samples, _FFT // 2)
    view = np.lib.stride_tricks.sliding_window_view(sound, _FFT)
    return view[::_HOP]


def zero_crossings(frames: Float[np.ndarray, "frames width"]) -> Float[np.ndarray, " frames"]:
    """Share of neighbouring samples whose sign differs."""
    share: np.ndarray = (np.diff(np.signbit(frames), axis=1)).mean(1)
    return share


def spectral_shape(
    magnitude: Float[np.ndarray, "frames bins"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centroid, roll-off and bandwidth [Hz] of each frame; 0 where it is silent."""
    hertz = np.linspace(0, RATE_HZ / 2, magnitude.shape[1])
    total = magnitude.sum(1, keepdims=True)
    share = magnitude / np.maximum(total, _FLOOR)
    centroid = share @ hertz
    reached = np.cumsum(magnitude, 1) >= _ROLLOFF * total
    rolloff = hertz[np.argmax(reached, 1)]
    bandwidth = np.sqrt((share * (hertz[None] - centroid[:, None]) ** 2).sum(1))
    return centroid, rolloff, bandwidth


def mel_filters() -> Float[np.ndarray, "mels bins"]:
    """Triangles of equal area on Slaney's mel scale (linear to 1 kHz, logarithmic above)."""
    edges = _hertz(np.linspace(0, _mel(RATE_HZ / 2), _BANDS + 2))
    hertz = np.linspace(0, RATE_HZ / 2, _FFT // 2 + 1)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (hertz - low) / (centre - low), (high - hertz) / (high - centre)
    triangles: np.ndarray = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return triangles


def _mel(hertz: float) -> float:
    return 15 + 27 * np.log(hertz / 1000) / np.log(6.4) if hertz >= 1000 else hertz * 3 / 200


def _hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel >= 15, 1000 * np.exp(np.log(6.4) * (mel - 15) / 27), mel * 200 / 3)


def _hann() -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FFT) / _FFT)
