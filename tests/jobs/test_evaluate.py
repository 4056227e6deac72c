"""evaluate: the one job that opens the test split, and every look is written down."""

from pathlib import Path

import numpy as np
import pytest

from cluster import storage
from cluster.errors import ConfigError
from fusion.tasks import Task
from jobs import ensemble, evaluate, train
from jobs.catalog import bundles, layout
from jobs.catalog.manifest import read_manifest
from jobs.catalog.predictions import as_target, matrix
from jobs.scoring import own_test_split
from jobs.scoring.opening import open_bundle


def fit(root: str, *, folds: str) -> None:
    fit_runs(root, folds=folds)
    ensemble.main(ensemble.Config(root=root, runs=("voice", "face"), task="emotion", resamples=100))


def fit_runs(root: str, *, folds: str | None = None) -> None:
    for name in ("voice", "face"):
        train.main(
            train.Config(
                root=root,
                inputs=(name,),
                tasks=("emotion",),
                net_options={"hidden": 8},
                epochs=30,
                lr=1e-2,
                pool="mean",
                run=name,
                folds=folds,
                tracking=False,
            )
        )


def look(root: str, **what) -> dict:
    config = evaluate.Config(root=root, resamples=100, **what)
    evaluate.main(config)
    return storage.read_json(f"{root}/evaluations/{config.name}/results.json")


def test_a_bundle_is_judged_on_test_rows_beside_its_members_and_baselines(root):
    fit(root, folds="speaker")
    results = look(root, bundle="ensemble")
    figures = {row["name"]: row["figures"] for row in results["rows"]}
    assert results["num_groups"] == 3
    assert figures["shipped"]["accuracy"]["value"] > figures["majority"]["accuracy"]["value"]
    assert set(figures) >= {"voice", "face", "plain mean", "unfitted log pool"}


def test_the_figure_is_that_of_the_published_predictions(root):
    fit(root, folds="speaker")
    results = look(root, bundle="ensemble")
    table = storage.read_table(f"{root}/evaluations/ensemble/predictions.parquet")
    assert set(table["role"].to_pylist()) == {"test"}
    target = as_target(matrix(table["target"], 1), "classification").numpy()
    guess = matrix(table["scores"], 3).argmax(1)
    ours = next(row for row in results["rows"] if row["name"] == "shipped")
    assert ours["figures"]["accuracy"]["value"] == pytest.approx(np.mean(guess == target))


def test_every_look_is_recorded(root, capsys):
    fit(root, folds="speaker")
    look(root, bundle="ensemble")
    assert "this is look 1" in capsys.readouterr().out
    look(root, runs=("voice",), task="emotion")
    assert "this is look 2" in capsys.readouterr().out
    names = storage.names(f"{root}/looks")
    assert {storage.read_json(f"{root}/looks/{name}")["of"] for name in names} == {
        "shipped",
        "voice",
    }


def test_nothing_that_train_and_ensemble_write_depends_on_the_test_split(write_root, tmp_path):
    written = []
    for seed in (None, 1):
        root = write_root(str(tmp_path / f"noise{seed}"), noise_on_test=seed)
        fit(root, folds="speaker")
        base = layout.bundle_uri(root, "ensemble")
        facts = storage.read_json(f"{base}/bundle.json")
        del facts["config"]
        for member in facts["members"]:
            del member["card"]["facts"]["seconds"]
        nets = storage.read_bytes(f"{base}/nets/face/seed=0/model.safetensors")
        written.append((facts, storage.read_json(f"{base}/results.json"), nets))
    assert written[0] == written[1]


def test_a_run_of_a_fixed_split_speaks_through_the_nets_of_that_split(root):
    fit_runs(root)
    results = look(root, runs=("voice", "face"), task="emotion")
    assert results["num_rows"] == 24
    assert results["gain_over_single"] is None


def test_a_valid_split_of_one_person_is_refused_for_fitting(root):
    fit_runs(root)
    with pytest.raises(ConfigError, match="all of one group"):
        ensemble.main(ensemble.Config(root=root, runs=("voice", "face"), task="emotion"))


def test_without_a_test_split_the_cross_fitted_figure_is_shown_and_no_look_counted(root, capsys):
    fit(root, folds="speaker")
    for number in (6, 7, 8):
        storage.remove(f"{root}/manifest/abc/part-{number}.parquet")
    evaluate.main(evaluate.Config(root=root, bundle="ensemble"))
    assert "no test split" in capsys.readouterr().out
    assert storage.names(f"{root}/looks") == []


def test_a_clip_without_one_modality_is_still_judged(root):
    fit(root, folds="speaker")
    facts = bundles.read_bundle(root, "ensemble")
    assert [member["run"] for member in facts["members"]] == ["voice", "face"]
    task = Task(kind="classification", classes=("calm", "glad", "sad"))
    speakers = evaluate.members_of(evaluate.Config(root=root, bundle="ensemble"))
    held = own_test_split.test_rows(root, speakers, "emotion", task)
    assert held.members.present.all()


@pytest.mark.parametrize("what", [{}, {"bundle": "a", "runs": ("b",)}])
def test_either_a_bundle_or_runs_are_named(what):
    with pytest.raises(ConfigError, match="name either --bundle or --runs"):
        evaluate.Config(root="r", **what)


def test_a_bundle_that_reads_imported_predictions_is_refused_and_one_that_drops_them_is_not(
    root, tmp_path
):
    manifest = read_manifest(root, ["name", "group", "split"]).to_pylist()
    held = [row for row in manifest if row["split"] != "test"]
    noise = np.random.default_rng(0).dirichlet([1, 1, 1], len(held))
    file = str(tmp_path / "theirs.csv")
    lines = ["name,fold,role,calm,glad,sad"]
    for row, p in zip(held, noise.tolist(), strict=True):
        lines.append(f"{row['name']},{int(row['group'][1:]) % 3},oof,{p[0]},{p[1]},{p[2]}")
    Path(file).write_text("\n".join(lines))
    ensemble.main(ensemble.Config(root=root, task="emotion", imported=(file,), resamples=100))
    for ask in (lambda: look(root, bundle="ensemble"), lambda: open_bundle("ensemble", root)):
        with pytest.raises(ConfigError, match=r"imported predictions.*: theirs"):
            ask()
    facts = bundles.read_bundle(root, "ensemble")
    bundles.check_speaks_of_others(facts | {"rule": {"members": ["voice"]}})
