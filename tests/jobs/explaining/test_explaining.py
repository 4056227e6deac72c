"""Explanations: exact values that sum to the answer, and figures on rows that no net trained on."""

import itertools
import json
import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cluster import storage, tables
from cluster.errors import ConfigError, NotPreparedError
from fusion.late.members import probabilities
from jobs import ensemble, explain, train
from jobs.catalog import layout
from jobs.catalog.predictions import held_out
from jobs.explaining import clip_values, on_held_out
from jobs.explaining.shapley import shapley_values
from jobs.library.loaded_bundle import load
from jobs.scoring.member_nets import Fusion
from jobs.scoring.opening import open_bundle


def by_permutations(values):
    """The definition: what a player adds when all arrive in every order."""
    players = len(values).bit_length() - 1
    found = torch.zeros(players, dtype=values.dtype)
    for order in itertools.permutations(range(players)):
        there = 0
        for player in order:
            found[player] += values[there | 1 << player] - values[there]
            there |= 1 << player
    return found / math.factorial(players)


class TestShapley:
    @given(
        st.integers(0, 4).flatmap(
            lambda n: st.lists(st.floats(-9, 9), min_size=1 << n, max_size=1 << n)
        )
    )
    def test_values_are_those_of_the_definition_and_sum_to_the_whole(self, numbers):
        values = torch.tensor(numbers, dtype=torch.float64)
        found = shapley_values(values)
        assert found.tolist() == pytest.approx(by_permutations(values).tolist(), abs=1e-9)
        assert float(found.sum()) == pytest.approx(numbers[-1] - numbers[0], abs=1e-9)

    @given(st.lists(st.floats(-9, 9), min_size=8, max_size=8), st.integers(0, 3))
    def test_a_player_who_changes_nothing_has_exactly_zero(self, numbers, dummy):
        low = (1 << dummy) - 1
        others = [(subset & low) | (subset >> 1 & ~low) for subset in range(16)]
        values = torch.tensor([numbers[subset] for subset in others], dtype=torch.float64)
        assert float(shapley_values(values)[dummy]) == 0.0

    def test_a_number_of_subsets_that_cannot_be_is_refused(self):
        with pytest.raises(ValueError, match="3 subsets"):
            shapley_values(torch.zeros(3))


@pytest.fixture(scope="module")
def root(write_root, tmp_path_factory):
    """Two nets of one input each, one of both with gates; their ensemble."""
    root = write_root(str(tmp_path_factory.mktemp("explained") / "root"))
    inputs = {"voice": ("voice",), "face": ("face",), "both": ("voice", "face")}
    for name, read in inputs.items():
        train.main(
            train.Config(
                root=root, run=name, inputs=read, tasks=("emotion",), folds="speaker", refit=True,
                net="gated" if name == "both" else "linear", epochs=3, pool="mean", tracking=False,
            )
        )  # fmt: skip
    fuse(root, "ensemble", ("voice", "face", "both"))
    return root


def fuse(root, name, runs):
    """A bundle of all of the runs, whatever it gains."""
    ensemble.main(
        ensemble.Config(
            root=root, bundle=name, runs=runs, task="emotion", rule="log_pool", resamples=100
        )
    )


def clips_of(root):
    """Features of all clips as a frame."""
    columns = {}
    for name in ("voice", "face"):
        table = storage.read_table(f"{root}/features/{name}-1/rows.parquet").sort_by("clip_id")
        columns[name] = [cell or None for cell in table["values"].to_pylist()]
    return columns


def assert_sums(row):
    for kind in ("modalities", "members"):
        for name in row["answer"]:
            added = sum(values[name] for values in row[kind].values())
            assert added == pytest.approx(row["answer"][name] - row["empty"][name], abs=1e-6)


