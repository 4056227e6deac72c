"""One table, one set of clips: a member that lacks some of them is never judged on fewer than the others."""

import csv
import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cluster import storage
from cluster.errors import ConfigError
from fusion.late.members import Members, answered, prior
from fusion.metrics import FIGURES
from jobs import compare, ensemble, evaluate, report, train
from jobs.catalog import bundles, layout
from jobs.catalog.manifest import read_dataset, read_manifest
from jobs.catalog.predictions import HeldOut, read_predictions, write_predictions
from jobs.evaluation import cross_fitting
from jobs.evaluation.judging import loss
from jobs.training.summary import show

PEOPLE = 6


def held_rows(root):
    """Clip ids, class indices, folds of the rows that may be held out."""
    table = read_manifest(root, ["clip_id", "emotion", "split", "group"]).sort_by("clip_id")
    classes = read_dataset(root).tasks["emotion"].classes
    rows = [
        (row["clip_id"], classes.index(row["emotion"]), int(row["group"][1:]) % 3)
        for row in table.to_pylist()
        if row["split"] != "test" and row["emotion"] is not None
    ]
    return tuple(np.array(column) for column in zip(*rows, strict=True))


def add_run(root, name, *, right, silent):
    """A run that is right (sure of it) or wrong in each row, and says nothing of some."""
    clip, target, fold = held_rows(root)
    said = np.where(right, target, (target + 1) % 3)
    scores = 3.0 * np.eye(3)[said]
    for each in range(3):
        held = fold == each
        table = {
            "clip_id": clip,
            "run": [name] * len(clip),
            "split": pa.nulls(len(clip), pa.string()),
            "fold": [each] * len(clip),
            "seed": [0] * len(clip),
            "task": ["emotion"] * len(clip),
            "target": [[float(label)] for label in target],
            "role": np.where(held, "oof", "train"),
            "scores": [
                None if mute else row for mute, row in zip(silent, scores.tolist(), strict=True)
            ],
        }
        write_predictions(root, name, each, 0, pa.table(table))
    base = storage.join(root, "runs", name)
    storage.publish_json({"folds": "speaker"}, storage.join(base, "config.json"))
    for file in bundles.NET_FILES:
        storage.publish_bytes(b"{}", storage.join(base, "refit", "seed=0", file))


@pytest.fixture
def runs(root):
    """`half` is always right, and silent on every second clip; `whole` is right on four of five."""
    clip, _, _ = held_rows(root)
    rows = np.arange(len(clip))
    add_run(root, "half", right=np.ones(len(clip), bool), silent=rows % 2 == 1)
    add_run(root, "whole", right=rows % 5 > 0, silent=np.zeros(len(clip), bool))
    return root, len(clip), int((rows % 2 == 0).sum())


class TestALineThatLacksClips:
    def test_in_ensemble_it_is_judged_on_all_of_them_by_the_prior(self, runs, capsys):
        root, count, own = runs
        ensemble.main(
            ensemble.Config(root=root, runs=("half", "whole"), task="emotion", resamples=100)
        )
        said = capsys.readouterr().out
        base = layout.bundle_uri(root, "ensemble")
        results = storage.read_json(f"{base}/results.json")
        rows = {row["name"]: row for row in results["rows"]}
        assert results["num_rows"] == count
        assert {name: row["n"] for name, row in rows.items()} == {
            **dict.fromkeys(rows, count),
            "half": own,
        }
        accuracy = {name: row["figures"]["accuracy"]["value"] for name, row in rows.items()}
        assert accuracy["half"] < accuracy["whole"] == pytest.approx(0.8, abs=0.02)
        assert accuracy["half"] >= own / count
        assert results["best_single"] == "whole"
        assert "beyond its own n the prior answers" in " ".join(said.split())

    def test_in_compare_all_are_judged_on_the_clips_they_share(self, runs):
        root, count, own = runs
        compare.main(
            compare.Config(root=root, runs=("half", "whole"), task="emotion", resamples=100)
        )
        results = storage.read_json(f"{root}/comparisons/half-against-whole/results.json")
        assert results["num_clips"] == own
        assert [row["n"] for row in results["rows"]] == [own, count]
        assert results["rows"][0]["figures"]["accuracy"]["value"] == 1

    def test_in_compare_one_that_answers_none_is_refused_by_name(self, runs):
        root, count, _ = runs
        add_run(root, "mute", right=np.ones(count, bool), silent=np.ones(count, bool))
        with pytest.raises(ConfigError, match="mute answers no clip"):
            compare.main(
                compare.Config(root=root, runs=("whole", "mute"), task="emotion", resamples=100)
            )

    def test_in_report_every_table_of_lines_says_n_and_counts_all_clips(self, runs):
        root, count, own = runs
        where = report.main(
            report.Config(root=root, runs=("half", "whole"), task="emotion", resamples=100)
        )
        folder = where.rsplit("/", 1)[0]
        text = storage.read_bytes(f"{folder}/results.csv").decode()
        rows = {row[""]: row for row in csv.DictReader(io.StringIO(text))}
        assert {name: int(row["n"]) for name, row in rows.items()} == {
            **dict.fromkeys(rows, count),
            "half": own,
        }
        assert float(rows["half"]["accuracy"].split()[0]) < float(
            rows["whole"]["accuracy"].split()[0]
        )
        assert "beyond its own n" in storage.read_bytes(where).decode()

    def test_a_rule_is_not_chosen_for_keeping_silent(self):
        """A candidate that drops a member loses that member's rows; they count against it."""
        target = torch.arange(60) % 3
        sure = torch.log_softmax(4.0 * torch.nn.functional.one_hot(target).double(), 1)
        even = torch.arange(60) % 2 == 0
        members = Members(
            names=("half", "whole"),
            kind="classification",
            scores=torch.stack([sure, torch.log_softmax(0.4 * sure.exp(), 1)]),
            present=torch.stack([even, torch.ones(60, dtype=torch.bool)]),
        )
        held = HeldOut(
            clip_id=np.arange(60), fold=np.arange(60) // 20, target=target, members=members
        )
        plain = {"calibration": "none", "options": {"fitted": False}}
        both = cross_fitting.Candidate(rule="log_pool", **plain)
        alone = cross_fitting.Candidate(rule="log_pool", members=("half",), **plain)
        fits = cross_fitting.PairFits(held, held.fold)
        said = sure[even]
        on_its_own_rows = float(-said.gather(1, target[even][:, None]).mean())
        assert fits.judge(alone, without=None) > 10 * on_its_own_rows
        assert cross_fitting.choose(held, [alone, both], held.fold) == both


