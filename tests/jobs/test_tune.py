"""tune: trials on Ray, a ledger that outlives a kill, and nothing from the test split."""

import contextlib
import dataclasses
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.compute as pc
import pytest
import torch

from cluster import settings, storage
from cluster.errors import ConfigError
from cluster.session import SessionConfig, ray_session
from jobs import tune
from jobs.catalog.predictions import read_predictions

SPACE = {
    "net": ["concat_mlp", "lmf"],
    "inputs": [["voice"], ["face"], ["voice", "face"]],
    "lr": {"log": [1e-3, 1e-2]},
    "lmf.rank": {"int": [1, 4]},
}


def config(root: str, **changes) -> tune.Config:
    space = Path(root, "space.yaml")
    space.write_text(json.dumps(SPACE))
    plain = tune.Config(
        root=root,
        inputs=("voice", "face"),
        tasks=("emotion",),
        pool="mean",
        folds="speaker",
        epochs=3,
        run="t",
        space=str(space),
        trials=6,
        keep=3,
        member_seeds=(1,),
        tracking=False,
        session=SessionConfig(num_cpus=2),
    )
    return dataclasses.replace(plain, **changes)


def ledger(root: str) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in trials(root)}


def trials(root: str) -> list[Path]:
    return sorted(Path(root, "runs", "t", "trials").glob("*.json"))


@pytest.mark.ray
class TestSearch:
    @pytest.fixture(scope="class")
    def searched(self, tmp_path_factory):
        """A finished search, beside one in whose root the test split is noise."""
        from importlib import util

        spec = util.spec_from_file_location("small_root", Path(__file__).with_name("small_root.py"))
        module = util.module_from_spec(spec)
        spec.loader.exec_module(module)
        roots = []
        with ray_session(SessionConfig(num_cpus=2)):
            for seed in (None, 1):
                folder = tmp_path_factory.mktemp("tune")
                root = module.write_root(str(folder / "small"), noise_on_test=seed)
                said = io.StringIO()
                with contextlib.redirect_stdout(said):
                    tune.main(config(root, search="random", prune=False, parallel=1))
                (folder / "said").write_text(said.getvalue())
                roots.append(root)
        return roots

    def test_every_trial_is_in_the_ledger_and_in_the_table(self, searched):
        found = ledger(searched[0])
        assert len(found) == 6
        assert all(record["state"] == "finished" for record in found.values())
        table = storage.read_table(f"{searched[0]}/runs/t/trials.parquet")
        assert table["value/net"].to_pylist() == [r["values"]["net"] for r in found.values()]
        assert len(set(table["score"].to_pylist())) == 6

    def test_kept_trials_are_runs_with_the_predictions_of_the_search(self, searched):
        summary = storage.read_json(f"{searched[0]}/runs/t/summary.json")
        assert len(summary["members"]) == 3
        for member in summary["members"]:
            number = member["run"].rpartition("-")[2]
            again = read_predictions(searched[0], member["run"], roles=("oof",))
            before = storage.read_table(f"{searched[0]}/runs/t/trials/{number}.parquet")
            key = [("fold", "ascending"), ("clip_id", "ascending")]
            again = again.filter(pc.equal(again["seed"], 0))
            ours = again.sort_by(key)["scores"].to_pylist()
            assert ours == before.sort_by(key)["scores"].to_pylist()

    def test_it_says_what_a_linear_model_of_the_same_features_gives(self, searched):
        found = ledger(searched[0])
        first = [found[f"{number:05d}"] for number in range(3)]
        assert [record["values"]["net"] for record in first] == ["linear"] * 3
        baseline = storage.read_json(f"{searched[0]}/runs/t/summary.json")["baseline"]
        assert baseline["score"] == min(record["score"] for record in first)

    def test_a_first_bundle_of_linear_models_is_there_before_any_net_is_trained(self, searched):
        lines = Path(searched[0]).with_name("said").read_text().splitlines()
        first = next(at for at, line in enumerate(lines) if "bundle, of 3 linear models" in line)
        wrote = next(at for at, line in enumerate(lines) if "bundles/t: " in line)
        nets = [at for at, line in enumerate(lines) if "concat_mlp on" in line or "lmf on" in line]
        assert first < wrote < min(nets)

    def test_a_net_of_the_search_is_not_trained_again_for_its_member(self, searched):
        search_ended = Path(searched[0], "runs/t/trials.parquet").stat().st_mtime
        for member in storage.read_json(f"{searched[0]}/runs/t/summary.json")["members"]:
            made = {
                path.parent.name: path.stat().st_mtime
                for path in Path(searched[0], "runs", member["run"]).glob("fold=*/*/model.json")
            }
            assert set(made) == {f"seed={seed}" for seed in member["seeds"]}
            assert made["seed=0"] <= search_ended <= made.get("seed=1", search_ended)

    def test_runs_of_trials_that_are_no_members_are_gone(self, searched):
        summary = storage.read_json(f"{searched[0]}/runs/t/summary.json")
        members = {member["run"] for member in summary["members"]}
        baselines = {f"t-{number:05d}" for number in range(3)}
        there = {name for name in storage.names(f"{searched[0]}/runs") if name.startswith("t-")}
        assert members <= there <= members | baselines

    def test_the_choice_is_judged_on_folds_that_had_no_say(self, searched):
        found = storage.read_json(f"{searched[0]}/runs/t/summary.json")["procedure"]
        assert set(found["members"]) == {"0", "1", "2"}
        assert found["figures"]["accuracy"] > 0.5

    def test_the_bundle_ships_what_the_table_shows(self, searched):
        base = f"{searched[0]}/bundles/t"
        facts, results = (storage.read_json(f"{base}/{n}.json") for n in ("bundle", "results"))
        assert facts["ships"] == results["gate"]["ships"]
        table = storage.read_table(f"{base}/predictions.parquet")
        scores = torch.tensor(table["scores"].to_pylist(), dtype=torch.float64)
        target = torch.tensor(table["target"].to_pylist()).long().squeeze(1)
        nll = {row["name"]: row["figures"]["nll"]["value"] for row in results["rows"]}
        ours = float(torch.nn.functional.cross_entropy(scores, target))
        assert nll["shipped"] == pytest.approx(ours)
        assert ours <= nll["ensemble"] or results["gate"]["guard"]["high"] < 0

    def test_noise_in_place_of_the_test_split_changes_nothing(self, searched):
        ours, theirs = (ledger(root) for root in searched)
        for name, record in ours.items():
            assert record["score"] == theirs[name]["score"]
        bundles = [Path(root, "bundles/t/predictions.parquet").read_bytes() for root in searched]
        assert bundles[0] == bundles[1]

    def test_a_search_that_is_done_searches_nothing(self, searched, capsys):
        tune.main(config(searched[0], search="random", prune=False, parallel=1))
        assert "nothing to search: 6 trials are there" in capsys.readouterr().out

    def test_another_search_of_that_name_is_refused(self, searched):
        with pytest.raises(ConfigError, match="is there already, as another search"):
            tune.main(config(searched[0], search="optuna"))


