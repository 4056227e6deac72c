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
    magnitudes,
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
_FRAME_S = 0.01
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
    melody, loudness = semitones[semitones > 0], level[:, 0]
    swells = functionals.turns(loudness)
    values += _moved(melody, functionals.turns(melody))
    values += _moved(loudness, swells)
    for column in level[:, _FLUX:].T:
        values += functionals.moments(column)
    heard = np.column_stack([smooth_where(voice), smooth_where(spoken)])[:seen]
    values += np.stack(functionals.moments_where(heard), axis=1).ravel().tolist()
    values += functionals.moments_where(smooth_where(unspoken)[:seen])[0].tolist()
    values.append(sum(point.is_peak for point in swells) / (len(loudness) * _FRAME_S))
    values += _segments(semitones > 0)
    values.append(10 * np.log10(max(float(np.mean(cut(samples, SHORT) ** 2)), _SILENCE_POWER)))
    return np.array(values)


def _contours(samples: Float[np.ndarray, " samples"], *, formants_everywhere: bool) -> _Contours:
    short = short_frames(samples)
    hertz, spectrum = pitch(samples)
    voiced = hertz > 0
    resonances = np.zeros((len(hertz), FORMANTS, 2))
    wanted = np.ones_like(voiced) if formants_everywhere else voiced
    if wanted.any():
        resonances[wanted] = np.stack(formants(short[: len(hertz)][wanted]), axis=-1)
    strengths = np.tile(np.array([0.0] * 3 + [UNVOICED_DB] * FORMANTS), (len(hertz), 1))
    if voiced.any():
        strengths[voiced] = harmonics(spectrum, hertz[voiced], resonances[voiced, :, 0])
    return _Contours(
        spectral=spectral(magnitudes(short, SHORT_FFT)),
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


def _moved(contour: Float[np.ndarray, " n"], turns: list[functionals.Turn]) -> list[float]:
    return [
        *functionals.moments(contour),
        *functionals.percentiles(contour),
        *functionals.slopes(contour, turns),
    ]


def _segments(voiced: Bool[np.ndarray, " frames"]) -> list[float]:
    spoken, pauses = functionals.segment_lengths(voiced), functionals.segment_lengths(~voiced)
    span = len(voiced) * _FRAME_S
    values = [len(spoken) / span]
    for lengths in (spoken, pauses):
        values += [float(lengths.mean()), float(lengths.std())] if len(lengths) else [0.0, 0.0]
    return values
