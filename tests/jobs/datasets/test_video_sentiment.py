"""Cuts of films are labelled by their names; the votes of three classifiers become members."""

import csv

import pytest

from cluster.errors import LabelTableError
from jobs import prepare
from jobs.interop.import_predictions import imported
from tests.jobs.datasets.official_layouts import VOTES, write_csv
from tests.jobs.datasets.test_conformance import config_of
from tests.jobs.preparing.clip_rows import checked


def test_cuts_of_one_film_stay_together(tmp_path):
    result = config_of("video_sentiment", tmp_path).collect()
    assert [(row.name, row.group, row.labels["sentiment"]) for row in checked(result)] == [
        ("Conjuring2_91.5-92.0_0.mp4", "Conjuring2", "negative"),
        ("The_Conjuring_73.0-73.5_1_0.mp4", "The_Conjuring", "negative"),
        ("pos_hero1801.mp4", "pos_hero", "positive"),
    ]
    assert result.rows[2].video.uri.endswith("pos_hero1801.mp4")


def test_answers_become_members_that_an_ensemble_takes(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    config = config_of("video_sentiment", source, predictions=str(tmp_path / "votes"))
    prepare.main(config)
    task = config.collect().tasks["sentiment"]
    rows = {
        member: imported(config.root, str(tmp_path / "votes" / f"{member}.csv"), "sentiment", task)
        for member in ("text", "audio", "image")
    }
    assert {member: len(found.clip_id) for member, found in rows.items()} == {
        "text": 3, "audio": 2, "image": 3,
    }  # fmt: skip
    assert (rows["image"].scores.argmax(1) == rows["image"].target[:, 0]).all()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([["a_1-2_0.mp4", 1, "", 0, 0, 0]], "label '1' of a_1-2_0.mp4, expected 0"),
        ([["a_1-2_0.mp4", 0, "", 2, 0, 0]], "text_pred '2'"),
        ([["holiday.mp4", 0, "", 0, 0, 0]], "does not end in its label"),
        ([["a_1-2_0.mp4", 0, "", 0, 0, 0]] * 2, "stands twice"),
    ],
    ids=["shifted", "no answer", "no label", "twin"],
)
def test_a_damaged_table_is_a_fault(rows, said, tmp_path):
    config = config_of("video_sentiment", tmp_path)
    write_csv(tmp_path / "final_result.csv", VOTES, rows)
    with pytest.raises(LabelTableError) as caught:
        checked(config.collect())
    assert said in str(caught.value)


def test_votes_without_a_table_of_answers_are_refused(tmp_path):
    config = config_of("video_sentiment", tmp_path, predictions=str(tmp_path / "votes"))
    (tmp_path / "final_result.csv").unlink()
    with pytest.raises(LabelTableError, match=r"--predictions needs final_result\.csv"):
        config.collect()


def test_words_of_another_encoding_are_read(tmp_path):
    config = config_of("video_sentiment", tmp_path)
    table = tmp_path / "final_result.csv"
    text = table.read_text(encoding="utf-8")
    table.write_bytes(text.encode("utf-16"))
    rows = list(csv.DictReader(text.splitlines()))
    assert checked(config.collect())[2].text == rows[2]["text"]
