"""Speech transformers whose first layer normalises over time never see padding."""

import numpy as np
import pytest
import torch

from cluster.errors import ConfigError
from encoders.registry import load

BASE = ("hubert_base", "wav2vec2_base", "wavlm_base")


@pytest.fixture(params=BASE)
def case(request, case_of):
    return case_of(request.param)


def real_class(paths):
    from transformers import AutoModel

    return AutoModel.from_pretrained(paths["model"], local_files_only=True).eval()


class TestGroupNorm:
    def test_the_base_models_are_of_that_kind(self, case):
        assert real_class(case[1]).config.feat_extract_norm == "group"

    def test_padding_would_change_them_which_is_why_lengths_are_not_mixed(self, case, clips_for):
        short, long = (clip.waveforms[16000] for clip in clips_for(case[0], (0.7, 2.3)))
        model = real_class(case[1])
        beside = torch.zeros(2, len(long))
        beside[0, : len(short)], beside[1] = torch.from_numpy(short), torch.from_numpy(long)
        with torch.inference_mode():
            alone = model(torch.from_numpy(short)[None]).last_hidden_state[0]
            padded = model(beside).last_hidden_state[0, : len(alone)]
        assert float((alone - padded).abs().max()) > 0.01

    def test_a_clip_says_the_same_alone_and_beside_longer_shorter_and_equal_ones(
        self, case, clips_for
    ):
        encoder = load(*case)
        clips = clips_for(case[0], (0.7, 2.3, 1.1, 2.3, 0.7, 2.2999))
        for clip, together in zip(clips, encoder.encode(clips), strict=True):
            (alone,) = encoder.encode([clip])
            np.testing.assert_allclose(together.values, alone.values, atol=2e-5, rtol=1e-4)


@pytest.fixture
def dimensional(case_of):
    return lambda options="": case_of("wav2vec2_dimensional", options)


class TestDimensions:
    @torch.inference_mode()
    def test_are_those_of_the_head_on_the_mean_of_the_last_states(self, dimensional, clips_for):
        """Sample by sample: one clip, no mask, the published names."""
        from safetensors.torch import load_file

        descriptor, paths = dimensional()
        weights = load_file(paths["model"] / "model.safetensors")
        model = real_class(paths)
        for clip, encoded in zip(
            clips := clips_for(descriptor), load(descriptor, paths).encode(clips), strict=True
        ):
            samples = clip.waveforms[16000].astype(np.float64)
            samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
            states = model(torch.from_numpy(samples).float()[None]).last_hidden_state[0]
            mean = states.sum(0) / len(states)
            hidden = torch.tanh(
                weights["classifier.dense.weight"] @ mean + weights["classifier.dense.bias"]
            )
            outputs = weights["classifier.out_proj.weight"] @ hidden
            outputs += weights["classifier.out_proj.bias"]
            assert list(encoded.side) == ["arousal", "dominance", "valence"]
            for column, value in zip(encoded.side.values(), outputs.tolist(), strict=True):
                np.testing.assert_allclose(column, np.full((len(states), 1), value), atol=1e-5)
            np.testing.assert_allclose(encoded.values, states, atol=1e-5)

    @pytest.mark.parametrize("options", ["layers=0", "layers=all", "pool=mean_std"])
    def test_are_the_same_whatever_is_kept_of_the_states(self, dimensional, clips_for, options):
        clips = clips_for(dimensional()[0], (0.7, 2.3))
        plain = load(*dimensional()).encode(clips)
        for one, other in zip(plain, load(*dimensional(options)).encode(clips), strict=True):
            for name, column in one.side.items():
                np.testing.assert_allclose(other.side[name][0], column[0], atol=1e-5)

    def test_of_a_model_without_that_head_are_refused(self, dimensional, case_of):
        descriptor, _ = dimensional()
        with pytest.raises(ConfigError, match=r"has no classifier.dense.*three outputs"):
            load(descriptor, case_of("hub_audio")[1])


class TestMelFrames:
    @pytest.mark.parametrize("samples", [560, 720, 16000, 20001])
    def test_are_those_of_the_library(self, samples):
        """Levels and lengths that a film has; an odd frame is one that the library masks."""
        from transformers import SeamlessM4TFeatureExtractor

        from encoders.audio._w2v_bert import frames_of

        rng = np.random.default_rng(samples)
        for level in (1.0, 1e-3):
            sound = (level * rng.standard_normal(samples) * 0.3).astype(np.float32)
            found = SeamlessM4TFeatureExtractor()(sound, sampling_rate=16000, return_tensors="np")
            kept = found["attention_mask"][0].astype(bool)
            np.testing.assert_allclose(
                np.concatenate(frames_of(sound)), found["input_features"][0][kept], atol=2e-3
            )

    def test_of_silence_and_of_a_single_sample_are_finite(self):
        from encoders.audio._w2v_bert import frames_of

        assert frames_of(np.zeros(0, np.float32)) == []
        for samples in (1, 399, 48000):
            assert all(np.isfinite(w).all() for w in frames_of(np.zeros(samples, np.float32)))

    def test_of_more_than_a_window_are_cut_behind_what_is_normal_for_the_clip(self):
        from encoders.audio._w2v_bert import frames_of

        sound = np.random.default_rng(0).standard_normal(16000 * 31).astype(np.float32)
        whole = frames_of(sound)
        assert [len(window) for window in whole] == [1500, 49]
        assert abs(np.concatenate(whole).mean()) < 1e-4
