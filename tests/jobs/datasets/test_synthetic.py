"""The synthetic corpus: fusing pays by construction, and what is filmed is what was written."""

import itertools
from collections import Counter
from dataclasses import replace

import av
import numpy as np
import pytest

from cluster.errors import ConfigError
from jobs.datasets.corpus import script
from jobs.datasets.corpus.face import EXPRESSIONS, SIZE, Look, paint, photograph
from jobs.datasets.synthetic import Config, film_all, summary


class TestTheTablesMakeFusionPay:
    @pytest.mark.parametrize(
        "table", [script.FACE, script.VOICE, script.WORDS, script.IRONIC_WORDS]
    )
    def test_every_row_is_a_distribution(self, table):
        for row in table.values():
            assert sum(row.values()) == pytest.approx(1)
            assert min(row.values()) >= 0

    def test_two_modalities_beat_each_of_them_and_three_beat_any_two(self):
        best = script.ceilings()
        for one, other in itertools.combinations(script.MODALITIES, 2):
            assert best[f"{one}+{other}"] > max(best[one], best[other]) + 0.05
            assert best["face+voice+words"] > best[f"{one}+{other}"] + 0.04

    def test_no_modality_is_useless_and_none_suffices(self):
        for name in script.MODALITIES:
            assert 0.45 < script.ceilings()[name] < 0.75

    def test_ironic_words_mean_their_opposite_only_in_an_ironic_voice(self):
        for words in ("happy", "angry"):
            plain = script.posterior("neutral", words, words)
            ironic = script.posterior("neutral", script.IRONIC, words)
            opposite = {"happy": "angry", "angry": "happy"}[words]
            assert max(plain, key=plain.get) == words
            assert max(ironic, key=ironic.get) == opposite

    def test_the_ceiling_equals_the_hits_of_the_best_reader_on_many_drawn_clips(self):
        lines = list(itertools.chain.from_iterable(script.write(seed, 240) for seed in range(60)))
        hits = 0
        for line in lines:
            best = script.posterior(line.face, line.manner, line.words)
            hits += max(best, key=best.get) == line.emotion
        spread = 4 * (0.25 / len(lines)) ** 0.5
        assert hits / len(lines) == pytest.approx(script.ceilings()["face+voice+words"], abs=spread)


class TestTheScript:
    def test_equal_seeds_give_equal_lines_and_other_seeds_others(self):
        assert script.write(3, 48) == script.write(3, 48)
        assert script.write(3, 48) != script.write(4, 48)

    def test_more_clips_keep_the_earlier_ones(self):
        more = {line.name: line for line in script.write(0, 240)}
        assert all(more[line.name] == line for line in script.write(0, 60))

    def test_no_sentence_is_said_twice_nor_by_two_speakers(self):
        sentences = [line.sentence for line in script.write(0, 240)]
        assert len(set(sentences)) == 240

    def test_emotions_are_balanced_within_each_speaker(self):
        counts = Counter((line.speaker.name, line.emotion) for line in script.write(1, 240))
        assert set(counts.values()) == {5}
        assert len(counts) == 12 * 4

    def test_the_name_of_a_clip_does_not_tell_its_emotion(self):
        by_take = {}
        for line in script.write(0, 240):
            by_take.setdefault(line.name[-2:], set()).add(line.emotion)
        assert all(len(emotions) > 1 for emotions in by_take.values())


class TestTheFace:
    def test_a_picture_is_finite_and_within_the_colours(self):
        for expression in EXPRESSIONS.values():
            picture = paint(Look(), expression)
            assert np.isfinite(picture).all()
            assert picture.min() >= 0
            assert picture.max() <= 1

    def test_each_expression_changes_the_picture(self):
        pictures = [paint(Look(), expression) for expression in EXPRESSIONS.values()]
        for one, other in itertools.combinations(pictures, 2):
            assert np.abs(one - other).max() > 0.2

    def test_a_frame_is_bytes_of_the_declared_size(self):
        scene = paint(Look(), EXPRESSIONS["happy"])
        frame = photograph(scene, dx=3.4, dy=-9, light=1.05, rng=np.random.default_rng(0))
        assert frame.shape == (SIZE, SIZE, 3)
        assert frame.dtype == np.uint8


class TestFilming:
    @pytest.fixture(scope="class")
    def root(self, tmp_path_factory):
        pytest.importorskip("espeakng_loader", reason="the extra `demo` is not installed")
        root = str(tmp_path_factory.mktemp("corpus"))
        film_all(script.write(0, 12), root, seed=0, processes=2)
        return root

    def test_a_clip_has_h264_pictures_and_aac_sound_of_two_to_three_seconds(self, root):
        for line in script.write(0, 12):
            with av.open(f"{root}/clips/{line.name}.mp4") as container:
                codecs = [stream.codec_context.name for stream in container.streams]
                assert codecs == ["h264", "aac"]
                assert 1.9 <= container.duration / av.time_base <= 3.1

    def test_running_again_films_nothing(self, root, capsys):
        film_all(script.write(0, 12), root, seed=0, processes=2)
        assert "are there already" in capsys.readouterr().out

    @pytest.fixture(scope="class")
    def again(self, root, tmp_path_factory):
        line = script.write(0, 12)[5]
        other = str(tmp_path_factory.mktemp("again"))
        film_all([line], other, seed=0, processes=1)
        return [f"{folder}/clips/{line.name}.mp4" for folder in (root, other)]

    def test_equal_seeds_give_equal_pictures(self, again):
        first, second = (_content(path, "video") for path in again)
        assert np.abs(first - second).mean() < 1

    def test_equal_seeds_give_the_same_loudness_over_time(self, again):
        first, second = (_envelope(_content(path, "audio")) for path in again)
        assert first.shape == second.shape
        assert np.corrcoef(first, second)[0, 1] > 0.9

    def test_louder_manners_are_louder(self):
        pytest.importorskip("espeakng_loader", reason="the extra `demo` is not installed")
        from jobs.datasets.corpus.film import _speak
        from jobs.datasets.corpus.voice import Voice

        voice, line = Voice(), script.write(0, 12)[0]

        def level(manner):
            told = replace(line, manner=manner)
            return np.abs(_speak(told, voice, np.random.default_rng(0)).astype(float)).mean()

        assert level("angry") > level("neutral") > level("ironic")


def test_the_constants_are_printed_with_the_corpus():
    text = "\n".join(summary(script.write(0, 240)))
    assert "240 clips, 12 speakers, 240 sentences" in text
    assert "face+voice+words 0.896" in text


@pytest.mark.parametrize("clips", [5, 241])
def test_a_number_of_clips_out_of_range_is_refused(clips):
    with pytest.raises(ConfigError, match=f"--clips {clips}: expected 12 .* to 240"):
        Config(root="r", clips=clips)


def test_a_remote_root_is_refused():
    with pytest.raises(ConfigError, match="local folder"):
        Config(root="s3://bucket/demo")


def test_an_unknown_voice_is_named():
    pytest.importorskip("espeakng_loader", reason="the extra `demo` is not installed")
    from jobs.datasets.corpus.voice import Delivery, Voice

    with pytest.raises(ValueError, match="no voice 'xx\\+nobody'"):
        Voice().say("hello", voice="xx+nobody", delivery=Delivery())


def _content(path, kind):
    with av.open(path) as container:
        return np.concatenate(
            [
                frame.to_ndarray().astype(np.float64).reshape(-1)
                for frame in container.decode(**{kind: 0})
            ]
        )


def _envelope(sound):
    hop = 2205
    return np.sqrt((sound[: len(sound) // hop * hop].reshape(-1, hop) ** 2).mean(1))
