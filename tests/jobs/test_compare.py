"""compare: paired differences over people, on rows nobody trained on, corrected for how many were made."""

import csv
import io

import numpy as np
import pyarrow as pa
import pytest

from cluster import storage
from cluster.errors import ConfigError, NotPreparedError
from cluster.tables import PREDICTIONS
from jobs import compare
from jobs.catalog import bundles

PEOPLE, EACH = 9, 8


def add_run(root, name, *, skill, seeds=(0, 1), role="oof", normalise="none", clips=None):
    """Predictions of a run that knows so much, in the form that train publishes."""
    count = PEOPLE * EACH
    target = np.random.default_rng(0).integers(3, size=count)
    base = f"{root}/runs/{name}"
    facts = {"folds": "speaker", "normalise": normalise}
    storage.publish_json(facts, f"{base}/config.json")
    kept = np.arange(count) if clips is None else np.asarray(clips)
    for seed in seeds:
        noise = np.random.default_rng([seed, len(name)]).normal(size=(count, 3))
        scores = noise + skill * np.eye(3)[target]
        table = pa.table(
            {
                "clip_id": kept + 100,
                "run": [name] * len(kept),
                "split": pa.nulls(len(kept), pa.string()),
                "fold": np.zeros(len(kept), np.int64),
                "seed": [seed] * len(kept),
                "task": ["emotion"] * len(kept),
                "target": [[float(t)] for t in target[kept]],
                "role": [role] * len(kept),
                "scores": scores[kept].tolist(),
            }
        )
        storage.publish_table(
            PREDICTIONS.conform(table), f"{base}/fold=0/seed={seed}/predictions.parquet"
        )


def run(root, **options):
    config = compare.Config(root=root, task="emotion", resamples=300, **options)
    compare.main(config)
    base = compare.comparison_uri(config)
    return storage.read_json(f"{base}/results.json"), base


def test_a_better_run_gains_and_an_equal_one_does_not(root):
    add_run(root, "weak", skill=0.8)
    add_run(root, "strong", skill=3.0)
    add_run(root, "similar", skill=0.8)
    results, _ = run(root, runs=("weak", "strong", "similar"))
    rows = {row["name"]: row for row in results["rows"]}
    assert rows["weak"]["gain"] is None
    assert rows["strong"]["gain"]["low"] > 0
    assert rows["similar"]["gain"]["low"] < 0 < rows["similar"]["gain"]["high"]
    assert rows["strong"]["p_holm"] >= rows["strong"]["gain"]["p_value"]
    assert results["num_groups"] == PEOPLE


def test_the_first_figure_decides_and_losses_are_turned(root):
    add_run(root, "weak", skill=0.8)
    add_run(root, "strong", skill=3.0)
    results, _ = run(root, runs=("weak", "strong"), metrics=("nll", "ece"))
    strong = results["rows"][1]
    assert set(strong["figures"]) == {"nll", "ece"}
    assert strong["gain"]["value"] > 0


def test_the_table_says_protocol_seeds_and_n(root, capsys):
    add_run(root, "weak", skill=0.8, seeds=(0, 1, 2))
    add_run(root, "strong", skill=3.0, seeds=(4,))
    _, base = run(root, runs=("weak", "strong"), name="both")
    assert base.endswith("comparisons/both")
    lines = list(csv.DictReader(io.StringIO(storage.read_bytes(f"{base}/table.csv").decode())))
    assert [line["seeds"] for line in lines] == ["3", "1"]
    assert lines[0]["protocol"] == "out of fold by speaker"
    assert lines[1]["sd over seeds"] == ""
    latex = storage.read_bytes(f"{base}/table.tex").decode()
    assert "72 clips of 9 groups" in latex
    assert r"\textbf{strong}" in latex
    assert "only 9 groups" in capsys.readouterr().out


def test_only_clips_that_all_have_are_compared(root):
    add_run(root, "weak", skill=0.8)
    add_run(root, "strong", skill=3.0, clips=range(40))
    results, _ = run(root, runs=("weak", "strong"))
    assert results["num_clips"] == 40


def test_a_bundle_stands_beside_runs_by_its_cross_fitted_rows(root):
    add_run(root, "weak", skill=0.8)
    add_run(root, "fused", skill=3.0, seeds=(0,))
    table = storage.read_bytes(f"{root}/runs/fused/fold=0/seed=0/predictions.parquet")
    bundles.publish(
        root, "best", {"members": [], "task": "emotion"}, {"predictions.parquet": table}
    )
    results, _ = run(root, runs=("weak",), bundles=("best",))
    assert [row["protocol"] for row in results["rows"]][1] == "cross-fitted"
    with pytest.raises(NotPreparedError, match="no predictions of a bundle 'bst'; bundles: best"):
        run(root, runs=("weak",), bundles=("bst",))


def test_normalised_figures_never_stand_beside_raw_ones(root):
    add_run(root, "raw", skill=0.8)
    add_run(root, "own", skill=3.0, normalise="speaker")
    with pytest.raises(ConfigError, match="are not compared with others"):
        run(root, runs=("raw", "own"))


def test_runs_without_a_common_clip_are_refused(root):
    add_run(root, "first", skill=0.8, clips=range(10))
    add_run(root, "second", skill=0.8, clips=range(20, 30))
    with pytest.raises(ConfigError, match="no held-out clip in common"):
        run(root, runs=("first", "second"))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"runs": ("a",)}, "at least two"),
        ({"runs": ("a", "b"), "metrics": ("acuracy",)}, "did you mean 'accuracy'"),
        ({"runs": ("a", "b"), "level": 95}, "--level 95: expected between 0 and 1"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(options, match):
    with pytest.raises(ConfigError, match=match):
        compare.Config(root="r", **options)


def test_a_metric_of_another_kind_is_refused(root):
    add_run(root, "a", skill=1.0)
    add_run(root, "b", skill=1.0)
    with pytest.raises(ConfigError, match="--metrics mae: not for a task of classification"):
        run(root, runs=("a", "b"), metrics=("mae",))
