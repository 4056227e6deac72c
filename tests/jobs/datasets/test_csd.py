"""Sequences of the CMU SDK become MOSI and MOSEI: sentiment, emotions, words, standard folds."""

import math

import h5py
import numpy as np
import pytest

from cluster.errors import AffuseError, LabelTableError
from cluster.settings import from_mapping
from jobs import prepare
from jobs.catalog.manifest import read_dataset, read_manifest
from jobs.datasets import mosei, mosi
from tests.jobs.datasets.official_layouts import touch, write_csv
from tests.jobs.preparing.clip_rows import checked

LABELS = {
    "v1": ([[1.0, 0.0, 0.66, 0, 0, 0, 0], [3.33, 2, 0, 0, 0, 0, 1]], [[5.0, 9.0], [0.5, 4.0]]),
    "w": ([[-1.0, 0, 0, 0, 0, 0, 0]], [[0.0, 2.0]]),
    "-x_2": ([[0.0, *[np.nan] * 6]], [[1.0, 3.0]]),
}
WORDS = {
    "v1": (["sp", "oh", "well", "yes"], [[0, 0.5], [0.5, 1.0], [3.5, 4.4], [6.0, 6.5]]),
    "w": (["no"], [[0.2, 0.4]]),
}
FOLDS = """import os
standard_train_fold=["v1",'w']
standard_valid_fold=[]
standard_test_fold=["-x_2"]
"""


def sequence(path, name, videos, kind=np.float32):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for video, (values, times) in videos.items():
            array = np.array(values, kind)
            if array.dtype.kind == "S":
                array = array[:, None]
            file[f"{name}/data/{video}/features"] = array
            file[f"{name}/data/{video}/intervals"] = np.array(times, np.float64)
        file[f"{name}/metadata/root name"] = f'["{name}"]'


def corpus(folder, labels=None, words=None, folds=FOLDS):
    sequence(folder / "CMU_MOSEI_Labels.csd", "All Labels", labels or LABELS)
    sequence(folder / "CMU_MOSEI_TimestampedWords.csd", "words", words or WORDS, "S32")
    if folds:
        (folder / "cmu_mosei_std_folds.py").write_text(folds)
    touch(folder / "Videos" / "v1.mp4")
    return from_mapping(mosei.Config, {"root": str(folder / "root"), "source": str(folder)})


class TestRows:
    def test_an_emotion_is_there_where_its_strength_is_above_zero(self, tmp_path):
        collected = corpus(tmp_path).collect()
        assert collected.tasks["emotions"].classes == mosi.EMOTIONS
        rows = {row.name: row for row in checked(collected)}
        assert rows["v1_0"].labels == {"sentiment": 1.0, "emotions": [0, 1, 0, 0, 0, 0]}
        assert rows["w_0"].labels["emotions"] == [0] * 6
        assert rows["-x_2_0"].labels == {"sentiment": 0.0, "emotions": None}

    def test_a_score_beyond_its_bounds_is_brought_to_them_and_counted(self, tmp_path):
        collected = corpus(tmp_path).collect()
        (row,) = [row for row in collected.rows if row.name == "v1_1"]
        assert row.labels == {"sentiment": 3.0, "emotions": [1, 0, 0, 0, 0, 1]}
        assert "1 scores beyond -3 to 3 were brought to the bound" in collected.notes

    def test_segments_are_cut_from_films_and_turns_follow_time(self, tmp_path):
        rows = {row.name: row for row in corpus(tmp_path).collect().rows}
        first = rows["v1_0"]
        assert first.video.uri == str(tmp_path / "Videos" / "v1.mp4")
        assert (first.start_s, first.end_s, first.turn) == (5.0, 9.0, 1)
        assert rows["v1_1"].turn == 0
        assert {row.group for row in rows.values()} == set(LABELS)
        assert rows["w_0"].video is None

    def test_words_count_from_the_start_of_their_segment_without_pauses(self, tmp_path):
        rows = {row.name: row for row in corpus(tmp_path).collect().rows}
        assert rows["v1_1"].text == "oh well"
        said = [(w.text, w.start_s, w.end_s) for w in rows["v1_1"].words]
        assert said == [("oh", 0.0, 0.5), ("well", 3.0, 3.5)]
        assert rows["v1_0"].text == "yes"
        assert rows["-x_2_0"].text is None

    def test_splits_are_the_standard_folds_which_are_read_and_not_run(self, tmp_path):
        folds = FOLDS + f'open({str(tmp_path / "ran")!r}, "w")\n'
        rows = corpus(tmp_path, folds=folds).collect().rows
        assert {row.name: row.split for row in rows} == {
            "v1_0": "train",
            "v1_1": "train",
            "w_0": "train",
            "-x_2_0": "test",
        }
        assert not (tmp_path / "ran").exists()

    def test_without_folds_a_note_says_what_to_do(self, tmp_path):
        collected = corpus(tmp_path, folds=None).collect()
        assert {row.split for row in collected.rows} == {None}
        assert any("cmu_mosei_std_folds.py" in note for note in collected.notes)

    def test_it_becomes_a_manifest_with_both_tasks(self, tmp_path):
        config = corpus(tmp_path)
        prepare.main(config)
        assert set(read_dataset(config.root).tasks) == {"sentiment", "emotions"}
        table = read_manifest(config.root)
        assert sorted(table["name"].to_pylist()) == ["-x_2_0", "v1_0", "v1_1", "w_0"]

    def test_mosi_has_the_sentiment_alone(self, tmp_path):
        scores = {"a": ([[2.4]], [[0.0, 1.0]]), "b": ([[math.nan]], [[0.0, 1.0]])}
        sequence(tmp_path / "CMU_MOSI_Opinion_Labels.csd", "Opinion Segment Labels", scores)
        given = {"root": "r", "source": str(tmp_path / "CMU_MOSI_Opinion_Labels.csd")}
        for source in (given["source"], str(tmp_path)):
            collected = from_mapping(mosi.Config, {**given, "source": source}).collect()
            labels = [row.labels["sentiment"] for row in checked(collected)]
            assert labels == [pytest.approx(2.4), None]
            assert list(collected.tasks) == ["sentiment"]

    def test_a_label_table_beside_sequences_goes_first(self, tmp_path):
        config = corpus(tmp_path)
        header = ["video_id", "clip_id", "text", "label", "mode"]
        write_csv(tmp_path / "label.csv", header, [["v", "3", "so", "1.0", "train"]])
        assert [row.name for row in config.collect().rows] == ["v_3"]