def lose_inputs(root, name, clips):
    """Rows of a feature table become missing."""
    uri = f"{root}/features/{name}-1/rows.parquet"
    table = storage.read_table(uri)
    lost = [clip in clips for clip in table["clip_id"].to_pylist()]
    for column in ("values", "valid", "step_start_s", "step_end_s"):
        kept = [
            [] if gone else row for gone, row in zip(lost, table[column].to_pylist(), strict=True)
        ]
        at = table.column_names.index(column)
        table = table.set_column(at, column, pa.array(kept, table.schema.field(column).type))
    status = ["missing" if gone else "ok" for gone in lost]
    at = table.column_names.index("status")
    storage.publish_table(table.set_column(at, "status", pa.array(status)), uri)


def roles_of(table, role):
    return table.filter(pc.equal(table["role"], role))


def test_train_and_evaluate_judge_nets_on_clips_without_inputs_too(root, capsys):
    clips = read_manifest(root, ["clip_id"])["clip_id"].to_pylist()
    lose_inputs(root, "voice", {clip for clip in clips if clip % 2})
    for name in ("voice", "face"):
        train.main(
            train.Config(
                root=root, inputs=(name,), tasks=("emotion",), net_options={"hidden": 8},
                epochs=20, lr=1e-2, pool="mean", run=name, tracking=False,
            )
        )  # fmt: skip
    summary = storage.read_json(f"{root}/runs/voice/summary.json")
    clips, own = summary["rows"]["valid"]["emotion"]
    assert (clips, own) == (8, 4)
    assert "4 of 8 valid clips have none of the inputs" in capsys.readouterr().out
    table = read_predictions(root, "voice")
    common = np.bincount(
        [int(t[0]) for t in roles_of(table, "train")["target"].to_pylist()]
    ).argmax()
    right = [
        (common if row["scores"] is None else np.argmax(row["scores"])) == row["target"][0]
        for row in roles_of(table, "valid").to_pylist()
    ]
    figure = summary["roles"]["valid"]["emotion/accuracy"]["mean"]
    assert figure == pytest.approx(np.mean(right))
    show(summary)
    assert "emotion/n" in capsys.readouterr().out
    evaluate.main(evaluate.Config(root=root, runs=("voice", "face"), task="emotion", resamples=100))
    results = storage.read_json(f"{root}/evaluations/voice+face/results.json")
    n = {row["name"]: row["n"] for row in results["rows"]}
    assert results["num_rows"] == n["face"] == n["majority"] == 24
    assert n["voice"] == 12
    assert results["rows"][0]["figures"]["accuracy"]["value"] < 1


@given(
    kind=st.sampled_from(["classification", "multilabel", "regression"]),
    silent=st.lists(st.booleans(), min_size=4, max_size=30),
    seed=st.integers(0, 100),
)
def test_no_line_gains_by_keeping_silent_where_it_knows_no_more_than_the_prior(kind, silent, seed):
    """A member that says the prior out loud and one that says nothing have the same figures."""
    generator = torch.Generator().manual_seed(seed)
    count, width = len(silent), 1 if kind == "regression" else 3
    if kind == "classification":
        target = torch.randint(3, (count,), generator=generator)
    elif kind == "multilabel":
        target = torch.randint(2, (count, 3), generator=generator).double()
    else:
        target = torch.randn(count, generator=generator).double()
    guess = prior(kind, target, width).expand(count, -1)
    own = torch.randn(count, width, generator=generator).double()
    if kind == "classification":
        own = torch.log_softmax(own, 1)
    mute = torch.tensor(silent).unsqueeze(1)
    loud = torch.where(mute, guess, own)
    said = answered(torch.where(mute, torch.nan, own), guess)
    torch.testing.assert_close(said, loud)
    for name in FIGURES[kind]:
        left, right = (loss(name, kind, each, target) for each in (said, loud))
        assert left == right or np.isclose(left, right)
