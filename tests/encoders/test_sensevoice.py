"""SenseVoice small: the numbers that its authors' files give, its tokens, and what it writes down."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_checkpoints
import torch

from cluster.errors import ConfigError, WeightsError
from encoders.audio._sensevoice import FrontEnd
from encoders.audio._sensevoice_net import SenseVoiceNet
from encoders.audio._sensevoice_tokens import SentencePieces, fields
from encoders.audio.sensevoice import EMOTIONS, EVENTS
from encoders.registry import describe, load, load_branch, load_transcriber
from encoders.spec import Clip


def filled(shapes):
    """The same numbers wherever they are made."""
    made = {}
    for index, (name, shape) in enumerate(sorted(shapes.items())):
        at = torch.arange(math.prod(shape), dtype=torch.float64)
        draws = 2 * (torch.sin(at * 12.9898 + index * 78.233) * 43758.5453).abs().frac() - 1
        if len(shape) == 1:
            values = 0.2 * draws + ("norm" in name and name.endswith("weight"))
        else:
            values = draws * 1.7 / math.sqrt(math.prod(shape[1:]))
        made[name] = values.float().reshape(shape)
    return made


# Of the encoder in the authors' model.py with these parameters, times the token layer: at the four queries
# and the last step of nine, and of five steps read alone at the second query and the last step.
WHOLE = [
    [0.29949, -2.7004, 0.0096813, -0.69449, -1.012, -0.54797, -1.158, -0.29538, 0.83256, -1.0268,
     -0.26074],
    [-0.035003, -2.1803, -0.19961, -1.2902, -1.1633, -0.7023, -1.3873, -0.61349, -0.12121, -0.80466,
     -0.89026],
    [-0.16494, -2.7136, -0.013397, -1.0567, -1.0604, 0.1855, -1.5897, 0.17313, -0.055045, -0.91819,
     -0.69083],
    [-0.0066382, -2.7274, 0.10492, -0.89874, -0.83248, -0.037879, -1.4033, -0.54825, 0.27344, -1.0636,
     -0.45552],
    [0.083708, -2.9583, 0.19892, -1.1737, -1.1204, 0.25093, -1.6571, -0.48206, -0.89386, -0.12181,
     -0.49499],
]  # fmt: skip
SHORT = [
    [0.11398, -2.264, -0.2179, -1.1906, -1.1847, -0.58621, -1.2566, -0.35494, -0.034939, -0.81006,
     -0.76941],
    [0.45513, -1.9767, 0.68698, -1.3788, -1.3064, -0.97021, -1.4936, 0.076348, 0.67456, -0.79988,
     -0.19099],
]  # fmt: skip


PLACES = [0.54871, 0.38013, 1.2353, 0.97956, 0.16487]
MEANS = [0.624792, 0.669591, 0.705446, 0.754232, 0.783386]


@torch.inference_mode()
def test_the_net_gives_what_the_authors_file_gives_padded_or_alone():
    states = filled(tiny_checkpoints.sensevoice_shapes(28, 16, 24, 5, (1, 2, 2), 11))
    net = SenseVoiceNet(states).eval()
    net.load_state_dict(states)
    at = torch.arange(2 * 9 * 28, dtype=torch.float64)
    frames = torch.sin(at * 0.3 + at.sqrt()).float().reshape(2, 9, 28)
    found = net(frames, [9, 5], [4, 1, 2, 15])
    assert len(found) == net.depth + 1 == 5
    logits = net.logits(found[-1])
    np.testing.assert_allclose(logits[0, [0, 1, 2, 3, 12]], WHOLE, atol=2e-4)
    np.testing.assert_allclose(logits[1, [1, 8]], SHORT, atol=2e-4)


def test_the_parameters_are_those_of_the_published_size():
    shapes = tiny_checkpoints.sensevoice_shapes(560, 512, 2048, 11, (1, 49, 20), 25055)
    with torch.device("meta"):
        states = {name: torch.empty(shape) for name, shape in shapes.items()}
        net = SenseVoiceNet(states)
    assert {n: v.shape for n, v in net.state_dict().items()} == {
        n: torch.Size(s) for n, s in shapes.items()
    }
    assert (net.dim, net.depth) == (512, describe("sensevoice:weights=file:///x").num_layers - 1)


def test_frames_are_those_of_the_authors_front_end(tmp_path):
    """Of utils/frontend.py with kaldi-native-fbank, no dither: some numbers and the mean of each step."""
    shift = " ".join(f"{-10 + 0.01 * i:.4f}" for i in range(560))
    scale = " ".join(f"{0.1 + 0.0001 * i:.4f}" for i in range(560))
    (tmp_path / "am.mvn").write_text(
        f"<Nnet>\n<Splice> 560 560\n[ 0 ]\n<AddShift> 560 560\n<LearnRateCoef> 0 [ {shift} ]\n"
        f"<Rescale> 560 560\n<LearnRateCoef> 0 [ {scale} ]\n</Nnet>\n"
    )
    n = np.arange(5000)
    tone = 0.3 * np.sin(2 * np.pi * 220 * n / 16000 + 3 * np.sin(n / 900))
    found = FrontEnd(tmp_path).frames((tone + 0.05 * np.sin(n * n / 7000.0)).astype(np.float32))
    assert found.shape == (5, 560)
    np.testing.assert_allclose(found[[0, 0, 2, 4, 4], [0, 300, 85, 559, 241]], PLACES, rtol=1e-3)
    np.testing.assert_allclose(found.mean(1), MEANS, rtol=1e-4)


@pytest.fixture
def case(case_of):
    return case_of("sensevoice")


class TestWhatItSays:
    def test_is_probabilities_of_the_whole_clip_at_every_step(self, case, clips_for):
        for found in load(*case).encode(clips_for(case[0], (0.7, 31.0))):
            for name, classes in (("emotion", EMOTIONS), ("event", EVENTS)):
                column = found.side[name]
                np.testing.assert_allclose(column.sum(1), 1, rtol=1e-5)
                assert column.shape[1] == len(classes)
                assert (column == column[0]).all()
                assert column[0].std() > 0

    def test_of_two_windows_is_their_mean_by_length(self, case, clips_for):
        encoder = load(*case)
        (clip,) = clips_for(case[0], (45.0,))
        samples = clip.waveforms[16000]
        parts = [
            Clip(clip_id=1, duration_s=len(cut) / 16000, waveforms={16000: cut})
            for cut in (samples[: 30 * 16000], samples[30 * 16000 :])
        ]
        (whole,), (one, other) = encoder.encode([clip]), encoder.encode(parts)
        expected = (2 * one.side["emotion"][0] + other.side["emotion"][0]) / 3
        np.testing.assert_allclose(whole.side["emotion"][0], expected, atol=2e-3)
        np.testing.assert_allclose(whole.values[:500], one.values, atol=1e-4)


class TestInsideANet:
    """The windows of the branch are those of the encoder, whatever stands in one batch."""

    @pytest.mark.parametrize(
        "seconds", [0.02, 29.99, 30.0, 30.98, 30.99, 30.9999, 31.0, 31.04, 61.0]
    )
    def test_is_read_in_the_windows_that_the_encoder_cuts(self, case_of, clips_for, seconds):
        plain, weights = case_of("sensevoice")
        descriptor, _ = case_of("sensevoice", "publish=inputs")
        clips = clips_for(plain, (0.7, seconds))
        states, inputs = (load(each, weights).encode(clips) for each in (plain, descriptor))
        longest = len(inputs[1].values) + 2 if seconds > 1 else 20
        values = torch.full((2, longest, 561), torch.nan)
        mask = torch.zeros(2, longest, dtype=torch.bool)
        for row, each in enumerate(inputs):
            np.testing.assert_array_equal(each.step_start_s, states[row].step_start_s)
            values[row, : len(each.values)] = torch.from_numpy(each.values.astype(np.float16))
            mask[row, : len(each.values)] = True
        with torch.inference_mode():
            found, said = load_branch(descriptor, weights).eval()(values, mask)
        for row, each in enumerate(states):
            kept = found[row][said[row]].numpy()
            # Half a precision is 5e-4 of a number; states are sums of hundreds.
            assert np.linalg.norm(kept - each.values) < 2e-3 * np.linalg.norm(each.values)

    def test_has_each_norm_at_the_block_that_it_normalises(self, case_of):
        branch = load_branch(*case_of("sensevoice", "publish=inputs"))
        at = {name.removeprefix("model.encoder."): branch.level(name) for name, _ in
              branch.named_parameters()}  # fmt: skip
        assert at["encoders0.0.norm1.weight"] == at["model.embed.weight"] == 0
        assert at["encoders.0.norm1.weight"] == at["after_norm.weight"] == 1
        assert at["tp_encoders.0.norm1.weight"] == at["tp_norm.bias"] == 2
        assert at["model.ctc.ctc_lo.weight"] is None


class TestTokens:
    def test_of_both_files_are_the_same(self, tmp_path):
        tiny_checkpoints.sensevoice(tmp_path)
        packed = SentencePieces.of(tmp_path)
        assert list(packed.pieces) == tiny_checkpoints.sensevoice_pieces()
        (tmp_path / "tokens.json").write_text(json.dumps(packed.pieces))
        assert SentencePieces.of(tmp_path) == packed

    @pytest.mark.parametrize("content", [b"\x0a\xff", b"\x0a\x05ab", b"\x0b\x01", b"\xff" * 12])
    def test_that_are_cut_or_rubbish_are_refused_in_one_line(self, tmp_path, content):
        (tmp_path / "x.bpe.model").write_bytes(content)
        with pytest.raises(WeightsError, match="cannot be read as tokens") as told:
            SentencePieces.of(tmp_path)
        assert "\n" not in str(told.value)

    def test_of_any_bytes_end(self):
        for seed in range(200):
            draws = np.random.default_rng(seed)
            content = draws.integers(0, 256, int(draws.integers(0, 40))).astype(np.uint8).tobytes()
            try:
                assert sum(len(each) for _, each in fields(content)) <= len(content)
            except (ValueError, IndexError):
                continue


class TestWeights:
    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("model.pt", "no checkpoint; expected model.safetensors or model.pt"),
            ("am.mvn", "expected Kaldi's shift and scale, 560 numbers each"),
            ("chn.bpe.model", "holds no tokens; expected tokens.json or one"),
        ],
    )
    def test_without_a_file_say_which(self, tmp_path, name, said):
        tiny_checkpoints.sensevoice(tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(WeightsError, match=said):
            load(
                describe(f"sensevoice:weights=file://{tmp_path},dim=32,depth=2"),
                {"model": tmp_path},
            )

    @pytest.mark.parametrize("change", ["lost", "other", "tokens"])
    def test_that_do_not_fit_are_refused_in_one_line(self, tmp_path, change):
        tiny_checkpoints.sensevoice(tmp_path)
        states = torch.load(tmp_path / "model.pt", weights_only=True)
        if change == "lost":
            del states["encoder.tp_norm.bias"]
        elif change == "other":
            states["encoder.norm.bias"] = torch.zeros(3)
        else:
            (tmp_path / "tokens.json").write_text('["a", "b"]')
        torch.save({"state_dict": states}, tmp_path / "model.pt")
        with pytest.raises(WeightsError, match=r"is no SenseVoice small|the token file 2") as told:
            load(
                describe(f"sensevoice:weights=file://{tmp_path},dim=32,depth=2"),
                {"model": tmp_path},
            )
        assert "\n" not in str(told.value)


@pytest.fixture
def recogniser(tmp_path):
    tiny_checkpoints.sensevoice(tmp_path)

    def make(options="voice_gate=false"):
        descriptor = describe(f"sensevoice_asr:weights=file://{tmp_path},{options}")
        return load_transcriber(descriptor, {"model": tmp_path})

    return make


def spoken(*words, blank=0):
    """Logits of the four queries (English), then of a token a step; pieces by their text."""
    pieces = tiny_checkpoints.sensevoice_pieces()
    steps = ["<|en|>", "<|HAPPY|>", "<|Speech|>", "<s>", *words]
    at = [blank if each is None else pieces.index(each) for each in steps]
    return 9.0 * torch.eye(len(pieces))[at]


class TestATranscript:
    def test_joins_pieces_and_times_words_by_the_steps_of_their_tokens(self, recogniser):
        heard = recogniser()
        logits = spoken(None, "\u2581fun", "\u2581fun", "ny", None, "ny", ".", "<|Cry|>", None)
        stub(heard, logits)
        clip = Clip(
            clip_id=0, duration_s=1.0, audio_start_s=0.5,
            waveforms={16000: np.zeros(16000, np.float32)},
        )  # fmt: skip
        (found,) = heard.transcribe([clip])
        assert found.text == "funnyny."
        assert found.language == "en"
        assert 0.9 < found.confidence <= 1
        (word,) = found.words
        assert word.text == "funnyny."
        assert word.start_s == pytest.approx(0.5 + 0.03)
        assert word.end_s <= 1.5

    def test_takes_characters_that_are_words_for_words(self, recogniser):
        heard = recogniser()
        stub(heard, spoken("\u6b4c", None, "\u6b4c", "\u2581so"))
        clip = Clip(clip_id=0, duration_s=1.0, waveforms={16000: np.zeros(16000, np.float32)})
        (found,) = heard.transcribe([clip])
        assert found.text == "\u6b4c\u6b4c so"
        assert [word.text for word in found.words] == ["\u6b4c", "\u6b4c", "so"]

    def test_of_nothing_is_empty_and_of_noise_the_same_beside_others(self, recogniser, clips_for):
        heard = recogniser()
        clips = clips_for(describe("sensevoice:weights=file:///x"), (0.7, 31.0, 1.1))
        silent = Clip(clip_id=9, duration_s=1.0, waveforms={16000: np.zeros(0, np.float32)})
        *together, nothing = heard.transcribe([*clips, silent])
        assert (nothing.text, nothing.words, nothing.confidence) == ("", [], 0.0)
        for clip, found in zip(clips, together, strict=True):
            (alone,) = heard.transcribe([clip])
            assert (found.text, found.words) == (alone.text, alone.words)
            assert found.confidence == pytest.approx(alone.confidence, rel=1e-4)

    def test_is_without_words_where_no_times_are_asked_for(self, recogniser):
        heard = recogniser("voice_gate=false,word_times=false")
        stub(heard, spoken("\u2581so"))
        clip = Clip(clip_id=0, duration_s=1.0, waveforms={16000: np.zeros(16000, np.float32)})
        (found,) = heard.transcribe([clip])
        assert (found.text, found.words) == ("so", [])

    def test_asks_for_the_language_that_is_chosen(self, recogniser):
        assert recogniser("language=ja,voice_gate=false")._asked == [11, 1, 2, 14]
        with pytest.raises(ConfigError, match="language is one of auto, zh, en, yue, ja, ko"):
            recogniser("language=de,voice_gate=false")


def stub(heard, logits):
    """The model says these logits of any sound."""
    heard._model = SimpleNamespace(
        read=lambda windows, asked, layers: [[logits] for _ in windows],
        net=SimpleNamespace(logits=lambda states: states),
        tokens=heard._model.tokens,
    )
