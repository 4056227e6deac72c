"""Scoring: features and raw clips say the same, every clip has its row, strangers' files work too."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from cluster import tables
from cluster.errors import ConfigError, NotPreparedError
from cluster.resources import WorkersConfig
from cluster.session import SessionConfig
from jobs import encode, score
from jobs.__main__ import run as affuse
from jobs.catalog import layout
from jobs.scoring import claim as claims
from jobs.scoring.opening import open_bundle
from jobs.scoring.scorer import Scorer
from jobs.stream.job import DecodingConfig

CLASSES = ("calm", "happy", "sad")


@pytest.fixture(scope="module")
def corpus(toys):
    return toys.corpus


@pytest.fixture(scope="module")
def write_bundle(toys):
    return toys.bundle.write_bundle


def config(root, **changes):
    changes.setdefault("bundle", "b")
    changes.setdefault("workers", WorkersConfig(gpus_per_actor=0, actors=1))
    return score.Config(
        root=str(root),
        session=SessionConfig(num_cpus=2, num_gpus=0),
        **changes,
    )


def scores(root, name):
    return sorted(score.read_scores(str(root), name).to_pylist(), key=lambda row: row["clip_id"])


@pytest.mark.ray
class TestADataset:
    def test_a_folder_of_media_that_is_gone_is_named_and_makes_no_rows(
        self, corpus, write_bundle, tmp_path
    ):
        corpus.write_corpus(tmp_path, 4)
        write_bundle(tmp_path)
        (tmp_path / "media").rename(tmp_path / "elsewhere")
        with pytest.raises(NotPreparedError, match="media is not there"):
            score.main(config(tmp_path, name="raw"))
        assert not list(tmp_path.glob("scores/raw/*.parquet"))

    def test_raw_clips_and_stored_features_give_the_same_scores(
        self, corpus, write_bundle, tmp_path, capsys
    ):
        texts = ["so it is", None, "  ", *[f"words of {i}" for i in range(3, 10)]]
        corpus.write_corpus(tmp_path, 10, texts=texts)
        (tmp_path / "media" / "1.wav").unlink()
        (tmp_path / "media" / "4.wav").unlink()
        write_bundle(tmp_path)
        planned = WorkersConfig(gpus_per_actor=0)
        score.main(config(tmp_path, name="raw", autotune="always", workers=planned))
        said = capsys.readouterr().out
        assert "source: raw clips" in said
        assert "autotune: -> decode 2 x, encode 2 x as planned" in said
        encode.main(
            encode.Config(
                root=str(tmp_path),
                encoders=("toy_text", "toy_audio"),
                session=SessionConfig(num_cpus=2, num_gpus=0),
                max_failed_share=1.0,
                tracking=False,
            )
        )
        score.main(config(tmp_path, name="stored"))
        assert "source: stored features" in capsys.readouterr().out
        raw, stored = scores(tmp_path, "raw"), scores(tmp_path, "stored")
        assert [row["clip_id"] for row in raw] == list(range(10))
        for left, right in zip(raw, stored, strict=True):
            shares = [dict(row.pop("probabilities") or ()) for row in (left, right)]
            assert shares[0] == pytest.approx(shares[1])
            assert {**left, "confidence": None} == {**right, "confidence": None}
        assert raw[1]["status"] == "failed"  # no text, and its sound is gone
        assert raw[2]["modalities"] == ["audio"]
        assert (raw[4]["status"], raw[4]["modalities"]) == ("partial", ["text"])
        assert raw[4]["error"].startswith("audio: missing")


class TestAScorer:
    def test_a_clip_says_the_same_alone_and_among_others(self, corpus, write_bundle, tmp_path):
        corpus.write_corpus(tmp_path, 5)
        write_bundle(tmp_path)
        scorer = Scorer(open_bundle("b", str(tmp_path)))
        files = [str(tmp_path / "media" / f"{i}.wav") for i in range(5)]
        options = config(tmp_path, clips=(str(tmp_path),))
        work = score.work_of(options, scorer.bundle)
        encoder = score.OneByOne(work, options.decoding, options.stall_limit_s)
        together = score.score_here(files, encoder, scorer)
        alone = score.score_here(files[2:3], encoder, scorer)
        row = alone.to_pylist()[0]
        (other,) = [r for r in together.to_pylist() if r["name"] == row["name"]]
        assert dict(row["probabilities"]) == pytest.approx(dict(other["probabilities"]))
        assert np.isclose(sum(dict(row["probabilities"]).values()), 1)
        assert row["label"] == [max(dict(row["probabilities"]).items(), key=lambda p: p[1])[0]]


class TestRefusals:
    def test_an_encoder_that_is_not_the_one_of_training_is_refused(
        self, corpus, write_bundle, tmp_path
    ):
        write_bundle(tmp_path)
        uri = Path(layout.bundle_uri(str(tmp_path), "b"), "bundle.json")
        facts = json.loads(uri.read_text())
        facts["members"][0]["card"]["inputs"]["text"]["fingerprint"] = "0" * 12
        uri.write_text(json.dumps(facts))
        with pytest.raises(
            ConfigError, match="other weights or another preprocessing; type affuse encode"
        ):
            open_bundle("b", str(tmp_path))

    def test_a_name_that_stands_for_another_bundle_is_refused(self, corpus, write_bundle, tmp_path):
        corpus.write_corpus(tmp_path, 4)
        write_bundle(tmp_path)
        bundle = open_bundle("b", str(tmp_path))
        uri = str(tmp_path / "scores" / "b")

        def claim(bundle):
            made_with = claims.claim_of(bundle, "auto", DecodingConfig())
            claims.claim(uri, made_with, "affuse score --name OTHER")

        claim(bundle)
        claim(bundle)
        write_bundle(tmp_path, text="toy_text:pool=mean")
        with pytest.raises(ConfigError, match="type: affuse score --name OTHER"):
            claim(open_bundle("b", str(tmp_path)))

    def test_a_bundle_that_needs_each_speakers_mean_refuses_single_files(
        self, corpus, write_bundle, tmp_path
    ):
        corpus.write_corpus(tmp_path, 1)
        write_bundle(tmp_path, normalise="speaker")
        with pytest.raises(ConfigError, match="needs 8 clips of everybody"):
            score.main(config(tmp_path, clips=(str(tmp_path / "media"),)))

    def test_what_is_not_there_is_said(self, tmp_path):
        with pytest.raises(NotPreparedError, match="no such file, or no media"):
            score.found_files([str(tmp_path / "x.mp4")])
        with pytest.raises(NotPreparedError, match=r"holds no bundle\.json"):
            open_bundle(str(tmp_path) + "/", "")
        with pytest.raises(ConfigError, match="score what"):
            score.Config()
        with pytest.raises(ConfigError, match=r"expected a name in \.csv"):
            score.Config(clips=("a",), out="scores.xls")


class TestFiles:
    def test_folders_and_patterns_give_their_media_once(self, tmp_path):
        for name in ("a.mp4", "b.WAV", "notes.txt", "sub/c.flac"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        found = score.found_files([str(tmp_path), f"{tmp_path}/*.mp4", f"{tmp_path}/b.WAV"])
        assert [Path(file).name for file in found] == ["a.mp4", "b.WAV", "c.flac"]

    @pytest.mark.parametrize(
        "name", ["Talk [dQw4w9WgXcQ].mp4", "name[1].wav", "what?.mp3", "a*b.mkv", "a::b.wav"]
    )
    def test_a_file_is_found_by_its_name_before_it_is_taken_for_a_pattern(self, tmp_path, name):
        folder = tmp_path / "calls [2024] *"
        folder.mkdir()
        (folder / name).write_bytes(b"")
        (folder / "b.wav").write_bytes(b"")
        assert score.found_files([str(folder / name)]) == [str(folder / name)]
        found = score.found_files([f"{folder}/*{name[-4:]}"])
        assert str(folder / name) in found
        assert len(found) == 1 + name.endswith(".wav")

    def test_names_and_classes_that_look_like_markup_are_shown_letter_by_letter(
        self, corpus, write_bundle, tmp_path, capsys
    ):
        corpus.write_corpus(tmp_path, 2)
        write_bundle(tmp_path, classes=("[/b]", "[happy]", ":smile:"))
        file = tmp_path / "Talk [x].wav"
        (tmp_path / "media" / "1.wav").rename(file)
        broken = tmp_path / "[_b].wav"
        broken.write_bytes(b"")
        words = ["score", str(file), str(broken), "--root", str(tmp_path), "--bundle", "b"]
        assert affuse([*words, "--max-failed-share", "0.5"]) == 0
        said = capsys.readouterr().out
        for name in ("Talk [x] ", "[/b]", "[happy]", ":smile:", "[_b] "):
            assert name in said.replace("\n", "")

    @pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
    def test_scores_of_files_go_where_they_are_asked_to(
        self, corpus, write_bundle, tmp_path, suffix, capsys
    ):
        corpus.write_corpus(tmp_path, 3)
        (tmp_path / "media" / "3.wav").write_bytes(b"")
        write_bundle(tmp_path)
        out = tmp_path / f"scores.{suffix}"
        files = (str(tmp_path / "media"),)
        score.main(config(tmp_path, clips=files, out=str(out), max_failed_share=1.0))
        assert "wrote" in capsys.readouterr().out
        content = out.read_bytes()
        if suffix == "csv":
            table = pa.csv.read_csv(pa.BufferReader(content))
            assert table.num_rows == 4
            assert {"p_calm", "p_happy", "p_sad"} <= set(table.column_names)
        elif suffix == "jsonl":
            rows = [json.loads(line) for line in content.splitlines()]
            assert [row["status"] for row in rows].count("failed") == 1
        else:
            tables.SCORES.check(pa.parquet.read_schema(pa.BufferReader(content)), where="out")

    def test_many_files_want_a_place_to_go(self, corpus, write_bundle, tmp_path):
        corpus.write_corpus(tmp_path, 21)
        write_bundle(tmp_path)
        with pytest.raises(ConfigError, match=r"21 files: where to\?"):
            score.main(config(tmp_path, clips=(str(tmp_path / "media"),)))
