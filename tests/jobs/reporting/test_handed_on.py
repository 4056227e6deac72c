"""What a report hands on: errors by group, what answers rest on, every answer as JSON, data as CSV."""

import csv
import io
import json
import re

import numpy as np
import pyarrow as pa
import pytest

from cluster import storage, tables
from jobs import ensemble, explain, report, train
from jobs.catalog import layout
from jobs.reporting.page import STYLE_SHEET
from jobs.reporting.sections_people import by_value

AGES = ("21", "25", "34", "38", "52", "60", "70", "71", "72")


@pytest.fixture(scope="module")
def root(write_root, tmp_path_factory):
    """Nine people with a gender and an age; a bundle of two nets, explained."""
    root = write_root(str(tmp_path_factory.mktemp("handed") / "root"))
    for each in range(9):
        uri = f"{root}/manifest/abc/part-{each}.parquet"
        table = storage.read_table(uri)
        person = {"gender": "fm"[each % 2], "age": AGES[each]}
        column = pa.array([person] * len(table))
        storage.publish_table(tables.MANIFEST.conform(table.append_column("profile", column)), uri)
    facts = storage.read_json(f"{root}/dataset.json")
    storage.publish_json({**facts, "profile": ["gender", "age"]}, f"{root}/dataset.json")
    for name in ("voice", "face"):
        train.main(
            train.Config(
                root=root, run=name, inputs=(name,), net="linear", folds="speaker", refit=True,
                tasks=("emotion",), tracking=False,
            )
        )  # fmt: skip
    fuse(root)
    explain.main(explain.Config(root=root, bundle="ensemble", resamples=100))
    return root


def fuse(root, runs=("voice", "face")):
    ensemble.main(ensemble.Config(root=root, runs=runs, task="emotion", resamples=100))


@pytest.fixture(scope="module")
def made(root):
    where = report.main(report.Config(root=root, bundle="ensemble", resamples=100))
    return where.rsplit("/", 1)[0], storage.read_bytes(where).decode()


def rows_of(folder, name):
    return list(csv.reader(io.StringIO(storage.read_bytes(f"{folder}/{name}.csv").decode())))


class TestPeople:
    def test_the_figure_stands_by_every_profile_field_with_n_and_groups(self, made):
        header, *rows = rows_of(made[0], "people")
        assert header == ["field", "value", "n", "groups", "accuracy"]
        assert {row[1] for row in rows if row[0] == "gender"} == {"f", "m"}
        assert all(" to " in row[1] for row in rows if row[0] == "age")
        assert {row[0] for row in rows} == {"age", "gender"}
        clips = sum(int(row[2]) for row in rows if row[0] == "gender")
        assert clips == json.loads(storage.read_bytes(f"{made[0]}/results.json"))["dataset_size"]
        assert "is a reason to look, and not to use it for these people" in made[1]

    def test_values_of_one_person_are_left_out(self, made):
        assert all(int(row[3]) >= 2 for row in rows_of(made[0], "people")[1:])

    @pytest.mark.parametrize(
        ("values", "names"),
        [
            (["1", "2", "3"], ["1", "2", "3"]),
            ([None, None], []),
            (["nan", "1", "2", "3", "4"], ["nan", "1", "2", "3", "4"]),
            ([1, 2, 3, 4, 5, 6], ["1 to 2", "3 to 4", "5 to 6"]),
            (["x"] * 3 + [None] + ["y"], ["x", "y"]),
        ],
    )
    def test_numbers_are_cut_into_bands_and_words_are_not(self, values, names):
        found = by_value(values)
        assert [name for name, _ in found] == names
        known = [at for at, value in enumerate(values) if value is not None]
        assert sorted(np.concatenate([np.empty(0, int), *(rows for _, rows in found)])) == known


class TestWhatAnswersRestOn:
    def test_every_modality_alone_and_shuffled_stands_in_the_report(self, made):
        assert "What answers rest on" in made[1]
        assert [row[0] for row in rows_of(made[0], "alone")[1:]] == [
            "audio",
            "video",
            "audio + video",
        ]
        assert {row[0] for row in rows_of(made[0], "shuffled")[1:]} == {"audio", "video"}
        assert {row[0] for row in rows_of(made[0], "member_adds")[1:]} <= {"voice", "face"}

    def test_what_was_said_of_a_former_bundle_is_not_shown(self, root, tmp_path):
        import shutil

        copy = str(shutil.copytree(root, tmp_path / "copy"))
        fuse(copy, ("voice",))
        where = report.main(report.Config(root=copy, bundle="ensemble", resamples=100))
        assert "What answers rest on" not in storage.read_bytes(where).decode()


class TestResultsAsJson:
    def test_has_the_fields_that_scripts_read(self, root, made):
        found = json.loads(storage.read_bytes(f"{made[0]}/results.json"))
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", found["timestamp"])
        accuracy = found["overall_metrics"]["accuracy"]
        assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
        per_class, matrix = found["per_class_metrics"], found["confusion_matrix"]
        assert per_class["labels"] == matrix["labels"] == ["calm", "glad", "sad"]
        assert [sum(row) for row in matrix["rows_true"]] == per_class["support"]
        rows = found["detailed_predictions"]
        assert len(rows) == found["dataset_size"]
        right = [row["correct"] for row in rows if row["predicted"] is not None]
        assert sum(right) == sum(matrix["rows_true"][k][k] for k in range(3))
        assert all(sum(row["probabilities"].values()) == pytest.approx(1) for row in rows)

    @pytest.mark.parametrize("task", ["arousal"])
    def test_of_a_regression_too(self, root, task):
        train.main(
            train.Config(
                root=root, run="value", inputs=("voice",), net="linear", folds="speaker",
                tasks=(task,), pool="mean", tracking=False,
            )
        )  # fmt: skip
        where = report.main(report.Config(root=root, runs=("value",), task=task, resamples=100))
        found = json.loads(storage.read_bytes(where.replace(layout.REPORT, layout.RESULTS)))
        assert {"mae", "ccc"} <= set(found["overall_metrics"])
        assert all(isinstance(row["true"], float) for row in found["detailed_predictions"])
        values = rows_of(where.rsplit("/", 1)[0], "values")
        assert values[0] == ["clip", "true", "predicted"]
        assert len(values) == len(found["detailed_predictions"]) + 1


class TestThePage:
    def test_every_picture_says_on_how_many_clips_and_people_it_stands(self, made):
        captions = re.findall(r"<figure><img [^>]*><figcaption>([^<]*)</figcaption>", made[1])
        assert len(captions) == made[1].count("<img ")
        assert all(re.fullmatch(r"\d+ held-out clips of \d+ groups", each) for each in captions)

    def test_the_data_of_every_picture_lie_beside_it(self, made):
        tables_there = {name.removesuffix(".csv") for name in storage.names(made[0], ".csv")}
        for picture in storage.names(made[0], ".png"):
            assert picture.removesuffix(".png") in tables_there

    def test_it_is_for_light_and_dark_and_for_a_telephone(self):
        assert "prefers-color-scheme: dark" in STYLE_SHEET
        assert "max-width: 40rem" in STYLE_SHEET
        light, _, dark = STYLE_SHEET.partition("prefers-color-scheme: dark")
        names = set(re.findall(r"--(\w+):", light))
        assert names == set(re.findall(r"--(\w+):", dark))

    def test_it_says_what_it_is_not_for(self, made):
        assert "Article 5(1)(f)" in made[1]
