"""Ensembles: judged on rows nobody trained on, shipped with everything that scoring needs."""

import json
import re

import numpy as np
import pyarrow as pa
import pytest
import torch

from cluster import storage, tables
from cluster.errors import ConfigError, NotPreparedError, SchemaError, TableError, TestSplitError
from fusion.late import rule_from_state
from fusion.late.conformal import Conformal
from fusion.late.presence import HeldRows, left_out
from jobs import ensemble
from jobs.catalog import bundles, layout
from jobs.catalog.predictions import predictions_uri, write_predictions
from jobs.evaluation import cross_fitting
from jobs.scoring.member_nets import Fusion

CLASSES = ("anger", "joy", "fear")
PEOPLE, EACH = 15, 12


@pytest.fixture
def root(tmp_path):
    """Two members that are right about different things, and one that knows nothing."""
    root = str(tmp_path / "root")
    generator = np.random.default_rng(0)
    count = PEOPLE * EACH
    target = generator.integers(0, 3, count)
    prepare(root, target)
    for name, skill in {"voice": (0, 1), "face": (1, 2), "noise": ()}.items():
        scores = generator.normal(size=(count, 3))
        for index in skill:
            scores[:, index] += 2.5 * (target == index)
        add_run(root, name, target, scores)
    return root


def prepare(root: str, target: np.ndarray) -> None:
    count = len(target)
    people = [f"p{row // EACH}" for row in range(count)]
    empty = {
        field.name: pa.nulls(count, field.type)
        for field in tables.MANIFEST.schema
        if field.name not in ("clip_id", "name", "unit", "speaker", "group")
    }
    rows = {
        "clip_id": np.arange(count),
        "name": [f"clip{row}" for row in range(count)],
        "unit": people,
        "speaker": people,
        "group": people,
        "mood": [CLASSES[label] for label in target],
        **empty,
    }
    table = tables.MANIFEST.conform(pa.table(rows))
    storage.publish_table(table, storage.join(root, "manifest", "h", "part-0.parquet"))
    task = {"kind": "classification", "classes": list(CLASSES)}
    storage.publish_json(
        {"name": "tiny", "manifest": "h", "tasks": {"mood": task}},
        storage.join(root, "dataset.json"),
    )


