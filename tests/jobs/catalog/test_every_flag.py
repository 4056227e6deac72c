"""A flag that shapes rows is never ignored because something is there already.

Every field of a config either changes what a second command does, or stands in a list with the reason why
it need not.
"""

import dataclasses

import numpy as np
import pytest
import soundfile

from cluster import storage
from cluster.errors import ConfigError
from cluster.session import SessionConfig
from jobs import features, train, tune
from jobs.__main__ import run
from jobs.catalog.features import read_features, resolve_features
from jobs.datasets.folder import Config as Folder
from jobs.training.run import ELSEWHERE, check_name, claim

SAME_ROWS = {
    "root": "where, not what",
    "run": "the name itself",
    "cache": "where features are mapped",
    "checkpoint_s": "how much is lost by a kill",
    "max_failures": "how often workers are started again",
    "memory_gb": "mapped or in memory",
    "refit": "adds nets, changes none",
    "session": "how Ray is started",
    "spread": "which worker trains what",
    "store": "where the weights lie that a net's card names by their hash",
    "tracking": "a projection",
    "workers": "how many share a step",
}
SEARCH_GOES_ON = {
    "trials": "more of the same",
    "fresh": "where it begins, kept from the first start on",
    "minutes": "when it stops",
    "stale": "when it stops",
    "parallel": "how many at once",
    "gpu_share": "how many at once",
    "keep": "chosen anew at the end",
    "member_seeds": "trained at the end",
    "ensemble": "made at the end",
}
TRAIN = {
    "epochs": 3, "patience": 2, "monitor": "accuracy", "batch_size": 8,
    "accumulation_steps": 2,
    "optimiser": "sgd", "lr": 1e-2, "weight_decay": 0.0, "lr_factors": {"head": 2.0},
    "schedule": "cosine", "warmup": 0.2, "plateau": 2, "clip_norm": 2.0, "precision": "bfloat16",
    "loss": "focal", "loss_options": {"gamma": 1.0}, "task_weights": {"emotion": 2.0},
    "label_smoothing": 0.1, "class_weights": True, "balanced": True, "modality_dropout": 0.1,
    "feature_noise": 0.1, "mixup": 0.1, "target_scale": "none", "inputs": ("voice", "face"), "net": "gated",
    "net_options": {"hidden": 4}, "tasks": ("emotion",), "pool": "mean_std", "views": 1,
    "normalise": "speaker", "causal": True, "scale": "none", "pca": {"voice": 2}, "folds": "other",
    "seeds": (1,), "valid_share": 0.2, "share": 0.5, "spread": "parts",
    "cache": "elsewhere", "checkpoint_s": 1.0, "max_failures": 1, "memory_gb": 1.0, "refit": False,
    "session": SessionConfig(num_cpus=1), "store": "elsewhere", "tracking": False, "workers": 1,
}  # fmt: skip
TUNE = {
    "space": "space.json", "search": "random", "search_seed": 1, "score": "accuracy", "prune": False,
    "trials": 60, "minutes": 5.0, "stale": 5, "parallel": 1, "gpu_share": 0.5, "keep": 2,
    "member_seeds": (1,), "ensemble": False, "fresh": True,
}  # fmt: skip


@pytest.fixture
def root(write_root, tmp_path):
    root = write_root(str(tmp_path / "small"))
    table = storage.read_table(f"{root}/folds/speaker.parquet")
    storage.publish_table(table, f"{root}/folds/other.parquet")
    return root


def fields_of(kind):
    return {field.name for field in dataclasses.fields(kind)}


def test_every_field_of_train_and_tune_is_tried():
    assert fields_of(train.Config) - {"root", "run"} == set(TRAIN)
    assert fields_of(tune.Config) - fields_of(train.Config) == set(TUNE)
    assert set(SAME_ROWS) == set(ELSEWHERE)
    assert set(SEARCH_GOES_ON) == set(tune.ALSO_ELSEWHERE)


