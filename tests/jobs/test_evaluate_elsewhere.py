"""evaluate --on: a model of one dataset judged on another, by the names of the labels."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cluster import storage, tables
from cluster.errors import ConfigError, NotPreparedError
from jobs import ensemble, evaluate
from jobs.catalog import layout
from jobs.catalog.manifest import read_manifest
from jobs.catalog.predictions import matrix
from tests.jobs.test_evaluate import fit, fit_runs

NAMES = {"calm": "Calm", "glad": "joyful", "sad": "bored"}
"""Classes of the other dataset: one in other letters, one under another name, one that is none of ours."""


@pytest.fixture
def other(write_root, tmp_path):
    """The same clips and features with other labels, and no split."""
    root = write_root(str(tmp_path / "other"))
    facts = storage.read_json(layout.dataset_uri(root))
    facts["name"] = "elsewhere"
    facts["tasks"] = {"mood": {"kind": "classification", "classes": ["bored", "Calm", "joyful"]}}
    storage.publish_json(facts, layout.dataset_uri(root))
    rename_labels(root)
    return root


def rename_labels(root):
    for file in storage.names(layout.manifest_uri(root, "abc"), ".parquet"):
        uri = layout.manifest_uri(root, "abc", file)
        rows = storage.read_table(uri).to_pylist()
        for row in rows:
            row["mood"] = NAMES.get(row.pop("emotion"))
            row["split"] = None
            row.pop("arousal", None)
        plain = tables.MANIFEST.schema
        kept = {f.name: pa.array([row.get(f.name) for row in rows], f.type) for f in plain}
        table = pa.table({**kept, "mood": pa.array([row["mood"] for row in rows])})
        storage.publish_table(tables.MANIFEST.conform(table), uri)


def on(root, other, **more):
    config = evaluate.Config(root=root, on=other, resamples=100, labels={"joyful": "glad"}, **more)
    evaluate.main(config)
    return storage.read_json(layout.evaluation_uri(root, config.name, layout.RESULTS))


def test_a_bundle_is_judged_over_the_common_classes_and_says_what_it_loses(root, other, capsys):
    fit(root, folds="speaker")
    before = set(Path(other).rglob("*"))
    results = on(root, other, bundle="ensemble")
    labels = read_manifest(other, ["mood"])["mood"].to_pylist()
    facts = results["on"]
    assert facts["classes"] == ["calm", "glad"]
    assert facts["dropped_classes"] == ["sad"]
    assert facts["left_out"] == {"bored": labels.count("bored")}
    assert (facts["rows"], facts["dataset"]) == ("all", "elsewhere")
    assert results["num_rows"] == labels.count("Calm") + labels.count("joyful")
    said = capsys.readouterr().out
    assert "not in the other dataset: sad" in said
    assert "this is look 1 at the clips" in said
    made = {str(path.relative_to(other)) for path in set(Path(other).rglob("*")) - before}
    assert {name.split("/")[0] for name in made} == {"looks"}


def test_the_figures_are_those_of_an_obvious_reader(root, other):
    fit(root, folds="speaker")
    results = on(root, other, bundle="ensemble")
    base = layout.evaluation_uri(root, "ensemble-on-elsewhere-abc", layout.PREDICTIONS)
    table = storage.read_table(base)
    mood = read_manifest(other, ["clip_id", "mood"]).to_pydict()
    wanted = dict(zip(mood["clip_id"], mood["mood"], strict=True))
    guess = matrix(table["scores"], 2).argmax(1)
    truth = [["Calm", "joyful"].index(wanted[clip]) for clip in table["clip_id"].to_pylist()]
    there = float(np.mean(guess == truth))
    lost = results["on"]["lost"][0]
    assert lost["elsewhere"] == pytest.approx(there)
    own = storage.read_table(layout.bundle_uri(root, "ensemble", layout.PREDICTIONS))
    scores, target = matrix(own["scores"], 3), matrix(own["target"], 1)[:, 0]
    kept = target < 2
    here = float(np.mean(scores[kept][:, :2].argmax(1) == target[kept]))
    assert (lost["own"], lost["role"]) == (pytest.approx(here), "oof")
    assert lost["drop"] == pytest.approx(here - there)
    assert lost["low"] <= lost["drop"] <= lost["high"]


def test_runs_are_judged_each_and_what_was_looked_at_is_their_own_figure(root, other):
    fit_runs(root)
    evaluate.main(evaluate.Config(root=root, runs=("voice",), task="emotion", resamples=100))
    lost = on(root, other, runs=("voice", "face"), task="emotion")["on"]["lost"]
    assert [(each["of"], each["role"]) for each in lost] == [("voice", "test"), ("face", "valid")]


def test_where_there_is_a_test_split_only_it_is_read(root, other):
    fit_runs(root)
    for part in range(6, 9):
        uri = layout.manifest_uri(other, "abc", f"part-{part}.parquet")
        table = storage.read_table(uri)
        place = table.column_names.index("split")
        storage.publish_table(table.set_column(place, "split", [["test"] * len(table)]), uri)
    results = on(root, other, runs=("voice",), task="emotion")
    assert results["on"]["rows"] == "test"
    assert results["num_groups"] == 3
    with pytest.raises(ConfigError, match="nothing is fitted on"):
        on(root, other, runs=("voice",), task="emotion", predictions="p.parquet")


def test_members_of_another_root_join_an_ensemble_by_the_names_of_the_labels(root, other, tmp_path):
    fit_runs(root)
    files = []
    for run in ("voice", "face"):
        files.append(str(tmp_path / f"{run}.parquet"))
        on(root, other, runs=(run,), task="emotion", predictions=files[-1])
    told = storage.read_table(files[0]).to_pydict()
    assert set(told) == {"name", "fold", "role", "bored", "Calm", "joyful"}
    assert told["bored"] == [0.0] * len(told["name"])
    assert np.allclose(np.array(told["Calm"]) + np.array(told["joyful"]), 1)
    ensemble.main(
        ensemble.Config(
            root=other, imported=tuple(files), rule="mean", resamples=100, tracking=False
        )
    )
    results = storage.read_json(layout.bundle_uri(other, "ensemble", layout.RESULTS))
    assert {row["name"] for row in results["rows"]} >= {"voice", "face", "shipped"}


def test_features_that_are_not_there_are_named_with_what_to_type(root, other):
    fit_runs(root)
    storage.remove_tree(layout.features_uri(other, "voice-1"))
    with pytest.raises(NotPreparedError, match="voice"):
        on(root, other, runs=("voice",), task="emotion")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"labels": {"a": "b"}}, "--on"),
        ({"predictions": "p.parquet"}, "--on"),
        ({"on": "x", "predictions": "p.csv"}, "a name in .parquet"),
    ],
)
def test_flags_that_mean_nothing_are_refused(flags, said):
    with pytest.raises(ConfigError, match=said):
        evaluate.Config(root="r", bundle="b", **flags)


def test_a_task_of_another_kind_is_refused(root, other):
    fit_runs(root)
    facts = storage.read_json(layout.dataset_uri(other))
    facts["tasks"] = {"mood": {"kind": "regression"}}
    storage.publish_json(facts, layout.dataset_uri(other))
    with pytest.raises(
        ConfigError, match="is a regression, the model's 'emotion' a classification"
    ):
        on(root, other, runs=("voice",), task="emotion")