def add_run(root: str, name: str, target: np.ndarray, scores: np.ndarray, *, role="oof") -> None:
    fold_of = (np.arange(len(target)) // EACH) % 3
    for fold in range(3):
        at = np.flatnonzero(fold_of == fold)
        rows = {
            "clip_id": at,
            "run": [name] * len(at),
            "split": pa.nulls(len(at), pa.string()),
            "fold": [fold] * len(at),
            "seed": [0] * len(at),
            "task": ["mood"] * len(at),
            "target": [[float(target[row])] for row in at],
            "role": [role] * len(at),
            "scores": scores[at].tolist(),
        }
        write_predictions(root, name, fold, 0, pa.table(rows))
    for file in bundles.NET_FILES:
        content = b"{}" if file.endswith(".json") else name.encode()
        storage.publish_bytes(content, storage.join(root, "runs", name, "refit", "seed=0", file))


def run(root, **options):
    ensemble.main(ensemble.Config(root=root, resamples=200, **options))
    base = layout.bundle_uri(root, options.get("bundle", "ensemble"))
    return storage.read_json(storage.join(base, "results.json")), base


class TestWhatIsClaimed:
    def test_complementary_members_gain_and_the_gain_is_stated_with_its_interval(self, root):
        results, _ = run(root, runs=("voice", "face"))
        gain = results["gain_over_single"]
        assert 0 < gain["low"] < gain["value"] < gain["high"]
        assert results["verdict"].startswith("gain shown")
        assert (results["num_rows"], results["num_groups"]) == (PEOPLE * EACH, PEOPLE)

    def test_a_member_with_itself_shows_no_gain(self, root):
        results, _ = run(root, runs=("voice", "noise"))
        assert results["verdict"].startswith("no gain shown")

    def test_a_bundle_says_how_often_its_sets_hold_the_truth_for_people_left_out(
        self, root, capsys
    ):
        _, base = run(root, runs=("voice", "face"))
        state = storage.read_json(storage.join(base, "bundle.json"))["conformal"]
        fitted = Conformal.from_state(state)
        assert (fitted.kind, fitted.groups) == ("classification", PEOPLE)
        assert 0 < float(fitted.allowed(0.9)[0]) < 1
        table = storage.read_table(storage.join(base, "predictions.parquet"))
        scores = torch.tensor(table["scores"].to_pylist())
        truth = torch.tensor(table["target"].to_pylist())[:, 0].long()
        people = [clip // EACH for clip in table["clip_id"].to_pylist()]
        again = Conformal.fit("classification", scores, truth, people)
        assert again.thresholds[0] == pytest.approx(fitted.thresholds[0])
        (line,) = re.findall(r"coverage 0\.9: (0\.\d+) measured", capsys.readouterr().out)
        covered, _ = left_out(HeldRows.alike("classification", scores, truth, people), 0.9)
        assert float(line) == pytest.approx(float(covered.mean()), abs=6e-4)

    def test_every_baseline_stands_in_the_table(self, root):
        results, _ = run(root, runs=("voice", "face"))
        assert [row["name"] for row in results["rows"]] == [
            "majority",
            "voice",
            "face",
            "plain mean",
            "calibrated mean",
            "unfitted log pool",
            "ensemble",
            "shipped",
        ]

    def test_a_rows_own_fold_never_touches_its_verdict(self, root):
        config = ensemble.Config(root=root, runs=("voice", "face"))
        held = ensemble.held_out(
            root, config.runs, "mood", ensemble.read_dataset(root).tasks["mood"]
        )
        before = cross_fitting.cross_fitted(
            held, [cross_fitting.Candidate(rule="log_pool")], held.fold
        )
        changed = held.target.clone()
        changed[torch.from_numpy(held.fold == 1)] = 0
        held = ensemble.HeldOut(
            clip_id=held.clip_id, fold=held.fold, target=changed, members=held.members
        )
        after = cross_fitting.cross_fitted(
            held, [cross_fitting.Candidate(rule="log_pool")], held.fold
        )
        at = torch.from_numpy(held.fold == 1)
        torch.testing.assert_close(before.scores[at], after.scores[at], rtol=0, atol=0)
        assert not torch.equal(before.scores[~at], after.scores[~at])


class TestTheBundle:
    def test_it_holds_the_nets_and_the_rule_that_reproduces_the_fusion(self, root):
        _, base = run(root, runs=("voice", "face"), bundle="both")
        bundle = bundles.read_bundle(root, "both")
        rule = rule_from_state(bundle["rule"])
        assert rule.names == ("voice", "face")
        assert sum(bundle["member_weights"].values()) == pytest.approx(1)
        copied = storage.join(base, "nets", "face", "seed=0", "model.safetensors")
        assert storage.read_bytes(copied) == b"face"

    def test_its_predictions_have_the_form_of_a_run(self, root):
        _, base = run(root, runs=("voice", "face"))
        table = storage.read_table(storage.join(base, "predictions.parquet"))
        tables.PREDICTIONS.check(table.schema, where="predictions")
        assert sorted(table["clip_id"].to_pylist()) == list(range(PEOPLE * EACH))

    def test_auto_ships_the_plain_pool_where_fitting_shows_no_gain(self, root):
        # Twins: equally good in every class, so that equal weights are the truth.
        target = np.random.default_rng(0).integers(0, 3, PEOPLE * EACH)
        generator = np.random.default_rng(1)
        for name in ("left", "right"):
            noise = generator.normal(size=(len(target), 3))
            add_run(root, name, target, noise + 1.5 * np.eye(3)[target])
        results, _ = run(root, runs=("left", "right"), rule="auto")
        assert results["gate"]["gain"]["low"] <= 0
        assert bundles.read_bundle(root, "ensemble")["ships"] == results["gate"]["simplest"]

    @pytest.mark.parametrize(
        ("runs", "rule"),
        [
            (("voice", "face"), None),
            (("voice", "noise"), None),
            (("voice", "face", "noise"), None),
            (("face",), None),
            (("voice", "noise"), "auto"),
            (("voice", "noise"), "vote"),
        ],
    )
    def test_the_table_shows_what_ships_and_nothing_better_stands_beside_it(
        self, root, runs, rule, capsys
    ):
        results, base = run(root, runs=runs, rule=rule)
        figures = {row["name"]: row["figures"] for row in results["rows"]}
        gate, bundle = results["gate"], bundles.read_bundle(root, "ensemble")
        table = storage.read_table(storage.join(base, "predictions.parquet"))
        scores = torch.tensor(table["scores"].to_pylist(), dtype=torch.float64)
        target = torch.tensor(table["target"].to_pylist()).long().squeeze(1)
        shipped = figures["shipped"]["nll"]["value"]
        assert shipped == pytest.approx(float(torch.nn.functional.cross_entropy(scores, target)))
        if rule is None:
            assert shipped <= figures["ensemble"]["nll"]["value"] or gate["guard"]["high"] < 0
        assert bundle["ships"] == gate["ships"] or gate["ships"] == "the chosen fusion"
        assert f"ships: {gate['ships']}" in " ".join(capsys.readouterr().out.split())
        kept = {member["run"] for member in bundle["members"]}
        assert kept == set(rule_from_state(bundle["rule"]).names)

    def test_a_member_the_rule_dropped_is_not_shipped_and_not_missed(self, root):
        candidate = cross_fitting.Candidate(rule="log_pool", members=("voice",))
        held = ensemble.held_out(
            root, ("voice", "face"), "mood", ensemble.read_dataset(root).tasks["mood"]
        )
        fitted = cross_fitting.fit(held, candidate)
        facts = {
            "task": "mood",
            "kind": "classification",
            "classes": CLASSES,
            "rule": fitted.rule.state(),
            "calibration": fitted.calibration.state(),
        }
        fusion = Fusion.from_facts(facts)
        torch.testing.assert_close(fusion.combine(held.members), fitted.combine(held.members))
        nobody = fusion.combine(held.members.only(["face"]))
        assert nobody.isnan().all()

    def test_members_calibrated_one_by_one_travel_with_it(self, root):
        run(root, runs=("voice", "face"), rule="mean", member_calibration="temperature")
        bundle = bundles.read_bundle(root, "ensemble")
        assert set(bundle["member_calibration"]) == {"voice", "face"}
        held = ensemble.held_out(
            root, ("voice", "face"), "mood", ensemble.read_dataset(root).tasks["mood"]
        )
        candidate = cross_fitting.Candidate(rule="mean", member_calibration="temperature")
        ours = Fusion.from_facts(bundle).combine(held.members)
        torch.testing.assert_close(ours, cross_fitting.fit(held, candidate).combine(held.members))

    def test_labels_decided_for_a_metric_leave_probabilities_alone(self, root, capsys):
        run(root, runs=("voice", "face"), bundle="plain")
        run(root, runs=("voice", "face"), bundle="decided", decide="macro_f1")
        assert "labels decided for macro_f1" in capsys.readouterr().out
        plain, decided = (bundles.read_bundle(root, name) for name in ("plain", "decided"))
        assert plain["calibration"] == decided["calibration"]
        assert plain["decision"] is None
        before, after = decided["decided"]
        shipped = Fusion.from_facts(decided).decision
        assert shipped.metric == ("macro_f1" if after > before else "")
        with pytest.raises(ConfigError, match="--decide nll judges no labels"):
            run(root, runs=("voice", "face"), decide="nll")

    def test_a_run_without_a_refit_is_refused_below_the_table_of_what_was_judged(
        self, root, capsys
    ):
        for file in bundles.NET_FILES:
            storage.remove(storage.join(root, "runs", "face", "refit", "seed=0", file))
        with pytest.raises(NotPreparedError, match=r"affuse train .*--refit"):
            run(root, runs=("voice", "face"))
        assert "shipped" in capsys.readouterr().out

    def test_an_unknown_bundle_is_answered_with_the_nearest(self, root):
        run(root, runs=("voice", "face"), bundle="both")
        with pytest.raises(NotPreparedError, match="did you mean 'both'"):
            bundles.read_bundle(root, "bot")


class TestWhatIsRefused:
    def test_an_unknown_rule(self):
        with pytest.raises(ConfigError, match="did you mean 'log_pool'"):
            ensemble.Config(root="r", runs=("a",), rule="logpool")

    def test_no_members(self):
        with pytest.raises(ConfigError, match="no members"):
            ensemble.Config(root="r", runs=())


class TestImportedMembers:
    def frame(self, root, *, quality=2.0, role="oof"):
        table = storage.read_table(predictions_uri(root, "voice", 0, 0))
        clips = np.arange(PEOPLE * EACH)
        generator = np.random.default_rng(5)
        scores = generator.normal(size=(len(clips), 3))
        labels = storage.read_table(storage.join(root, "manifest", "h", "part-0.parquet"))["mood"]
        index = [CLASSES.index(label) for label in labels.to_pylist()]
        scores[clips, index] += quality
        p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        assert table.num_rows
        return {
            "name": [f"clip{clip}" for clip in clips],
            "fold": (clips // EACH) % 3,
            "role": [role] * len(clips),
            **{name: p[:, column] for column, name in enumerate(CLASSES)},
        }

    def test_probabilities_of_a_csv_become_a_member(self, root, tmp_path):
        import pandas as pd

        file = tmp_path / "elsewhere.csv"
        pd.DataFrame(self.frame(root)).to_csv(file, index=False)
        results, _ = run(root, runs=("voice",), imported=(str(file),))
        assert "elsewhere" in [row["name"] for row in results["rows"]]

    def test_one_that_is_the_truth_is_fused_with_a_warning(self, root, tmp_path, capsys):
        file = tmp_path / "oracle.npz"
        np.savez(file, **self.frame(root, quality=20.0))
        results, _ = run(root, runs=("voice",), imported=(str(file),))
        assert "oracle" in [row["name"] for row in results["rows"]]
        said = capsys.readouterr().out
        assert "warning: imported member oracle has accuracy 1.000, the best other one 0." in said

    def test_test_rows_and_missing_columns_are_refused(self, root, tmp_path):
        file = tmp_path / "elsewhere.npz"
        np.savez(file, **self.frame(root, role="test"))
        with pytest.raises(TestSplitError, match="role test"):
            run(root, runs=("voice",), imported=(str(file),))
        frame = self.frame(root)
        del frame["joy"]
        np.savez(file, **frame)
        with pytest.raises(TableError, match=r"columns \['joy'\] are missing"):
            run(root, runs=("voice",), imported=(str(file),))

    def test_every_fault_of_a_file_is_listed(self, root, tmp_path):
        import pandas as pd

        frame = pd.DataFrame(self.frame(root)).astype(object)
        frame.loc[0, "fold"], frame.loc[1, "role"] = 1.5, "OOF"
        frame.loc[2, "joy"], frame.loc[3, "anger"], frame.loc[4, "name"] = "1,7", "nan", ""
        frame.to_csv(tmp_path / "bad.csv", index=False)
        with pytest.raises(TableError, match="5 faults") as caught:
            run(root, runs=("voice",), imported=(str(tmp_path / "bad.csv"),))
        for part in (
            "row 1: fold '1.5'",
            "row 2: role 'OOF'",
            "row 3: joy '1,7'",
            "row 4: anger 'nan'",
        ):
            assert part in str(caught.value)

    def test_a_member_that_trained_on_a_fold_it_offers_is_refused(self, root, tmp_path):
        frame = self.frame(root, quality=0.3)
        seen = np.asarray(frame["fold"]) == 1
        perfect = self.frame(root, quality=9.0)
        for name in CLASSES:
            frame[name] = np.where(seen, perfect[name], frame[name])
        file = tmp_path / "leaky.npz"
        np.savez(file, **frame)
        with pytest.raises(ConfigError, match="are not out-of-fold"):
            run(root, runs=("voice",), imported=(str(file),))


def test_the_results_are_plain_json(root):
    results, _ = run(root, runs=("voice", "face"))
    assert json.loads(json.dumps(results, allow_nan=False)) == results


class TestOddInput:
    @pytest.mark.parametrize("odd", [{"resamples": 0}, {"resamples": -1}, {"num_folds": 1}])
    def test_counts_that_nothing_can_be_made_of_are_refused_by_name(self, odd):
        flag = f"--{next(iter(odd)).replace('_', '-')}"
        with pytest.raises(ConfigError, match=f"{flag}.*expected"):
            ensemble.Config(root="data", runs=("voice",), **odd)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_a_run_with_scores_that_are_no_numbers_is_refused_by_name(self, root, value):
        count = PEOPLE * EACH
        scores = np.zeros((count, 3))
        scores[5, 1] = value
        add_run(root, "diverged", np.zeros(count, int), scores)
        with pytest.raises(SchemaError, match=r"diverged.*1 of \d+ scores are NaN or infinite"):
            run(root, runs=("voice", "diverged"))

    def test_a_run_that_answers_nothing_is_refused_by_name(self, root):
        count = PEOPLE * EACH
        add_run(root, "mute", np.zeros(count, int), np.full(count, None))
        with pytest.raises(ConfigError, match="mute answer none of their held-out rows of 'mood'"):
            run(root, runs=("mute",))
