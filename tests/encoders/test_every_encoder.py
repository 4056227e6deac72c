"""What every encoder promises, whatever model it wraps."""

import dataclasses

import numpy as np
import pytest

from encoders import ENCODERS
from encoders.registry import describe, load
from encoders.spec import POOLS, Encoder, Frames, Word

NUM_ENCODERS = 35


def test_the_registry_holds_all_of_them():
    assert len([name for name in ENCODERS if not name.startswith("toy")]) == NUM_ENCODERS


def test_values_of_a_raised_revision_are_a_table_of_their_own():
    plain = describe("egemaps")
    raised = [dataclasses.replace(plain.spec, revision=number) for number in (1, 2, 3)]
    assert len({dataclasses.replace(plain, spec=spec).folder for spec in raised}) == 3


@pytest.fixture
def case(encoder_name, case_of):
    return case_of(encoder_name)


@pytest.fixture
def encoder(case):
    return load(*case)


def close(one, other, atol=2e-5):
    scale = max(1.0, float(np.abs(other.values).max(initial=0.0)))
    np.testing.assert_allclose(one.values, other.values, rtol=1e-4, atol=atol * scale)
    np.testing.assert_array_equal(one.step_start_s, other.step_start_s)
    np.testing.assert_array_equal(one.valid, other.valid)
    for name, column in other.side.items():
        np.testing.assert_allclose(one.side[name], column, rtol=1e-4, atol=atol)


def without_media(clip):
    """The same clip with no samples, no frames, no words."""
    return dataclasses.replace(
        clip,
        waveforms={rate: samples[:0] for rate, samples in clip.waveforms.items()},
        frames={
            policy: Frames(frames.pixels[:0], frames.times_s[:0])
            for policy, frames in clip.frames.items()
        },
        text="" if clip.text is not None else None,
    )


def with_one_sample(clip):
    return dataclasses.replace(
        clip,
        waveforms={rate: samples[:1] for rate, samples in clip.waveforms.items()},
        frames={
            policy: Frames(frames.pixels[:1], frames.times_s[:1])
            for policy, frames in clip.frames.items()
        },
        text="a" if clip.text is not None else None,
    )


