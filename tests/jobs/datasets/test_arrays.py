"""Labels in arrays become rows; the features beside them find those rows by the same names."""

import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from cluster.errors import ConfigError, LabelTableError
from jobs import features, prepare
from jobs.__main__ import run
from jobs.catalog.features import read_features, resolve_features
from jobs.catalog.manifest import read_dataset, read_manifest
from jobs.datasets.arrays import Config
from jobs.features import Import

DATA = Path(os.environ.get("AFFUSE_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))


@pytest.fixture
def npz(tmp_path):
    file = tmp_path / "toy.npz"
    np.savez(
        file,
        id=np.array(["a", "b", "c", "d"]),
        mood=np.array([0, 1, 1, -1]),
        score=np.array([0.5, np.nan, -1.0, 2.0]),
        both=np.array([[1, 0], [0, 1], [1, 1], [0, 0]]),
        onehot=np.eye(4, 3),
        film=np.array(["x", "x", "y", "y"]),
        number=np.array([0, 1, 0, 1]),
        part=np.array(["train", "train", "dev", "test"]),
        fold=np.array([0, 0, 1, 1]),
        text=np.array(["one", "two", "", "four"]),
    )
    return str(file)


def config(source, **changes):
    return Config(**{"root": "r", "source": source, "tasks": {"score": "regression"}, **changes})


class TestRows:
    def test_numbers_keep_their_gaps(self, npz):
        rows = config(npz).collect().rows
        assert [row.name for row in rows] == ["a", "b", "c", "d"]
        assert [row.labels["score"] for row in rows] == [0.5, None, -1.0, 2.0]

    def test_numbered_classes_get_names_and_minus_one_is_no_label(self, npz):
        collected = config(
            npz, tasks={"mood": "classification"}, classes={"mood": "low, high"}
        ).collect()
        assert [row.labels["mood"] for row in collected.rows] == ["low", "high", "high", None]
        assert collected.tasks["mood"].classes == ("low", "high")

    def test_one_hot_rows_are_classes(self, npz):
        rows = (
            config(
                npz,
                tasks={"mood": "classification"},
                labels={"mood": "onehot"},
                classes={"mood": "p,q,r"},
            )
            .collect()
            .rows
        )
        assert [row.labels["mood"] for row in rows[:3]] == ["p", "q", "r"]

    def test_classes_in_words_are_taken_as_they_are(self, npz):
        collected = config(npz, tasks={"film": "classification"}).collect()
        assert collected.tasks["film"].classes == ("x", "y")

    def test_several_labels_at_once(self, npz):
        collected = config(npz, tasks={"both": "multilabel"}, classes={"both": "p,q"}).collect()
        assert [row.labels["both"] for row in collected.rows][2] == [1.0, 1.0]
        assert collected.tasks["both"].classes == ("p", "q")

    def test_one_column_of_a_matrix(self, npz):
        rows = config(npz, labels={"score": "both:1"}).collect().rows
        assert [row.labels["score"] for row in rows] == [0, 1, 1, 0]

    def test_what_else_is_known_of_a_clip(self, npz):
        columns = {
            "dialogue": "film",
            "turn": "number",
            "split": "part",
            "fold": "fold",
            "text": "text",
        }
        collected = config(npz, columns=columns).collect()
        assert [row.dialogue for row in collected.rows] == ["x", "x", "y", "y"]
        assert [row.turn for row in collected.rows] == [0, 1, 0, 1]
        assert [row.split for row in collected.rows] == ["train", "train", "valid", "test"]
        assert [row.text for row in collected.rows] == ["one", "two", None, "four"]
        assert collected.folds == {"table": {"a": 0, "b": 0, "c": 1, "d": 1}}

    def test_arrays_of_splits_and_rows_without_names(self, tmp_path):
        file = tmp_path / "f.npz"
        np.savez(file, y_train=np.zeros(2), y_valid=np.ones(1), y_test=np.ones(1))
        rows = config(str(file), labels={"score": "y_{split}"}).collect().rows
        assert [(row.name, row.split) for row in rows] == [
            ("train_00000", "train"),
            ("train_00001", "train"),
            ("valid_00000", "valid"),
            ("test_00000", "test"),
        ]

    @pytest.mark.parametrize("kind", ["pkl", "h5"])
    def test_groups_of_splits(self, tmp_path, kind):
        file = tmp_path / f"f.{kind}"
        content = {
            "train": {"id": ["a", "b"], "score": np.array([1.0, 2.0])},
            "dev": {"id": ["c"], "score": np.array([3.0])},
        }
        if kind == "pkl":
            file.write_bytes(pickle.dumps(content))
        else:
            with h5py.File(file, "w") as out:
                for split, part in content.items():
                    for key, value in part.items():
                        out[f"{split}/{key}"] = value
        rows = config(str(file)).collect().rows
        assert [(row.name, row.split, row.labels["score"]) for row in rows] == [
            ("a", "train", 1.0),
            ("b", "train", 2.0),
            ("c", "valid", 3.0),
        ]


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"tasks": {}}, "which labels"),
            ({"tasks": {"score": "regresion"}}, "did you mean 'regression'"),
            ({"columns": {"dialog": "film"}}, "did you mean 'dialogue'"),
            ({"classes": {"mod": "a,b"}}, "--tasks does not name 'mod'"),
            ({"labels": {"score": "both:x"}}, "expected the number of a column"),
            ({"ranges": {"score": "3"}}, "expected LOW,HIGH"),
            ({"tasks": {"both": "multilabel"}}, "needs its label names"),
        ],
    )
    def test_a_bad_flag(self, npz, changes, said):
        with pytest.raises(ConfigError, match=said):
            config(npz, **changes).collect()

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"labels": {"score": "scor"}}, "no array 'scor'; did you mean 'score'"),
            ({"columns": {"text": "texts"}}, "no array 'texts'; did you mean 'text'"),
            ({"labels": {"score": "both:7"}}, "no column 7"),
        ],
    )
    def test_an_array_that_is_not_there(self, npz, changes, said):
        with pytest.raises(LabelTableError, match=said):
            config(npz, **changes).collect()

    def test_a_number_without_a_class_is_listed(self, npz):
        collected = config(
            npz, tasks={"number": "classification"}, classes={"number": "only"}
        ).collect()
        assert collected.faults == [
            f"row {row}: number: class 1; --classes names 0 to 0" for row in (2, 4)
        ]


