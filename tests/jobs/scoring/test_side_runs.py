"""What an encoder says itself becomes a member that nobody trained, joined to the labels by their names."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import storage, tables
from encoders import ENCODERS
from encoders.registry import describe, find
from fusion import predictor
from fusion.batch import Batch, Steps
from fusion.tasks import Task
from jobs.__main__ import run
from jobs.catalog import layout
from jobs.catalog.bundles import read_bundle
from jobs.catalog.label_words import joined
from jobs.catalog.manifest import read_dataset
from jobs.catalog.predictions import held_out_rows, read_predictions, write_predictions
from jobs.scoring.pretrained import card_of, said
from jobs.scoring.side_runs import side_runs
from jobs.scoring.versions import read_scores
from tests.jobs.small_root import write_root

FACE = find("face_expression")
CLASSES = FACE.answers["expression"].classes
SPOKEN = {"calm": "neutral", "glad": "happy", "sad": "sad"}
"""Label of the small root -> class of the encoder."""


def card(task, column="expression"):
    source = {"features": "f", "name": "face_expression", "options": {}, "fingerprint": "0"}
    return card_of({**source, "column": column}, "mood", task)


def answer(task, said_of_steps, mask=None):
    """Logits of the net for the probabilities [step class] of one clip."""
    steps = torch.tensor(np.array(said_of_steps), dtype=torch.float32)[None]
    there = torch.ones(steps.shape[:2], dtype=torch.bool) if mask is None else torch.tensor([mask])
    net = predictor.build(card(task)).eval()
    return net(Batch(inputs={"video": Steps(steps, there)})).logits["mood"][0]


def classes(*names):
    return Task(kind="classification", classes=names)


class TestEveryEncoder:
    """Of all that are registered."""

    @pytest.mark.parametrize("name", ENCODERS)
    def test_its_answers_are_columns_that_it_publishes(self, name):
        spec = find(name)
        for column, one in spec.answers.items():
            assert spec.side[column] == (len(one.classes) or 1)
            assert len(set(one.classes)) == len(one.classes)


class TestLabels:
    """Classes and labels joined by name."""

    @given(st.permutations(range(7)), st.integers(0, 2))
    @settings(max_examples=25, deadline=None)
    def test_any_order_and_any_spelling_finds_the_same_classes(self, order, way):
        spelling = (
            str.upper,
            str.title,
            lambda name: {"happy": "joy", "fear": "fearful"}.get(name, name),
        )
        labels = [spelling[way](CLASSES[place]) for place in order]
        assert joined(CLASSES, labels) == np.eye(7)[list(order)].tolist()

    def test_a_class_that_two_labels_mean_is_divided(self):
        assert joined(("happy",), ("joy", "happy", "bored")) == [[0.5], [0.5], [0.0]]

    def test_a_sentiment_holds_its_emotions(self):
        rows = joined(CLASSES, ("positive", "Negative", "neutral"))
        assert [[CLASSES[k] for k, one in enumerate(row) if one] for row in rows] == [
            ["happy"], ["angry", "disgust", "fear", "sad"], ["neutral"],
        ]  # fmt: skip

    def test_one_line_says_what_is_not_joined(self):
        line = said(card(classes("joy", "boredom", "sadness")))
        assert "joy = happy, sadness = sad" in line
        assert "no class for boredom" in line
        assert "no label is its angry, disgust, fear, surprise, neutral" in line
        assert "\n" not in line


class TestNet:
    """What the net makes of an answer."""

    def test_equal_classes_come_out_as_they_are(self):
        shares = np.random.default_rng(0).dirichlet(np.ones(7))
        got = answer(classes(*CLASSES), [shares]).softmax(-1)
        np.testing.assert_allclose(got, shares, atol=2e-3)

    @given(st.integers(0, 1000), st.integers(1, 5))
    @settings(max_examples=20, deadline=None)
    def test_a_label_without_a_class_is_left_even_whatever_is_said(self, seed, steps):
        shares = np.random.default_rng(seed).dirichlet(np.full(7, 0.1), size=steps)
        got = answer(classes("joy", "boredom", "sadness", "anger"), shares).softmax(-1)
        assert got[1] == pytest.approx(0.25, abs=1e-6)
        assert got.sum() == pytest.approx(1)
        assert (got > 0).all()

    def test_steps_that_are_not_valid_count_for_nothing(self):
        sure = np.eye(7)[[3, 0, 0]].tolist()
        one = answer(classes("joy", "anger"), sure, [True, False, False])
        assert torch.equal(one, answer(classes("joy", "anger"), sure[:1]))
        assert one.argmax() == 0

    def test_several_labels_are_said_each_and_one_without_a_class_is_even(self):
        task = Task(kind="multilabel", classes=("happiness", "sadness", "boredom"))
        shares = np.zeros((1, 7))
        shares[0, 3], shares[0, 6] = 0.7, 0.3
        got = torch.sigmoid(answer(task, shares))
        np.testing.assert_allclose(got, [0.7, 0.0, 0.5], atol=1e-3)

    @pytest.mark.parametrize(
        "task",
        [classes("up", "down"), classes("joy", "up"), Task(kind="regression", range=(0.0, 1.0))],
    )
    def test_where_fewer_than_two_classes_are_common_nothing_is_said(self, task):
        assert card(task) is None


@pytest.fixture
def root(tmp_path):
    """Faces whose expression names the mood of a clip three times in four; one clip without a face."""
    root = write_root(str(tmp_path / "root"))
    write_faces(root, skill=0.75)
    return root


def write_faces(root, skill, seed=0):
    """A table of `face_expression` under a root."""
    parts = [
        storage.read_table(f"{root}/manifest/abc/{name}")
        for name in storage.names(f"{root}/manifest/abc", ".parquet")
    ]
    manifest = pa.concat_tables(parts).sort_by("clip_id")
    draws = np.random.default_rng(seed)
    expression, steps = [], []
    for clip, mood in zip(
        manifest["clip_id"].to_pylist(), manifest["emotion"].to_pylist(), strict=True
    ):
        count = 0 if clip == 105 else int(draws.integers(1, 4))
        shown = SPOKEN.get(mood) if draws.random() < skill else CLASSES[draws.integers(7)]
        sure = np.full(7, 0.05)
        sure[CLASSES.index(shown or "fear")] += 0.65
        expression.append(np.tile(sure, (count, 1)).tolist())
        steps.append(count)
    times = pa.array([[0.0] * n for n in steps], pa.list_(pa.float32()))
    descriptor = describe("face_expression")
    table = pa.table(
        {
            "clip_id": manifest["clip_id"],
            "values": pa.array(
                [np.zeros((n, 128), np.float16).tolist() for n in steps],
                pa.list_(pa.list_(pa.float16(), 128)),
            ),
            "step_start_s": times,
            "step_end_s": times,
            "valid": pa.array([[True] * n for n in steps], pa.list_(pa.bool_())),
            "status": ["ok" if n else "missing" for n in steps],
            "error": pa.nulls(len(steps), pa.string()),
            "expression": pa.array(expression, pa.list_(pa.list_(pa.float32(), 7))),
        }
    )
    folder = f"{root}/features/{descriptor.folder}"
    storage.publish_table(tables.features(128).conform(table), f"{folder}/rows.parquet")
    storage.publish_json(
        {**descriptor.facts(), "manifest": "abc", "reads": []}, f"{folder}/descriptor.json"
    )


def ensemble(root, *more):
    words = ["ensemble", "--root", root, "--task", "emotion", "--resamples", "200", "--no-tracking"]
    return run([*words, *map(str, more)])


RUN = "side-face_expression-emotion"


def add_net(root, skill, seed=0, name="voice"):
    """A run beside that of the encoder, on the folds by speaker, as `train` leaves it but for its nets."""
    table = read_predictions(root, RUN)
    draws = np.random.default_rng(seed)
    target = np.array(table["target"].to_pylist())[:, 0].astype(int)
    scores = skill * np.eye(3)[target] + draws.normal(size=(len(target), 3))
    for key, values in {"run": [name] * len(target), "scores": scores.tolist()}.items():
        table = table.set_column(table.column_names.index(key), key, pa.array(values))
    for fold in table["fold"].unique().to_pylist():
        write_predictions(root, name, fold, 0, table.filter(pc.equal(table["fold"], fold)))
    storage.publish_json({"folds": "speaker"}, layout.run_uri(root, name, layout.CONFIG))


def by_speaker(root):
    """Publish the run on the folds by speaker, and nothing else."""
    storage.publish_json({"folds": "speaker"}, layout.run_uri(root, "voice", layout.CONFIG))
    task = read_dataset(root).tasks["emotion"]
    assert side_runs(root, ["face_expression"], ["voice"], "emotion", task) == [RUN]
    storage.remove_tree(layout.run_uri(root, "voice"))


class TestRun:
    """The run that is published."""

    def test_every_labelled_clip_of_the_folds_is_held_out_and_one_without_a_face_is_not_answered(
        self, root, capsys
    ):
        by_speaker(root)
        table = held_out_rows(root, RUN, "emotion")
        assert sorted(table["clip_id"].to_pylist()) == [c for c in range(100, 148) if c != 107]
        known = zip(table["clip_id"].to_pylist(), table["scores"].to_pylist(), strict=True)
        assert [clip for clip, scores in known if scores is None] == [105]
        assert "46 of 47 held-out clips answered" in capsys.readouterr().out

    def test_a_second_time_it_is_kept_and_other_features_or_folds_make_it_anew(self, root, capsys):
        by_speaker(root)
        capsys.readouterr()
        by_speaker(root)
        assert "answered" not in capsys.readouterr().out
        task = read_dataset(root).tasks["emotion"]
        side_runs(root, ["face_expression"], [], "emotion", task)
        assert set(read_predictions(root, RUN)["role"].to_pylist()) == {"valid"}
        assert not storage.exists(layout.part_uri(root, RUN, 1, 0))

    def test_the_name_of_a_trained_run_is_not_taken(self, root, capsys):
        storage.publish_json({}, layout.run_uri(root, RUN, layout.CONFIG))
        assert ensemble(root, "--side", "face_expression") != 0
        assert "was trained; rename" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("more", "expected"),
        [
            (("--side", "voice"), "says nothing of 'emotion'.*: .*face_expression"),
            (("--side", "egemaps"), "affuse encode --root .* --encoders egemaps"),
            (("--side", "face_expression", "face_expression"), "is there twice; name it once"),
        ],
    )
    def test_what_says_nothing_is_refused_with_what_does(self, root, capsys, more, expected):
        assert ensemble(root, *more) != 0
        assert re.search(expected, capsys.readouterr().err)

    def test_verify_finds_it_whole(self, root, capsys):
        by_speaker(root)
        run(["verify", "--root", root])
        assert re.search(rf"^runs/{RUN}: .*: sound$", capsys.readouterr().out, re.MULTILINE)


class TestMember:
    """What an ensemble makes of it."""

    @pytest.mark.parametrize(("skill", "kept"), [(0.75, True), (0.0, False)])
    def test_it_is_fused_where_it_gains_and_left_out_where_it_does_not(
        self, root, capsys, monkeypatch, skill, kept
    ):
        monkeypatch.setattr("jobs.ensemble.nets_among", lambda config: [])
        write_faces(root, skill)
        by_speaker(root)
        add_net(root, 0.8)
        assert ensemble(root, "--runs", "voice", "--side", "face_expression") == 0
        said = capsys.readouterr().out
        assert (f"{RUN}: gains +" if kept else f"{RUN}: shows no gain") in said
        assert (RUN in read_bundle(root, "ensemble")["rule"]["members"]) == kept

    def test_its_bundle_scores_explains_and_evaluates_like_any_other(self, root, capsys):
        by_speaker(root)
        assert ensemble(root, "--runs", RUN) == 0
        out = capsys.readouterr().out
        assert f"{RUN}: calm = neutral, glad = happy, sad = sad; no label is its angry" in out
        assert read_bundle(root, "ensemble")["rule"]["members"] == [RUN]
        assert run(["score", "--root", root, "--bundle", "ensemble", "--source", "features"]) == 0
        table = read_scores(root, "ensemble").sort_by("clip_id")
        assert [clip for clip, label in zip(
            table["clip_id"].to_pylist(), table["label"].to_pylist(), strict=True
        ) if label is None] == [105]  # fmt: skip
        for words in (
            ["evaluate", "--root", root, "--bundle", "ensemble"],
            ["evaluate", "--root", root, "--task", "emotion", "--runs", RUN],
            ["explain", "--root", root, "--bundle", "ensemble"],
            ["report", "--root", root, "--task", "emotion", "--bundle", "ensemble"],
        ):
            assert run(words) == 0, words
