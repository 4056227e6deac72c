"""`score --coverage`: the classes that cannot be excluded, beside the label; and who is refused."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from cluster import storage
from cluster.errors import ConfigError
from fusion.late.calibration import Decision
from fusion.late.conformal import COVERAGES, Conformal
from fusion.late.presence import ByPresence
from fusion.tasks import Task
from jobs import score
from jobs.catalog import layout
from jobs.scoring import bundle
from jobs.scoring.files import file_bytes, show
from jobs.scoring.promised import promised
from jobs.scoring.scorer import promised_columns


def promise(root, allowed=0.6, kind="classification", parts=1, by=None):
    """Thresholds for the toy bundle, the same for every coverage; `by` the members of a clip."""
    where = layout.bundle_uri(str(root), "b", layout.BUNDLE)
    state = {
        "kind": kind,
        "groups": 24,
        "thresholds": [[allowed] * len(COVERAGES)] * parts,
    }
    if by is not None:
        state["members"] = ["words", "voice"]
        state["by_members"] = [
            {"members": names, "groups": 24, "thresholds": [[one] * len(COVERAGES)] * parts}
            for names, one in by.items()
        ]
    storage.publish_json({**storage.read_json(where), "conformal": state}, where)


@pytest.fixture
def root(toys, tmp_path):
    toys.corpus.write_corpus(tmp_path, 6)
    toys.bundle.write_bundle(tmp_path)
    return tmp_path


def files(root):
    return tuple(str(root / "media" / f"{i}.wav") for i in range(6))


def scored(root, out, **options):
    score.main(score.Config(clips=files(root), root=str(root), bundle="b", out=str(out), **options))
    return [json.loads(line) for line in out.read_text().splitlines()]


class TestSets:
    def test_a_class_is_possible_where_its_probability_is_not_too_small(self, root, tmp_path):
        promise(root, allowed=0.6)
        rows = scored(root, tmp_path / "s.jsonl", coverage=0.9)
        for row in rows:
            enough = {name for name, p in row["probabilities"].items() if 1 - p <= 0.6}
            assert set(row["possible"]) == enough | set(row["label"])
            assert row["certain"] == (row["possible"] if len(row["possible"]) == 1 else [])
            assert row["low"] is row["high"] is None

    def test_labels_and_probabilities_are_those_of_a_score_without(self, root, tmp_path):
        promise(root)
        plain = scored(root, tmp_path / "a.jsonl")
        for mine, theirs in zip(
            scored(root, tmp_path / "b.jsonl", coverage=0.9), plain, strict=True
        ):
            assert mine["probabilities"] == theirs["probabilities"]
            assert mine["label"] == theirs["label"]
            assert theirs["possible"] is theirs["certain"] is None

    def test_where_nothing_can_be_promised_every_class_is_possible(self, root, tmp_path):
        promise(root, allowed=None)
        rows = scored(root, tmp_path / "s.jsonl", coverage=0.9)
        assert all(len(row["possible"]) == len(row["probabilities"]) for row in rows)
        assert all(row["certain"] == [] for row in rows)

    def test_a_clip_without_a_member_is_answered_with_thresholds_of_such_clips(
        self, root, tmp_path
    ):
        """The files here have sound and no words."""
        promise(root, allowed=0.0, by={("voice",): 1.0, ("words", "voice"): 0.0})
        rows = scored(root, tmp_path / "s.jsonl", coverage=0.9)
        assert all(len(row["possible"]) == len(row["probabilities"]) for row in rows)

    def test_a_clip_with_members_that_nothing_is_known_of_gets_the_widest_thresholds(
        self, root, tmp_path
    ):
        promise(root, allowed=0.0, by={("words",): 1.0, ("words", "voice"): 0.0})
        rows = scored(root, tmp_path / "s.jsonl", coverage=0.9)
        assert all(len(row["possible"]) == len(row["probabilities"]) for row in rows)

    def test_the_printed_table_and_the_csv_show_them(self, root, tmp_path, capsys):
        promise(root, allowed=0.9)
        score.main(
            score.Config(
                clips=files(root),
                root=str(root),
                bundle="b",
                out=str(tmp_path / "s.csv"),
                coverage=0.8,
            )
        )
        assert "possible" in capsys.readouterr().out
        header = (tmp_path / "s.csv").read_text().splitlines()[0]
        assert {"possible", "certain", "low", "high"} <= set(header.replace('"', "").split(","))

    def test_without_a_coverage_the_csv_has_no_such_columns(self, root, tmp_path):
        out = tmp_path / "s.csv"
        score.main(score.Config(clips=files(root), root=str(root), bundle="b", out=str(out)))
        assert "possible" not in out.read_text().splitlines()[0]


def said_of(conformal, scores, present, task, decision):
    """What is promised of the only row."""
    silent = np.zeros(1, bool)
    found = promised(conformal, 0.9, scores, present, task, decision)
    columns = promised_columns(found, task, silent)
    return {name: column.to_pylist()[0] for name, column in columns.items()}


class TestOtherKinds:
    def answer(self, conformal, task, scores):
        decision = Decision.plain(task.kind, task.outputs)
        rows = torch.tensor([scores], dtype=torch.float64)
        present = torch.ones(2, 1, dtype=torch.bool)
        return said_of(conformal, rows, present, task, decision)

    def conformal(self, kind, *allowed):
        rows = tuple((one,) * len(COVERAGES) for one in allowed)
        return ByPresence(every=Conformal(kind=kind, groups=24, thresholds=rows))

    def test_an_interval_stays_within_the_bounds_of_its_task(self):
        task = Task(kind="regression", range=(1.0, 7.0))
        said = self.answer(self.conformal("regression", 2.0), task, [6.0])
        assert (said["low"], said["high"]) == (4.0, 7.0)

    @pytest.mark.parametrize("bounds", [None, (1.0, 7.0)])
    def test_an_interval_that_nothing_is_known_of_has_no_ends_but_those_of_the_task(self, bounds):
        task = Task(kind="regression", range=bounds)
        said = self.answer(self.conformal("regression", math.inf), task, [6.0])
        assert (said["low"], said["high"]) == (bounds or (None, None))

    def test_a_label_is_certain_possible_or_excluded(self):
        task = Task(kind="multilabel", classes=("joy", "fear", "anger"))
        logits = [4.0, 0.2, -4.0]
        said = self.answer(self.conformal("multilabel", 0.6, 0.6, 0.6), task, logits)
        assert said["possible"] == ["joy", "fear"]
        assert said["certain"] == ["joy"]

    def test_a_label_decided_for_a_metrics_sake_is_never_excluded(self):
        task = Task(kind="classification", classes=("joy", "fear"))
        conformal = self.conformal("classification", 0.5)
        decision = Decision(kind="classification", metric="macro_f1", offsets=(0.0, 3.0))
        scores = torch.tensor([[0.8, 0.2]], dtype=torch.float64).log()
        present = torch.ones(1, 1, dtype=torch.bool)
        said = said_of(conformal, scores, present, task, decision)
        assert said["possible"] == ["joy", "fear"]
        assert said["certain"] == []

    def test_an_interval_is_shown_and_written(self, capsys):
        row = {
            "clip_id": 1, "name": "a", "bundle": "b", "start_s": None, "end_s": None, "task": "pain",
            "label": None, "confidence": None, "probabilities": None, "value": 2.0,
            "possible": None, "certain": None, "low": 1.0,
            "high": None, "modalities": ["audio"], "status": "ok", "error": None,
        }  # fmt: skip
        table = pa.Table.from_pylist([row])
        show(table)
        assert "1.000 to ?" in capsys.readouterr().out
        assert b'"low"' in file_bytes(table, "x.csv").splitlines()[0]


class TestRefusals:
    def test_a_bundle_without_thresholds_is_refused_by_name(self, root, tmp_path):
        with pytest.raises(
            ConfigError, match=r"--coverage 0\.9: b has no thresholds: it was made bef"
        ):
            scored(root, tmp_path / "s.jsonl", coverage=0.9)

    def test_what_was_not_fitted_on_labels_promises_nothing(self, root):
        with pytest.raises(
            ConfigError, match="face_expression has no thresholds: it was not fitted"
        ):
            score.main(score.Config(clips=files(root)[:1], coverage=0.9))

    @pytest.mark.parametrize("coverage", [0.0, 0.3, 1.0, 90.0, math.nan])
    def test_a_coverage_out_of_range_is_refused(self, root, tmp_path, coverage):
        promise(root)
        with pytest.raises(ConfigError, match=r"--coverage .*: expected 0\.5 to 0\.99"):
            scored(root, tmp_path / "s.jsonl", coverage=coverage)

    def test_the_range_is_that_of_the_thresholds(self):
        assert (COVERAGES[0], COVERAGES[-1]) == bundle.COVERAGES

    def test_scores_of_one_name_have_one_coverage(self, root, toys):
        promise(root)
        config = score.Config(root=str(root), bundle="b")
        from jobs.scoring.claim import claim, claim_of
        from jobs.scoring.opening import open_bundle

        uri = layout.scores_uri(str(root), "b")
        for coverage, refused in ((0.9, False), (0.9, False), (0.8, True), (None, True)):
            opened = open_bundle("b", str(root)).promising(coverage)
            made_with = claim_of(opened, "auto", config.decoding)
            if refused:
                with pytest.raises(ConfigError, match=r"coverage 0\.9, now"):
                    claim(uri, made_with, "affuse score")
            else:
                claim(uri, made_with, "affuse score")