class TestWhatIsNoLabel:
    """By the command line: unknown is never a class, what cannot be one is listed with its row."""

    def prepare(self, tmp_path, capsys, *flags, **arrays):
        names = np.array(["a", "b", "c", "d"])
        np.savez(tmp_path / "y.npz", **{"name": names, **arrays})
        root = tmp_path / "root"
        words = ["--source", str(tmp_path / "y.npz"), "--root", str(root)]
        status = run(["prepare", "arrays", *words, "--tasks", "y=classification", *flags])
        said = capsys.readouterr()
        rows = read_manifest(str(root)).to_pylist() if status == 0 else []
        return status, said.out + said.err, [row["y"] for row in rows]

    NAMED = ("--classes", "y=lo,mid,hi")

    @pytest.mark.parametrize(
        ("values", "flags", "expected"),
        [
            ([0.0, 1.0, np.nan, 2.0], NAMED, ["lo", "mid", None, "hi"]),
            ([0.0, 1.0, np.nan, 2.0], (), ["0", "1", None, "2"]),
            ([0, 1, -1, 2], (), ["0", "1", None, "2"]),
            ([True, False, True, True], (), ["1", "0", "1", "1"]),
            (["x", "y", "", "x "], (), ["x", "y", None, "x"]),
            (["x", "nan", "NA", "y"], (), ["x", None, None, "y"]),
            ([[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]], NAMED, ["lo", "mid", None, "hi"]),
            ([[1, 0, 0], [np.nan] * 3, [0, 1, 0], [0, 0, 1]], NAMED, ["lo", None, "mid", "hi"]),
            ([[0], [1], [2], [1]], NAMED, ["lo", "mid", "hi", "mid"]),
        ],
    )
    def test_is_none(self, tmp_path, capsys, values, flags, expected):
        status, _, found = self.prepare(tmp_path, capsys, *flags, y=np.array(values))
        assert (status, found) == (0, expected)

    @pytest.mark.parametrize(
        ("values", "flags", "said"),
        [
            ([0.0, 0.7, 1.0, 2.5], NAMED, ["2 faults", "row 2: y 0.7;", "row 4: y 2.5;"]),
            ([0.0, 0.7, 1.0, 2.0], (), ["row 2: y 0.7; expected the whole number of a class"]),
            ([0, 1, 2, 3], NAMED, ["row 4: y: class 3; --classes names 0 to 2"]),
            ([[1, 1, 0], [0, 1, 0], [0, 0.5, 0], [0, 0, 1]], NAMED, ["row 1: y", "row 3: y"]),
            ([[1, 0], [0, 1], [1, 0], [1, 0]], NAMED, ["2 columns", "3 classes"]),
            (["Happy", "happy", "sad", "sad"], (), ["'Happy' (1), 'happy' (1) differ only"]),
            (np.zeros((4, 2, 2)), (), ["expected one label a clip"]),
        ],
    )
    def test_is_listed(self, tmp_path, capsys, values, flags, said):
        status, out, _ = self.prepare(tmp_path, capsys, *flags, y=np.array(values))
        assert status == 1
        assert all(part in out for part in said)
        assert "Traceback" not in out

    def test_facts_are_read_by_their_own_names_and_near_ones_are_asked_back(self, tmp_path, capsys):
        facts = {"Speaker": np.array(["p", "p", "q", "q"]), "split": np.array(["train"] * 4)}
        y = np.array(["x", "y", "x", "y"])
        status, out, _ = self.prepare(tmp_path, capsys, y=y, x=np.ones((4, 2)), **facts)
        assert status == 1
        assert "array 'Speaker' is not read; did you mean 'speaker'?" in out
        flags = ("--columns", "speaker=Speaker")
        status, out, _ = self.prepare(tmp_path, capsys, *flags, y=y, x=np.ones((4, 2)), **facts)
        assert status == 0
        assert "not read: x" in out
        assert "groups: 2 by speaker" in out

    @pytest.mark.parametrize(
        ("facts", "said"),
        [
            ({"turn": np.array(["0", "x", "1", "2"])}, "row 2: turn 'x'; expected a whole number"),
            ({"split": np.array(["train", "Train", "test", ""])}, "row 2: split 'Train'"),
            ({"fold": np.array([0, 1.5, 0, 1])}, "row 2: fold '1.5'"),
        ],
    )
    def test_a_fact_that_is_none_is_listed(self, tmp_path, capsys, facts, said):
        status, out, _ = self.prepare(tmp_path, capsys, y=np.array(["x", "y", "x", "y"]), **facts)
        assert (status, said in out) == (1, True)


