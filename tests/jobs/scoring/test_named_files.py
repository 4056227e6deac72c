"""Files that are scored: what their clips are called, that annotate finds them, and what --out may be."""

import json
import os
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import storage
from jobs.__main__ import run
from jobs.interop.spreadsheet import FORMULA_STARTS, harmless
from jobs.scoring.files import names_of

SUFFIXES = ("csv", "jsonl", "parquet")


def film(path):
    """A second of grey with a tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as output:
        picture = output.add_stream("libx264", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        voice = output.add_stream("aac", rate=16000)
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 99, np.uint8), format="rgb24")
            output.mux(picture.encode(frame))
        output.mux(picture.encode(None))
        tone = np.sin(np.arange(16000) / 20).astype(np.float32)[None]
        block = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        block.sample_rate = 16000
        output.mux(voice.encode(block))
        output.mux(voice.encode(None))
    return path


def status_of(*words):
    try:
        return run([str(word) for word in words])
    except SystemExit as stop:
        return stop.code


@pytest.fixture(scope="module")
def bundle(toys, tmp_path_factory):
    root = tmp_path_factory.mktemp("bundle")
    toys.bundle.write_bundle(root, classes=("=cmd|' /C calc'!A0", "@sum", "-2 +3"))
    return root / "bundles" / "b"


@pytest.fixture
def scored(bundle):
    """Scores files with the toy bundle at the command line."""
    return lambda *words: status_of("score", *words, "--bundle", bundle)


class TestNames:
    @pytest.mark.parametrize("where", ["absolute", "relative", "folder"])
    def test_annotate_finds_what_score_wrote(self, scored, tmp_path, monkeypatch, where):
        clip = film(tmp_path / "films" / "clip.mp4")
        monkeypatch.chdir(tmp_path)
        typed = {"absolute": clip, "relative": "films/clip.mp4", "folder": "films"}[where]
        assert scored(typed, "--out", "s.parquet") == 0
        assert storage.read_table("s.parquet")["name"].to_pylist() == ["clip"]
        assert status_of("annotate", clip, "--scores", tmp_path / "s.parquet") == 0
        assert (clip.parent / "clip.annotated.mp4").exists()

    @pytest.mark.parametrize("by", ["auto", "clip", "window"])
    def test_annotate_scores_the_film_itself(self, bundle, tmp_path, by):
        clip = film(tmp_path / "clip.mp4")
        assert status_of("annotate", clip, "--bundle", bundle, "--by", by) == 0
        shown = json.loads((tmp_path / "clip.annotated.json").read_text())
        (caption,) = shown["captions"]
        assert caption["label"]
        assert sum(caption["probabilities"].values()) == pytest.approx(1)
        assert (caption["shown_from_s"], caption["shown_to_s"]) == (0, pytest.approx(1, abs=0.1))
        # What it wrote is replaced by the next run, what others wrote is not.
        assert status_of("annotate", clip, "--bundle", bundle, "--by", by) == 0
        (tmp_path / "clip.annotated.srt").write_text("mine")
        assert status_of("annotate", clip, "--bundle", bundle, "--by", by) == 2
        assert (tmp_path / "clip.annotated.srt").read_text() == "mine"

    def test_files_of_one_name_are_told_apart_by_their_folders(self, scored, tmp_path, capsys):
        for folder in ("a", "b"):
            film(tmp_path / folder / "clip.mp4")
        film(tmp_path / "b" / "other.mp4")
        out = tmp_path / "s.parquet"
        assert scored(tmp_path / "a", tmp_path / "b", "--out", out) == 0
        assert storage.read_table(str(out))["name"].to_pylist() == ["a/clip", "b/clip", "other"]
        assert status_of("annotate", tmp_path / "b" / "clip.mp4", "--scores", out) == 0
        film(tmp_path / "c" / "clip.mp4")
        capsys.readouterr()
        assert status_of("annotate", tmp_path / "c" / "clip.mp4", "--scores", out) == 2
        assert "the scores have no clip 'clip'" in capsys.readouterr().err

    @given(
        st.lists(
            st.lists(st.sampled_from(["a", "b", "c.d", "x y"]), min_size=1, max_size=4).map(
                "/".join
            ),
            unique=True,
            max_size=12,
        ),
        st.sampled_from(["/", "s3://"]),
    )
    def test_every_file_has_its_own_and_it_ends_its_path(self, paths, start):
        files = [f"{start}{path}.{suffix}" for path in paths for suffix in ("mp4", "wav")][::2]
        files += [f"{start}{path}.mkv" for path in paths[:3]]
        names = names_of(files)
        assert set(names) == set(files)
        assert len(set(names.values())) == len(files)
        for file, name in names.items():
            assert file.rsplit(".", 1)[0].endswith(name) or file.endswith(name)


class TestOut:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_replaces_only_what_an_earlier_run_wrote(self, scored, tmp_path, suffix):
        clip, out = film(tmp_path / "clip.mp4"), tmp_path / f"s.{suffix}"
        out.write_bytes(b"mine")
        assert scored(clip, "--out", out) == 2
        assert out.read_bytes() == b"mine"
        assert scored(clip, "--out", out, "--overwrite") == 0
        assert scored(clip, "--out", out) == 0
        out.write_bytes(out.read_bytes() + b"\n")
        assert scored(clip, "--out", out) == 2
        record = json.loads(Path(f"{out}.config.json").read_text())
        assert record["clips"] == [str(clip)]
        assert record["out"] == str(out)

    @pytest.mark.parametrize("link", [None, os.link, os.symlink])
    def test_is_never_a_file_that_is_scored(self, scored, tmp_path, link, capsys):
        clip = film(tmp_path / "clip.mp4")
        renamed = clip.rename(tmp_path / "clip.csv")
        out = renamed if link is None else tmp_path / "other.csv"
        if link is not None:
            link(renamed, out)
        before = renamed.read_bytes()
        assert scored(renamed, "--out", out, "--overwrite") == 2
        assert "is what is read" in capsys.readouterr().err
        assert renamed.read_bytes() == before

    def test_of_a_dataset_is_refused_and_not_ignored(self, root, tmp_path, capsys):
        out = tmp_path / "s.csv"
        assert status_of("score", "--root", root, "--out", out) == 2
        assert "--out" in capsys.readouterr().err
        assert not out.exists()

    def test_a_config_beside_it_is_taken_back_elsewhere(self, scored, tmp_path, monkeypatch):
        clip = film(tmp_path / "films" / "clip.mp4")
        monkeypatch.chdir(clip.parent)
        assert scored("clip.mp4", "--out", "s.csv") == 0
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        assert status_of("score", "--config", clip.parent / "s.csv.config.json") == 0
        assert list(elsewhere.iterdir()) == []


class TestFormulas:
    def test_no_cell_of_a_csv_is_one(self, scored, tmp_path):
        film(tmp_path / "films" / "=HYPERLINK(1).mp4")
        film(tmp_path / "films" / "+1 @.mp4")
        out = tmp_path / "s.csv"
        assert scored(tmp_path / "films", "--out", out) == 0
        table = pa.csv.read_csv(
            str(out), convert_options=pa.csv.ConvertOptions(strings_can_be_null=True)
        )
        cells = [
            str(cell) for row in table.to_pylist() for cell in row.values() if cell is not None
        ]
        assert "'=HYPERLINK(1)" in cells
        assert "'+1 @" in cells
        for cell in [*cells, *table.column_names]:
            assert not cell.startswith(FORMULA_STARTS), cell

    @pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
    def test_files_for_programs_hold_names_as_they_are(self, scored, tmp_path, suffix):
        film(tmp_path / "films" / "=HYPERLINK(1).mp4")
        out = tmp_path / f"s.{suffix}"
        assert scored(tmp_path / "films", "--out", out) == 0
        assert b"'=" not in out.read_bytes()

    @pytest.mark.parametrize(
        "cell",
        ["-0.5", "+3", "-1e-5", "-0.100 [-0.200, 0.300]", "-inf", "-nan", "text", "'", "0 = 1"],
    )
    def test_figures_and_plain_text_stay(self, cell):
        assert harmless(cell) == cell

    @pytest.mark.parametrize(
        "cell", ["=1", "-2 +cmd|' /C calc'!A0", "+a", "@x", "\t=1", "\uff1d1", "-1+1", "-"]
    )
    def test_what_a_spreadsheet_would_run_gets_a_quote(self, cell):
        assert harmless(cell) == f"'{cell}"