class TestAClip:
    def test_values_sum_to_the_answer_less_the_answer_to_nothing(self, root):
        opened = load("ensemble", root=root)
        rows = opened.explain(clips_of(root))
        frame = opened.predict(clips_of(root))
        assert len(rows) == len(frame)
        for at, row in enumerate(rows):
            assert_sums(row)
            given = [frame[f"p_{name}"][at] for name in row["answer"]]
            assert [*row["answer"].values()] == pytest.approx(given, abs=1e-9)
        assert list(rows[0]["members"]) == ["voice", "face", "both"]

    def test_a_modality_that_no_net_reads_or_the_clip_lacks_has_exactly_zero(self, root):
        rows = load("ensemble", root=root).explain(clips_of(root))
        assert {value for row in rows for value in row["modalities"]["text"].values()} == {0.0}
        assert set(rows[3]["modalities"]["video"].values()) == {0.0}  # its face is missing
        assert all(set(row["modalities"]["video"].values()) != {0.0} for row in rows[:3])

    def test_a_bundle_that_ships_one_member_gives_all_to_its_modality(self, root):
        fuse(root, "voice_only", ("voice",))
        for row in load("voice_only", root=root).explain({"voice": clips_of(root)["voice"]}):
            assert set(row["modalities"]["video"].values()) == {0.0}
            assert row["modalities"]["audio"] == pytest.approx(row["members"]["voice"])
            assert_sums(row)

    def test_nothing_is_answered_by_how_frequent_the_classes_were(self, root):
        facts = storage.read_json(layout.bundle_uri(root, "ensemble", layout.BUNDLE))
        held = held_out(root, ["voice"], "emotion", Fusion.from_facts(facts).kind)
        frequent = torch.bincount(held.target.long(), minlength=3) / len(held.target)
        assert facts["prior"] == pytest.approx(frequent.tolist(), abs=1e-3)
        (row,) = load("ensemble", root=root).explain({"voice": [None]})
        assert (
            row["answer"]
            == row["empty"]
            == dict(zip(facts["classes"], facts["prior"], strict=True))
        )
        zeros = {
            v
            for kind in ("modalities", "members")
            for each in row[kind].values()
            for v in each.values()
        }
        assert zeros == {0.0}

    def test_gates_are_shown_by_input_and_sum_to_one(self, root):
        row = load("ensemble", root=root).explain(clips_of(root))[0]
        assert set(row["looks"]) == {"both"}
        gates = row["looks"]["both"]["gates"]
        assert set(gates) == {"audio", "video"}
        assert sum(gates.values()) == pytest.approx(1, abs=1e-5)

    def test_plain_values_alone(self, root):
        rows = load("ensemble", root=root).explain(clips_of(root))
        assert json.loads(json.dumps(rows)) == rows

    @pytest.mark.parametrize("kind", ["regression", "multilabel"])
    def test_of_other_tasks_too(self, root, kind):
        if kind == "multilabel":
            task = {"kind": "multilabel", "classes": ["a", "b"], "range": None}
            assert (
                clip_values.empty_answer({}, clip_values.Task.from_json(task)).tolist() == [0.5] * 2
            )
            return
        for name in ("voice", "face"):
            train.main(
                train.Config(
                    root=root, run=f"{name}_value", inputs=(name,), tasks=("arousal",), net="linear",
                    folds="speaker", refit=True, pool="mean", tracking=False,
                )
            )  # fmt: skip
        runs = ("voice_value", "face_value")
        ensemble.main(
            ensemble.Config(
                root=root, bundle="value", runs=runs, task="arousal", rule="mean", resamples=100
            )
        )
        for row in load("value", root=root).explain(clips_of(root)):
            assert list(row["answer"]) == ["value"]
            assert_sums(row)

    def test_of_values_it_is_said_how_far_they_are_moved(self, capsys):
        added = torch.tensor([[[2.0], [-2.0]], [[0.1], [-0.1]]])
        part = clip_values.Explained(
            names=("a", "b"), task_name="t", task=clip_values.Task(kind="regression"),
            empty=torch.zeros(1), subsets=added.sum(0).unsqueeze(0), modalities=("audio", "text"),
            by_modality=added, members=(), by_member=torch.zeros(0, 2, 1),
        )  # fmt: skip
        means = on_held_out.mean_values([part])
        assert means["modalities"] == pytest.approx({"audio": 2.0, "text": 0.1})
        explain._show_means("modality", means["modalities"], "regression")
        said = " ".join(capsys.readouterr().out.split())
        assert said == "a modality moves the value, up or down, by on average: audio 2, text 0.1"

    def test_more_members_than_their_subsets_can_be_asked_are_left_out(self, root, monkeypatch):
        monkeypatch.setattr(clip_values, "MOST_MEMBERS", 2)
        row = load("ensemble", root=root).explain(clips_of(root))[0]
        assert row["members"] == {}
        assert row["modalities"]

    def test_rows_fused_a_few_at_a_time_say_the_same(self, root, monkeypatch):
        whole = load("ensemble", root=root).explain(clips_of(root))
        monkeypatch.setattr(clip_values, "SUBSETS_AT_ONCE", 40)
        parts = load("ensemble", root=root).explain(clips_of(root))
        for one, other in zip(whole, parts, strict=True):
            for name, values in one["members"].items():
                assert other["members"][name] == pytest.approx(values, abs=1e-12)