@pytest.mark.parametrize("field", TRAIN)
def test_a_run_goes_on_only_with_what_gives_the_same_nets(field, root):
    config = train.Config(root=root, inputs=("voice",), folds="speaker", run="x")
    claim(config)
    storage.publish_bytes(b"", f"{root}/runs/x/fold=0/seed=0/model.safetensors")
    check_name(config)
    changed = dataclasses.replace(config, **{field: TRAIN[field]})
    if field in SAME_ROWS:
        check_name(changed)
    else:
        with pytest.raises(ConfigError, match=f"other {field}; type another --run"):
            check_name(changed)


@pytest.mark.parametrize("field", [*TRAIN, *TUNE])
def test_a_search_goes_on_only_with_what_gives_the_same_trials(field, root):
    config = tune.Config(root=root, inputs=("voice",), folds="speaker", run="x")

    def claim(config):
        space = {} if config.space is None else {"lr": {"log": [1e-4, 1e-2]}}
        tune.claim(config, tune.base_of(config, space), space)

    claim(config)
    storage.publish_json({}, f"{root}/runs/x/trials/00000.json")
    claim(config)
    changed = dataclasses.replace(config, **{field: {**TRAIN, **TUNE}[field]})
    if field in (*SAME_ROWS, *SEARCH_GOES_ON):
        claim(changed)
    else:
        with pytest.raises(ConfigError, match="type another --run"):
            claim(changed)


