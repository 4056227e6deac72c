"""A file that a person named is never lost: not the source, nothing of somebody else, nothing edited."""

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pytest

from cluster import storage
from cluster.tables import SCORES
from jobs.__main__ import run
from jobs.catalog.outputs import check_place, publish_outputs, record_of


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


OUTPUTS = {
    "annotate": "annotate {clip} --scores {scores} --out {place}/a.mp4",
    "benchmark serve": "benchmark serve --root {root} --bundle best --json {place}/b.json",
    "bundle export": "bundle export --root {root} --bundle best --out {place}/new/b",
    "ensemble": "ensemble --root {root} --runs voice --task emotion --bundle another",
    "evaluate": "evaluate --root {root} --bundle best --on {root} --predictions {place}/p.parquet",
    "explain": "explain {clip} --root {root} --bundle best --out {place}/e.jsonl",
    "features export": "features export --root {root} --inputs audio=voice --out {place}/f.npz",
    "report": "report --root {root} --bundle best --out {place}/new/report",
    "score": "score {clip} --root {root} --bundle best --out {place}/s.csv",
    "verify": "verify --root {root} --json {place}/v.json",
}


class TestPlacesThatCannotBeWritten:
    """They are named before the work, not behind it."""

    @pytest.fixture(scope="class")
    def closed(self, write_root, tmp_path_factory):
        """A disk that is mounted read-only, with a root that has a bundle."""
        place = tmp_path_factory.mktemp("closed")
        words = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
        if subprocess.run(words, capture_output=True).returncode:
            pytest.skip("a disk can be mounted only as root")
        root = write_root(str(place / "root"))
        train = f"train --root {root} --inputs voice --net linear --folds speaker --no-tracking"
        assert status_of(*train.split(), "--run", "voice") == 0
        ensemble = f"ensemble --root {root} --runs voice --task emotion --bundle best"
        assert status_of(*ensemble.split()) == 0
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        yield place
        subprocess.run(["umount", "-l", str(place)], check=True)

    @pytest.mark.parametrize("job", OUTPUTS)
    def test_a_new_file_is_refused_there_before_anything_is_computed(
        self, job, closed, clip, monkeypatch, capsys
    ):
        for work in ("jobs.ensemble.held_out", "jobs.evaluate.open_elsewhere", "jobs.explain.load",
                     "jobs.report.gather", "jobs.score.work_of", "jobs.verify.verified",
                     "jobs.annotate.publish_outputs", "jobs.features.publish_outputs",
                     "jobs.bundle.publish_outputs", "jobs.serving.latency.asked_server"):  # fmt: skip
            monkeypatch.setattr(work, self.begun)
        monkeypatch.setattr(
            "jobs.score.refuse_alone", lambda _: None
        )  # its features are imported ones
        place = closed / "root" if job == "ensemble" else closed
        scores = clip.with_name("scores.parquet")
        words = OUTPUTS[job].format(clip=clip, scores=scores, root=closed / "root", place=closed)
        assert status_of(*words.split()) == 1
        said = capsys.readouterr().err
        assert f"nothing can be written at {place}/" in said
        assert said.count("\n") == 1

    @staticmethod
    def begun(*_, **__):
        raise AssertionError("the work has begun")

    def test_a_file_where_a_folder_is_expected_is_named(self, clip, capsys):
        assert annotate(clip, "--out", clip / "a.mp4") == 1
        assert f"a file stands where a folder is expected: {clip}" in capsys.readouterr().err

    @pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="Linux has such a folder")
    def test_a_folder_that_takes_no_files_is_named(self, clip, capsys):
        assert annotate(clip, "--out", "/proc/a.mp4") == 1
        said = capsys.readouterr().err
        assert "no file can be made at /proc" in said
        assert said.count("\n") == 1

    def test_trying_leaves_nothing_behind(self, tmp_path):
        check_place([str(tmp_path / "new" / "a.csv")])
        assert not list(tmp_path.iterdir())


def test_predictions_of_another_dataset_replace_no_file_of_somebody_else(
    write_root, tmp_path, capsys
):
    root, out = write_root(str(tmp_path / "root")), tmp_path / "p.parquet"
    train = f"train --root {root} --inputs voice --net linear --folds speaker --no-tracking"
    assert status_of(*train.split(), "--run", "voice") == 0
    out.write_text("mine")
    words = f"evaluate --root {root} --runs voice --task emotion --on {root} --predictions {out}"
    assert status_of(*words.split()) == 2
    assert "is not what an earlier run wrote" in capsys.readouterr().err
    assert out.read_text() == "mine"
