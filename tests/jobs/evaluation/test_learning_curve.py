"""Learning curves over data: smaller shares lie inside larger ones, and everybody is judged alike."""

import csv
import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch

from cluster import storage
from cluster.errors import ConfigError
from jobs import report, train
from jobs.catalog.predictions import read_predictions
from jobs.evaluation.sibling_runs import run_configs, siblings
from jobs.training.loading import Request, load
from jobs.training.parts import Part, split_of

SHARES = (0.25, 0.5, 0.75, 1.0)


def config(root, **changes):
    plain = train.Config(
        root=root,
        inputs=("voice",),
        tasks=("emotion",),
        net_options={"hidden": 4},
        epochs=3,
        pool="mean",
        folds="speaker",
        refit=False,
        tracking=False,
    )
    return dataclasses.replace(plain, **changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory, write_root):
    root = write_root(str(tmp_path_factory.mktemp("shares") / "root"))
    for share in SHARES:
        train.main(config(root, run=f"net-{share}", share=share, seeds=(0, 1)))
    train.main(config(root, run="other", share=0.5, seeds=(0, 1), lr=0.1))
    return root


def splits(root, *, has_folds, folds="speaker", fold=0, seed=0):
    clips = load(Request(root=root, inputs=("voice",), folds=folds if has_folds else None)).clips
    part = Part(fold=fold, seed=seed)
    return [
        split_of(clips, part, valid_share=0.3, has_folds=has_folds, share=share) for share in SHARES
    ]


class TestSplits:
    @pytest.mark.parametrize("has_folds", [True, False])
    def test_smaller_shares_lie_inside_larger_ones(self, root, has_folds):
        found = splits(root, has_folds=has_folds)
        for small, large in pairwise(found):
            assert not (small.train & ~large.train).any()
            assert not (small.valid & ~large.valid).any()
        assert found[0].train.sum() < found[-1].train.sum()

    def test_judged_rows_are_the_same_for_every_share(self, root):
        assert all((s.oof == t.oof).all() for s, t in pairwise(splits(root, has_folds=True)))
        assert all((s.valid == t.valid).all() for s, t in pairwise(splits(root, has_folds=False)))

    def test_groups_are_used_whole_and_by_their_number(self, root):
        clips = load(Request(root=root, inputs=("voice",))).clips
        for share, split in zip(SHARES, splits(root, has_folds=False), strict=True):
            used = set(clips.group[split.train])
            assert split.train.sum() == sum(clips.group == g for g in used).sum()
            assert len(used) == max(1, round(share * 5))

    def test_another_seed_draws_other_groups(self, root):
        drawn = {splits(root, has_folds=False, seed=seed)[0].train.tobytes() for seed in range(9)}
        assert len(drawn) > 1

    def test_a_refit_uses_the_share_too(self, root):
        found = splits(root, has_folds=True, fold=None)
        assert found[0].train.sum() < found[-1].train.sum() == 48

    def test_a_share_of_nothing_is_refused(self, root):
        with pytest.raises(ConfigError, match=r"--share 0\.0: expected above 0"):
            config(root, share=0.0)


class TestRuns:
    def test_every_clip_is_held_out_once_whatever_the_share(self, made):
        clips = [
            read_predictions(made, f"net-{share}", roles=("oof",))["clip_id"].to_pylist()
            for share in SHARES
        ]
        assert all(sorted(each) == sorted(clips[0]) for each in clips)

    def test_siblings_differ_in_the_share_alone(self, made):
        found = siblings(made, run_configs(made), "net-0.5", "share", 1.0)
        assert found == {share: f"net-{share}" for share in SHARES}

    def test_a_run_of_another_field_has_none(self, made):
        assert siblings(made, run_configs(made), "other", "share", 1.0) == {0.5: "other"}
        assert siblings(made, run_configs(made), "elsewhere", "share", 1.0) == {}


class TestReport:
    def test_curve_and_table_appear_where_runs_of_other_shares_are_there(self, made):
        where = report.main(
            report.Config(root=made, task="emotion", runs=("net-1.0",), resamples=100)
        )
        folder = where.rsplit("/", 1)[0]
        assert "<h2>Learning curve over data</h2>" in storage.read_bytes(where).decode()
        assert storage.exists(f"{folder}/shares.png")
        assert storage.exists(f"{folder}/shares.tex")
        text = storage.read_bytes(f"{folder}/shares.csv").decode()
        _, *rows = csv.reader(text.splitlines())
        assert [row[0] for row in rows] == [f"net-{share}" for share in SHARES]
        groups = [float(row[2]) for row in rows]
        assert groups == sorted(groups)
        assert groups[0] < groups[-1]

    def test_its_figures_are_the_mean_over_seeds(self, made):
        where = report.main(
            report.Config(root=made, task="emotion", runs=("net-0.5",), resamples=100)
        )
        folder = where.rsplit("/", 1)[0]
        _, *rows = csv.reader(storage.read_bytes(f"{folder}/shares.csv").decode().splitlines())
        table = read_predictions(made, "net-0.5", roles=("oof",)).to_pylist()
        each = [
            np.mean([np.argmax(r["scores"]) == r["target"][0] for r in table if r["seed"] == seed])
            for seed in (0, 1)
        ]
        assert float(rows[1][3].split(" ")[0]) == pytest.approx(np.mean(each), abs=6e-4)

    def test_runs_that_stand_alone_have_no_curve(self, made):
        where = report.main(
            report.Config(root=made, task="emotion", runs=("other",), resamples=100)
        )
        assert "Learning curve over data" not in storage.read_bytes(where).decode()


def test_a_task_that_the_runs_do_not_have_is_named(made):
    with pytest.raises(
        ConfigError, match=r"run net-0\.5 \(of emotion\): nothing there is of the task arousal"
    ):
        report.main(report.Config(root=made, task="arousal", runs=("net-0.5",), resamples=100))


def test_a_full_share_is_the_run_as_it_was(root):
    clips = load(Request(root=root, inputs=("voice",), folds="speaker")).clips
    part = Part(fold=1, seed=3)
    plain = split_of(clips, part, valid_share=0.1, has_folds=True)
    full = split_of(clips, part, valid_share=0.1, has_folds=True, share=1.0)
    for role in ("train", "valid", "oof"):
        assert torch.equal(*(torch.from_numpy(getattr(s, role)) for s in (plain, full)))
