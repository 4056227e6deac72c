"""The linear net in train and tune: solved and not trained by steps, and the first of every search."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import pyarrow.compute as pc
import pytest
import torch

from cluster import storage
from fusion.nets import NETS, is_convex
from fusion.training.recipe import Recipe
from jobs import train
from jobs.__main__ import run
from jobs.catalog.predictions import read_predictions
from jobs.training import train_part
from jobs.training.ignored import ignored_when_solved
from jobs.training.loading import load
from jobs.training.parts import Part
from jobs.training.run import choice_of, request_of
from jobs.tuning import run_trials
from jobs.tuning.space import default_space, read_space, with_values
from jobs.tuning.standing import Standing
from jobs.tuning.trainable import Pruner, Search, sampler_of
from jobs.tuning.trial_records import importances, read_ledger


def config(root: str, **changes) -> train.Config:
    plain = train.Config(
        root=root, inputs=("voice", "face"), net="linear", folds="speaker", tracking=False, run="l"
    )
    return dataclasses.replace(plain, **changes)


def test_two_nets_of_the_zoo_are_convex():
    assert [name for name in NETS if is_convex(name)] == ["fourier", "linear"]


class TestTrain:
    def test_it_trains_on_all_rows_outside_of_its_fold_and_for_one_seed(self, root, capsys):
        train.main(config(root, seeds=(3, 4), lr=0.1, epochs=7, views=1))
        said = capsys.readouterr().out
        assert "solved, not trained by steps: without effect: --epochs, --lr, --seeds" in said
        assert "without effect: --views, for text and imported features have none" in said
        table = read_predictions(root, "l")
        assert set(table["seed"].to_pylist()) == {3}
        assert set(table["role"].to_pylist()) == {"train", "oof"}
        for fold in range(3):
            rows = table.filter(pc.equal(table["fold"], fold))
            rows = rows.filter(pc.equal(rows["task"], "emotion"))
            assert rows.num_rows == 47
        assert storage.exists(f"{root}/runs/l/refit/seed=3/model.safetensors")
        summary = storage.read_json(f"{root}/runs/l/summary.json")
        assert summary["roles"]["oof"]["emotion/accuracy"]["mean"] > 0.9
        history = Path(root, "runs/l/fold=0/seed=3/history.jsonl").read_text().splitlines()
        assert [set(json.loads(line)) for line in history] == [
            {"epoch", "lr"}
            | {f"{t}/{k}" for t in ("emotion", "arousal") for k in ("penalty", "inner_loss")}
        ]

    def test_the_kernel_machine_is_solved_alike(self, root, capsys):
        net = ["--net", "fourier", "--net-options", "waves=64", "width=0.1", "--folds", "speaker"]
        assert run(["train", "--root", root, "--run", "k", "--inputs", "voice", "face", *net]) == 0
        said = capsys.readouterr().out
        assert "best epoch 1 of 1" in said
        summary = storage.read_json(f"{root}/runs/k/summary.json")
        assert summary["roles"]["oof"]["emotion/accuracy"]["mean"] > 0.8
        options = storage.read_json(f"{root}/runs/k/config.json")["net_options"]
        assert options == {"waves": 64, "width": 0.1}

    def test_seeds_that_draw_its_rows_are_all_trained(self, root):
        train.main(config(root, seeds=(0, 1), share=0.5, refit=False, tasks=("emotion",)))
        table = read_predictions(root, "l", roles=("train",))
        first, second = (
            set(table.filter(pc.equal(table["seed"], seed))["clip_id"].to_pylist())
            for seed in (0, 1)
        )
        assert first != second

    def test_without_folds_rows_of_the_valid_split_judge_and_do_not_train(self, root):
        train.main(config(root, folds=None))
        table = read_predictions(root, "l")
        clips = {
            role: set(table.filter(pc.equal(table["role"], role))["clip_id"].to_pylist())
            for role in ("train", "valid")
        }
        assert not clips["train"] & clips["valid"]
        assert len(clips["valid"]) == 8

    @pytest.mark.parametrize("pool", ["none", "mean", "mean_std"])
    def test_labels_of_the_judged_fold_change_nothing(self, root, pool):
        asked = config(root, pool=pool)
        data = load(request_of(asked))
        part = Part(seed=0, fold=1)
        judged = torch.from_numpy(data.clips.fold == 1)
        noise = {
            "emotion": torch.where(judged, 2, data.clips.targets["emotion"]),
            "arousal": torch.where(judged, 1e3, data.clips.targets["arousal"]),
        }
        clips = dataclasses.replace(data.clips, targets=noise)
        feed = dataclasses.replace(data.feed, clips=clips)
        spoilt = dataclasses.replace(data, clips=clips, feed=feed)
        ours, theirs = (
            train_part.train_part(choice_of(asked), each, part, asked).fitted.predictor
            for each in (data, spoilt)
        )
        state = theirs.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())

    def test_steps_are_pooled_before_they_are_scaled(self, root):
        data = load(request_of(config(root)))
        assert {facts["pool"] for facts in data.inputs.values()} == {"mean"}
        assert data.feed.lengths.max() == 1

    def test_views_change_what_is_solved_and_not_what_is_judged(self, root, write_views):
        write_views(root, "voice", 2)
        for views in (0, 2):
            asked = ["--run", f"v{views}", "--views", str(views), "--inputs", "voice", "face"]
            net = ["--net", "linear", "--folds", "speaker", "--tasks", "emotion"]
            assert run(["train", "--root", root, *asked, *net]) == 0
        plain, seen = (read_predictions(root, f"v{views}") for views in (0, 2))
        assert plain["clip_id"].equals(seen["clip_id"])
        assert not plain["scores"].equals(seen["scores"])

    def test_noise_in_views_of_a_judged_fold_changes_nothing(self, root, write_views):
        write_views(root, "voice", 1)
        asked = config(root, views=1, tasks=("emotion",))
        part = Part(seed=0, fold=1)
        data = load(request_of(asked))
        ours = train_part.train_part(choice_of(asked), data, part, asked).fitted.predictor
        view = data.feed.views["audio"][0]
        for row in (data.clips.fold == 1).nonzero()[0].tolist():
            view.values[view.offsets[row] : view.offsets[row + 1]] = 50
        theirs = train_part.train_part(choice_of(asked), data, part, asked).fitted.predictor
        state = theirs.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())

    def test_every_field_of_the_recipe_but_the_weights_of_classes_is_named(self):
        other = {
            "epochs": 3, "patience": 0, "monitor": "accuracy", "batch_size": 8, "accumulation_steps": 2,
            "optimiser": "sgd", "lr": 1.0, "weight_decay": 1.0, "lr_factors": {"heads": 0.1},
            "schedule": "cosine", "warmup": 0.0, "plateau": 1, "clip_norm": 0.0,
            "precision": "bfloat16", "loss": "focal", "loss_options": {"gamma": 1.0},
            "task_weights": {"emotion": 2.0}, "label_smoothing": 0.1, "modality_dropout": 0.1,
            "feature_noise": 0.1, "mixup": 0.1, "target_scale": "none",
        }  # fmt: skip
        weights = {"class_weights": True, "balanced": True}
        assert set(other) | set(weights) == {f.name for f in dataclasses.fields(Recipe)}
        flags = {"--" + name.replace("_", "-") for name in other}
        assert set(ignored_when_solved(config("r", **other, **weights))) == flags
        assert ignored_when_solved(config("r", **other, net="gated")) == []
        assert ignored_when_solved(config("r", valid_share=0.2, views=1)) == ["--valid-share"]
        assert ignored_when_solved(config("r", valid_share=0.2, folds=None)) == []


SETS = [["face"], ["voice", "face"], ["voice"]]


class TestSearch:
    def search(self, root, values, ledger=()):
        base = config(root, net="concat_mlp", run="t")
        space = read_space(values, base)
        standing = Standing(base, 8, ledger)
        return Search(
            space, base, partial(sampler_of, "optuna"), ledger, lambda _record: None, standing
        )

    @pytest.mark.parametrize(
        ("changes", "more"),
        [
            ({}, {}),
            ({"net": ["lmf", "gated"], "lmf.rank": {"int": [1, 4]}}, {}),
            ({"net": ["sdt"], "lr": {"log": [1e-4, 1e-2]}}, {}),
            ({"pool": "mean_std", "epochs": [3, 4]}, {"pool": "mean_std"}),
            ({"pool": ["mean", "mean_std"], "pca.voice": [2, 3]}, {"pool": "mean", "pca.voice": 2}),
            ({"views": 1}, {"views": 1}),
        ],
        ids=["inputs only", "other nets", "a dialogue net", "pooled", "choices", "views"],
    )
    def test_it_comes_first_for_each_set_of_inputs(self, tmp_path, changes, more):
        search = self.search(str(tmp_path), {"inputs": SETS, **changes})
        drawn = [search.suggest(str(at))["values"] for at in range(7)]
        order = [["face"], ["voice"], ["voice", "face"]]
        assert drawn[:3] == [{"net": "linear", "inputs": inputs, **more} for inputs in order]
        assert [values["inputs"] for values in drawn[3:6]] == order
        assert all(values.get("net") != "linear" for values in drawn[3:])
        base = search.config
        assert with_values(base, drawn[0]).net == "linear"

    @pytest.mark.parametrize("net", ["linear", "concat_mlp"])
    @pytest.mark.parametrize(("inputs", "views"), [(["voice"], 1), (["face"], 0)])
    def test_views_count_where_there_are_some_and_spoil_no_trial(
        self, root, write_views, net, inputs, views
    ):
        write_views(root, "voice", 1)
        given = {"inputs": [["voice"], ["face"]], "views": 1, "epochs": 1}
        base = config(root, net="concat_mlp", run="t", pool="mean")
        library = run_trials.load_library(base, read_space(given, base))
        asked = with_values(base, {"net": net, "inputs": inputs, "views": 1})
        assert request_of(asked) in library._data  # read once, before the trials
        assert library.data(request_of(asked)).feed.num_views == views
        train.main(asked)
        assert read_predictions(root, "t").num_rows > 0

    def test_a_space_without_sets_of_inputs_has_one(self, tmp_path):
        search = self.search(str(tmp_path), {"lr": {"log": [1e-4, 1e-2]}})
        drawn = [search.suggest(str(at))["values"] for at in range(2)]
        assert drawn[0] == {"net": "linear", "inputs": ["voice", "face"]}
        assert "lr" in drawn[1]

    def test_the_default_space_begins_with_it(self, tmp_path):
        base = config(str(tmp_path), net="concat_mlp")
        search = self.search(str(tmp_path), default_space(base, ["classification"]))
        drawn = [search.suggest(str(at))["values"]["net"] for at in range(4)]
        assert drawn[:3] == ["linear"] * 3
        assert drawn[3] != "linear"

    def test_what_is_drawn_after_it_does_not_depend_on_it_and_survives_a_kill(self, tmp_path):
        values = {"inputs": SETS, "lr": {"log": [1e-4, 1e-2]}}
        search = self.search(str(tmp_path), values)
        result = {"state": "finished", "score": 1.0, "steps": 3}
        for at in range(3):
            search.suggest(str(at))
            search.on_trial_result(str(at), result)
            search.on_trial_complete(str(at), result)
        ledger = read_ledger(search.config)
        assert [record.drawn for record in ledger] == [False] * 3
        assert importances([*ledger, *ledger]) == {}
        again = self.search(str(tmp_path), values, ledger)
        assert again.suggest("3") == search.suggest("3")

    def test_it_is_neither_stopped_nor_the_bar_for_others(self):
        pruner = Pruner()

        class Trial:
            def __init__(self, net):
                self.config = {"values": {"net": net, "inputs": ["voice"]}}

        def decision(net, score):
            result = {"steps": 1, "score": score, "state": "pruned"}
            return pruner.on_trial_result(None, Trial(net), result)

        assert decision("linear", 0.1) == "CONTINUE"
        assert decision("lmf", 0.5) == "CONTINUE"
        assert decision("linear", 0.9) == "CONTINUE"
        assert decision("lmf", 0.6) == "STOP"
