"""Clips in windows and sentences: what each piece sees, and that all of the clip is read once."""

import itertools
import os

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import storage
from cluster.errors import ConfigError
from cluster.tables import SCORES
from encoders.media import ClipSource, Decoder, Source
from encoders.spec import FramePolicy, Needs, Word
from jobs import score
from jobs.__main__ import run
from jobs.scoring import by_piece
from jobs.scoring.by_piece import PieceScorer
from jobs.scoring.in_process import clip_of, encoder_of
from jobs.scoring.opening import open_bundle
from jobs.scoring.pieces import PAUSE_S, PiecesConfig, next_start, sentences, windows
from jobs.scoring.scorer import Scorer
from jobs.stream.decode import decoder_of
from jobs.stream.job import DecodingConfig

RATE_HZ = 8000


def film(path, seconds, *, rate=10, pictures=True, loud=lambda time_s: 0.1):
    """A film whose shade counts its frames and whose tone is as loud as `loud` says."""
    times_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    tone = np.sin(2 * np.pi * 440 * times_s) * np.vectorize(loud)(times_s)
    with av.open(str(path), "w") as output:
        picture = output.add_stream("libx264", rate=rate) if pictures else None
        voice = output.add_stream("pcm_s16le", rate=RATE_HZ)
        if picture is not None:
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
            picture.codec_context.gop_size = 20
            for number in range(int(seconds * rate)):
                shade = np.full((48, 64, 3), 20 + 3 * number % 220, np.uint8)
                output.mux(picture.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")))
            output.mux(picture.encode(None))
        block = av.AudioFrame.from_ndarray((tone * 32767).astype(np.int16)[None], "s16", "mono")
        block.sample_rate = RATE_HZ
        output.mux(voice.encode(block))
        output.mux(voice.encode(None))
    return str(path)


class TestWindows:
    @given(st.floats(0.05, 40), st.floats(0.2, 8), st.floats(0.05, 1), st.sampled_from([0.0, 3.25]))
    def test_they_cover_the_clip_and_end_with_it(self, length_s, window_s, share, start_s):
        config = PiecesConfig(window_s=window_s, step_s=window_s * share)
        spans = list(windows(start_s, start_s + length_s, config))
        assert spans[0][0] == start_s
        assert spans[-1][1] == pytest.approx(start_s + length_s)
        assert all(end - begin <= window_s + 1e-6 for begin, end in spans)
        assert all(then[0] <= this[1] + 1e-6 for this, then in itertools.pairwise(spans))
        assert all(end > begin for begin, end in spans)
        assert all(
            end - begin == pytest.approx(window_s) for begin, end in spans[:-1]
        )  # only the last may be shorter

    @pytest.mark.parametrize(
        "changes", [{"window_s": 0}, {"step_s": 0}, {"step_s": 6}, {"window_s": float("nan")}]
    )
    def test_a_size_that_leaves_something_out_is_refused(self, changes):
        with pytest.raises(ConfigError, match="expected more than 0"):
            PiecesConfig(**changes)


class TestSentences:
    @given(st.lists(st.tuples(st.sampled_from(["so", "no.", "ah?"]), st.floats(0, 3)), max_size=40))
    def test_every_word_is_in_one_sentence_in_its_order(self, said):
        at, words = 0.0, []
        for text, gap in said:
            words.append(Word(text, at + gap, at + gap + 0.2))
            at = words[-1].end_s
        found = sentences(words)
        assert [word for each in found for word in each] == words
        for each in found:
            assert not any(word.text.endswith((".", "?")) for word in each[:-1])
            assert all(b.start_s - a.end_s < PAUSE_S for a, b in itertools.pairwise(each))

    def test_the_last_one_of_a_block_is_heard_again_unless_a_pause_follows(self):
        said = [[Word("One.", 0.0, 1.0)], [Word("two", 1.4, 2.0)]]
        whole, start_s = next_start(said, 2.5)
        assert (whole, start_s) == (1, pytest.approx(1.2))
        assert next_start(said, 4.0) == (2, 4.0)
        assert next_start(said[:1], 1.5) == (1, 1.5)
        assert next_start([], 30.0) == (0, 30.0)

    @given(
        st.lists(st.tuples(st.floats(0, 40), st.floats(0, 40)), min_size=1, max_size=6),
        st.floats(2, 30),
    )
    def test_whatever_times_are_recognised_the_next_block_is_another(self, times, length_s):
        said = [[Word("so.", *sorted(pair))] for pair in times]
        whole, start_s = next_start(said, length_s)
        assert whole in (len(said), len(said) - 1)
        assert 1.0 <= start_s <= length_s
        assert whole == len(said) or start_s < length_s


class TestDecodingInPieces:
    """A piece is what a clip of that segment is: the same pictures, the same samples, the same faults."""

    POLICIES = (
        FramePolicy(kind="fps", rate_hz=5.0, size=32),
        FramePolicy(kind="even", count=4, size=32),
        FramePolicy(kind="windows", count=4, rate_hz=5.0, size=24),
    )

    @pytest.mark.parametrize("pictures", [True, False])
    def test_pieces_equal_clips_of_their_segments(self, tmp_path, pictures):
        path = film(tmp_path / ("c.mov" if pictures else "c.wav"), 8, pictures=pictures)
        spans = [(0.0, 3.0), (1.0, 4.0), (2.5, 5.5), (5.0, 8.0), (7.0, 9.0)]
        needs = Needs(rates_hz=frozenset({RATE_HZ, 16000}), frames=frozenset(self.POLICIES))
        media = {"audio": Source(path), **({"video": Source(path)} if pictures else {})}
        with Decoder() as decoder:
            pieces = list(decoder.decode_pieces(ClipSource(clip_id=1, **media), needs, spans))
            for (start, end), piece in zip(spans, pieces, strict=True):
                alone = ClipSource(
                    clip_id=1, start_s=start, end_s=end, duration_s=end - start, **media
                )
                clip = decoder.decode(alone, needs)
                assert piece.clip.duration_s == clip.clip.duration_s
                assert piece.clip.frames.keys() == clip.clip.frames.keys()
                for policy, frames in clip.clip.frames.items():
                    mine = piece.clip.frames[policy]
                    assert np.array_equal(mine.pixels, frames.pixels)
                    assert np.allclose(mine.times_s, frames.times_s)
                for rate, wave in clip.clip.waveforms.items():
                    assert np.allclose(piece.clip.waveforms[rate], wave, atol=1e-6)
                assert dict(piece.partial) == dict(clip.partial)

    def test_a_piece_behind_the_end_is_absent_and_the_others_are_there(self, tmp_path):
        path = film(tmp_path / "c.mov", 3)
        media = {"audio": Source(path), "video": Source(path)}
        needs = Needs(rates_hz=frozenset({RATE_HZ}), frames=frozenset(self.POLICIES))
        with Decoder() as decoder:
            first, last = decoder.decode_pieces(
                ClipSource(clip_id=1, **media), needs, [(0.0, 2.0), (4.0, 6.0)]
            )
        assert first.clip.frames
        assert not first.faults
        assert not last.clip.frames
        assert {str(fault.fault.value) for fault in last.faults.values()} == {
            "no_audio",
            "no_video",
        }

    def test_a_file_that_is_none_fails_in_every_piece(self, tmp_path):
        path = tmp_path / "c.mp4"
        path.write_bytes(b"nothing")
        source = ClipSource(clip_id=1, video=Source(str(path)))
        needs = Needs(frames=frozenset(self.POLICIES))
        with Decoder() as decoder:
            pieces = list(decoder.decode_pieces(source, needs, [(0.0, 1.0), (1.0, 2.0)]))
        assert [list(piece.faults) for piece in pieces] == [["video"], ["video"]]


@pytest.fixture(scope="module")
def bundle(toys, tmp_path_factory):
    root = tmp_path_factory.mktemp("bundle")
    toys.bundle.write_bundle(root)
    return str(root / "bundles" / "b")


def status_of(*words):
    try:
        return run([str(word) for word in words])
    except SystemExit as stop:
        return stop.code


class TestScoring:
    def test_windows_of_a_clip_are_rows_with_a_start_and_an_end(self, bundle, tmp_path, capsys):
        clip = film(tmp_path / "talk.mov", 9)
        out = tmp_path / "s.parquet"
        assert status_of("score", clip, "--bundle", bundle, "--by", "window", "--out", out) == 0
        table = storage.read_table(str(out))
        assert table["name"].to_pylist() == ["talk"] * 5
        assert table["start_s"].to_pylist() == [0, 1, 2, 3, 4]
        assert table["end_s"].to_pylist() == [5, 6, 7, 8, 9]
        assert len({*table["clip_id"].to_pylist()}) == 5
        assert {*table["status"].to_pylist()} == {"ok"}
        assert not (tmp_path / "s.parquet.affuse").exists()
        assert "talk 4.0-9.0" in capsys.readouterr().out

    def test_a_window_says_what_a_clip_of_its_own_says(self, bundle, tmp_path):
        clip = film(tmp_path / "c.mov", 40, pictures=False, loud=lambda t: 0.02 * (1 + t % 7))
        opened = open_bundle(bundle, "")
        encoder, scorer = encoder_of([opened], "", DecodingConfig()), Scorer(opened)
        pieces = PieceScorer(encoder, [scorer], "window", PiecesConfig(window_s=4, step_s=2))
        source = clip_of(clip, "c", decoder_of(DecodingConfig()))
        rows = [row for part in pieces.scores(source, "c") for row in part.to_pylist()]
        assert [row["start_s"] for row in rows] == list(range(0, 37, 2))
        for row in (rows[0], rows[13], rows[14], rows[-1]):  # also around the border of a block
            part = film(
                tmp_path / "part.wav",
                4,
                pictures=False,
                loud=lambda t, at=row["start_s"]: 0.02 * (1 + (t + at) % 7),
            )
            alone = score.score_here([part], encoder, scorer).to_pylist()[0]
            assert dict(row["probabilities"]) == pytest.approx(
                dict(alone["probabilities"]), abs=2e-3
            )

    def test_what_is_decoded_does_not_grow_with_the_clip(self, bundle, tmp_path, monkeypatch):
        asked = []
        whole = Decoder.decode_pieces

        def noted(self, source, needs, pieces):
            asked.append(pieces[-1][1] - pieces[0][0])
            return whole(self, source, needs, pieces)

        monkeypatch.setattr(Decoder, "decode_pieces", noted)
        clip = film(tmp_path / "c.wav", 200, pictures=False)
        assert status_of("score", clip, "--bundle", bundle, "--by", "window") == 0
        assert max(asked) <= 30
        assert sum(asked) < 1.25 * 200

    def test_after_a_stop_the_files_that_were_done_are_not_done_again(
        self, bundle, tmp_path, monkeypatch
    ):
        for name in ("a", "b"):
            film(tmp_path / f"{name}.wav", 6, pictures=False)
        words = ("score", tmp_path, "--bundle", bundle, "--by", "window")
        out = tmp_path / "out" / "s.csv"
        out.parent.mkdir()
        whole, seen = PieceScorer.scores, []

        def stopped(self, source, name):
            seen.append(name)
            if seen == ["a", "b"]:
                raise KeyboardInterrupt
            return whole(self, source, name)

        monkeypatch.setattr(by_piece.PieceScorer, "scores", stopped)
        assert status_of(*words, "--out", out) == 130
        assert status_of(*words, "--out", out, "--step-s", "2") == 2  # other settings
        assert status_of(*words, "--out", out) == 0
        assert seen == ["a", "b", "b"]
        assert out.read_text().count('"a"') == 2
        assert "start_s" in out.read_text().splitlines()[0]

    @pytest.mark.parametrize("change", ["touched", "another length", "another folder"])
    def test_after_a_stop_a_file_that_changed_is_done_again(
        self, bundle, tmp_path, monkeypatch, change
    ):
        folders = [tmp_path / "one", tmp_path / "two"]
        for folder in folders:
            folder.mkdir()
            for name in ("a", "b"):
                film(folder / f"{name}.wav", 6, pictures=False)
        out = tmp_path / "s.csv"
        whole, seen = PieceScorer.scores, []

        def stopped(self, source, name):
            seen.append(name)
            if seen == ["a", "b"]:
                raise KeyboardInterrupt
            return whole(self, source, name)

        monkeypatch.setattr(by_piece.PieceScorer, "scores", stopped)
        how = ("--bundle", bundle, "--by", "window", "--out", out)
        assert status_of("score", folders[0], *how) == 130
        if change == "touched":
            os.utime(folders[0] / "a.wav", (1, 1))
        elif change == "another length":
            film(folders[0] / "a.wav", 7, pictures=False)
        assert status_of("score", folders[change == "another folder"], *how) == 0
        assert seen == ["a", "b", "a", "b"]
        rows = 3 if change == "another length" else 2
        assert out.read_text().count('"a"') == rows

    @pytest.mark.parametrize("broken", [b"", b"no sound"])
    def test_a_broken_file_is_a_row_that_says_why(self, bundle, tmp_path, broken):
        (tmp_path / "x.wav").write_bytes(broken)
        film(tmp_path / "y.wav", 3, pictures=False)
        out = tmp_path / "s.parquet"
        how = ("--bundle", bundle, "--by", "window", "--max-failed-share", 0.5)
        assert status_of("score", tmp_path, *how, "--out", out) == 0
        rows = storage.read_table(str(out)).to_pylist()
        assert [row["status"] for row in rows] == ["failed", "ok"]
        SCORES.check(storage.open_parquet(str(out)).schema_arrow, where="out")

    def test_sentences_need_somebody_who_hears_words(self, bundle, tmp_path, capsys):
        clip = film(tmp_path / "c.wav", 3, pictures=False)
        assert status_of("score", clip, "--bundle", bundle, "--by", "sentence") == 2
        assert "--transcriber" in capsys.readouterr().err


class TestPiecesOfADataset:
    """Windows of every clip of a manifest have its names, its segments and its clips' faults."""

    @pytest.fixture
    def root(self, tmp_path):
        media = tmp_path / "media"
        media.mkdir()
        film(media / "a.wav", 7, pictures=False)
        film(media / "b.wav", 12, pictures=False)
        (media / "broken.wav").write_bytes(b"no sound")
        table = "name,audio,start_s,end_s,text\nwhole,a.wav,,,so\nlate,b.wav,4,11,no\nbad,broken.wav,,,\n"
        (tmp_path / "labels.csv").write_text(table)
        how = ("--source", media, "--labels", tmp_path / "labels.csv", "--root", tmp_path / "root")
        assert status_of("prepare", "folder", *how) == 0
        return tmp_path / "root"

    def test_each_clip_has_its_windows_by_its_name(self, bundle, root, tmp_path, monkeypatch):
        out = tmp_path / "w.parquet"
        words = ("score", "--root", root, "--bundle", bundle, "--by", "window", "--window-s", "4")
        words = (*words, "--step-s", "2", "--out", out, "--max-failed-share", "1")
        whole, seen = PieceScorer.scores, []

        def stopped(self, source, name):
            seen.append(name)
            if len(seen) == 2:
                raise KeyboardInterrupt
            return whole(self, source, name)

        monkeypatch.setattr(by_piece.PieceScorer, "scores", stopped)
        assert status_of(*words) == 130
        assert status_of(*words) == 0
        assert len(seen) == 4
        rows = storage.read_table(str(out)).to_pylist()
        spans = {name: [] for name in ("bad", "late", "whole")}
        for row in rows:
            spans[row["name"]].append((row["start_s"], row["end_s"]))
        assert spans["whole"] == [(0, 4), (2, 6), (4, 7)]
        assert spans["late"] == [(4, 8), (6, 10), (8, 11)]
        assert len(spans["bad"]) == 1
        [bad] = [row for row in rows if row["name"] == "bad"]
        assert bad["status"] == "failed"
        assert "unreadable" in bad["error"]
        assert {row["status"] for row in rows} == {"ok", "failed"}
        SCORES.check(storage.open_parquet(str(out)).schema_arrow, where="out")

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ((), "where to? type: --out"),
            (("--out", "x.parquet", "--per", "speaker"), "--per is for whole clips"),
            (("--out", "x.parquet", "--dry-run"), "--dry-run is for whole clips"),
            (("--out", "x.parquet", "--name", "n"), "--name is for whole clips"),
            (
                ("--out", "x.parquet", "--source", "features"),
                "--source features is for whole clips",
            ),
        ],
        ids=["nowhere", "groups", "plan", "name", "features"],
    )
    def test_what_only_whole_clips_have_is_refused(self, bundle, root, capsys, words, said):
        job = ("score", "--root", root, "--bundle", bundle, "--by", "window")
        assert status_of(*job, *words) == 2
        assert said in capsys.readouterr().err

    def test_a_file_of_the_dataset_is_never_replaced(self, bundle, tmp_path, capsys):
        sound = film(tmp_path / "a.wav", 2, pictures=False)
        with open(sound, "rb") as file:
            shard = pa.table({"name": ["a"], "audio": [{"bytes": file.read(), "path": "a.wav"}]})
        folder = tmp_path / "shards"
        folder.mkdir()
        pq.write_table(shard, folder / "s.parquet", compression="none", use_dictionary=False)
        how = ("--source", folder, "--root", tmp_path / "root")
        assert status_of("prepare", "folder", *how) == 0
        words = ("--by", "window", "--out", folder / "s.parquet", "--overwrite")
        assert status_of("score", "--root", tmp_path / "root", "--bundle", bundle, *words) == 2
        assert "is what is read" in capsys.readouterr().err
