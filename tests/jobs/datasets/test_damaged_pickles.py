"""Damaged pickles of the MMSA family are refused, by each adapter that reads them."""

import os
import pickle

import numpy as np
import pytest

from cluster.errors import AffuseError, ConfigError, LabelTableError
from jobs.interop.pickle_names import UnsafePickleError
from tests.jobs.datasets.official_layouts import LAYOUTS
from tests.jobs.datasets.test_conformance import config_of
from tests.jobs.preparing.clip_rows import checked

NAMES = ["influencer_empathy", "mmsa", "mosei", "sims"]


class Runs:
    def __reduce__(self):
        return (os.system, ("true",))


def pickle_of(name, folder):
    folder.mkdir()
    LAYOUTS[name](folder)
    return next(folder.rglob("*.pkl"))


def collected(name, file):
    """Read by name; the small copy is written elsewhere, so that the file stays as it is."""
    elsewhere = file.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    return config_of(name, elsewhere, source=str(file)).collect()


def read_damaged(name, folder, damage):
    file = pickle_of(name, folder)
    content = pickle.loads(file.read_bytes())
    damage(content)
    file.write_bytes(pickle.dumps(content))
    return checked(collected(name, file))


def labels_of(part):
    return "labels" if "labels" in part else "regression_labels"


@pytest.mark.parametrize("name", NAMES)
class TestOfTheFamily:
    @pytest.mark.parametrize("array", ["text", "audio", "vision"])
    def test_features_of_other_clips_than_the_labels_are_refused(self, name, array, tmp_path):
        def shift(content):
            values = content["test"][array]
            content["test"][array] = np.concatenate([values, values[:1]])

        with pytest.raises(LabelTableError, match=f"test has rows of .*{array}"):
            read_damaged(name, tmp_path / "source", shift)

    def test_labels_of_fewer_clips_are_refused(self, name, tmp_path):
        def shorten(content):
            key = labels_of(content["test"])
            content["test"][key] = content["test"][key][:-1]

        with pytest.raises(LabelTableError, match="test has rows of"):
            read_damaged(name, tmp_path / "source", shorten)

    def test_labels_that_are_words_are_refused(self, name, tmp_path):
        def spell(content):
            part = content["test"]
            part[labels_of(part)] = ["much"] * len(part["text"])

        with pytest.raises(LabelTableError, match="not one number a clip"):
            read_damaged(name, tmp_path / "source", spell)

    def test_what_would_run_something_is_refused(self, name, tmp_path):
        with pytest.raises(UnsafePickleError, match="system"):
            read_damaged(name, tmp_path / "source", lambda content: content.update(info=Runs()))

    def test_half_a_file_is_refused(self, name, tmp_path):
        file = pickle_of(name, tmp_path / "source")
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(AffuseError, match=file.name):
            collected(name, file)

    def test_two_pickles_in_one_folder_are_a_question(self, name, tmp_path):
        file = pickle_of(name, tmp_path / "source")
        file.with_name("other.pkl").write_bytes(file.read_bytes())
        with pytest.raises(ConfigError, match=r"several pickles.*other\.pkl"):
            collected(name, file.parent)


@pytest.mark.parametrize("name", ["mmsa", "mosei", "sims"])
def test_an_id_that_stands_twice_is_a_fault(name, tmp_path):
    def twin(content):
        content["train"]["id"] = ["v$_$1", "v$_$1"]

    with pytest.raises(LabelTableError, match="stands twice"):
        read_damaged(name, tmp_path / "source", twin)


@pytest.mark.parametrize(("name", "score"), [("mosei", 3.5), ("sims", 1.5)])
def test_a_score_outside_the_range_of_its_corpus_is_a_fault(name, score, tmp_path):
    def exceed(content):
        content["test"]["regression_labels"][0] = score

    with pytest.raises(LabelTableError, match=str(score)):
        read_damaged(name, tmp_path / "source", exceed)


def test_features_of_another_width_are_refused_by_their_shape(tmp_path):
    def exchange(content):
        content["test"]["vision"] = content["test"]["audio"]

    with pytest.raises(LabelTableError, match=r"vision.*\[3, 2, 74\], expected .* 35"):
        read_damaged("influencer_empathy", tmp_path / "source", exchange)


def test_films_with_a_label_table_are_read_by_the_name_of_their_corpus(tmp_path):
    LAYOUTS["mosi"](tmp_path)
    result = collected("mosei", tmp_path)
    assert (result.name, result.tasks["sentiment"].range) == ("mosei", (-3.0, 3.0))
    assert result.rows[0].video.uri.endswith("Raw/v0/0.mp4")
