"""evaluate says when the features know the labels of the training split."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from cluster import storage
from fusion.tasks import Task
from jobs import features, prepare, report, train
from jobs.catalog.manifest import read_dataset
from jobs.datasets.arrays import Config as Arrays
from jobs.evaluation import leaks
from jobs.evaluation.leaks import leak_reports

ROOT = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("AFFUSE_DATA", ROOT.parent / "shared" / "data"))


def prepared(root, path, *, task, key, names, group, split, classes="", as_is=()):
    """A dataset without media from one file of arrays."""
    kind = "classification" if classes else "regression"
    prepare.main(
        Arrays(
            root=root,
            source=str(path),
            tasks={task: kind},
            labels={task: key},
            classes={task: classes} if classes else {},
            names=(names,),
            columns={"group": group, "split": split},
            as_is=as_is,
        )
    )


def bring(root, path, array, names):
    features.main(
        features.Import(
            root=root, file=str(path), array=array, name=array, modality="text", names=(names,)
        )
    )


def test_features_that_know_the_training_labels_are_told_from_honest_ones(tmp_path):
    draws = np.random.default_rng(0)
    person = np.repeat(np.arange(40), 15)
    label = draws.integers(2, size=len(person))
    train = person < 25
    honest = draws.normal(size=(len(person), 8)) + 1.0 * label[:, None] * (np.arange(8) == 0)
    knowing = honest + 4.0 * (train & (label == 1))[:, None] * (np.arange(8) == 1)
    path = tmp_path / "made.npz"
    np.savez(
        path,
        name=np.array([f"c{i}" for i in range(len(person))]),
        group=np.array([f"p{i}" for i in person]),
        split=np.where(train, "train", "test"),
        mood=label,
        honest=honest.astype(np.float32),
        knowing=knowing.astype(np.float32),
    )
    root = str(tmp_path / "root")
    prepared(
        root,
        path,
        task="mood",
        key="mood",
        names="name",
        group="group",
        split="split",
        classes="low,high",
    )
    for array in ("honest", "knowing"):
        bring(root, path, array, "name")
    task = read_dataset(root).tasks["mood"]
    reports = leak_reports(root, ["honest", "knowing"], "mood", task, against="test")
    assert not reports["honest"].leaks
    assert reports["knowing"].leaks
    assert "know the training labels" in reports["knowing"].message


def test_few_people_and_several_labels_are_not_probed(root):
    task = read_dataset(root).tasks["emotion"]
    several = Task(kind="multilabel", classes=("a", "b"))
    for against in ("valid", "test"):
        assert leak_reports(root, ["voice"], "emotion", task, against=against) == {}
        assert leak_reports(root, ["voice"], "emotion", several, against=against) == {}


def test_the_published_mosi_features_leak(tmp_path):
    path = DATA / "mosi" / "mosi_utt.npz"
    if not path.exists():
        pytest.skip(f"no MOSI features at {path}; set AFFUSE_DATA")
    root = str(tmp_path / "mosi")
    prepared(
        root, path, task="sentiment", key="label_binary", names="utt_id", group="video_id",
        split="split_bclstm", classes="negative,positive", as_is=("utt_no",),
    )  # fmt: skip
    bring(root, path, "text", "utt_id")
    bring(root, path, "audio", "utt_id")
    task = read_dataset(root).tasks["sentiment"]
    reports = leak_reports(root, ["text", "audio"], "sentiment", task, against="test")
    assert reports["text"].leaks
    assert not reports["audio"].leaks


def with_splits(root, path, **arrays):
    """40 people of 15 clips: 25 train, 15 valid; the label is written faintly into the features."""
    draws = np.random.default_rng(0)
    person = np.repeat(np.arange(40), 15)
    label = draws.integers(2, size=len(person))
    split = np.where(person < 25, "train", "valid")
    honest = draws.normal(size=(len(person), 40)) + 0.8 * label[:, None] * (np.arange(40) < 4)
    knowing = honest + 4.0 * ((split == "train") & (label == 1))[:, None] * (np.arange(40) == 9)
    names = np.array([f"c{i}" for i in range(len(person))])
    np.savez(
        path, name=names, group=np.array([f"p{i}" for i in person]), split=split, mood=label,
        honest=honest.astype(np.float32), knowing=knowing.astype(np.float32), **arrays,
    )  # fmt: skip
    prepared(
        root, path, task="mood", key="mood", names="name", group="group", split="split",
        classes="low,high",
    )  # fmt: skip
    for array in ("honest", "knowing"):
        bring(root, path, array, "name")


def fit(root, *inputs, **changes):
    job = train.Config(
        root=root, inputs=inputs, run="-".join(inputs), epochs=60, patience=60, lr=1e-2,
        weight_decay=0.0, net_options={"hidden": 64, "dropout": 0.0}, tracking=False, **changes,
    )  # fmt: skip
    train.main(job)
    return storage.read_json(f"{root}/runs/{job.run}/summary.json")["roles"]


class TestTrainAgainstValid:
    def test_train_says_which_input_knows_its_labels_and_opens_no_test_row(self, tmp_path, capsys):
        root = str(tmp_path / "root")
        with_splits(root, tmp_path / "made.npz")
        fit(root, "honest", "knowing")
        lines = [line for line in capsys.readouterr().out.splitlines() if "LEAK" in line]
        assert len(lines) == 1
        assert lines[0].startswith("knowing, mood, train against valid: LEAK")
        kept = storage.names(f"{root}/leaks")
        assert [name.split("-")[0] for name in kept] == ["honest", "knowing"]
        assert all(name.endswith("-mood-valid.json") for name in kept)

    def test_a_net_that_fits_its_rows_well_is_no_leak(self, tmp_path, capsys):
        root = str(tmp_path / "root")
        with_splits(root, tmp_path / "made.npz")
        roles = fit(root, "honest")
        seen, unseen = (roles[role]["mood/accuracy"]["mean"] for role in ("train", "valid"))
        assert seen > unseen + 0.05
        assert "LEAK" not in capsys.readouterr().out

    def test_a_table_is_probed_once(self, tmp_path, monkeypatch):
        root = str(tmp_path / "root")
        with_splits(root, tmp_path / "made.npz")
        task = read_dataset(root).tasks["mood"]
        first = leak_reports(root, ["knowing"], "mood", task, against="valid")
        monkeypatch.setattr(leaks, "leak_probe", None)
        assert leak_reports(root, ["knowing"], "mood", task, against="valid") == first

    def test_the_report_tells_it(self, tmp_path):
        root = str(tmp_path / "root")
        with_splits(root, tmp_path / "made.npz")
        fit(root, "knowing")
        where = report.main(report.Config(root=root, runs=("knowing",), resamples=100))
        page = storage.read_bytes(where).decode()
        assert "<h2>Leak test</h2>" in page
        assert re.search(r"LEAK: knowing-\w+ know the labels of the training split", page)
        assert storage.exists(f"{where.rsplit('/', 1)[0]}/leaks.csv")

    def test_of_a_large_split_whole_groups_are_drawn(self, tmp_path, monkeypatch):
        root = str(tmp_path / "root")
        with_splits(root, tmp_path / "made.npz")
        monkeypatch.setattr(leaks, "MOST_CLIPS", 200)
        clips = leaks.drawn_clips(root, "mood", "train")
        assert len(clips) == 210
        assert (
            len(drawn := leaks.pooled_split(root, "honest", "mood", clips, test=False).target)
            == 210
        )
        assert drawn.shape == (210,)


def test_the_published_mosi_text_is_told_from_audio_by_a_valid_split_too(tmp_path):
    path = DATA / "mosi" / "mosi_utt.npz"
    if not path.exists():
        pytest.skip(f"no MOSI features at {path}; set AFFUSE_DATA")
    data = dict(np.load(path, allow_pickle=False))
    data["own"] = np.where(data["split_bclstm"] == "test", "valid", "train")
    np.savez(tmp_path / "own.npz", **data)
    root = str(tmp_path / "mosi")
    prepared(
        root, tmp_path / "own.npz", task="sentiment", key="label_binary", names="utt_id",
        group="video_id", split="own", classes="negative,positive", as_is=("utt_no",),
    )  # fmt: skip
    for array in ("text", "audio"):
        bring(root, tmp_path / "own.npz", array, "utt_id")
    task = read_dataset(root).tasks["sentiment"]
    reports = leak_reports(root, ["text", "audio"], "sentiment", task, against="valid")
    assert reports["text"].leaks
    assert reports["text"].inside_train > 0.95
    assert not reports["audio"].leaks