class TestRawClips:
    def test_a_net_of_dialogues_shows_where_it_looks(self, toys, tmp_path):
        toys.bundle.write_bundle(tmp_path, net="dialogue_profile")
        opened = load("b", root=str(tmp_path))
        rows = opened.explain(
            {
                "text": ["so it is", "is it", "yes it is", "alone"],
                "dialogue": ["d", "d", "d", None],
                "turn": [2, 0, 1, None],
                "name": ["c", "a", "b", "z"],
            }
        )
        for row in rows:
            assert_sums(row)
            assert set(row["modalities"]["audio"].values()) == {0.0}
        attention = rows[0]["looks"]["words"]["attention"]
        assert list(attention) == ["a", "b", "c"]
        assert sum(attention.values()) == pytest.approx(1, abs=1e-5)
        assert list(rows[3]["looks"]["words"]["attention"]) == ["z"]

    def test_a_bundle_of_sound_alone_gives_words_exactly_zero(self, toys, tmp_path):
        corpus = toys.corpus.write_corpus(tmp_path, 2)
        toys.bundle.write_bundle(tmp_path, text=None)
        files = [str(corpus / "media" / f"{i}.wav") for i in range(2)]
        rows = load("b", root=str(tmp_path)).explain({"clip": files, "text": ["oh", "no"]})
        for row in rows:
            assert set(row["modalities"]["text"].values()) == {0.0}
            assert set(row["modalities"]["audio"].values()) != {0.0}


