"""Views of a clip: drawn by its id, as strong as asked, and the clip itself left alone."""

import dataclasses

import numpy as np
import pytest

from encoders.registry import describe
from encoders.spec import Clip, Encoded, FramePolicy, Frames, Needs, Word
from encoders.views import (
    View,
    augmented,
    cropped,
    draws_of,
    faster,
    in_original_time,
    mirrored,
    noisy,
)

RATE = 16000
POLICY = FramePolicy(kind="fps", rate_hz=5.0)


def tone(hertz=440.0, seconds=2.0, loudness=0.1):
    time = np.arange(round(seconds * RATE)) / RATE
    return (loudness * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def pitch(wave):
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return float(spectrum.argmax() * RATE / len(wave))


def clip(clip_id=5):
    pixels = np.random.default_rng(0).integers(0, 255, (4, 40, 60, 3)).astype(np.uint8)
    return Clip(
        clip_id=clip_id,
        duration_s=2.0,
        audio_start_s=0.1,
        waveforms={RATE: tone(), 8000: tone()[::2]},
        frames={POLICY: Frames(pixels, np.arange(4) / 5)},
        words=[Word("so", 0.2, 1.0)],
    )


SOUND = Needs(rates_hz=frozenset({RATE}))
SIGHT = Needs(frames=frozenset({POLICY}))


class TestSpeed:
    def test_a_tone_of_440_hz_becomes_484_at_1_1(self):
        assert pitch(faster(tone(), 1.1)) == pytest.approx(484, abs=1)

    @pytest.mark.parametrize("speed", [0.9, 0.97, 1.0, 1.1])
    def test_it_is_shorter_by_as_much(self, speed):
        assert len(faster(tone(), speed)) == pytest.approx(len(tone()) / speed, abs=1)

    def test_nothing_stays_nothing(self):
        assert len(faster(tone()[:0], 1.1)) == 0
        assert len(faster(tone()[:1], 1.1)) == 1


class TestNoise:
    @pytest.mark.parametrize("snr_db", [15.0, 22.0, 30.0])
    def test_it_is_as_far_below_the_sound_as_asked(self, snr_db):
        noise = noisy(tone(), snr_db, 3) - tone()
        measured = 10 * np.log10(np.mean(tone() ** 2) / np.mean(noise**2))
        assert measured == pytest.approx(snr_db, abs=0.2)

    def test_silence_stays_silence_and_nothing_leaves_the_range(self):
        assert not noisy(np.zeros(100, np.float32), 15.0, 0).any()
        assert np.abs(noisy(np.sign(tone()), 15.0, 0)).max() <= 1.0


class TestPictures:
    def test_the_same_part_of_every_frame_is_kept(self):
        frames = clip().frames[POLICY]
        part = cropped(frames, 0.85, 0.0, 1.0)
        np.testing.assert_array_equal(part.pixels, frames.pixels[:, 6:, :51])
        assert part.times_s is frames.times_s

    def test_one_pixel_is_left_of_one_pixel(self):
        one = Frames(np.zeros((1, 1, 1, 3), np.uint8), np.zeros(1))
        assert cropped(one, 0.85, 0.5, 0.5).pixels.shape == (1, 1, 1, 3)

    def test_twice_mirrored_is_the_original(self):
        frames = clip().frames[POLICY]
        np.testing.assert_array_equal(mirrored(mirrored(frames)).pixels, frames.pixels)


class TestAView:
    def test_it_is_the_same_every_time_and_another_for_another_clip_or_number(self):
        one = augmented(clip(), View(number=1), SOUND).waveforms[RATE]
        np.testing.assert_array_equal(one, augmented(clip(), View(number=1), SOUND).waveforms[RATE])
        for other in (
            augmented(clip(), View(number=2), SOUND),
            augmented(clip(6), View(number=1), SOUND),
        ):
            assert not np.array_equal(one[:1000], other.waveforms[RATE][:1000])

    def test_all_draws_stay_in_their_ranges(self):
        draws = [draws_of(i, View(number=1)) for i in range(400)]
        assert min(d.speed for d in draws) == 0.9
        assert max(d.speed for d in draws) == 1.1
        assert 15 <= min(d.snr_db for d in draws) < max(d.snr_db for d in draws) <= 30
        assert 0.85 <= min(d.crop for d in draws) < max(d.crop for d in draws) <= 1
        assert 0.4 < np.mean([d.mirrored for d in draws]) < 0.6

    def test_the_clip_stays_as_it_was(self):
        before, after = clip(), clip()
        augmented(after, View(number=1), SOUND | SIGHT)
        np.testing.assert_array_equal(before.waveforms[RATE], after.waveforms[RATE])
        np.testing.assert_array_equal(before.frames[POLICY].pixels, after.frames[POLICY].pixels)

    def test_times_follow_the_speed_and_steps_are_told_in_the_clips_own_time(self):
        view = View(number=1)
        speed = draws_of(5, view).speed
        assert speed != 1
        seen = augmented(clip(), view, SOUND)
        assert seen.duration_s == pytest.approx(2.0 / speed)
        assert seen.audio_start_s == pytest.approx(0.1 / speed)
        assert seen.words[0].end_s == pytest.approx(1.0 / speed)
        steps = Encoded(
            values=np.zeros((1, 2), np.float32),
            step_start_s=np.array([seen.words[0].start_s]),
            step_end_s=np.array([seen.duration_s]),
            valid=np.ones(1, bool),
        )
        back = in_original_time(steps, 5, view, SOUND)
        assert back.step_start_s[0] == pytest.approx(0.2)
        assert back.step_end_s[0] == pytest.approx(2.0)

    def test_pictures_keep_their_times_and_sound_is_not_touched_for_them(self):
        seen = augmented(clip(), View(number=1), SIGHT)
        assert seen.duration_s == 2.0
        assert seen.waveforms == {}
        assert seen.frames[POLICY].pixels.shape[:2] < (4, 40)


class TestTheDescriptor:
    def test_an_encoder_without_a_view_keeps_its_fingerprint(self):
        assert "view" not in describe("egemaps").facts()
        assert describe("egemaps").base == describe("egemaps")

    def test_every_view_and_every_parameter_has_a_fingerprint_of_its_own(self):
        plain = describe("egemaps")
        views = [View(number=1), View(number=2), View(number=1, snr_db=(5.0, 10.0))]
        folders = {dataclasses.replace(plain, view=view).folder for view in views}
        assert len({plain.folder, *folders}) == 4
        seen = dataclasses.replace(plain, view=views[0])
        assert seen.base == plain
        assert seen.facts()["view"]["of"] == plain.folder

    def test_encoders_that_look_for_faces_say_so(self):
        assert describe("face_expression").finds_faces
        assert describe("clip_vit:crop=face").finds_faces
        assert not describe("clip_vit").finds_faces