class TestWholeWay:
    def test_labels_and_features_of_one_file_meet(self, npz, tmp_path):
        root = str(tmp_path / "root")
        prepare.main(config(npz, root=root, columns={"split": "part"}))
        features.main(
            Import(root=root, file=npz, name="two", array="both", modality="text", names=("id",))
        )
        assert read_dataset(root).tasks["score"].kind == "regression"
        names = dict(
            zip(*read_manifest(root, ["clip_id", "name"]).to_pydict().values(), strict=True)
        )
        rows = read_features(root, resolve_features(root, "two")).to_pylist()
        found = {names[row["clip_id"]]: row["values"] for row in rows}
        assert found == {"a": [[1, 0]], "b": [[0, 1]], "c": [[1, 1]], "d": [[0, 0]]}

    @pytest.mark.skipif(not (DATA / "wordlevel").is_dir(), reason="no data under AFFUSE_DATA")
    def test_word_level_corpora(self, tmp_path):
        file, root = str(DATA / "wordlevel" / "mmmo.npz"), str(tmp_path / "mmmo")
        prepare.main(config(file, root=root, labels={"score": "y_{split}"}))
        for modality, array in (("audio", "audio_{split}"), ("video", "video_{split}")):
            features.main(
                Import(root=root, file=file, name=f"my_{modality}", array=array, modality=modality)
            )
        rows = read_features(root, resolve_features(root, "my_audio"))
        assert rows.num_rows == 340
        assert set(rows["status"].to_pylist()) == {"ok"}
