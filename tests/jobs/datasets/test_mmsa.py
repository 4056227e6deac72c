"""Pickles of the MMSA family become a dataset, with ids that keep the clips of a video together."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from cluster.errors import ConfigError, LabelTableError, NotPreparedError
from fusion.tasks import Task
from jobs import features, prepare
from jobs.catalog.features import read_features, resolve_features
from jobs.catalog.manifest import read_manifest
from jobs.datasets.mmsa import Config
from jobs.features import Export, Import
from jobs.interop.pickle_names import UnsafePickleError
from jobs.preparing.adapter import Collected, Row


def part(ids, seed):
    rng = np.random.default_rng(seed)
    count = len(ids)
    return {
        "id": ids,
        "raw_text": np.array([f"  text {index} " for index in range(count)]),
        "text": rng.normal(size=(count, 3, 4)).astype(np.float32),
        "vision": rng.normal(size=(count, 5, 2)).astype(np.float32),
        "vision_lengths": [5 - index for index in range(count)],
        "regression_labels": np.linspace(-1, 1, count),
        "regression_labels_T": np.linspace(1, -1, count),
        "annotations": ["Negative", "Positive"][:count],
    }


@pytest.fixture
def pkl(tmp_path):
    content = {
        "train": part(["v$_$1", "v$_$2"], 0),
        "valid": part(["w$_$10"], 1),
        "test": part(["u_1$_$3"], 2),
    }
    file = tmp_path / "aligned.pkl"
    file.write_bytes(pickle.dumps(content))
    return str(file)


class TestRows:
    def test_ids_texts_and_splits(self, pkl):
        rows = Config(root="r", source=pkl).collect().rows
        assert [row.name for row in rows] == ["v$_$1", "v$_$2", "w$_$10", "u_1$_$3"]
        assert [(row.dialogue, row.turn) for row in rows] == [
            ("v", 1),
            ("v", 2),
            ("w", 10),
            ("u_1", 3),
        ]
        assert [row.split for row in rows] == ["train", "train", "valid", "test"]
        assert rows[1].text == "text 1"

    def test_labels_of_all_modalities_and_their_polarity(self, pkl):
        collected = Config(root="r", source=pkl, range=(-1.0, 1.0)).collect()
        assert set(collected.tasks) == {"sentiment", "sentiment_text", "polarity"}
        assert collected.tasks["sentiment"].range == (-1, 1)
        assert collected.tasks["polarity"].classes == ("Negative", "Positive")
        assert collected.rows[1].labels == {
            "sentiment": 1.0,
            "sentiment_text": -1.0,
            "polarity": "Positive",
        }

    def test_files_without_ids_texts_or_splits(self, tmp_path):
        bare = {"text": np.zeros((2, 1, 3)), "labels": [3, np.nan], "info": ["?", "?"]}
        for name, content in (("split", {"test": bare}), ("flat", bare)):
            (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(content))
        split = Config(root="r", source=str(tmp_path / "split.pkl"), task="empathy").collect()
        flat = Config(root="r", source=str(tmp_path / "flat.pkl")).collect()
        assert [(row.name, row.split) for row in split.rows] == [
            ("test_00000", "test"),
            ("test_00001", "test"),
        ]
        assert [row.labels["empathy"] for row in split.rows] == [3.0, None]
        assert [(row.name, row.split, row.text) for row in flat.rows] == [
            ("00000", None, None),
            ("00001", None, None),
        ]

    def test_a_file_without_labels_says_what_it_has(self, tmp_path):
        (tmp_path / "f.pkl").write_bytes(pickle.dumps({"train": {"text": np.zeros((1, 2))}}))
        with pytest.raises(NotPreparedError, match=r"expected one of regression_labels.*came text"):
            Config(root="r", source=str(tmp_path / "f.pkl")).collect()

    def test_a_file_that_would_run_something_is_refused(self, tmp_path):
        class Bad:
            def __reduce__(self):
                return (os.system, ("true",))

        (tmp_path / "f.pkl").write_bytes(pickle.dumps({"train": {"labels": Bad()}}))
        with pytest.raises(UnsafePickleError, match="system"):
            Config(root="r", source=str(tmp_path / "f.pkl")).collect()


class TestWholeWay:
    def test_a_pickle_goes_in_and_comes_out_the_same(self, pkl, tmp_path):
        root = str(tmp_path / "root")
        prepare.main(Config(root=root, source=pkl))
        for array, modality in (("text", "text"), ("vision", "video")):
            features.main(
                Import(root=root, file=pkl, name=f"my_{array}", array=array, modality=modality)
            )
        rows = read_features(root, resolve_features(root, "my_vision"))
        assert rows.num_rows == read_manifest(root).num_rows == 4
        out = str(tmp_path / "out.pkl")
        inputs = {"text": "my_text", "video": "my_vision"}
        features.main(Export(root=root, inputs=inputs, out=out, task="sentiment"))
        before, after = (pickle.loads(Path(file).read_bytes()) for file in (pkl, out))
        for split in ("train", "valid", "test"):
            order = [after[split]["id"].index(name) for name in before[split]["id"]]
            np.testing.assert_array_equal(after[split]["text"][order], before[split]["text"])
            np.testing.assert_array_equal(
                after[split]["vision_lengths"][order], before[split]["vision_lengths"]
            )
            np.testing.assert_allclose(
                after[split]["regression_labels"][order], before[split]["regression_labels"]
            )


TASKS = {
    "classification": Task(kind="classification", classes=("sad", "calm", "glad", "never")),
    "regression": Task(kind="regression", range=(-1.0, 1.0)),
    "multilabel": Task(kind="multilabel", classes=("sad", "glad")),
}
LABELS = {
    "classification": ["glad", None, "sad", "calm", "glad"],
    "regression": [0.5, None, -1.0, 0.0, 0.25],
    "multilabel": [(1.0, 0.0)] * 5,
}


class TestEveryKindOfTask:
    """What `features export` writes of a task comes back as that task, or is not written."""

    def root(self, tmp_path, kind):
        names = [f"c{k}" for k in range(5)]
        splits = ["train", "train", "train", "valid", "test"]
        rows = [
            Row(name=name, text="words", split=split, labels={"mood": label})
            for name, split, label in zip(names, splits, LABELS[kind], strict=True)
        ]
        collected = Collected(name="toy", licence="", tasks={"mood": TASKS[kind]}, rows=rows)
        root = str(tmp_path / "root")
        source = tmp_path / "x.npz"
        np.savez(source, x=np.ones((5, 3), np.float32), name=np.array(names))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Config, "collect", lambda _self: collected)
            prepare.main(Config(root=root, source=str(source)))
        features.main(Import(root=root, file=str(source), array="x", name="x", modality="audio"))
        return root

    def export(self, root, out):
        features.main(Export(root=root, inputs={"audio": "x"}, out=str(out)))

    @pytest.mark.parametrize("kind", ["classification", "regression"])
    def test_a_pickle_comes_back_with_its_labels_and_all_names_of_classes(self, tmp_path, kind):
        self.export(self.root(tmp_path, kind), tmp_path / "out.pkl")
        found = Config(
            root="r", source=str(tmp_path / "out.pkl"), task="mood", range=TASKS[kind].range
        ).collect()
        assert found.tasks == {"mood": TASKS[kind]}
        back = {row.name: row.labels["mood"] for row in found.rows}
        assert back == {f"c{k}": label for k, label in enumerate(LABELS[kind])}

    def test_several_labels_a_clip_go_into_an_npz_and_into_no_pickle(self, tmp_path):
        root = self.root(tmp_path, "multilabel")
        with pytest.raises(ConfigError, match=r"'mood' has several labels .* --out .*out\.npz"):
            self.export(root, tmp_path / "out.pkl")
        assert not (tmp_path / "out.pkl").exists()
        self.export(root, tmp_path / "out.npz")
        with np.load(tmp_path / "out.npz") as out:
            assert out["label"].tolist() == [[1.0, 0.0]] * 5
            assert out["classes"].tolist() == ["sad", "glad"]

    @pytest.mark.parametrize(
        ("more", "names"),
        [
            ({"annotations": ["Sad", "", "Glad"]}, ["Sad", None, "Glad"]),
            ({}, ["0", None, "2"]),
        ],
    )
    def test_classes_of_other_programs_have_the_names_that_there_are(self, tmp_path, more, names):
        content = {"train": {"id": ["a", "b", "c"], "classification_labels": [0, -1, 2], **more}}
        (tmp_path / "f.pkl").write_bytes(pickle.dumps(content))
        found = Config(root="r", source=str(tmp_path / "f.pkl")).collect()
        assert [row.labels["sentiment"] for row in found.rows] == names
        assert found.tasks["sentiment"].classes == tuple(filter(None, names))

    @pytest.mark.parametrize("codes", [[0.5], [2], [np.inf]])
    def test_an_index_that_no_class_has_is_refused(self, tmp_path, codes):
        content = {
            "train": {"id": ["a"], "classification_labels": codes, "class_names": ["x", "y"]}
        }
        (tmp_path / "f.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(LabelTableError, match="expected the indices of x, y"):
            Config(root="r", source=str(tmp_path / "f.pkl")).collect()
