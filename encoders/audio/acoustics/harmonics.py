"""Harmonics of voiced 60 ms frames: noise, tilt, and how strong the formants are."""

import numpy as np
from jaxtyping import Float, Int

from encoders.audio.acoustics.frames import LONG_FFT, RATE_HZ

UNVOICED_DB = -201.0
"""What stands for a formant's amplitude where there is no voice."""
_BIN_HZ = RATE_HZ / LONG_FFT
_HARMONICS = 100
_AROUND_FORMANT = 0.2
_REACH = 4
_FAR = 1 << 20
_TINY = 1e-12


def harmonics(
    magnitude: Float[np.ndarray, "frames 513"],
    hertz: Float[np.ndarray, " frames"],
    formant_hz: Float[np.ndarray, "frames 3"],
) -> Float[np.ndarray, "frames 6"]:
    """Six descriptors in dB of voiced frames.

    Args:
        magnitude: Spectrum of 60 ms frames, 1024 points.
        hertz: Fundamental frequency, above 0 everywhere.
        formant_hz: The first three formants.

    Returns:
        Harmonics-to-noise ratio, H1-H2, H1-A3, and the strongest harmonic near formants 1 to 3 relative to
        the fundamental. The reference counts harmonics from 0: its H1 lies at twice the fundamental.
    """
    place, strength = _peaks(magnitude, hertz)
    rows = np.arange(len(magnitude))
    first = _decibels(magnitude[rows, np.rint(place[:, 0] / _BIN_HZ).astype(int)])
    level = _decibels(strength)
    level[:, 0] = first
    near = (
        np.abs(place[:, :, None] - formant_hz[:, None, :])
        <= _AROUND_FORMANT * formant_hz[:, None, :]
    )
    near &= (strength > 0)[:, :, None]
    strongest = np.where(near, level[:, :, None], -np.inf).max(axis=1)
    strongest = np.where(near.any(axis=1), strongest, first[:, None])
    return np.column_stack(
        [
            _harmonics_to_noise(magnitude, hertz),
            level[:, 1] - level[:, 2],
            level[:, 1] - strongest[:, 2],
            strongest - first[:, None],
        ]
    )


def _harmonics_to_noise(
    magnitude: Float[np.ndarray, "frames 513"], hertz: Float[np.ndarray, " frames"]
) -> Float[np.ndarray, " frames"]:
    """From the highest autocorrelation near one period."""
    lags = np.fft.irfft(magnitude**2, LONG_FFT)
    around = np.rint(RATE_HZ / hertz).astype(int)[:, None] + np.arange(-_REACH, _REACH + 1)
    highest = np.take_along_axis(lags, np.clip(around, 1, LONG_FFT // 2), axis=1).max(axis=1)
    share = np.clip(highest / np.maximum(lags[:, 0], _TINY), 1e-10, 1 - 1e-10)
    ratio: Float[np.ndarray, " frames"] = 10 * np.log10(share / (1 - share))
    return ratio


def _peaks(
    magnitude: Float[np.ndarray, "frames 513"], hertz: Float[np.ndarray, " frames"]
) -> tuple[Float[np.ndarray, "frames harmonics"], Float[np.ndarray, "frames harmonics"]]:
    """Where each harmonic's peak lies (Hz) and how high it is: a parabola's top at the nearest local maximum.

    No strength where that lies further than half the fundamental, or is the one of the harmonic before.
    """
    last = magnitude.shape[1] - 2
    audible = int(magnitude.shape[1] * _BIN_HZ / hertz.min()) + 1
    at = np.outer(hertz / _BIN_HZ, np.arange(1, min(audible, _HARMONICS) + 1))
    centre = np.clip(np.rint(at), 1, last).astype(int)
    summit = np.take_along_axis(_nearest_peak(magnitude), centre, axis=1)
    near = np.abs(summit - centre) <= np.ceil(hertz / _BIN_HZ / 2)[:, None]
    near[:, 1:] &= summit[:, 1:] != summit[:, :-1]
    summit = np.clip(summit, 1, last)
    left, top, right = (np.take_along_axis(magnitude, summit + step, axis=1) for step in (-1, 0, 1))
    curve = left - 2 * top + right
    is_peak = (top > left) & (top > right)
    offset = 0.5 * np.where(is_peak, left - right, 0.0) / np.where(is_peak, curve, 1.0)
    place = (summit + offset) * _BIN_HZ
    strength = top - 0.25 * (left - right) * offset
    inside = at < last + 1
    return place, np.where(inside & near, strength, 0.0)


def _nearest_peak(magnitude: Float[np.ndarray, "frames 513"]) -> Int[np.ndarray, "frames 513"]:
    """The bin of the local maximum nearest to each bin, the upper one of two; far outside where none is."""
    peaks = np.zeros(magnitude.shape, bool)
    inner = magnitude[:, 1:-1]
    peaks[:, 1:-1] = (inner > magnitude[:, :-2]) & (inner > magnitude[:, 2:])
    bins = np.arange(magnitude.shape[1], dtype=np.int32)
    below = np.maximum.accumulate(np.where(peaks, bins, -_FAR), axis=1)
    above = np.minimum.accumulate(np.where(peaks, bins, _FAR)[:, ::-1], axis=1)[:, ::-1]
    nearest: Int[np.ndarray, "frames 513"] = np.where(above - bins <= bins - below, above, below)
    return nearest


def _decibels(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    decibels: Float[np.ndarray, "*shape"] = 20 * np.log10(np.maximum(values, _TINY))
    return decibels
