"""A run that was stopped at any moment ends with the weights of an undisturbed one."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster import storage
from cluster.errors import ConfigError
from jobs import train
from jobs.__main__ import run as affuse
from jobs.catalog import run_names
from jobs.training import run, train_part, workers


class Killed(BaseException):
    """Nothing of ours catches it, as nothing catches a kill."""


def config(root: str, **changes) -> train.Config:
    plain = train.Config(
        root=root, inputs=("voice", "face"), net_options={"hidden": 8}, pool="mean", run="r",
        epochs=12, patience=2, lr=1e-1, folds="speaker", checkpoint_s=0.0, tracking=False,
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


def content(root: str, run: str = "r") -> dict[str, bytes]:
    base = Path(root, "runs", run)
    return {
        str(path.relative_to(base)): path.read_bytes()
        for name in ("model.safetensors", "history.jsonl")
        for path in base.rglob(name)
    }


def kill_after(monkeypatch, wanted: str, count: int) -> None:
    """The process ends right after the so-manieth write below a folder."""
    publish, seen = storage.publish_bytes, []

    def publish_and_die(content: bytes, uri: str) -> None:
        publish(content, uri)
        if wanted in uri:
            seen.append(uri)
            if len(seen) == count:
                raise Killed(uri)

    monkeypatch.setattr(storage, "publish_bytes", publish_and_die)


@pytest.mark.parametrize("schedule", ["constant", pytest.param("cosine", marks=pytest.mark.slow)])
def test_a_refit_killed_after_any_of_its_writes_has_the_weights_of_an_undisturbed_one(
    write_root, tmp_path, schedule
):
    whole = write_root(str(tmp_path / "whole"))
    train.main(config(whole, schedule=schedule))
    expected = content(whole)
    epochs = len(expected["refit/seed=0/history.jsonl"].splitlines())
    assert 1 < epochs < 12
    root = write_root(str(tmp_path / "killed"))
    train.main(config(root, schedule=schedule, refit=False))
    # A checkpoint an epoch, then the three files of which the last is the commit.
    for count in (1, epochs, epochs + 1, epochs + 2, epochs + 3):
        with pytest.MonkeyPatch.context() as patch:
            kill_after(patch, "/refit/", count)
            with pytest.raises(Killed):
                train.main(config(root, schedule=schedule))
        train.main(config(root, schedule=schedule))
        assert content(root) == expected, count
        assert not list(Path(root).rglob("checkpoint.pt"))
        storage.remove_tree(f"{root}/runs/r/refit")
        os.remove(f"{root}/runs/r/summary.json")


@pytest.mark.slow
def test_a_fold_killed_after_any_of_its_writes_has_the_weights_of_an_undisturbed_one(
    write_root, tmp_path
):
    whole = write_root(str(tmp_path / "whole"))
    train.main(config(whole, folds=None, epochs=4))
    expected = content(whole)
    epochs = len(expected["fold=0/seed=0/history.jsonl"].splitlines())
    root = write_root(str(tmp_path / "killed"))
    for count in range(1, epochs + 5):
        with pytest.MonkeyPatch.context() as patch:
            kill_after(patch, "/fold=0/", count)
            with pytest.raises(Killed):
                train.main(config(root, folds=None, epochs=4))
        train.main(config(root, folds=None, epochs=4))
        assert content(root) == expected, count
        storage.remove_tree(f"{root}/runs/r")


class TestNames:
    """A start that came to nothing leaves its name free."""

    def start(self, root: str, *more: str) -> int:
        return affuse(
            [
                "train", "--root", root, "--inputs", "voice", "--pool", "mean", "--epochs", "2",
                "--run", "first", "--no-tracking", *more,
            ]
        )  # fmt: skip

    @pytest.mark.parametrize(
        "wrong",
        [
            ("--folds", "speakr"),
            ("--tasks", "emotoin"),
            ("--pca", "audio=99"),
            ("--loss-options", "gamma=2"),
            ("--lr-factors", "nothing=1"),
            ("--balanced", "--tasks", "arousal"),
            ("--lr", "1e30"),
        ],
        ids=lambda flags: flags[0],
    )
    def test_whatever_was_refused(self, root, wrong, capsys):
        assert self.start(root, *wrong) in (1, 2)
        assert self.start(root, "--folds", "speaker") == 0, capsys.readouterr().err
        found = storage.read_json(f"{root}/runs/first/config.json")
        assert found["folds"] == "speaker"

    def test_features_that_were_not_there(self, root):
        folder = Path(root, "features", "voice-1", "rows.parquet")
        table = storage.read_table(str(folder))
        storage.publish_table(table.slice(0, 30), str(folder))
        assert self.start(root) == 1
        storage.publish_table(table, str(folder))
        assert self.start(root, "--lr", "0.01") == 0

    @pytest.mark.parametrize("kept", ["checkpoint.pt", "model.safetensors", "predictions.parquet"])
    def test_what_came_to_something_keeps_its_name(self, root, kept, capsys):
        assert self.start(root) == 0
        part = Path(root, "runs/first/fold=0/seed=0")
        weights = (part / "model.safetensors").read_bytes()
        for path in part.iterdir():
            path.unlink()
        (part / kept).write_bytes(weights)
        before = (part / kept).read_bytes()
        assert self.start(root, "--lr", "0.01") == 2
        assert "run 'first' is there already, with other lr" in capsys.readouterr().err
        assert (part / kept).read_bytes() == before

    def test_a_start_whose_name_was_taken_meanwhile_writes_nothing_more(self, root, monkeypatch):
        claim = run.claim

        def claim_and_lose(one: train.Config) -> dict[str, str]:
            own = claim(one)
            storage.publish_json({"identity": "another"}, f"{root}/runs/first/identity.json")
            return own

        monkeypatch.setattr(run, "claim", claim_and_lose)
        assert self.start(root) == 2
        assert not list(Path(root, "runs").rglob("*.safetensors"))


OTHER = ("--lr", "0.01")

STOPS = "was started anew with another config, and this start stops"


class TestTwoStartsAtOnce:
    """Of two commands under one name one makes the run, whole; the other stops."""

    def start(self, root: str, *more: str) -> int:
        return affuse(
            [
                "train", "--root", root, "--inputs", "voice", "--pool", "mean", "--epochs", "2",
                "--run", "r", "--folds", "speaker", "--no-tracking", *more,
            ]
        )  # fmt: skip

    def amid(self, root: str, place: str, at: int, *more: str) -> tuple[int, list[int]]:
        """Exits of a start, and of one that comes and goes before its so-manieth call of a place."""
        module, name = {
            "rows are checked": (train, "check_rows"),
            "the name is taken": (run, "claim"),
            "workers begin": (train, "launch"),
            "features are read": (workers, "load"),
            "a part is trained": (train_part, "train_part"),
        }[place]
        plain, calls, others = getattr(module, name), [], []

        def call(*given, **named):
            calls.append(name)
            if len(calls) == at + 1:
                others.append(self.start(root, *more))
            return plain(*given, **named)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, name, call)
            return self.start(root), others

    @pytest.mark.parametrize(
        ("place", "at"),
        [
            ("rows are checked", 0),
            ("the name is taken", 0),
            ("workers begin", 0),
            ("features are read", 0),
            ("a part is trained", 0),
            ("a part is trained", 1),
            ("a part is trained", 3),
        ],
    )
    def test_one_makes_the_whole_run_and_the_other_says_that_it_stops(
        self, write_root, tmp_path, place, at, capsys
    ):
        root = write_root(str(tmp_path / "both"))
        mine, (others,) = self.amid(root, place, at, *OTHER)
        assert sorted([mine, others]) == [0, 2]
        said = capsys.readouterr().err
        assert STOPS in said or "run 'r' is there already, with other lr" in said
        alone = write_root(str(tmp_path / "alone"))
        assert self.start(alone, *(OTHER if others == 0 else ())) == 0
        assert content(root) == content(alone)
        config = storage.read_json(f"{root}/runs/r/config.json")
        assert config["lr"] == storage.read_json(f"{alone}/runs/r/config.json")["lr"]

    @pytest.mark.parametrize("place", ["rows are checked", "workers begin", "a part is trained"])
    def test_the_same_command_twice_at_once_makes_one_run(self, write_root, tmp_path, place):
        root, alone = (write_root(str(tmp_path / name)) for name in ("both", "alone"))
        assert self.amid(root, place, 0) == (0, [0])
        assert self.start(alone) == 0
        assert content(root) == content(alone)

    def test_of_many_that_take_a_free_name_at_once_one_has_it(self, tmp_path):
        base = str(tmp_path / "run")

        def took(number: int) -> bool:
            try:
                run_names.take(base, {"identity": str(number)})
            except ConfigError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            for _ in range(20):
                assert sum(pool.map(took, range(8))) == 1
                storage.remove_tree(base)
