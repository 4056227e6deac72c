"""train: every part once, nothing from the test split, and the same weights after a kill."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.compute as pc
import pytest

from cluster import settings, storage
from cluster.errors import ConfigError, DivergedError, PlanError
from cluster.session import SessionConfig, ray_session
from jobs import train
from jobs.__main__ import run as affuse
from jobs.catalog import run_names
from jobs.catalog.predictions import read_predictions
from jobs.training import run


def config(root: str, **changes) -> train.Config:
    plain = train.Config(
        root=root,
        inputs=("voice", "face"),
        net_options={"hidden": 8},
        epochs=4,
        pool="mean",
        tracking=False,
    )
    return dataclasses.replace(plain, **changes)


def content(root: str, run: str) -> dict[str, bytes]:
    """Weights and predictions of a run by path."""
    base = Path(root, "runs", run)
    return {
        str(path.relative_to(base)): path.read_bytes()
        for name in ("model.safetensors", "predictions.parquet")
        for path in base.rglob(name)
    }


def typed(root: str, *more: str) -> int:
    """The status of a typed command; the last of two flags counts."""
    return affuse(
        [
            "train", "--root", root, "--inputs", "voice", "face", "--pool", "mean", "--epochs", "1",
            "--run", "r", "--no-tracking", "--workers", "0", *more,
        ]
    )  # fmt: skip


class TestFolds:
    def test_every_clip_is_held_out_once_and_a_refit_is_made(self, root):
        train.main(config(root, run="folds", folds="speaker", seeds=(0, 1)))
        table = read_predictions(root, "folds", roles=("oof",))
        emotion = table.filter(pc.equal(table["task"], "emotion"))
        assert sorted(emotion["clip_id"].to_pylist()) == sorted(
            clip for clip in range(100, 148) for _ in range(2) if clip != 107
        )
        assert storage.exists(f"{root}/runs/folds/refit/seed=1/model.safetensors")
        summary = storage.read_json(f"{root}/runs/folds/summary.json")
        figures = summary["roles"]["oof"]["emotion/accuracy"]
        assert figures["mean"] > summary["majority"]["emotion/accuracy"]
        assert set(figures["seeds"]) == {"0", "1"}

    def test_the_learning_rate_of_a_refit_falls_when_that_of_the_folds_did(self, root):
        plateau = {"schedule": "plateau", "plateau": 2, "monitor": "accuracy", "patience": 0}
        once = {"tasks": ("emotion",), "lr": 0.02, "epochs": 12}
        train.main(config(root, run="p", folds="speaker", **plateau, **once))
        base = Path(root, "runs", "p")
        *folds, refit = (
            [json.loads(line)["lr"] for line in (base / part / "history.jsonl").open()]
            for part in ("fold=0/seed=0", "fold=1/seed=0", "fold=2/seed=0", "refit/seed=0")
        )
        assert len({rate for rates in folds for rate in rates}) > 1
        assert refit == pytest.approx([sorted(rates)[1] for rates in zip(*folds, strict=True)])

    def test_no_group_is_in_two_roles(self, root):
        train.main(config(root, run="groups", folds="speaker", refit=False))
        table = read_predictions(root, "groups").to_pandas()
        for _, part in table.groupby("fold"):
            speakers = part.assign(speaker=(part.clip_id - 100) // 8)
            assert (speakers.groupby("speaker").role.nunique() == 1).all()

    def test_a_valid_share_of_nothing_trains_on_all_other_rows_to_the_last_epoch(self, root):
        train.main(config(root, run="whole", folds="speaker", valid_share=0, patience=1))
        table = read_predictions(root, "whole").to_pandas()
        assert set(table.role) == {"train", "oof"}
        for _, part in table[table.task == "emotion"].groupby("fold"):
            assert len(part) == 47
        history = storage.read_bytes(f"{root}/runs/whole/fold=0/seed=0/history.jsonl").splitlines()
        card = storage.read_json(f"{root}/runs/whole/refit/seed=0/model.json")
        assert len(history) == card["facts"]["best_epoch"] == 4


class TestViews:
    def test_views_of_rows_that_are_not_trained_on_are_never_read(
        self, write_root, write_views, tmp_path
    ):
        found = {}
        for name, noise_from in (("clean", None), ("noisy", 140)):
            root = write_root(str(tmp_path / name))
            write_views(root, "voice", 2, noise_from=noise_from)
            train.main(config(root, run="views", views=2))
            found[name] = content(root, "views")
        assert found["clean"] == found["noisy"]

    def test_they_change_the_weights_and_a_run_without_them_stays_as_it_was(
        self, root, write_views
    ):
        train.main(config(root, run="before"))
        write_views(root, "voice", 2)
        train.main(config(root, run="after"))
        train.main(config(root, run="views", views=2))
        before, after, views = (
            content(root, run)["fold=0/seed=0/model.safetensors"]
            for run in ("before", "after", "views")
        )
        assert before == after != views


class TestSplits:
    def test_without_folds_the_valid_split_is_predicted(self, root):
        train.main(config(root, run="split"))
        table = read_predictions(root, "split", roles=("valid",))
        assert set(table["clip_id"].to_pylist()) == set(range(140, 148))
        assert storage.read_json(f"{root}/runs/split/summary.json")["judged"] == "valid"


class TestHonesty:
    def test_noise_in_place_of_the_test_split_changes_nothing(self, write_root, tmp_path):
        found = []
        for seed in (None, 1):
            root = write_root(str(tmp_path / f"noise{seed}"), noise_on_test=seed)
            train.main(config(root, run="r", folds="speaker", normalise="speaker"))
            found.append(content(root, "r"))
        assert found[0] == found[1]


class TestAgain:
    def test_a_complete_run_has_nothing_to_do(self, root, capsys):
        train.main(config(root))
        capsys.readouterr()
        train.main(config(root))
        assert "nothing to do" in capsys.readouterr().out

    def test_only_what_is_missing_is_trained(self, root, capsys):
        train.main(config(root, run="r", folds="speaker"))
        before = content(root, "r")
        os.remove(f"{root}/runs/r/fold=1/seed=0/predictions.parquet")
        os.remove(f"{root}/runs/r/summary.json")
        capsys.readouterr()
        train.main(config(root, run="r", folds="speaker"))
        assert "1 nets to train, 3 are there" in capsys.readouterr().out
        assert content(root, "r") == before

    def test_a_name_of_another_config_is_refused(self, root):
        train.main(config(root, run="r"))
        with pytest.raises(ConfigError, match="is there already, with other lr; type another"):
            train.main(config(root, run="r", lr=0.5))

    def test_a_refit_can_be_asked_for_later(self, root):
        train.main(config(root, run="r", folds="speaker", refit=False))
        train.main(config(root, run="r", folds="speaker"))
        assert storage.exists(f"{root}/runs/r/refit/seed=0/model.safetensors")

    def test_the_config_beside_the_output_is_accepted_back(self, root):
        train.main(config(root, run="r"))
        values = storage.read_json(f"{root}/runs/r/config.json")
        assert settings.from_mapping(train.Config, values) == config(root, run="r")


class TestRefusals:
    def test_an_unknown_net_names_the_nearest(self, root):
        with pytest.raises(ConfigError, match="no net 'gatd'; did you mean 'gated'"):
            config(root, net="gatd")

    @pytest.mark.parametrize("changes", [{"folds": None}, {"schedule": "plateau"}])
    def test_nothing_to_judge_by_is_refused(self, root, changes):
        with pytest.raises(ConfigError, match="nothing to choose or judge by"):
            config(root, **{"valid_share": 0, "folds": "speaker", **changes})

    def test_an_unknown_option_names_the_nearest(self, root):
        with pytest.raises(ConfigError, match="no option 'hiden'; did you mean 'hidden'"):
            config(root, net_options={"hiden": 3})

    @pytest.mark.parametrize("tracking", ["--no-tracking", "--tracking"])
    def test_a_net_that_cannot_read_the_inputs_is_refused_before_anything_is_written(
        self, root, capsys, tracking
    ):
        assert typed(root, "--net", "finetune", tracking) != 0
        said = capsys.readouterr()
        assert "needs an input that a model reads" in said.err
        assert "nets to train" not in said.out
        assert not Path(root, "runs").exists()
        assert not Path(root, "mlflow").exists()

    @pytest.mark.parametrize(
        "words",
        [
            ("--net", "finetune"),
            ("--inputs", "voice", "smell"),
            ("--folds", "unknown"),
            ("--tasks", "unknown"),
            ("--pca", "voice=2"),
            ("--pca", "audio=99"),
            ("--feature-noise", "0.1", "--net", "finetune"),
            ("--loss-options", "gamma=2"),
            ("--loss", "soft_cross_entropy"),
            ("--balanced", "--tasks", "arousal"),
            ("--label-smoothing", "0.1", "--tasks", "arousal"),
            ("--net", "dialogue_rnn"),
            ("--net", "late_mean", "--mixup", "0.2", "--causal"),
            ("--net", "lmf", "--net-options", "rank=0"),
            ("--net-options", "hidden.smell=4"),
        ],
        ids=" ".join,
    )
    def test_what_is_refused_leaves_no_run_and_its_name_to_a_correct_command(
        self, root, capsys, words
    ):
        assert typed(root, *words) in (1, 2)
        assert "Traceback" not in capsys.readouterr().err
        assert not Path(root, "runs", "r").exists()
        assert typed(root) == 0
        assert Path(root, "runs", "r", "summary.json").is_file()

    def test_a_refusal_leaves_the_run_that_the_same_command_has_begun_before(
        self, root, monkeypatch
    ):
        def refuse(*_):
            raise PlanError("no room")

        begun = config(root, run="r")
        run.claim(run.resolved(begun))
        monkeypatch.setattr(train, "launch", refuse)
        with pytest.raises(PlanError):
            train.main(begun)
        assert Path(root, "runs", "r", "config.json").is_file()

    def test_a_refusal_leaves_the_name_that_another_start_has_taken_meanwhile(
        self, root, monkeypatch
    ):
        def refuse(one, own):
            run_names.take(run.run_uri(one), {"identity": "another"}, own)
            raise ConfigError("was started anew")

        monkeypatch.setattr(train, "launch", refuse)
        with pytest.raises(ConfigError, match="anew"):
            train.main(config(root, run="r"))
        assert run_names.owner(f"{root}/runs/r") == {"identity": "another"}


@pytest.mark.slow
@pytest.mark.ray
class TestWorkers:
    """Ray Train with two workers (gloo), beside this process alone."""

    @pytest.fixture(scope="class")
    def session(self):
        with ray_session(SessionConfig(num_cpus=2)):
            yield SessionConfig(num_cpus=2)

    def test_two_workers_give_the_predictions_of_one(self, root, session):
        plain = config(root, folds="speaker", net_options={"hidden": 8, "dropout": 0.0})
        train.main(dataclasses.replace(plain, run="one"))
        train.main(dataclasses.replace(plain, run="two", workers=2, session=session))
        key = [("fold", "ascending"), ("task", "ascending"), ("clip_id", "ascending")]
        one, two = (read_predictions(root, run).sort_by(key).to_pandas() for run in ("one", "two"))
        assert one.drop(columns=["run", "scores"]).equals(two.drop(columns=["run", "scores"]))
        for ours, theirs in zip(one.scores, two.scores, strict=True):
            assert theirs == pytest.approx(ours, abs=1e-3)
        assert not Path(root, "runs", "two", ".ray").exists()

    def test_workers_that_share_out_the_parts_give_the_same_weights(self, root, session, capsys):
        plain = config(root, folds="speaker", seeds=(0, 1))
        train.main(dataclasses.replace(plain, run="one"))
        alone = re.findall(r"  (?:fold|refit) .*: best epoch \d+ of \d+", capsys.readouterr().out)
        train.main(
            dataclasses.replace(plain, run="two", workers=2, spread="parts", session=session)
        )
        shared = re.findall(r"  (?:fold|refit) .*: best epoch \d+ of \d+", capsys.readouterr().out)
        # Each net is said once, though the workers' own prints reach nobody.
        assert len(alone) == 8
        assert sorted(shared) == sorted(alone)
        ours, theirs = content(root, "one"), content(root, "two")
        weights = [name for name in theirs if name.endswith(".safetensors")]
        # Three folds and a refit of each seed; a refit takes its last epoch from all folds.
        assert len(weights) == 8
        assert all(ours[name] == theirs[name] for name in weights)

    def test_what_a_worker_refuses_is_said_in_one_line(self, root, session):
        far = config(root, lr=1e30, workers=2, max_failures=0, session=session)
        with pytest.raises(DivergedError, match="fold 0 seed 0: training diverged"):
            train.main(far)

    def test_a_worker_that_is_killed_is_replaced_and_the_weights_stay_the_same(self, root, session):
        long = config(root, folds="speaker", epochs=40, patience=0, checkpoint_s=0.0)
        long = dataclasses.replace(long, workers=2, refit=False, session=session)
        train.main(dataclasses.replace(long, run="undisturbed"))
        killer = threading.Thread(target=kill_a_worker, args=(Path(root, "runs", "killed"),))
        killer.start()
        train.main(dataclasses.replace(long, run="killed"))
        killer.join()
        ours, theirs = content(root, "killed"), content(root, "undisturbed")
        weights = [name for name in theirs if name.endswith(".safetensors")]
        assert len(weights) == 3
        assert all(ours[name] == theirs[name] for name in weights)


def kill_a_worker(run: Path) -> None:
    """Kill one training worker of this session once it has written a checkpoint."""
    while not list(run.rglob("checkpoint.pt")):
        time.sleep(0.05)
    # The workers of this test's own session: children of its raylet, which is our child.
    ours = {os.getpid()}
    found = []
    for _ in range(3):
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                text = stat.read_text()
            except OSError:
                continue
            parent = int(text.rpartition(")")[2].split()[1])
            if parent in ours:
                ours.add(int(stat.parent.name))
                if "RayTrainWo" in text:  # the kernel keeps 15 letters
                    found.append(int(stat.parent.name))
    assert found
    os.kill(found[0], signal.SIGKILL)


@pytest.mark.slow
class TestKill:
    def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(self, root):
        long = config(root, run="r", epochs=120, patience=0, folds="speaker", checkpoint_s=0.0)
        train.main(dataclasses.replace(long, run="undisturbed"))
        path = Path(root, "config.json")
        path.write_text(json.dumps(settings.to_mapping(long)))
        command = [sys.executable, "-m", "jobs", "train", "--config", str(path)]
        for _ in range(2):
            process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
            while not list(Path(root, "runs", "r").rglob("checkpoint.pt")):
                time.sleep(0.05)
            time.sleep(0.5)
            process.send_signal(signal.SIGKILL)
            process.wait()
        subprocess.run(command, cwd=Path(__file__).parents[2], check=True)
        ours, theirs = content(root, "r"), content(root, "undisturbed")
        weights = [name for name in theirs if name.endswith(".safetensors")]
        assert len(weights) == 4
        assert all(ours[name] == theirs[name] for name in weights)
