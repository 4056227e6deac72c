"""A stranger's first clip: what encoders say themselves, averaged, with what is missing named in a line."""

import numpy as np
import pytest
import soundfile

from cluster import storage
from cluster.errors import NotPreparedError
from encoders import ENCODERS
from jobs.__main__ import run
from jobs.scoring import untrained
from jobs.scoring.claim import claim, claim_of
from jobs.scoring.opening import open_bundle
from jobs.scoring.untrained import TASK, notes, untrained_bundle
from jobs.stream.job import DecodingConfig


@pytest.fixture
def speaking(toys, monkeypatch):
    """A voice and words with answers of their own, beside faces whose weights are not in the store."""
    monkeypatch.setitem(ENCODERS, "toy_mood", "toy_mood")
    monkeypatch.setitem(ENCODERS, "toy_tone", "toy_tone")
    monkeypatch.setattr(untrained, "TRANSCRIBERS", {"toy_ear": "toy_ear"})
    return toys


def rows(path):
    return {
        row["name"].removesuffix(".wav"): row for row in storage.read_table(str(path)).to_pylist()
    }


class TestScore:
    """Of files, without a dataset."""

    def test_every_encoder_that_says_something_is_averaged(self, speaking, tmp_path, capsys):
        speaking.corpus.write_corpus(tmp_path, 6)
        files = [str(tmp_path / "media" / f"{i}.wav") for i in range(6)]
        out = tmp_path / "scores.parquet"
        store = str(tmp_path / "store")
        words = ["score", *files, "--bundle", "untrained", "--store", store, "--out", str(out)]
        assert run(words) == 0
        said = capsys.readouterr().out
        assert "untrained: what encoders say themselves, fitted on nobody's labels" in said
        assert "voice (toy_mood), words (toy_tone)" in said
        assert (
            f"not read: faces: type affuse models --encoders face_expression --store {store}"
            in said
        )
        found = rows(out)
        assert {row["bundle"] for row in found.values()} == {"untrained"}
        assert {row["expected"] for row in found.values()} == {None}
        # Quiet is sad by 0.8 among three of seven, and no loud word: joy by 0.9 among two of seven.
        voice = {"happiness": 0.1, "sadness": 0.8, "neutral": 0.1}
        for name in TASK.classes:
            first = 3 / 7 * voice[name] if name in voice else 1 / 7
            second = 2 / 7 * {"anger": 0.1, "happiness": 0.9}.get(name, 0.5)
            expected = first / 2 + second / 2
            assert dict(found["0"]["probabilities"])[name] == pytest.approx(expected, abs=1e-3)
        assert found["0"]["label"] == ["sadness"]
        assert found["5"]["label"] == ["anger"]

    def test_a_clip_in_which_nobody_finds_anything_has_no_answer(self, speaking, tmp_path):
        files = [str(tmp_path / f"{name}.wav") for name in ("loud", "still")]
        for file, size in zip(files, (0.9, 0.0), strict=True):
            soundfile.write(file, size * np.sin(np.arange(4000) * 0.3), 8000)
        out = tmp_path / "scores.parquet"
        words = [
            "score",
            *files,
            "--bundle",
            "untrained",
            "--store",
            str(tmp_path),
            "--out",
            str(out),
        ]
        assert run(words) == 0
        found = rows(out)
        assert found["loud"]["modalities"] == ["audio", "text"]
        still = found["still"]
        assert (still["label"], still["probabilities"], still["status"]) == (None, None, "missing")

    @pytest.mark.parametrize("job", [["score", "--by", "window"], ["explain"]])
    def test_its_windows_and_its_modalities_are_told_too(self, speaking, tmp_path, capsys, job):
        speaking.corpus.write_corpus(tmp_path, 1)
        file = str(tmp_path / "media" / "0.wav")
        words = [job[0], file, *job[1:], "--bundle", "untrained", "--store", str(tmp_path)]
        assert run(words) == 0
        assert "sadness" in capsys.readouterr().out


class TestBundle:
    """What is read of what a store holds."""

    def test_an_empty_store_ends_with_the_command_that_fills_it(self, tmp_path):
        with pytest.raises(NotPreparedError, match=r"affuse models --encoders .*face_expression"):
            untrained_bundle(str(tmp_path))

    def test_words_are_read_by_the_transcriber_of_the_store(self, speaking, tmp_path):
        bundle = untrained_bundle(str(tmp_path))
        assert bundle.transcriber.name == "toy_ear"
        (words,) = [item for item in bundle.encoders if item.name == "toy_tone"]
        assert words.upstream == (bundle.transcriber.fingerprint,)

    def test_parts_that_nobody_says_anything_of_are_named(self, toys, tmp_path, monkeypatch):
        monkeypatch.setattr(untrained, "in_store", lambda *_: True)
        line = notes(untrained_bundle(str(tmp_path)))[-1]
        assert line == "not read: words: no encoder here says anything of them by itself"

    def test_its_scores_may_be_gone_on_with(self, speaking, tmp_path):
        for _ in range(2):
            made_with = claim_of(untrained_bundle(str(tmp_path)), "clips", DecodingConfig())
            claim(str(tmp_path / "scores"), made_with, "affuse score")

    def test_an_encoder_whose_weights_a_preset_names_is_typed_with_it(self, toys, tmp_path):
        with pytest.raises(NotPreparedError, match="emotion2vec:preset=plus_large"):
            untrained_bundle(str(tmp_path))

    def test_a_bundle_of_that_name_under_the_root_is_the_one_that_is_meant(self, toys, tmp_path):
        toys.bundle.write_bundle(tmp_path)
        storage.publish_json(
            storage.read_json(f"{tmp_path}/bundles/b/bundle.json") | {"name": "untrained"},
            f"{tmp_path}/bundles/untrained/bundle.json",
        )
        assert open_bundle("untrained", str(tmp_path)).uri is not None
