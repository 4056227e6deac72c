"""loud=N: steps of silence are heard by the model, and neither pooled nor read by a net."""

import numpy as np
import pytest
import torch

from cluster.errors import ConfigError
from encoders.audio._loud import energy_of_mels, energy_of_samples, loud_of, loud_steps
from encoders.audio._whisper import log_mel, mel_bands
from encoders.registry import describe, load, load_branch
from encoders.spec import Clip
from encoders.store import default_store, local_paths

RATE_HZ, STEP = 16000, 320


def quiet_loud_quiet(quiet_db=60.0, seconds=1.0):
    """A third of noise far below, a third of noise, and the first again."""
    size = int(seconds * RATE_HZ / STEP) * STEP
    noise = np.random.default_rng(0).standard_normal((3, size)).astype(np.float32) * 0.1
    noise[[0, 2]] *= 10 ** (-quiet_db / 20)
    return noise.reshape(-1)


def clip_of(wave, rate_hz=RATE_HZ):
    return Clip(clip_id=1, duration_s=len(wave) / rate_hz, waveforms={rate_hz: wave}, frames={})


class TestSteps:
    @pytest.mark.parametrize("loud_db", [1, 20, 30, 59])
    def test_of_samples_those_within_the_decibels_of_the_loudest_are_loud(self, loud_db):
        blocks = torch.from_numpy(quiet_loud_quiet()).reshape(1, -1, STEP)
        energy = energy_of_samples(blocks)[0]
        level_db = 10 * torch.log10(energy / energy.max())
        assert (loud_of(energy, loud_db) == (level_db >= -loud_db)).all()

    def test_of_mels_the_loud_third_is_loud(self):
        wave = torch.from_numpy(quiet_loud_quiet())
        loud = loud_of(energy_of_mels(log_mel([wave], mel_bands(80), "cpu"))[0], 30)
        third = len(loud) // 3
        # The window of a frame reaches over the border.
        assert not loud[: third - 1].any()
        assert loud[third + 1 : 2 * third - 1].all()
        assert not loud[2 * third + 1 :].any()

    def test_at_0_all_real_steps_stay_and_padding_never_counts(self):
        energy = torch.tensor([[1.0, 1e-9, 7.0], [2.0, 2e-2, 2e-5]])
        inside = torch.tensor([[True, True, False], [True, True, True]])
        assert (loud_steps(energy, inside, 0) == inside).all()
        expected = [[True, False, False], [True, True, False]]
        assert loud_steps(energy, inside, 30).tolist() == expected

    def test_of_silence_nothing_is_left_out(self):
        assert loud_of(torch.zeros(4), 30).all()
        nothing = torch.zeros(1, 4, dtype=torch.bool)
        assert not loud_steps(torch.ones(1, 4), nothing, 30).any()


@pytest.mark.weights
class TestWhisper:
    def encoded(self, options, wave):
        descriptor = describe(f"whisper_tiny_en:{options}")
        paths = local_paths(descriptor.weights, default_store(""))
        return load(descriptor, paths).encode([clip_of(wave), clip_of(wave[: STEP * 20])])[0]

    def test_states_stay_and_quiet_ones_are_not_valid(self):
        wave = quiet_loud_quiet()
        plain, loud = self.encoded("pool=none", wave), self.encoded("loud=30", wave)
        np.testing.assert_array_equal(plain.values, loud.values)
        assert plain.valid.all()
        assert 45 <= loud.valid.sum() <= 55
        mean = self.encoded("loud=30,pool=mean", wave)
        np.testing.assert_allclose(mean.values[0], plain.values[loud.valid].mean(0), atol=1e-5)

    def test_the_loudest_is_that_of_the_whole_clip_also_beyond_a_window_of_30_s(self):
        wave = quiet_loud_quiet(seconds=15.0)
        loud = self.encoded("loud=30,pool=none", wave)
        assert len(loud.valid) == 2250
        assert not loud.valid[:740].any()
        assert loud.valid[760:1490].all()
        assert not loud.valid[1510:].any()

    def test_a_net_that_trains_it_reads_the_same_steps(self):
        wave = quiet_loud_quiet()
        descriptor = describe("whisper_tiny_en:publish=inputs,loud=30")
        paths = local_paths(descriptor.weights, default_store(""))
        published = load(descriptor, paths).encode([clip_of(wave)])[0]
        assert published.valid.all()  # the model hears all of it
        branch = load_branch(descriptor, paths).eval()
        values = torch.from_numpy(published.values).float()[None]
        states, mask = branch(values, torch.ones(values.shape[:2], dtype=torch.bool))
        frozen = self.encoded("loud=30,pool=none", wave)
        assert (mask[0].numpy() == frozen.valid).all()
        np.testing.assert_allclose(states[0].detach().numpy(), frozen.values, atol=2e-4)


class TestTheOption:
    def test_by_default_it_stands_in_no_descriptor(self):
        assert (
            describe("whisper_tiny_en:loud=0").fingerprint
            == describe("whisper_tiny_en").fingerprint
        )
        assert "loud" not in describe("wav2vec2_base").options

    def test_another_level_is_another_table(self):
        folders = {describe(f"wavlm_base:loud={level}").folder for level in (0, 20, 30)}
        assert len(folders) == 3

    def test_it_is_typed_again_as_it_was(self):
        typed = describe("whisper_tiny_en:loud=30,pool=mean").typed
        assert (
            describe(typed).fingerprint == describe("whisper_tiny_en:loud=30,pool=mean").fingerprint
        )

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("whisper_tiny_en:loud=-3", "loud=-3; expected a whole number from 0 to 200"),
            ("whisper_tiny_en:loud=much", "loud=much; expected a whole number"),
            ("egemaps:loud=30", "there is no option 'loud'"),
            ("minilm:loud=30", "there is no option 'loud'"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, text, said):
        with pytest.raises(ConfigError, match=said):
            describe(text)
