"""Descriptors of the 20 ms spectrum: loudness, balance, slopes, flux and cepstrum."""

import numpy as np
from jaxtyping import Float

from encoders.audio.acoustics.frames import RATE_HZ, SHORT_FFT

_BANDS = 26
_LOWEST_HZ, _HIGHEST_HZ = 20.0, 8000.0
_BIN_HZ = RATE_HZ / SHORT_FFT
_POWER_FLOOR, _BAND_FLOOR = 1e-14, 1.0
_LIFTER = 22
_CEPSTRA = 4


def spectral(magnitude: Float[np.ndarray, "frames 257"]) -> Float[np.ndarray, "frames 10"]:
    """Ten descriptors of each frame, in the order of eGeMAPS.

    Args:
        magnitude: Spectrum of 20 ms frames at 16 kHz, 512 points.

    Returns:
        Loudness, alpha ratio (dB), Hammarberg index (dB), slopes 0 to 500 and 500 to 1500 Hz (dB / Hz),
        flux, MFCC 1 to 4.
    """
    power = magnitude**2
    decibels = 10 * np.log10(np.maximum(power, _POWER_FLOOR))
    bands = power @ _FILTERS
    columns = [
        np.mean((bands * _EQUAL_LOUDNESS) ** 0.33, axis=1),
        _alpha_ratio(power),
        decibels[:, :64].max(axis=1) - decibels[:, 64:161].max(axis=1),
        decibels[:, 0:17] @ _slope_weights(0, 17),
        decibels[:, 16:49] @ _slope_weights(16, 49),
        _flux(magnitude),
    ]
    cepstrum = np.log(np.maximum(bands * 32767.0**2, _BAND_FLOOR)) @ _COSINES
    return np.column_stack([*columns, cepstrum])


def _alpha_ratio(power: Float[np.ndarray, "frames 257"]) -> Float[np.ndarray, " frames"]:
    low, high = power[:, :32].sum(axis=1), power[:, 32:161].sum(axis=1)
    heard = (low > 0) & (high > 0)
    return np.where(
        heard, 10 * np.log10(np.where(heard, high, 1.0) / np.where(heard, low, 1.0)), 0.0
    )


def _slope_weights(first: int, end: int) -> Float[np.ndarray, " bins"]:
    """Weights that give the slope of a line over bins; the count in the formula is one less than the bins."""
    bins = np.arange(first, end, dtype=float)
    count = len(bins) - 1
    spread = count * (bins @ bins) - bins.sum() ** 2
    weights: Float[np.ndarray, " bins"] = (count * bins - bins.sum()) / (spread * _BIN_HZ)
    return weights


def _flux(magnitude: Float[np.ndarray, "frames 257"]) -> Float[np.ndarray, " frames"]:
    change = np.diff(magnitude[:, :160], axis=0, prepend=magnitude[:1, :160])
    flux: Float[np.ndarray, " frames"] = np.sqrt(np.mean(change**2, axis=1))
    return flux


def _mel(hertz: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    mel: Float[np.ndarray, " n"] = 1127 * np.log(1 + hertz / 700)
    return mel


def _mel_edges() -> Float[np.ndarray, " edges"]:
    low, high = _mel(np.array([_LOWEST_HZ, _HIGHEST_HZ]))
    edges: Float[np.ndarray, " edges"] = np.linspace(low, high, _BANDS + 2)
    return edges


def _filters() -> Float[np.ndarray, "257 26"]:
    edges = _mel_edges()
    bins = _mel(np.arange(SHORT_FFT // 2 + 1) * _BIN_HZ)[:, None]
    rising = (bins - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - bins) / np.diff(edges)[1:]
    filters: Float[np.ndarray, "257 26"] = np.maximum(0.0, np.minimum(rising, falling))
    filters[:2] = 0.0  # the first bin above the lower edge takes no part
    return filters


def _equal_loudness() -> Float[np.ndarray, " 26"]:
    centres = 700 * (np.exp(_mel_edges()[1:-1] / 1127) - 1)
    omega = 2 * np.pi * centres
    square = omega**2
    curve = (square + 56.8e6) * square**2 / ((square + 6.3e6) ** 2 * (square + 0.38e9))
    weights: Float[np.ndarray, " 26"] = 1e32 * curve / (omega**7 + 1.7e31)
    return weights


def _cosines() -> Float[np.ndarray, "26 4"]:
    order = np.arange(1, _CEPSTRA + 1)
    band = np.arange(_BANDS)[:, None] + 0.5
    lifter = 1 + _LIFTER / 2 * np.sin(np.pi * order / _LIFTER)
    cosines: Float[np.ndarray, "26 4"] = (
        np.sqrt(2 / _BANDS) * np.cos(np.pi * order * band / _BANDS) * lifter
    )
    return cosines


_FILTERS = _filters()
_EQUAL_LOUDNESS = _equal_loudness()
_COSINES = _cosines()
