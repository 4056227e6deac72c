"""Frames every 10 ms, their windows and spectra, and the smoothing of contours over three frames."""

import numpy as np
from jaxtyping import Float

RATE_HZ = 16000
HOP = 160
SHORT, LONG = 320, 960
"""Samples of the two frames: 20 ms for spectra and formants, 60 ms for pitch and harmonics."""
SHORT_FFT, LONG_FFT = 512, 1024

_HAMMING = np.hamming(SHORT)
_ACROSS = np.linspace(-1.0, 1.0, LONG)
_GAUSS = np.exp(-0.5 * (_ACROSS / 0.4) ** 2)


def short_frames(samples: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "frames 320"]:
    """Frames of 20 ms under a Hamming window."""
    return cut(samples, SHORT) * _HAMMING


def long_frames(
    samples: Float[np.ndarray, " samples"], begin: int, end: int
) -> Float[np.ndarray, "frames 960"]:
    """Frames of 60 ms, from `begin` up to `end`, under a Gauss window of deviation 0.4 of its half."""
    return cut(samples[begin * HOP : (end - 1) * HOP + LONG], LONG) * _GAUSS


def long_levels(samples: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " frames"]:
    """Root mean square of each of the long frames."""
    whole = samples[: len(samples) // HOP * HOP].reshape(-1, HOP)
    shares = whole**2 @ (_GAUSS**2).reshape(-1, HOP).T
    count = len(whole) - LONG // HOP + 1
    powers = sum(shares[part : part + count, part] for part in range(LONG // HOP))
    levels: Float[np.ndarray, " frames"] = np.sqrt(powers / LONG)
    return levels


def magnitudes(
    frames: Float[np.ndarray, "frames samples"], length: int
) -> Float[np.ndarray, "frames bins"]:
    """Spectrum of each frame through a transform of `length` points."""
    spectrum = np.fft.rfft(frames, length)
    power = spectrum.real**2
    power += spectrum.imag**2
    return np.sqrt(power, out=power)


def cut(samples: Float[np.ndarray, " samples"], length: int) -> Float[np.ndarray, "frames length"]:
    """Overlapping frames that begin every 10 ms; a last one that is not full is left out."""
    return np.lib.stride_tricks.sliding_window_view(samples, length)[::HOP]


def smooth(contours: Float[np.ndarray, "frames n"]) -> Float[np.ndarray, "frames n"]:
    """Mean of each frame and its two neighbours; the ends repeat."""
    padded = np.concatenate([contours[:1], contours, contours[-1:]])
    mean: Float[np.ndarray, "frames n"] = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    return mean


def smooth_where(contours: Float[np.ndarray, "frames n"]) -> Float[np.ndarray, "frames n"]:
    """As `smooth`, over the neighbours that are not 0; 0 where the frame itself is."""
    padded = np.concatenate([contours[:1], contours, contours[-1:]])
    defined = (padded != 0).astype(float)
    total = padded[:-2] + padded[1:-1] + padded[2:]
    count = defined[:-2] + defined[1:-1] + defined[2:]
    return np.where(padded[1:-1] != 0, total / np.maximum(count, 1.0), 0.0)
