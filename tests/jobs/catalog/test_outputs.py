"""A file that a person named is never lost: not the source, nothing of somebody else, nothing edited."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pytest

from cluster import storage
from cluster.tables import SCORES
from jobs.__main__ import run
from jobs.catalog.outputs import publish_outputs, record_of


def film(path):
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 99, np.uint8), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def status_of(*words):
    try:
        return run([str(word) for word in words])
    except SystemExit as stop:
        return stop.code


@pytest.fixture
def clip(tmp_path):
    row = {
        "clip_id": 1, "name": "clip", "task": "mood", "bundle": "b", "label": ["glad"], "confidence": 0.7,
        "probabilities": [("calm", 0.3), ("glad", 0.7)], "value": None, "modalities": ["video"],
        "status": "ok", "error": None,
    }  # fmt: skip
    table = SCORES.conform(pa.Table.from_pylist([row], schema=SCORES.schema))
    storage.publish_table(table, str(tmp_path / "scores.parquet"))
    return film(tmp_path / "clip.mp4")


def annotate(clip, *words):
    return status_of("annotate", clip, "--scores", clip.with_name("scores.parquet"), *words)


class TestTheSource:
    def link(self, clip, how):
        other = clip.with_name("other.mp4")
        if how == "itself":
            return clip
        if how == "another way to it":
            return f"{clip.parent}/../{clip.parent.name}/clip.mp4"
        (os.link if how == "a hard link" else os.symlink)(clip, other)
        return other

    @pytest.mark.parametrize("flags", [[], ["--overwrite"]])
    @pytest.mark.parametrize(
        "how", ["itself", "another way to it", "a hard link", "a symbolic link"]
    )
    def test_is_never_the_output(self, clip, how, flags, capsys):
        before = clip.read_bytes()
        assert annotate(clip, "--out", self.link(clip, how), *flags) == 2
        assert "is what is read; type another --out" in capsys.readouterr().err
        assert clip.read_bytes() == before

    def test_a_broken_link_to_nowhere_is_no_source(self, clip):
        (clip.parent / "shown.mp4").symlink_to(clip.parent / "nowhere.mp4")
        assert annotate(clip, "--out", clip.parent / "shown.mp4") == 0


def make_annotated(base, *words):
    clip = base / "in" / "clip.mp4"
    if not clip.exists():
        clip.parent.mkdir()
        table = storage.read_table(str(base / "scores.parquet"))
        storage.publish_table(table, str(clip.with_name("scores.parquet")))
        film(clip)
    return annotate(clip, "--out", base / "out.mp4", *words)


def make_export(base, *words):
    return status_of(
        "features", "export", "--root", base / "small", "--inputs", "audio=voice", "--task",
        "emotion", "--out", base / "out.npz", *words,
    )  # fmt: skip


MAKERS = {"out.mp4": make_annotated, "out.npz": make_export}


@pytest.mark.parametrize("name", MAKERS)
class TestAFile:
    @pytest.fixture
    def base(self, clip, root):
        return clip.parent

    def test_of_somebody_else_is_kept_until_one_is_told_otherwise(self, name, base):
        out, make = base / name, MAKERS[name]
        out.write_bytes(b"mine")
        assert make(base) == 2
        assert out.read_bytes() == b"mine"
        assert make(base, "--overwrite") == 0
        assert out.read_bytes() != b"mine"

    def test_of_an_earlier_run_is_replaced_unless_somebody_changed_it(self, name, base):
        out, make = base / name, MAKERS[name]
        assert make(base) == 0
        assert make(base) == 0
        out.write_bytes(out.read_bytes() + b"a remark")
        assert make(base) == 2
        assert out.read_bytes().endswith(b"a remark")

    def test_is_no_folder(self, name, base):
        (base / name).mkdir()
        assert MAKERS[name](base, "--overwrite") == 2

    def test_has_its_config_beside_it_which_is_never_somebody_elses(self, name, base):
        out, make = base / name, MAKERS[name]
        record = Path(record_of(str(out)))
        record.write_text("my notes")
        assert make(base) == 2
        assert record.read_text() == "my notes"
        record.unlink()
        assert make(base) == 0
        assert json.loads(record.read_text())["made"].keys() >= {name}

    def test_whose_run_ended_between_record_and_file_is_its_own_still(self, name, base):
        out, make = base / name, MAKERS[name]
        assert make(base) == 0
        first = out.read_bytes()
        record = Path(record_of(str(out)))
        facts = json.loads(record.read_text())
        facts["made"][name].insert(0, "0" * 64)
        record.write_text(json.dumps(facts))
        assert out.read_bytes() == first
        assert make(base) == 0


def test_a_config_beside_a_file_is_taken_back(clip, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(clip.parent)
    assert status_of("annotate", "clip.mp4", "--scores", "scores.parquet", "--out", "o.mp4") == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert status_of("annotate", "--config", f"{clip.parent}/o.mp4.config.json") == 0
    assert f"wrote {clip.parent}/o.mp4" in capsys.readouterr().out
    assert list(elsewhere.iterdir()) == []


def test_figures_of_a_benchmark_replace_nothing_and_it_says_so_before_it_measures(root, tmp_path):
    out = tmp_path / "figures.json"
    out.write_text("mine")
    words = ["--root", root, "--encoders", "minilm", "--json", out]
    assert status_of("benchmark", "encode", *words) == 2
    assert out.read_text() == "mine"


class TestAFolderMadeAgain:
    """It holds what the last run made, and whatever else a person put there."""

    @dataclass(frozen=True)
    class Config:
        """Of a job that needs none."""

    def made(self, folder, **files):
        contents = {str(folder / name): content for name, content in files.items()}
        publish_outputs(self.Config(), contents, str(folder / "config.json"), whole=True)
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    def test_what_the_last_run_did_not_make_again_is_gone(self, tmp_path):
        self.made(tmp_path, page=b"1", picture=b"old")
        found = self.made(tmp_path, page=b"2", table=b"new")
        assert found.keys() == {"page", "table", "config.json"}
        assert found["page"] == b"2"

    def test_files_that_were_changed_or_added_stay(self, tmp_path):
        self.made(tmp_path, page=b"1", picture=b"old")
        (tmp_path / "picture").write_bytes(b"retouched")
        (tmp_path / "notes").write_bytes(b"mine")
        found = self.made(tmp_path, page=b"2")
        assert found["picture"] == b"retouched"
        assert found["notes"] == b"mine"

    def test_a_record_that_names_files_elsewhere_removes_none_of_them(self, tmp_path):
        precious = tmp_path / "precious"
        precious.write_bytes(b"known")
        folder = tmp_path / "came from elsewhere"
        folder.mkdir()
        digest = hashlib.sha256(b"known").hexdigest()
        names = ["../precious", "a/../../precious", str(precious)]
        record = {"made": {name: [digest] for name in names}}
        (folder / "config.json").write_text(json.dumps(record))
        self.made(folder, page=b"1")
        assert precious.read_bytes() == b"known"
