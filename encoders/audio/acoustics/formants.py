"""Formants: roots of a linear prediction of 20 ms frames brought to 11 kHz."""

import numpy as np
from jaxtyping import Float

from encoders.audio.acoustics.frames import RATE_HZ, SHORT, SHORT_FFT

FORMANTS = 3
_RATE_HZ = 11000
_ORDER = 11
_SAMPLES = SHORT * _RATE_HZ // RATE_HZ
_LOWEST_HZ, _HIGHEST_HZ = 50.0, 5450.0


def formants(
    frames: Float[np.ndarray, "frames 320"],
) -> tuple[Float[np.ndarray, "frames 3"], Float[np.ndarray, "frames 3"]]:
    """Frequencies and bandwidths in Hz of the first three resonances; 0 where there are fewer.

    Args:
        frames: Windowed frames of 20 ms at 16 kHz.
    """
    coefficients = _linear_prediction(frames @ _RESAMPLER)
    companion = np.zeros((len(frames), _ORDER, _ORDER))
    # The sign is that of the predictor, not of the error filter: the values follow the reference in this.
    companion[:, 0] = coefficients
    companion[:, np.arange(1, _ORDER), np.arange(_ORDER - 1)] = 1.0
    roots = np.linalg.eigvals(companion)
    hertz = np.angle(roots) * _RATE_HZ / (2 * np.pi)
    widths = -np.log(np.maximum(np.abs(roots), 1e-12)) * _RATE_HZ / np.pi
    usable = (hertz >= _LOWEST_HZ) & (hertz <= _HIGHEST_HZ)
    order = np.argsort(np.where(usable, hertz, np.inf), axis=1)[:, :FORMANTS]
    there = np.take_along_axis(usable, order, axis=1)
    return (
        np.where(there, np.take_along_axis(hertz, order, axis=1), 0.0),
        np.where(there, np.take_along_axis(widths, order, axis=1), 0.0),
    )


def _linear_prediction(frames: Float[np.ndarray, "frames n"]) -> Float[np.ndarray, "frames 11"]:
    """Coefficients of the error filter 1 + sum a_i z^-i, by autocorrelation and Levinson's recursion."""
    count = frames.shape[1]
    lags = np.stack(
        [
            np.einsum("ft,ft->f", frames[:, : count - lag], frames[:, lag:])
            for lag in range(_ORDER + 1)
        ],
        axis=1,
    )
    filters = np.zeros((len(frames), _ORDER))
    error = lags[:, 0].copy()
    for step in range(_ORDER):
        known = filters[:, :step]
        missing = lags[:, step + 1] + np.einsum("fi,fi->f", known, lags[:, step:0:-1])
        reflection = np.where(error > 0, -missing / np.where(error > 0, error, 1.0), 0.0)
        filters[:, :step] = known + reflection[:, None] * known[:, ::-1]
        filters[:, step] = reflection
        error = error * (1 - reflection**2)
    return filters


def _resampler() -> Float[np.ndarray, "320 220"]:
    """From a frame at 16 kHz to one at 11 kHz through the spectrum, as a matrix.

    The frame lies in the middle of the transform, and the first 220 samples of the whole are taken, with half
    as many frequencies: what the reference does, which cuts off the end of the frame.
    """
    before = (SHORT_FFT - SHORT) // 2
    centred = np.zeros((SHORT, SHORT_FFT))
    centred[:, before : before + SHORT] = np.eye(SHORT)
    spectrum = np.fft.rfft(centred)[:, : _SAMPLES // 2]
    at = np.outer(np.arange(_SAMPLES // 2), np.arange(_SAMPLES) * (RATE_HZ / _RATE_HZ))
    turns = np.exp(2j * np.pi * at / SHORT_FFT)
    resampler: Float[np.ndarray, "320 220"] = 2 * (spectrum @ turns).real / SHORT_FFT
    return resampler


_RESAMPLER = _resampler()
