"""The 25 descriptors every 10 ms and the 88 functionals of a clip, in the order of eGeMAPS v02."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from encoders.audio.acoustics import functionals
from encoders.audio.acoustics.formants import FORMANTS, formants
from encoders.audio.acoustics.frames import (
    SHORT,
    SHORT_FFT,
    cut,
    long_frames,
    short_frames,
    smooth,
    smooth_where,
)
from encoders.audio.acoustics.harmonics import UNVOICED_DB, harmonics
from encoders.audio.acoustics.periods import jitter_shimmer
from encoders.audio.acoustics.pitch import pitch
from encoders.audio.acoustics.spectral import spectral

_LOWEST_HZ = 27.5
_SILENCE_POWER = 1e-12
_FLUX = 5
_LAST_UNVOICED, _LAST_VOICED = 1, 2
"""Frames at the end that the statistics of the voice leave out, by what the last one is.

In the reference they are those whose pitch is not settled when the sound ends, sometimes one or two more.
"""


class _Contours(NamedTuple):
    spectral: Float[np.ndarray, "short 10"]
    semitones: Float[np.ndarray, " long"]
    periods: Float[np.ndarray, "long 2"]
    harmonics: Float[np.ndarray, "long 6"]
    formants: Float[np.ndarray, "long 3 2"]

    @property
    def voiced(self) -> Bool[np.ndarray, " long"]:
        return self.semitones > 0


def descriptors(samples: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "frames 25"]:
    """The smoothed contours of a clip at 16 kHz, at least 60 ms of it; a frame every 10 ms."""
    contours = _contours(samples, formants_everywhere=True)
    count = len(contours.semitones)
    voice = _voice(contours)
    return np.column_stack([smooth(contours.spectral)[:count], smooth_where(voice)])


def statistics(samples: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " 88"]:
    """The functionals of a clip at 16 kHz, at least 60 ms of it."""
    contours = _contours(samples, formants_everywhere=False)
    count, voiced = len(contours.semitones), contours.voiced
    seen = max(count - (_LAST_VOICED if voiced[-1] else _LAST_UNVOICED), 1)
    level, balance = smooth(contours.spectral), contours.spectral[:count, 1:]
    semitones = smooth_where(contours.semitones[:, None])[:seen, 0]
    voice = _voice(contours)[:, 1:]
    voice[~voiced, 5:] = np.where(np.arange(9) % 3 == 2, voice[~voiced, 5:], 0.0)
    spoken = balance * voiced[:, None]
    unspoken = balance[:, :_FLUX] * ~voiced[:, None]
    values: list[float] = []
    values += [*_moved(semitones[semitones > 0]), *_moved(level[:, 0])]
    for column in level[:, _FLUX:].T:
        values += functionals.moments(column)
    for column in np.column_stack([smooth_where(voice), smooth_where(spoken)])[:seen].T:
        values += functionals.moments(column[column != 0])
    for column in smooth_where(unspoken)[:seen].T:
        values.append(functionals.moments(column[column != 0])[0])
    values.append(functionals.peaks_per_second(level[:, 0]))
    values += _segments(semitones > 0)
    values.append(10 * np.log10(max(float(np.mean(cut(samples, SHORT) ** 2)), _SILENCE_POWER)))
    return np.array(values)


def _contours(samples: Float[np.ndarray, " samples"], *, formants_everywhere: bool) -> _Contours:
    short, long = short_frames(samples), long_frames(samples)
    hertz, spectrum = pitch(long)
    voiced = hertz > 0
    resonances = np.zeros((len(hertz), FORMANTS, 2))
    wanted = np.ones_like(voiced) if formants_everywhere else voiced
    if wanted.any():
        resonances[wanted] = np.stack(formants(short[: len(hertz)][wanted]), axis=-1)
    strengths = np.tile(np.array([0.0] * 3 + [UNVOICED_DB] * FORMANTS), (len(hertz), 1))
    if voiced.any():
        strengths[voiced] = harmonics(spectrum, hertz[voiced], resonances[voiced, :, 0])
    return _Contours(
        spectral=spectral(np.abs(np.fft.rfft(short, SHORT_FFT))),
        semitones=np.where(voiced, 12 * np.log2(np.where(voiced, hertz, 1.0) / _LOWEST_HZ), 0.0),
        periods=jitter_shimmer(samples, hertz),
        harmonics=strengths,
        formants=resonances,
    )


def _voice(contours: _Contours) -> Float[np.ndarray, "frames 15"]:
    """Pitch, jitter, shimmer, noise, H1-H2, H1-A3; then frequency, bandwidth and strength of each formant."""
    resonances = np.concatenate([contours.formants, contours.harmonics[:, 3:, None]], axis=2)
    return np.column_stack(
        [
            contours.semitones,
            contours.periods,
            contours.harmonics[:, :3],
            resonances.reshape(len(resonances), -1),
        ]
    )


def _moved(contour: Float[np.ndarray, " n"]) -> list[float]:
    return [
        *functionals.moments(contour),
        *functionals.percentiles(contour),
        *functionals.slopes(contour),
    ]


def _segments(voiced: Bool[np.ndarray, " frames"]) -> list[float]:
    spoken, pauses = functionals.segment_lengths(voiced), functionals.segment_lengths(~voiced)
    span = len(voiced) * 0.01
    values = [len(spoken) / span]
    for lengths in (spoken, pauses):
        values += [float(lengths.mean()), float(lengths.std())] if len(lengths) else [0.0, 0.0]
    return values