class TestDamage:
    @pytest.mark.parametrize(
        ("video", "said"),
        [
            (([[1.0] * 7] * 2, [[0, 1]]), "2 labels and times of"),
            (([[1.0] * 3], [[0, 1]]), r"expected \[segment 7\]"),
            (([[1.0] * 7], [[2, 1]]), "lies at 2 to 1"),
            (([[1.0] * 7], [[0, np.inf]]), "lies at 0 to inf"),
            (([[1.0] * 7], [[np.nan, 1]]), "lies at nan"),
        ],
    )
    def test_shifted_rows_and_times_that_cannot_be_are_faults(self, video, said, tmp_path):
        config = corpus(tmp_path, labels={"v1": LABELS["v1"], "bad": video})
        with pytest.raises(LabelTableError, match=said):
            checked(config.collect())

    def test_words_without_their_times_are_faults(self, tmp_path):
        config = corpus(tmp_path, words={"v1": (["a", "b"], [[0, 1]])})
        with pytest.raises(LabelTableError, match="2 words and times of"):
            checked(config.collect())

    @pytest.mark.parametrize(
        "folds",
        [
            "standard_train_fold=[",
            "x=1",
            "standard_train_fold=open('x')",
            'standard_train_fold=["a"]\nstandard_test_fold=["a"]',
            "standard_train_fold=3",
        ],
    )
    def test_folds_that_are_no_lists_of_videos_are_refused(self, folds, tmp_path):
        with pytest.raises(LabelTableError, match="std_folds"):
            corpus(tmp_path, folds=folds).collect()

    @pytest.mark.parametrize("cut", [0, 100, 2000])
    def test_a_sequence_that_is_cut_off_is_named(self, cut, tmp_path):
        config = corpus(tmp_path)
        path = tmp_path / "CMU_MOSEI_Labels.csd"
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(AffuseError, match=r"Labels\.csd"):
            config.collect()

    def test_a_file_of_other_arrays_is_refused(self, tmp_path):
        with h5py.File(tmp_path / "CMU_MOSEI_Labels.csd", "w") as file:
            file["x"] = np.zeros(3)
        config = from_mapping(mosei.Config, {"root": "r", "source": str(tmp_path)})
        with pytest.raises(LabelTableError, match="NAME/data/VIDEO/features"):
            config.collect()

    def test_a_sequence_that_takes_values_from_elsewhere_is_refused(self, tmp_path):
        config = corpus(tmp_path)
        with h5py.File(tmp_path / "CMU_MOSEI_Labels.csd", "a") as file:
            group = file["All Labels/data/w"]
            del group["features"]
            external = [(str(tmp_path / "secret"), 0, 56)]
            group.create_dataset("features", (1, 7), "f8", external=external)
        with pytest.raises(AffuseError, match="other files"):
            config.collect()

    def test_two_sequences_of_labels_are_asked_back(self, tmp_path):
        config = corpus(tmp_path)
        sequence(tmp_path / "old" / "labels.csd", "All Labels", LABELS)
        with pytest.raises(LabelTableError, match="keep one"):
            config.collect()