@pytest.mark.ray
class TestBudget:
    @pytest.fixture(scope="class", autouse=True)
    def session(self):
        with ray_session(SessionConfig(num_cpus=2)):
            yield

    def test_whatever_the_time_the_linear_models_ship_and_what_is_left_out_is_said(
        self, root, capsys
    ):
        tune.main(config(root, trials=400, minutes=0.001, tasks=()))
        first = [record["values"]["net"] for record in list(ledger(root).values())[:3]]
        assert first == ["linear"] * 3
        # While the last of them is solved, the other worker may begin with nets.
        count = len(ledger(root))
        summary = storage.read_json(f"{root}/runs/t/summary.json")
        assert summary["left_out"][0] == f"{400 - count} trials (the time is up)"
        said = " ".join(capsys.readouterr().out.split())
        assert f"left out: {400 - count} trials (the time is up)" in said
        assert Path(root, "bundles/t/bundle.json").exists()

    @pytest.mark.slow
    def test_more_time_goes_on_from_there(self, root):
        tune.main(config(root, trials=400, minutes=0.001, ensemble=False))
        before = ledger(root)
        count = len(before) + 2
        tune.main(config(root, trials=count, ensemble=False))
        summary = storage.read_json(f"{root}/runs/t/summary.json")
        assert sum(summary["trials"].values()) == count
        assert summary["left_out"] == []
        assert {name: ledger(root)[name] for name in before} == before
        assert all(member["seeds"] in ([0], [0, 1]) for member in summary["members"])

    @pytest.mark.slow
    def test_a_search_that_gains_nothing_ends_and_stays_ended(self, root, capsys):
        flat = {"lr": [1e-9, 2e-9], "net": ["concat_mlp"], "inputs": SPACE["inputs"]}
        asked = config(root, trials=60, stale=5, ensemble=False, epochs=1)
        Path(asked.space).write_text(json.dumps(flat))
        for said in ("60 trials to run", "nothing to search: the last 5 trials gained nothing"):
            tune.main(asked)
            summary = storage.read_json(f"{root}/runs/t/summary.json")
            assert sum(summary["trials"].values()) < 60
            assert "gained nothing" in summary["left_out"][0]
            assert said in capsys.readouterr().out


class TestRefusals:
    def test_a_typo_in_the_space_is_found_before_anything_starts(self, root):
        wrong = config(root)
        Path(wrong.space).write_text("lrr: [1, 2]\n")
        with pytest.raises(ConfigError, match="unknown field 'lrr'"):
            tune.main(wrong)
        assert not Path(root, "runs").exists()

    @pytest.mark.parametrize(
        "changes", [{"stale": -1}, {"minutes": 0.0}, {"minutes": float("nan")}]
    )
    def test_a_budget_that_is_none_is_refused(self, root, changes):
        with pytest.raises(ConfigError, match="expected 0 or more, and above 0"):
            config(root, **changes)

    def test_an_unknown_score_is_refused(self, root):
        with pytest.raises(ConfigError, match="--score acuracy: did you mean 'accuracy'"):
            config(root, score="acuracy")


@pytest.mark.slow
@pytest.mark.ray
class TestKill:
    def test_a_killed_search_keeps_its_finished_trials(self, root):
        whole = config(root, trials=30, epochs=30, ensemble=False, stale=0)
        path = Path(root, "config.json")
        path.write_text(json.dumps(settings.to_mapping(whole)))
        command = [sys.executable, "-m", "jobs", "tune", "--config", str(path)]
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        while len(trials(root)) < 5:
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = ledger(root)
        assert 5 <= len(kept) < 30
        subprocess.run(command, cwd=Path(__file__).parents[2], check=True)
        after = ledger(root)
        assert len(after) == 30
        assert all(after[name] == record for name, record in kept.items())