class TestEveryEncoder:
    def test_what_comes_out_is_what_the_descriptor_says(self, case, encoder, clips_for):
        descriptor, _ = case
        assert isinstance(encoder, Encoder)
        clips = clips_for(descriptor)
        for clip, encoded in zip(clips, encoder.encode(clips), strict=True):
            steps, dim = encoded.values.shape
            assert dim == descriptor.dim
            assert steps >= 1
            assert encoded.values.dtype == np.float32
            assert np.isfinite(encoded.values).all()
            assert encoded.step_start_s.shape == encoded.step_end_s.shape == (steps,)
            assert encoded.valid.shape == (steps,)
            assert (encoded.step_end_s >= encoded.step_start_s).all()
            assert encoded.step_start_s.max() <= clip.duration_s + 1e-6
            assert {name: column.shape for name, column in encoded.side.items()} == {
                name: (steps, width) for name, width in descriptor.spec.side.items()
            }
            if descriptor.spec.hop_s and steps > 1:
                hops = np.diff(encoded.step_start_s)
                np.testing.assert_allclose(hops, descriptor.spec.hop_s, atol=1e-6)

    def test_neighbours_and_order_change_nothing(self, case, encoder, clips_for):
        clips = clips_for(case[0])
        together = encoder.encode(clips)
        backwards = encoder.encode(clips[::-1])[::-1]
        for clip, one, other in zip(clips, together, backwards, strict=True):
            close(one, encoder.encode([clip])[0])
            close(one, other)

    def test_twice_is_the_same(self, case, encoder, clips_for):
        clips = clips_for(case[0], (1.1, 2.3))
        for one, other in zip(encoder.encode(clips), load(*case).encode(clips), strict=True):
            np.testing.assert_array_equal(one.values, other.values)

    def test_nothing_says_nothing(self, case, encoder, clips_for):
        descriptor, _ = case
        (clip,) = clips_for(descriptor, (1.1,))
        (encoded,) = encoder.encode([without_media(clip)])
        assert encoded.values.shape[1] == descriptor.dim
        assert not encoded.valid.any()
        assert encoder.encode([]) == []

    def test_one_sample_frame_or_letter_is_enough_not_to_fail(self, case, encoder, clips_for):
        descriptor, _ = case
        clips = clips_for(descriptor, (1.1, 2.3))
        alone, beside = encoder.encode([with_one_sample(clips[0]), clips[1]])
        assert np.isfinite(alone.values).all()
        close(beside, encoder.encode([clips[1]])[0])

    def test_half_precision_keeps_it_within_its_tolerance(self, case, encoder, clips_for):
        descriptor, _ = case
        if descriptor.spec.dtype != "float16":
            pytest.skip("stored in float32")
        for encoded in encoder.encode(clips_for(descriptor, (1.1,))):
            stored = encoded.values.astype(np.float16).astype(np.float32)
            np.testing.assert_allclose(stored, encoded.values, rtol=1e-3, atol=1e-6)

    def test_pooled_over_words_is_one_step_a_word(self, encoder_name, case_of, clips_for):
        descriptor, paths = case_of(encoder_name, "pool=words")
        (clip,) = clips_for(descriptor, (1.1,))
        spoken = dataclasses.replace(clip, words=[Word("so", 0.1, 0.3), Word("funny", 0.3, 0.9)])
        wordy, wordless = load(descriptor, paths).encode([spoken, clip])
        assert wordy.values.shape == (2, descriptor.dim)
        np.testing.assert_array_equal(wordy.step_start_s, [0.1, 0.3])
        assert not wordless.valid.any()

    @pytest.mark.parametrize("pool", [pool for pool in POOLS if pool not in ("none", "words")])
    def test_pooled_is_one_step(self, encoder_name, case_of, clips_for, pool):
        descriptor, paths = case_of(encoder_name, f"pool={pool}")
        (encoded,) = load(descriptor, paths).encode(clips_for(descriptor, (1.1,)))
        assert encoded.values.shape == (1, descriptor.dim)
        assert {name: column.shape for name, column in encoded.side.items()} == {
            name: (1, width) for name, width in descriptor.spec.side.items()
        }

    def test_all_layers_stand_side_by_side(self, encoder_name, case_of, clips_for):
        descriptor, paths = case_of(encoder_name, "layers=all")
        if descriptor.num_layers == 1:
            pytest.skip("has one layer")
        last, _ = case_of(encoder_name)
        (every,) = load(descriptor, paths).encode(clips_for(descriptor, (1.1,)))
        (one,) = load(last, paths).encode(clips_for(descriptor, (1.1,)))
        assert every.values.shape[1] == descriptor.num_layers * one.values.shape[1]
        np.testing.assert_array_equal(every.values[:, -one.values.shape[1] :], one.values)
        assert every.values[:, : one.values.shape[1]].std() > 0


class TestAgainstTheLibrary:
    """The wrapper equals a direct call of the library on the same tiny weights."""

    def test_the_wrapper_equals_a_direct_call(self, encoder_name, case_of, clips_for):
        import tiny_models

        if encoder_name not in tiny_models.BUILDERS or encoder_name in (
            "emotieffnet",
            "emotieffnet_va",
            "emotion2vec",
            "sensevoice",
            "vggish",
        ):
            pytest.skip("no library to compare with here; see the encoder's own test")
        descriptor, paths = case_of(encoder_name)
        seconds = {"clap": 10.0}.get(encoder_name, 30.0 if "whisper" in encoder_name else 1.7)
        (clip,) = clips_for(descriptor, (seconds,))
        if clip.frames:
            clip = dataclasses.replace(
                clip,
                frames={
                    policy: Frames(frames.pixels[:, 8:40, 16:48], frames.times_s)
                    for policy, frames in clip.frames.items()
                },
            )
        (encoded,) = load(descriptor, paths).encode([clip])
        expected = tiny_models.direct(descriptor, paths["model"], clip)
        np.testing.assert_allclose(encoded.values, expected, atol=1e-5, rtol=1e-5)
