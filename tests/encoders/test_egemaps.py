"""eGeMAPS v02: values that openSMILE gave for signals of our own, and what any sound at all must give."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from encoders.audio.acoustics import functionals
from encoders.audio.acoustics.extended import descriptors, statistics
from encoders.audio.acoustics.frames import smooth_where
from encoders.registry import describe, load
from encoders.spec import Clip

TINY = Path(__file__).parent / "tiny"
REFERENCE = json.loads((TINY / "egemaps_of_voices.json").read_text())
NAMES = REFERENCE["names"]
SPECTRAL = ("loudness", "spectralFlux_", "mfcc1_", "mfcc2_", "mfcc3_", "mfcc4_", "equivalent")
VOICED = (
    "F0semitone",
    "F1frequency",
    "F2frequency",
    "F3frequency",
    "alphaRatioV",
    "hammarbergIndexV",
    "jitterLocal",
    "shimmerLocal",
)
"""Starts of names whose means and percentiles do not hang on a single frame of these short signals."""


def clip(samples):
    return Clip(
        clip_id=0, waveforms={16000: samples.astype(np.float32)}, duration_s=len(samples) / 16000
    )


def reference_of(name):
    import voices

    return voices.voices()[name] * 32768 / 32767, np.array(REFERENCE["values"][name])


class TestAgainstOpenSmile:
    @pytest.mark.parametrize("name", REFERENCE["values"])
    def test_means_and_percentiles_lie_within_two_percent(self, name):
        samples, expected = reference_of(name)
        own = statistics(samples)
        settled = np.array([name.startswith(SPECTRAL + VOICED) for name in NAMES])
        settled &= np.array(
            [name.endswith(("amean", "20.0", "50.0", "80.0", "dBp")) for name in NAMES]
        )
        assert settled.sum() == 21
        np.testing.assert_allclose(own[settled], expected[settled], rtol=0.02, atol=2e-3)

    @pytest.mark.parametrize("name", REFERENCE["values"])
    def test_at_least_76_of_88_lie_within_two_percent(self, name):
        samples, expected = reference_of(name)
        assert np.isclose(statistics(samples), expected, rtol=0.02, atol=1e-3).sum() >= 76

    def test_the_installed_library_still_says_what_is_stored(self):
        opensmile = pytest.importorskip("opensmile", reason="the extra opensmile is not installed")
        import voices

        smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
        for name, samples in voices.voices().items():
            values = smile.process_signal(samples.astype(np.float32), 16000).to_numpy()[0]
            np.testing.assert_allclose(values, REFERENCE["values"][name], rtol=1e-3, atol=1e-4)


class TestAnySound:
    @pytest.mark.parametrize("kind", ["functionals", "lld"])
    @pytest.mark.parametrize("length", [0, 1, 160, 959, 960, 961, 1119, 1120, 16001])
    @pytest.mark.parametrize("sound", ["silence", "noise", "clipped", "impulse", "not finite"])
    def test_it_gives_finite_values_of_the_stated_width(self, kind, length, sound):
        samples = np.zeros(length)
        if sound == "noise":
            samples = np.random.default_rng(0).normal(0, 0.1, length)
        elif sound == "clipped":
            samples = np.sign(np.sin(np.arange(length) / 20))
        elif length and sound == "impulse":
            samples[length // 2] = 1.0
        elif length and sound == "not finite":
            samples[::3] = np.nan
            samples[::7] = np.inf
        descriptor = describe(f"egemaps:kind={kind}")
        (own,) = load(descriptor, {}).encode([clip(samples)])
        assert own.values.shape[1] == descriptor.dim
        assert np.isfinite(own.values).all()
        assert own.valid.any() == (length > 0)

    @given(
        arrays.arrays(
            np.float32,
            st.integers(960, 6000),
            elements=st.floats(-1, 1, width=32, allow_subnormal=False),
        )
    )
    @settings(max_examples=12, deadline=None)
    def test_functionals_and_contours_are_finite(self, samples):
        assert np.isfinite(statistics(samples.astype(float))).all()
        assert np.isfinite(descriptors(samples.astype(float))).all()

    @given(st.floats(0.05, 1.0))
    @settings(max_examples=4, deadline=None)
    def test_pitch_formants_and_balance_do_not_hang_on_the_level(self, gain):
        samples, _ = reference_of("a at 120 Hz")
        free = [
            index
            for index, name in enumerate(NAMES)
            if name.startswith(("F0", "F1freq", "F2freq", "F3freq", "alphaRatioV"))
            and name.endswith("amean")
        ]
        np.testing.assert_allclose(
            statistics(gain * samples)[free], statistics(samples)[free], rtol=0.01
        )

    def test_clips_do_not_change_each_other(self):
        import voices

        sounds = [clip(samples) for samples in voices.voices().values()]
        encoder = load(describe("egemaps"), {})
        together = encoder.encode(sounds)
        for sound, own in zip(sounds, together, strict=True):
            np.testing.assert_array_equal(encoder.encode([sound])[0].values, own.values)

    def test_a_voice_is_heard_at_its_pitch(self):
        samples, _ = reference_of("i at 220 Hz")
        semitones = descriptors(samples)[20:70, 10]
        np.testing.assert_allclose(semitones, 12 * np.log2(220 / 27.5), atol=0.1)


class TestStatistics:
    def test_smoothing_passes_over_frames_without_a_value(self):
        contour = np.array([[0.0], [2.0], [4.0], [0.0], [6.0]])
        np.testing.assert_allclose(smooth_where(contour)[:, 0], [0, 3, 3, 0, 6])

    def test_a_gap_of_one_frame_is_bridged_and_one_of_two_parts(self):
        frames = np.array([0, 1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 1, 0, 0], dtype=bool)
        np.testing.assert_allclose(functionals.segment_lengths(frames), [0.05, 0.02])

    def test_no_frame_gives_no_segment(self):
        assert len(functionals.segment_lengths(np.zeros(0, bool))) == 0
        assert len(functionals.segment_lengths(np.zeros(9, bool))) == 0

    def test_small_wiggles_are_no_peaks(self):
        contour = np.array([0.0, 1.0, 0.98, 1.0, 0.0, 0.5, 0.0])
        assert [point.frame for point in functionals.turns(contour) if point.is_peak] == [1, 5]

    @given(arrays.arrays(np.float64, st.integers(0, 40), elements=st.floats(0, 1)))
    def test_turns_alternate_and_stand_out(self, contour):
        points = functionals.turns(contour)
        for before, after in pairwise(points):
            assert before.is_peak != after.is_peak
            assert (after.value > before.value) == after.is_peak
        assert np.isfinite(functionals.slopes(contour, points)).all()
