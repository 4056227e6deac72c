"""Predictions: seeds are averaged, members are joined by clip, test rows stay away."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from cluster.errors import NotPreparedError, SchemaError, TestSplitError
from fusion.tasks import Task
from jobs.catalog import predictions

TASK = Task(kind="classification", classes=("no", "yes"))


def rows(run, clips, *, fold=0, seed=0, role="oof", target=None, scores=None):
    count = len(clips)
    return pa.table(
        {
            "clip_id": clips,
            "run": [run] * count,
            "split": pa.array([None] * count, pa.string()),
            "fold": fold if isinstance(fold, list) else [fold] * count,
            "seed": [seed] * count,
            "task": ["mood"] * count,
            "target": target or [[float(clip % 2)] for clip in clips],
            "role": [role] * count,
            "scores": scores or [[0.0, float(clip)] for clip in clips],
        }
    )


def write(root, run, table, fold=0, seed=0):
    predictions.write_predictions(root, run, fold, seed, table)


def test_members_are_joined_by_clip_and_a_missing_clip_is_absent(tmp_path):
    root = str(tmp_path)
    write(root, "a", rows("a", [3, 1, 2]))
    write(root, "b", rows("b", [2, 3]))
    held = predictions.held_out(root, ["a", "b"], "mood", TASK)
    assert held.clip_id.tolist() == [1, 2, 3]
    assert held.target.tolist() == [1, 0, 1]
    assert held.members.present.tolist() == [[True] * 3, [False, True, True]]
    expected = torch.log_softmax(torch.tensor([0.0, 3.0]).double(), 0)
    torch.testing.assert_close(held.members.scores[0, 2], expected)


def test_seeds_are_averaged_as_probabilities(tmp_path):
    root = str(tmp_path)
    write(root, "a", rows("a", [1], seed=0, scores=[[0.0, 2.0]]), seed=0)
    write(root, "a", rows("a", [1], seed=1, scores=[[1.0, 0.0]]), seed=1)
    held = predictions.held_out(root, ["a"], "mood", TASK)
    one = 1 / (1 + np.exp(-2.0))
    two = 1 / (1 + np.exp(1.0))
    assert held.members.scores[0, 0].exp()[1] == pytest.approx((one + two) / 2)


def test_rows_a_member_trained_on_are_never_offered(tmp_path):
    root = str(tmp_path)
    write(root, "a", pa.concat_tables([rows("a", [1, 2], role="train"), rows("a", [3])]))
    assert predictions.held_out(root, ["a"], "mood", TASK).clip_id.tolist() == [3]
    write(root, "b", rows("b", [4], role="valid"))
    assert predictions.held_out(root, ["b"], "mood", TASK).clip_id.tolist() == [4]


def test_members_of_other_folds_or_targets_are_refused(tmp_path):
    root = str(tmp_path)
    write(root, "a", rows("a", [1, 2]))
    write(root, "b", rows("b", [1, 2], fold=1), fold=1)
    with pytest.raises(SchemaError, match=r"'b' was made with other folds than 'a'"):
        predictions.held_out(root, ["a", "b"], "mood", TASK)
    write(root, "c", rows("c", [1, 2], target=[[0.0], [0.0]]))
    with pytest.raises(
        SchemaError, match=r"'c' has other targets than 'a' for 1 of 2 clips: .*again"
    ):
        predictions.held_out(root, ["a", "c"], "mood", TASK)


def test_test_rows_can_be_neither_written_nor_read_here(tmp_path):
    root = str(tmp_path)
    with pytest.raises(TestSplitError, match="only `affuse evaluate`"):
        write(root, "a", rows("a", [1], role="test"))
    with pytest.raises(TestSplitError, match="only `affuse evaluate`"):
        predictions.read_predictions(root, "a", roles=("test",))


def test_an_unknown_run_is_answered_with_the_known_ones(tmp_path):
    write(str(tmp_path), "a", rows("a", [1]))
    with pytest.raises(NotPreparedError, match="runs there: a"):
        predictions.read_predictions(str(tmp_path), "b")


def test_multilabel_and_regression_rows_keep_their_form(tmp_path):
    root = str(tmp_path)
    table = rows("a", [1, 2], target=[[1.0, 0.0, float("nan")]] * 2, scores=[[2.0, -1.0, 0.0]] * 2)
    write(root, "a", table)
    task = Task(kind="multilabel", classes=("x", "y", "z"))
    held = predictions.held_out(root, ["a"], "mood", task)
    assert held.target.shape == (2, 3)
    torch.testing.assert_close(held.members.scores[0, 0], torch.tensor([2.0, -1.0, 0.0]).double())
    write(root, "r", rows("r", [1, 2], target=[[0.5], [1.5]], scores=[[0.25], [1.0]]))
    held = predictions.held_out(root, ["r"], "mood", Task(kind="regression"))
    assert held.target.tolist() == [0.5, 1.5]
    assert held.members.scores[0, :, 0].tolist() == [0.25, 1.0]
