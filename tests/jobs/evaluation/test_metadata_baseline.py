"""The baseline that sees no content: length, turn, profile, and the speaker only where that is fair."""

import csv

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from cluster import storage, tables
from fusion.late.members import Members
from fusion.tasks import Task
from jobs import ensemble, report
from jobs.catalog import bundles
from jobs.catalog.predictions import HeldOut, write_predictions
from jobs.evaluation.metadata_baseline import metadata_of_test, metadata_out_of_fold

CLASSES = ("low", "high", "odd")
PEOPLE, EACH, FOLDS = 12, 10, 3
COUNT = PEOPLE * EACH
PERSON = np.arange(COUNT) // EACH
FOLD = PERSON % FOLDS
DRAWS = np.random.default_rng(0)
LENGTH = DRAWS.uniform(1, 9, COUNT)
MOODS = Task(kind="classification", classes=CLASSES)


def prepare(root, target, *, task=MOODS, length=LENGTH, group=PERSON, split=None, profile=None):
    """A dataset of text clips; returns its held-out rows, folds by person."""
    column = [CLASSES[int(t)] for t in target] if task.kind == "classification" else target.tolist()
    given = {
        "clip_id": np.arange(COUNT) + 7,
        "name": [f"c{i}" for i in range(COUNT)],
        "unit": [f"u{i}" for i in PERSON],
        "group": [f"g{i}" for i in group],
        "speaker": [f"p{i}" for i in PERSON],
        "duration_s": length,
        "split": pa.nulls(COUNT, pa.string()) if split is None else pa.array(split, pa.string()),
    }
    rest = {
        field.name: pa.nulls(COUNT, field.type)
        for field in tables.MANIFEST.schema
        if field.name not in given
    }
    more = {} if profile is None else {"profile": pa.array(profile)}
    table = tables.MANIFEST.conform(pa.table({**given, **rest, "mood": column, **more}))
    storage.publish_table(table, f"{root}/manifest/h/part-0.parquet")
    facts = {"kind": task.kind, "classes": list(task.classes)}
    known = sorted({key for row in profile or () for key in row})
    storage.publish_json(
        {"name": "tiny", "manifest": "h", "tasks": {"mood": facts}, "profile": known},
        f"{root}/dataset.json",
    )
    at = np.flatnonzero([s != "test" for s in (split if split is not None else [None] * COUNT)])
    scores = torch.zeros(1, len(at), task.outputs, dtype=torch.float64)
    return HeldOut(
        clip_id=at + 7,
        fold=PERSON[at] % FOLDS,
        target=torch.from_numpy(np.asarray(target)[at]),
        members=Members(
            names=("m",),
            kind=task.kind,
            scores=scores,
            present=torch.ones(1, len(at), dtype=torch.bool),
        ),
    )


def guess(root, held, task=MOODS):
    return metadata_out_of_fold(str(root), held, held.fold, "mood", task)


def accuracy(found, held):
    return float((found.scores.argmax(1) == held.target).double().mean())


class TestWhatItKnows:
    def test_a_label_that_follows_the_length_is_guessed_without_content(self, tmp_path):
        held = prepare(tmp_path, (LENGTH > 5).astype(int))
        found = guess(tmp_path, held)
        assert found.facts == ("length",)
        assert accuracy(found, held) > 0.95

    def test_what_is_known_of_the_speaker_counts(self, tmp_path):
        profile = [{"gender": "f" if p % 2 else "m"} for p in PERSON]
        held = prepare(tmp_path, PERSON % 2, profile=profile, length=np.full(COUNT, 2.0))
        found = guess(tmp_path, held)
        assert found.facts == ("gender",)
        assert accuracy(found, held) == 1.0

    def test_an_age_is_a_number_and_not_a_name(self, tmp_path):
        profile = [{"age": str(20 + p)} for p in PERSON]
        held = prepare(tmp_path, (PERSON > 5).astype(int), profile=profile, length=LENGTH * 0 + 2)
        found = guess(tmp_path, held)
        assert found.facts == ("age",)
        assert accuracy(found, held) > 0.8

    def test_the_speaker_says_nothing_where_folds_are_by_speaker(self, tmp_path):
        held = prepare(tmp_path, (PERSON * 7) % 3, length=np.full(COUNT, 2.0))
        assert guess(tmp_path, held) is None

    def test_the_speaker_is_known_where_speakers_talk_in_several_groups(self, tmp_path):
        talks = np.arange(COUNT) % 6
        held = prepare(tmp_path, (PERSON * 7) % 3, group=talks, length=np.full(COUNT, 2.0))
        by_talk = metadata_out_of_fold(str(tmp_path), held, talks % FOLDS, "mood", MOODS)
        assert by_talk.facts == ("speaker",)
        assert accuracy(by_talk, held) == 1.0


