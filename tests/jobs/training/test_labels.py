"""Labels that nothing can be learned from are refused or said, before a net is trained."""

from pathlib import Path

import pyarrow as pa
import pytest

from cluster import storage
from jobs.__main__ import run as affuse


def label(root: str, task: str, of_clip) -> None:
    """Write the labels of a task anew; `of_clip` gets the clip's number from 0 and its label."""
    for path in sorted(Path(root, "manifest", "abc").glob("*.parquet")):
        table = storage.read_table(str(path))
        pairs = zip(table["clip_id"].to_pylist(), table[task].to_pylist(), strict=True)
        values = pa.array([of_clip(clip - 100, old) for clip, old in pairs], table[task].type)
        table = table.set_column(table.column_names.index(task), task, values)
        storage.publish_table(table, str(path))


def train(root: str, *more: str) -> int:
    return affuse(
        [
            "train", "--root", root, "--inputs", "voice", "--pool", "mean", "--epochs", "2",
            "--run", "r", "--no-tracking", *more,
        ]
    )  # fmt: skip


@pytest.mark.parametrize("folds", [(), ("--folds", "speaker")])
@pytest.mark.parametrize(("task", "value"), [("emotion", "glad"), ("arousal", 0.5)])
def test_a_task_of_one_answer_is_refused_with_what_to_type(root, folds, task, value, capsys):
    label(root, task, lambda _clip, _old: value)
    assert train(root, *folds) == 2
    line = capsys.readouterr().err
    assert f"task '{task}': all labels of the rows to train on are {value!r}" in line
    assert "type other --tasks" in line
    other = {"emotion": "arousal", "arousal": "emotion"}[task]
    assert train(root, *folds, "--tasks", other) == 0


@pytest.mark.parametrize("job", ["train", "tune"])
def test_the_search_refuses_it_too(root, job, capsys):
    label(root, "emotion", lambda _clip, _old: "sad")
    assert affuse([job, "--root", root, "--inputs", "voice", "--no-tracking"]) == 2
    assert "there is nothing to tell apart" in capsys.readouterr().err


def test_a_fold_whose_training_rows_have_one_class_is_named(root, capsys):
    # Speakers 1 and 4 are fold 1: without them only one class is left.
    label(root, "emotion", lambda clip, old: old if clip // 8 % 3 == 1 else "calm")
    assert train(root, "--folds", "speaker", "--tasks", "emotion") == 0
    said = capsys.readouterr().out
    assert "warning: fold 1 seed 0: all its training rows have 'calm' as label of 'emotion'" in said
    assert "fold 0 seed 0: all its" not in said


def test_a_fold_without_a_label_to_train_on_is_refused(root, capsys):
    label(root, "emotion", lambda clip, old: old if clip // 8 % 3 == 1 else None)
    assert train(root, "--folds", "speaker", "--tasks", "emotion", "--valid-share", "0") == 2
    assert "fold 1 seed 0: none of its 32 training rows has a label of emotion" in (
        capsys.readouterr().err
    )


def test_a_held_out_fold_without_any_label_is_trained_around(root):
    label(root, "emotion", lambda clip, old: None if clip // 8 % 3 == 1 else old)
    assert train(root, "--folds", "speaker", "--tasks", "emotion") == 0
    summary = storage.read_json(f"{root}/runs/r/summary.json")
    assert summary["roles"]["oof"]["emotion/accuracy"]["mean"] > 0


def test_a_valid_split_without_any_label_says_that_the_last_epoch_counts(root, capsys):
    label(root, "emotion", lambda clip, old: None if 40 <= clip < 48 else old)
    assert train(root, "--tasks", "emotion") == 0
    assert "its last epoch counts" in capsys.readouterr().out
    card = storage.read_json(f"{root}/runs/r/fold=0/seed=0/model.json")
    assert card["facts"]["best_epoch"] == 2


def test_people_without_labels_do_not_choose_the_epoch(root):
    label(root, "emotion", lambda clip, old: old if clip // 8 % 2 == 0 or clip >= 40 else None)
    assert train(root, "--folds", "speaker", "--tasks", "emotion") == 0
    for path in Path(root, "runs/r").rglob("predictions.parquet"):
        roles = storage.read_table(str(path))["role"].to_pylist()
        assert roles.count("valid") > 0


@pytest.mark.parametrize("net", ["concat_mlp", "lf_dnn", "linear", "mult"])
def test_inputs_that_no_training_clip_has_are_refused_by_name(root, net, capsys):
    # A corpus without sound has an audio table all the same, of steps that are not valid.
    for path in sorted(Path(root, "features").glob("voice*/*.parquet")):
        table = storage.read_table(str(path))
        valid = pa.array(
            [[False] * len(row) for row in table["valid"].to_pylist()], table["valid"].type
        )
        at = table.column_names.index("valid")
        storage.publish_table(table.set_column(at, table.schema.field("valid"), valid), str(path))
    assert train(root, "--net", net) == 2
    said = capsys.readouterr().err
    assert "clips to train on has anything of audio; type other" in said
    assert train(root, "--net", net, "--inputs", "voice", "face") == 0


def test_a_flag_that_changes_nothing_is_named(root, capsys):
    assert train(root, "--net", "gated", "--causal") == 0
    assert (
        "without effect: --causal, for gated reads each clip by itself" in capsys.readouterr().out
    )


def test_a_constant_is_shown_with_the_digits_that_matter(root, capsys):
    label(root, "arousal", lambda clip, old: old if clip // 8 % 3 == 1 else 1.8229701519012451)
    assert train(root, "--folds", "speaker", "--tasks", "arousal") == 0
    assert "rows have 1.82297 as label of 'arousal'" in capsys.readouterr().out


@pytest.mark.parametrize("offset", [1e8, -1e8, 1e12])
def test_values_whose_differences_float32_loses_are_refused(root, offset, capsys):
    label(root, "arousal", lambda _clip, old: old + offset)
    assert train(root, "--tasks", "arousal") == 2
    said = capsys.readouterr().err
    assert "float32, in which nets compute, moves them by up to" in said
    assert f"subtract a constant such as {offset:.3g}" in said
    assert not Path(root, "runs", "r").exists()


@pytest.mark.parametrize(("factor", "offset"), [(1.0, 100.0), (1e-6, 0.0), (1e9, 0.0)])
def test_values_that_float32_tells_apart_are_trained_on(root, factor, offset, capsys):
    label(root, "arousal", lambda _clip, old: old * factor + offset)
    assert train(root, "--tasks", "arousal") == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if "arousal/mae" in x)
    assert " 0.000 " not in line


def test_one_value_for_all_is_nothing_to_tell_apart_whatever_float32_makes_of_it(root, capsys):
    label(root, "arousal", lambda _clip, _old: 0.1)
    assert train(root, "--tasks", "arousal") == 2
    assert "there is nothing to tell apart" in capsys.readouterr().err