class TestASet:
    @pytest.fixture(scope="class")
    def found(self, root):
        explain.main(explain.Config(root=root, bundle="ensemble", resamples=100))
        folder = layout.explanation_uri(root, "ensemble")
        return (
            storage.read_table(storage.join(folder, layout.VALUES)),
            storage.read_json(storage.join(folder, layout.RESTS_ON)),
        )

    def test_every_clip_has_its_values(self, root, found):
        values, _ = found
        tables.EXPLANATIONS.check(values.schema, where="values")
        rows = values.to_pylist()
        clips = {row["clip_id"] for row in rows}
        assert clips == set(range(100, 172))
        assert len(rows) == len(clips) * (2 + 3 + 3)
        first = {(r["kind"], r["player"]): dict(r["values"]) for r in rows if r["clip_id"] == 100}
        for name, answer in first["answer", ""].items():
            added = sum(v[name] for (kind, _), v in first.items() if kind == "modality")
            assert added == pytest.approx(answer - first["empty", ""][name], abs=1e-6)

    def test_held_out_rows_are_answered_by_the_nets_that_did_not_see_them(self, root, monkeypatch):
        seen = []
        real = on_held_out.explain

        def kept(*arguments, **options):
            seen.append(real(*arguments, **options))
            return seen[-1]

        monkeypatch.setattr(on_held_out, "explain", kept)
        bundle = open_bundle("ensemble", root)
        on_held_out.rests_on(root, bundle, resamples=100, seed=0)
        fusion = Fusion.from_facts(bundle.facts)
        held = held_out(root, fusion.rule.names, fusion.task, fusion.kind)
        recorded = probabilities("classification", fusion.combine(held.members))
        answers = torch.cat([part.subsets[-1] for part in seen])
        order = np.argsort(np.concatenate([np.flatnonzero(held.fold == k) for k in range(3)]))
        assert answers[order].numpy() == pytest.approx(recorded.numpy(), abs=1e-6)

    def test_no_test_row_is_read(self, root, found):
        _, facts = found
        manifest = storage.read_table(f"{root}/manifest/abc/part-8.parquet")
        assert set(manifest["split"].to_pylist()) == {"test"}
        assert facts["num_clips"] < 72 - 24 + 1

    def test_what_is_lost_and_what_is_left_stand_on_the_same_rows(self, found):
        _, facts = found
        assert set(facts["alone"]) == {"audio", "video", "audio + video"}
        assert facts["alone"]["audio + video"] == facts["whole"]
        assert set(facts["shuffled"]) == {"audio", "video"}
        for name in ("audio", "video"):
            lost = facts["shuffled"][name]
            assert lost["low"] <= lost["value"] <= lost["high"]
            assert lost["value"] > 0
        means = facts["mean_values"]
        assert means["modalities"]["text"] == 0.0
        assert sum(means["modalities"].values()) == pytest.approx(sum(means["members"].values()))

    def test_large_sets_are_drawn_by_whole_groups(self, root, monkeypatch):
        monkeypatch.setattr(on_held_out, "MOST_CLIPS", 20)
        found = on_held_out.rests_on(root, open_bundle("ensemble", root), resamples=100, seed=0)
        assert found.num_groups == 2
        assert found.num_clips <= 20 < found.of_clips

    def test_the_screen_says_on_what_the_fusion_was_fitted(self, root, capsys):
        explain.main(explain.Config(root=str(root), bundle="ensemble", resamples=100))
        said = " ".join(capsys.readouterr().out.split())
        assert "did not train on them, fused by weights that were fitted on all of them" in said

    def test_runs_that_are_gone_are_named(self, root, tmp_path):
        import shutil

        copy = shutil.copytree(root, tmp_path / "copy")
        (copy / "runs" / "face" / "fold=1" / "seed=0" / layout.WEIGHTS).unlink()
        with pytest.raises(NotPreparedError, match="run 'face' has no net of fold 1"):
            explain.main(explain.Config(root=str(copy), bundle="ensemble", resamples=100))

    def test_files_that_cannot_be_read_are_named_with_the_reason(self, toys, tmp_path, capsys):
        corpus = toys.corpus.write_corpus(tmp_path / "data", 2)
        toys.bundle.write_bundle(corpus)
        (corpus / "media" / "broken.wav").write_bytes(b"RIFF")
        explain.main(explain.Config(clips=(str(corpus / "media"),), root=str(corpus), bundle="b"))
        said = [
            line for line in capsys.readouterr().out.splitlines() if "without what failed" in line
        ]
        assert said
        assert all(line.startswith("broken: explained without what failed: ") for line in said)

    def test_of_another_dataset_it_is_said_before_anything_is_explained(
        self, root, write_root, tmp_path
    ):
        other = write_root(str(tmp_path / "other"))
        of_root = {"root": other, "bundle": f"{root}/bundles/ensemble"}
        with pytest.raises(NotPreparedError, match=r"none of them is under .*affuse explain FILES"):
            explain.main(explain.Config(**of_root))
        assert not (tmp_path / "other" / "explanations").exists()


class TestTheCommand:
    @pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
    def test_files_are_explained_and_written(self, toys, tmp_path, capsys, suffix):
        corpus = toys.corpus.write_corpus(tmp_path, 2)
        toys.bundle.write_bundle(tmp_path)
        out = tmp_path / f"why.{suffix}"
        made = {"bundle": f"{tmp_path}/bundles/b", "out": str(out)}
        explain.main(explain.Config(clips=(str(corpus / "media"),), **made))
        said = capsys.readouterr().out
        assert "told nothing 0.333" in said
        if suffix == "jsonl":
            rows = [json.loads(line) for line in out.read_text().splitlines()]
            assert [row["name"] for row in rows] == ["0", "1"]
            for row in rows:
                assert_sums(row)
        else:
            table = storage.read_table(str(out))
            tables.EXPLANATIONS.check(table.schema, where="out")
            assert pa.compute.count_distinct(table["clip_id"]).as_py() == 2

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            ({}, "explain what"),
            ({"root": "r"}, "no rows that it was judged on"),
            ({"clips": ("a.mp4",), "out": "x.csv"}, "expected a name in .jsonl or .parquet"),
            ({"root": "r", "bundle": "b", "out": "x.jsonl"}, "is for files"),
        ],
    )
    def test_what_cannot_be_is_refused(self, flags, said):
        with pytest.raises(ConfigError, match=said):
            explain.Config(**flags)