class TestItsFolds:
    def test_labels_of_a_fold_do_not_touch_what_is_said_of_it(self, tmp_path):
        target = DRAWS.integers(0, 3, COUNT)
        before = guess(tmp_path / "a", prepare(tmp_path / "a", target))
        changed = np.where(FOLD == 1, (target + 1) % 3, target)
        held = prepare(tmp_path / "b", changed)
        after = guess(tmp_path / "b", held)
        mine = torch.from_numpy(held.fold == 1)
        torch.testing.assert_close(after.scores[mine], before.scores[mine], rtol=0, atol=0)
        assert not torch.allclose(after.scores[~mine], before.scores[~mine])

    def test_labels_of_the_test_split_do_not_touch_it(self, tmp_path):
        target = DRAWS.integers(0, 3, COUNT)
        split = np.where(PERSON == 4, "test", "train")
        before = guess(tmp_path / "a", prepare(tmp_path / "a", target, split=split))
        changed = np.where(PERSON == 4, (target + 1) % 3, target)
        after = guess(tmp_path / "b", prepare(tmp_path / "b", changed, split=split))
        torch.testing.assert_close(after.scores, before.scores, rtol=0, atol=0)

    def test_a_fixed_split_is_judged_by_a_model_of_the_training_rows_too(self, tmp_path):
        split = np.where(PERSON < 10, "train", "valid")
        held = prepare(tmp_path, (LENGTH > 5).astype(int), split=split)
        rows = held.rows(PERSON >= 10)
        found = metadata_out_of_fold(str(tmp_path), rows, rows.clip_id % 1, "mood", MOODS)
        assert accuracy(found, rows) > 0.95


class TestItsModels:
    def test_classes_equal_a_plain_loop_of_logistic_regressions(self, tmp_path):
        target = np.digitize(LENGTH + DRAWS.normal(size=COUNT), [4, 6])
        held = prepare(tmp_path, target)
        shares = torch.softmax(guess(tmp_path, held).scores, 1).numpy()
        for fold in range(FOLDS):
            at = fold == FOLD
            x = np.stack([np.log1p(LENGTH), np.log1p(LENGTH) ** 2], 1)
            x = (x - x[~at].mean(0)) / x[~at].std(0)
            theirs = LogisticRegression(max_iter=1000).fit(x[~at], target[~at])
            np.testing.assert_allclose(shares[at], theirs.predict_proba(x[at]), atol=5e-4)

    def test_values_equal_a_plain_loop_of_ridge_regressions(self, tmp_path):
        task = Task(kind="regression")
        target = np.log(LENGTH) + 0.1 * DRAWS.normal(size=COUNT)
        found = guess(tmp_path, prepare(tmp_path, target, task=task), task).scores[:, 0].numpy()
        for fold in range(FOLDS):
            at = fold == FOLD
            x = np.stack([np.log1p(LENGTH), np.log1p(LENGTH) ** 2], 1)
            x = (x - x[~at].mean(0)) / x[~at].std(0)
            theirs = Ridge().fit(x[~at], target[~at]).predict(x[at])
            np.testing.assert_allclose(found[at], theirs, atol=1e-6)

    def test_labels_are_guessed_one_by_one(self, tmp_path):
        task = Task(kind="multilabel", classes=("long", "never"))
        target = np.stack([LENGTH > 5, LENGTH < 0], 1).astype(float)
        scores = guess(tmp_path, prepare(tmp_path, target, task=task), task).scores
        assert ((scores > 0).numpy() == target.astype(bool)).mean() > 0.95

    def test_test_rows_are_guessed_from_all_others(self, tmp_path):
        split = np.where(PERSON == 4, "test", "train")
        target = (LENGTH > 5).astype(int)
        prepare(tmp_path, target, split=split)
        clips = np.flatnonzero(PERSON == 4) + 7
        found = metadata_of_test(str(tmp_path), clips, "mood", MOODS)
        assert (found.scores.argmax(1).numpy() == target[PERSON == 4]).all()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("metadata"))
    target = (LENGTH > 5).astype(int)
    prepare(root, target)
    for fold in range(FOLDS):
        at = np.flatnonzero(fold == FOLD)
        rows = {
            "clip_id": at + 7, "run": ["net"] * len(at), "split": pa.nulls(len(at), pa.string()),
            "fold": [fold] * len(at), "seed": [0] * len(at), "task": ["mood"] * len(at),
            "target": [[float(target[row])] for row in at], "role": ["oof"] * len(at),
            "scores": np.eye(3)[target[at]].tolist(),
        }  # fmt: skip
        write_predictions(root, "net", fold, 0, pa.table(rows))
    return root


class TestTheRow:
    def test_it_stands_beside_the_majority_in_every_form_of_the_report(self, made, capsys):
        where = report.main(report.Config(root=made, runs=("net",), resamples=100))
        folder = where.rsplit("/", 1)[0]
        header, *rows = csv.reader(
            storage.read_bytes(f"{folder}/results.csv").decode().splitlines()
        )
        assert [row[0] for row in rows] == ["majority", "metadata only", "net"]
        assert "[" in rows[1][header.index("Accuracy" if "Accuracy" in header else "accuracy")]
        assert "metadata only" in storage.read_bytes(f"{folder}/results.tex").decode()
        page = storage.read_bytes(where).decode()
        assert "<td>metadata only</td>" in page
        assert "a linear model that sees length and no content" in page
        assert "metadata only" in capsys.readouterr().out

    def test_it_stands_in_what_an_ensemble_prints_and_writes(self, made, capsys):
        for file in bundles.NET_FILES:
            storage.publish_bytes(b"{}", f"{made}/runs/net/refit/seed=0/{file}")
        ensemble.main(ensemble.Config(root=made, runs=("net",), resamples=100))
        assert "metadata only" in capsys.readouterr().out
        rows = storage.read_json(f"{made}/bundles/ensemble/results.json")["rows"]
        assert [row["role"] for row in rows[:2]] == ["majority", "metadata"]