class TestFolds:
    def write(self, tmp_path):
        (tmp_path / "clips").mkdir()
        lines = ["name,mood,speaker"]
        for k in range(24):
            soundfile.write(tmp_path / "clips" / f"c{k}.wav", np.zeros(400, np.float32), 8000)
            lines.append(f"c{k},{'ab'[k % 2]},s{k % 12}")
        (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
        values = np.random.default_rng(0).normal(size=(24, 3)).astype("f4")
        names = np.array([f"c{k}" for k in range(24)])
        np.savez(tmp_path / "f.npz", x=values, name=names)

    def prepared(self, tmp_path, *words):
        return run(
            ["prepare", "folder", "--source", str(tmp_path / "clips"), "--labels",
             str(tmp_path / "labels.csv"), "--root", str(tmp_path / "root"), "--tasks",
             "mood=classification", "--folds", "3", "--workers", "1", *words]
        )  # fmt: skip

    def folds(self, tmp_path):
        table = storage.read_table(str(tmp_path / "root" / "folds" / "group3.parquet"))
        return dict(zip(*table.to_pydict().values(), strict=True))

    def test_another_seed_cuts_others_and_a_run_of_the_first_is_not_complete(
        self, tmp_path, capsys
    ):
        self.write(tmp_path)
        assert self.prepared(tmp_path) == 0
        first = self.folds(tmp_path)
        root = str(tmp_path / "root")
        words = ["--root", root, "--name", "au", "--modality", "video", "--array", "x"]
        assert run(["features", "import", *words, "--file", str(tmp_path / "f.npz")]) == 0
        train_one = [
            "train", "--root", root, "--inputs", "au", "--folds", "group3", "--run", "one",
            "--epochs", "1", "--no-tracking", "--net-options", "hidden=4",
        ]  # fmt: skip
        assert run(train_one) == 0
        assert run(train_one) == 0
        assert "nothing to do" in capsys.readouterr().out
        assert self.prepared(tmp_path, "--seed", "1") == 0
        assert self.folds(tmp_path) != first
        assert run(train_one) == 2
        assert "another manifest, features or folds; type another --run" in capsys.readouterr().err
        assert self.prepared(tmp_path, "--seed", "1") == 0
        assert "nothing to do" in capsys.readouterr().out

    CHANGES = {  # noqa: RUF012
        "split": ["--split", "50/25/25"],
        "part": None,
        "folds": ["--folds", "2"],
        "seed": ["--seed", "1"],
        "max_clip_s": ["--max-clip-s", "0.02"],
        "pack": ["--pack"],
        "dataset_name": ["--dataset-name", "other"],
        "licence": ["--licence", "other"],
        "columns": ["--columns", "group=mood"],
        "tasks": ["--tasks", "speaker=classification"],
        "classes": ["--classes", "mood=b,a"],
        "ranges": None,
        "profile": ["--profile", "mood"],
        "votes": ["--votes", "mood=mood"],
        "source": None,
        "labels": None,
    }
    """None: of other sources, of which the rows are others."""

    SAME = {  # noqa: RUF012
        "root": "where, not what",
        "unit_clips": "units are cut once, so that what is encoded stays",
        "unit_s": "the same",
        "shard_mb": "shards are packed once",
        "workers": "how many files are looked into at once",
        "as_is": "says that a column is meant, and changes none",
    }

    def test_every_field_of_prepare_is_tried(self):
        assert fields_of(Folder) == {*self.CHANGES, *self.SAME}

    @pytest.mark.parametrize("field", [name for name, words in CHANGES.items() if words])
    def test_a_flag_of_prepare_is_never_nothing_to_do(self, field, tmp_path, capsys):
        self.write(tmp_path)
        assert self.prepared(tmp_path) == 0
        capsys.readouterr()
        status = self.prepared(tmp_path, *self.CHANGES[field])
        assert "nothing to do" not in capsys.readouterr().out
        assert status in (0, 1, 2)


IMPORT_SAME = {
    "root": "where, not what",
    "name": "the name itself",
    "licence": "noted beside the rows, and noted anew",
    "names": "the names as read are in the content",
    "name_format": "the same",
    "array": "the values as read are in the content",
    "lengths": "the same",
    "columns": "the same",
    "file": "the same",
}
IMPORT = {"modality": "audio", "rename": {"^q": "clip"}, "padding": "zeros", "hop_s": 0.5}


class TestImport:
    @pytest.fixture
    def npz(self, tmp_path):
        values = np.ones((6, 4, 3), np.float32) * np.arange(1, 7)[:, None, None]
        values[:, 3:] = 0
        names = np.array([f"clip{k}" if k < 3 else f"q{k}" for k in range(6)])
        np.savez(tmp_path / "f.npz", x=values, y=values + 1, name=names, other=names[::-1])
        return str(tmp_path / "f.npz")

    def config(self, root, npz, **changes):
        given = {"root": root, "file": npz, "name": "mine", "modality": "video", "array": "x"}
        return features.Import(**{**given, **changes})

    def test_every_field_is_tried(self):
        assert fields_of(features.Import) == {*IMPORT, *IMPORT_SAME}

    @pytest.mark.parametrize("field", IMPORT)
    def test_a_flag_that_shapes_rows_gives_another_table_that_the_name_means(
        self, field, root, npz, capsys
    ):
        features.main(self.config(root, npz))
        first = resolve_features(root, "mine")
        before = read_features(root, first).drop_columns(["values"]).to_pylist()
        features.main(self.config(root, npz, **{field: IMPORT[field]}))
        second = resolve_features(root, "mine")
        assert second != first
        assert "goes by " + first in capsys.readouterr().out
        assert resolve_features(root, first) == first
        after = read_features(root, second).drop_columns(["values"]).to_pylist()
        assert field == "modality" or after != before
        assert read_features(root, first).num_rows == len(before)
        features.main(self.config(root, npz))
        assert resolve_features(root, "mine") == first
        assert "nothing to do" in capsys.readouterr().out

    def test_names_that_did_not_fit_are_mended_at_the_command_line(self, root, npz, capsys):
        words = [
            "features", "import", "--root", root, "--file", npz, "--array", "x", "--name", "mine",
            "--modality", "video",
        ]  # fmt: skip
        assert run(words) == 0
        assert run([*words, "--rename", "^q=clip"]) == 0
        assert "nothing to do" not in capsys.readouterr().out
        rows = read_features(root, resolve_features(root, "mine")).to_pylist()
        assert [row["status"] for row in rows].count("ok") == 6

    def test_another_licence_is_noted(self, root, npz):
        features.main(self.config(root, npz))
        features.main(self.config(root, npz, licence="CC0"))
        folder = resolve_features(root, "mine")
        facts = storage.read_json(f"{root}/features/{folder}/descriptor.json")
        assert facts["licence"] == "CC0"

    @pytest.mark.parametrize("changes", [{"array": "y"}, {"names": ("other",)}])
    def test_other_content_of_the_same_name_is_asked_about(self, changes, root, npz):
        features.main(self.config(root, npz))
        features.main(self.config(root, npz, **changes))
        with pytest.raises(ConfigError, match="'mine' means several tables; type one of"):
            resolve_features(root, "mine")
