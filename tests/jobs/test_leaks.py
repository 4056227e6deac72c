"""evaluate says when the features know the labels of the training split."""

import os
from pathlib import Path

import numpy as np
import pytest

from fusion.batch import Task
from jobs import features, prepare
from jobs._leaks import leak_reports
from jobs._manifest import read_dataset
from jobs.datasets.arrays import Config as Arrays

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("AFFUSE_DATA", ROOT.parent / "shared" / "data"))


def prepared(root, path, *, task, key, names, group, split, classes=""):
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
    reports = leak_reports(root, ["honest", "knowing"], "mood", read_dataset(root).tasks["mood"])
    assert not reports["honest"].leaks
    assert reports["knowing"].leaks
    assert "know the training labels" in reports["knowing"].message


def test_few_people_and_several_labels_are_not_probed(root):
    assert leak_reports(root, ["voice"], "emotion", read_dataset(root).tasks["emotion"]) == {}
    several = Task(kind="multilabel", classes=("a", "b"))
    assert leak_reports(root, ["voice"], "emotion", several) == {}


def test_the_published_mosi_features_leak(tmp_path):
    path = DATA / "mosi" / "mosi_utt.npz"
    if not path.exists():
        pytest.skip(f"no MOSI features at {path}; set AFFUSE_DATA")
    root = str(tmp_path / "mosi")
    prepared(
        root, path, task="sentiment", key="label_binary", names="utt_id", group="video_id",
        split="split_bclstm", classes="negative,positive",
    )  # fmt: skip
    bring(root, path, "text", "utt_id")
    bring(root, path, "audio", "utt_id")
    task = read_dataset(root).tasks["sentiment"]
    reports = leak_reports(root, ["text", "audio"], "sentiment", task)
    assert reports["text"].leaks
    assert not reports["audio"].leaks
