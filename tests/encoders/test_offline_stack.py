"""The real offline models: what they say agrees with the libraries they come from."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.errors import ConfigError, WeightsError
from encoders.audio import _whisper
from encoders.audio._voice import VoiceActivity, speech_spans, windows_of
from encoders.audio._word_times import monotonic_path, words_of
from encoders.registry import describe, load, load_transcriber
from encoders.spec import Clip, Word

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("AFFUSE_DATA", ROOT.parent / "shared" / "data"))


def speech(name):
    """One clip of the RAVDESS copy; half a second of silence stands before and behind the sentence."""
    import soundfile

    path = DATA / "ravdess" / "flac16k" / f"{name}.flac"
    if not path.exists():
        pytest.skip(f"no speech at {path}; set AFFUSE_DATA")
    samples, rate = soundfile.read(path, dtype="float32")
    return Clip(clip_id=1, duration_s=len(samples) / rate, waveforms={16000: samples})


@pytest.fixture(scope="module")
def kids():
    return speech("03-01-01-01-01-01-01")


@pytest.fixture(scope="module")
def dogs():
    return speech("03-01-05-01-02-01-06")


@pytest.mark.weights
class TestMinilm:
    @pytest.fixture(scope="class")
    def paths(self, mirrored):
        return mirrored(describe("minilm").weights)

    def test_token_states_are_those_of_transformers(self, paths):
        from transformers import AutoModel, AutoTokenizer

        folder = paths["model"].parent
        text = "It is SO funny, isn't it?"
        inputs = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
        with torch.inference_mode():
            expected = AutoModel.from_pretrained(folder)(**inputs).last_hidden_state[0]
        (own,) = load(describe("minilm"), paths).encode(
            [Clip(clip_id=1, duration_s=2.0, text=text)]
        )
        np.testing.assert_allclose(own.values, expected, atol=1e-5)
        assert own.side["word"].ravel().tolist() == [-1, 0, 1, 2, 3, 3, 4, 4, 4, 5, 5, -1]

    def test_alike_sentences_lie_closer_than_others(self, paths):
        encoder = load(describe("minilm:pool=mean"), paths)
        texts = ["I am so happy", "I feel joyful today", "The train leaves at nine"]
        clips = [Clip(clip_id=i, duration_s=1.0, text=text) for i, text in enumerate(texts)]
        a, b, c = (row.values[0] / np.linalg.norm(row.values) for row in encoder.encode(clips))
        assert a @ b > 0.5 > a @ c

    def test_words_with_times_pass_them_to_their_tokens(self, paths):
        words = [Word("so", 0.2, 0.5), Word("unbelievable", 0.5, 1.4)]
        clip = Clip(clip_id=1, duration_s=2.0, text="So, unbelievable!", words=words)
        (own,) = load(describe("minilm"), paths).encode([clip])
        np.testing.assert_allclose(own.step_start_s[1:3], 0.2)
        np.testing.assert_allclose(own.step_end_s[3:-1], 1.4)
        assert (own.step_start_s[0], own.step_end_s[0]) == (0, 2)

    def test_context_changes_the_values_and_keeps_the_tokens(self, paths):
        clip = Clip(
            clip_id=1,
            duration_s=1.0,
            text="fine",
            context=(("you lost your job",), ("I will cry",)),
        )
        rows = {
            context: load(describe(f"minilm:context={context}"), paths).encode([clip])[0].values
            for context in ("none", "past", "both")
        }
        assert {row.shape for row in rows.values()} == {(3, 384)}
        assert np.abs(rows["none"] - rows["past"]).max() > 0.01
        assert np.abs(rows["past"] - rows["both"]).max() > 0.01

    def test_a_long_text_is_cut_and_says_so(self, paths):
        clip = Clip(clip_id=1, duration_s=1.0, text="word " * 600)
        (own,) = load(describe("minilm"), paths).encode([clip])
        assert own.partial == "text cut at 510 tokens"
        assert len(own.values) == 512


@pytest.mark.weights
class TestWhisperStates:
    @pytest.fixture(scope="class")
    def model(self, mirrored):
        path = mirrored(describe("whisper_tiny_en").weights)["model"]
        return _whisper.load_whisper(path).eval()

    def test_every_parameter_of_the_file_is_used(self, model):
        assert not any(parameter.is_meta for parameter in model.parameters())

    def test_the_log_mel_frames_are_those_of_the_padded_window(self, kids):
        from transformers import WhisperFeatureExtractor

        samples = kids.waveforms[16000]
        expected = WhisperFeatureExtractor()(samples, sampling_rate=16000, return_tensors="pt")
        own = _whisper.log_mel([torch.from_numpy(samples)], _whisper.mel_bands(80), "cpu")
        padded = expected.input_features[..., : own.shape[-1]]
        np.testing.assert_allclose(own, padded, atol=1e-5)

    def test_a_whole_window_gives_the_states_of_transformers(self, model, kids):
        from transformers import WhisperFeatureExtractor

        samples = kids.waveforms[16000]
        inputs = WhisperFeatureExtractor()(samples, sampling_rate=16000, return_tensors="pt")
        with torch.inference_mode():
            expected = model.encoder(inputs.input_features, output_hidden_states=True)
            own = _whisper.encoder_states(model.encoder, inputs.input_features, [1500])
        for one, other in zip(own, expected.hidden_states, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)

    def test_leaving_the_silence_away_changes_little_in_the_middle_layers(self, mirrored, kids):
        """States of the seconds that exist, against the same steps of the padded window."""
        descriptor = describe("whisper_tiny_en:layers=all")
        paths = mirrored(descriptor.weights)
        (short,) = load(descriptor, paths).encode([kids])
        silence = np.zeros(30 * 16000 - len(kids.waveforms[16000]), np.float32)
        filled = {16000: np.concatenate([kids.waveforms[16000], silence])}
        (padded,) = load(descriptor, paths).encode([dataclasses.replace(kids, waveforms=filled)])
        ours = short.values.reshape(-1, 5, 384).transpose(1, 0, 2)
        theirs = padded.values.reshape(-1, 5, 384).transpose(1, 0, 2)[:, : ours.shape[1]]
        alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(ours, theirs, strict=True)]
        assert min(alike[:2]) > 0.99
        assert min(alike[2:4]) > 0.96
        assert alike[4] > 0.93


@pytest.mark.weights
class TestEgemaps:
    def test_functionals_are_those_of_the_library(self, kids):
        afx_audio = pytest.importorskip("afx_audio")
        (own,) = load(describe("afx_egemaps"), {}).encode([kids])
        expected = list(afx_audio.egemaps(kids.waveforms[16000], 16000).values())
        np.testing.assert_allclose(own.values[0], np.float32(expected), rtol=1e-6)

    def test_descriptors_come_every_10_ms(self, kids):
        (own,) = load(describe("afx_egemaps:kind=lld"), {}).encode([kids])
        assert own.values.shape[1] == 25
        np.testing.assert_allclose(np.diff(own.step_start_s), 0.01, atol=1e-9)


class TestVoice:
    @pytest.mark.weights
    def test_it_agrees_with_the_package_about_where_somebody_speaks(self, mirrored, kids):
        silero_vad = pytest.importorskip("silero_vad")
        weights = describe("whisper_tiny_en_asr").weights
        net = VoiceActivity.load(mirrored(weights)["voice"])
        samples = kids.waveforms[16000]
        ((start, end),) = speech_spans(net.probabilities(samples))
        (theirs,) = silero_vad.get_speech_timestamps(
            torch.from_numpy(samples), silero_vad.load_silero_vad(), min_silence_duration_ms=500
        )
        assert start == pytest.approx(theirs["start"] / 16000, abs=0.15)
        assert end == pytest.approx(theirs["end"] / 16000, abs=0.15)

    def test_a_click_is_no_speech_and_a_short_pause_no_end(self):
        click = [0.0] * 9 + [0.9] + [0.0] * 9
        assert speech_spans(click) == []
        paused = [0.0] * 9 + [0.9] * 9 + [0.0] * 2 + [0.9] * 9 + [0.0] * 9
        assert len(speech_spans(paused)) == 1

    def test_windows_are_cut_in_pauses(self):
        assert windows_of([(0.0, 10.0), (12.0, 25.0), (26.0, 40.0)], 28.0) == [
            (0.0, 25.0),
            (26.0, 40.0),
        ]
        assert len(windows_of([(0.0, 60.0)], 28.0)) == 3


@pytest.mark.weights
class TestTranscriber:
    @pytest.fixture(scope="class")
    def recogniser(self, mirrored):
        descriptor = describe("whisper_tiny_en_asr")
        return load_transcriber(descriptor, mirrored(descriptor.weights))

    def test_a_sentence_is_written_down_with_its_words_in_order(self, recogniser, kids):
        (said,) = recogniser.transcribe([kids])
        assert said.text == "Kids are talking by the door."
        assert [word.text for word in said.words] == said.text.split()
        starts = [word.start_s for word in said.words]
        assert starts == sorted(starts)
        assert starts[0] > 0.7
        assert said.words[-1].end_s < 2.7
        assert 0.5 < said.confidence <= 1

    def test_where_nobody_speaks_nothing_is_written(self, recogniser):
        noise = 0.1 * np.random.default_rng(0).standard_normal(32000).astype(np.float32)
        silent = [np.zeros(32000, np.float32), noise, np.zeros(0, np.float32)]
        clips = [
            Clip(clip_id=i, duration_s=2.0, waveforms={16000: s}) for i, s in enumerate(silent)
        ]
        for said in recogniser.transcribe(clips):
            assert (said.text, list(said.words), said.confidence) == ("", [], 0.0)

    def test_neighbours_change_nothing(self, recogniser, kids, dogs):
        together = recogniser.transcribe([kids, dogs])
        alone = [recogniser.transcribe([clip])[0] for clip in (kids, dogs)]
        assert [said.text for said in together] == [said.text for said in alone]
        assert together[0].words == alone[0].words


@pytest.mark.weights
class TestRecogniserOfTheHub:
    """A tiny multilingual Whisper of the real class: what it says is noise, how it says it is not."""

    @pytest.fixture(scope="class")
    def make(self, mirrored, tmp_path_factory):
        import tiny_models

        folder = tmp_path_factory.mktemp("whisper")
        tiny_models.whisper_with_words(folder)

        def build(options):
            text = f"whisper_small_asr:weights=file://{folder},{options}"
            descriptor = describe(text)
            return load_transcriber(
                descriptor, {"model": folder, **mirrored(descriptor.weights[1:])}
            )

        return build

    def test_the_language_is_the_chosen_one_or_the_models(self, make, kids):
        assert make("language=de").transcribe([kids])[0].language == "de"
        assert make("language=auto").transcribe([kids])[0].language in ("de", "en")

    def test_a_language_that_its_model_does_not_know_names_the_known_ones(self, make):
        with pytest.raises(ConfigError, match="language=fr; known: auto, de, en"):
            make("language=fr")

    def test_the_cache_changes_nothing_of_greedy_decoding(self, make):
        recogniser = make("language=en")
        states = torch.randn(2, 50, 32, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            prompts = recogniser._prompts(states)
            tokens, _ = recogniser._greedy(states, prompts, 12)
            ids = prompts
            for step in range(12):
                hidden = recogniser._model.decoder(
                    input_ids=ids, encoder_hidden_states=states, use_cache=False
                ).last_hidden_state[:, -1]
                logits = hidden @ recogniser._vocabulary.T
                logits[:, recogniser._tokens.end + 1 :] = -torch.inf
                if step == 0:
                    logits[:, recogniser._tokens.never_first] = -torch.inf
                ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
        ended = (tokens == recogniser._tokens.end).cumsum(1) > 1
        written = ids[:, prompts.shape[1] :][:, : tokens.shape[1]]
        assert (tokens == written)[~ended].all()

    def test_without_the_gate_the_whole_clip_is_read(self, make, kids):
        assert make("voice_gate=false")._voice is None

    def test_a_folder_without_its_generation_facts_is_refused(self, tmp_path):
        from encoders.audio._whisper_words import of_folder

        with pytest.raises(WeightsError, match=r"no generation_config\.json"):
            of_folder(tmp_path, "auto")


class TestWordTimes:
    def test_the_path_never_goes_back(self):
        cost = np.random.default_rng(0).normal(size=(6, 40))
        steps = monotonic_path(cost)
        assert (np.diff(steps) >= 0).all()

    def test_pieces_become_words(self):
        words = words_of([" Isn", "'t", " it", "?"], [0.0, 0.2, 0.4, 0.6], 0.8)
        assert [word.text for word in words] == ["Isn't", "it?"]
        assert [word.end_s for word in words] == [0.4, 0.8]


@pytest.mark.weights
class TestFaces:
    """The painted face of the synthetic corpus stands in for a picture of somebody."""

    @pytest.fixture(scope="class")
    def clip_with_face(self):
        from encoders.spec import Frames
        from jobs.datasets.corpus.face import Expression, Look, paint

        picture = (np.clip(paint(Look(), Expression()), 0, 1) * 255).astype(np.uint8)
        grey = np.full_like(picture, 120)
        frames = Frames(np.stack([picture, grey, picture]), np.array([0.0, 0.2, 0.4]))

        def make(descriptor):
            return Clip(clip_id=1, duration_s=0.6, frames={descriptor.frame_policy: frames})

        return make

    @pytest.mark.parametrize("name", ["face_expression", "face_hog"])
    def test_a_face_is_valid_and_a_grey_wall_is_not(self, mirrored, clip_with_face, name):
        descriptor = describe(name)
        encoder = load(descriptor, mirrored(descriptor.weights))
        (encoded,) = encoder.encode([clip_with_face(descriptor)])
        assert encoded.valid.tolist() == [True, False, True]
        assert (encoded.values[1] == 0).all()
        assert encoded.side["presence"][0, 0] > 0.5

    def test_without_its_median_a_still_face_is_all_zeros(self, mirrored, clip_with_face):
        kept, removed = describe("face_hog:median_removed=false"), describe("face_hog")
        paths = mirrored(kept.weights)
        (raw,) = load(kept, paths).encode([clip_with_face(kept)])
        (centred,) = load(removed, paths).encode([clip_with_face(removed)])
        assert np.abs(centred.values).max() == 0
        points = raw.values[0, 5408:].reshape(68, 2)
        assert (points > -0.3).all()
        assert (points < 1.3).all()
        # Eyes level and in the middle, brows above them, mouth below.
        left, right, brows, mouth = (
            points[part].mean(0)
            for part in (range(36, 42), range(42, 48), range(17, 27), range(48, 68))
        )
        assert left[1] == pytest.approx(right[1], abs=0.03)
        assert (left[0] + right[0]) / 2 == pytest.approx(0.5, abs=0.03)
        assert brows[1] < left[1] < mouth[1]

    def test_a_frame_encoder_may_look_at_the_face_only(self, case_of, clip_with_face):
        descriptor, paths = case_of("vit_base", "crop=face")
        (encoded,) = load(descriptor, paths).encode([clip_with_face(descriptor)])
        assert encoded.valid.tolist() == [True, False, True]
        assert descriptor.fingerprint != case_of("vit_base")[0].fingerprint
