"""Which task is meant where none is typed: the one that runs and bundles have in common."""

import json
from pathlib import Path

import pytest

from cluster.errors import ConfigError
from jobs.catalog.manifest import read_dataset
from jobs.catalog.tasks import pick_task
from jobs.evaluation.sibling_runs import common_tasks

RUNS = {"both": None, "none_named": [], "mood": ["emotion"], "value": ["arousal"]}
"""Tasks in the config of a run; None: it has no config, as one that was made elsewhere."""


@pytest.fixture(scope="module")
def root(tmp_path_factory, write_root):
    made = write_root(str(tmp_path_factory.mktemp("tasks") / "root"))
    for run, tasks in RUNS.items():
        folder = Path(made, "runs", run)
        folder.mkdir(parents=True)
        if tasks is not None:
            (folder / "config.json").write_text(json.dumps({"tasks": tasks}))
    for task in ("emotion", "arousal"):
        folder = Path(made, "bundles", f"of_{task}")
        folder.mkdir(parents=True)
        (folder / "bundle.json").write_text(json.dumps({"task": task}))
    return made


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (["mood"], "emotion"),
        (["mood", "both"], "emotion"),
        (["none_named", "value"], "arousal"),
        (["both"], None),
        ([], None),
    ],
)
def test_the_task_that_all_runs_have_is_taken(root, runs, expected):
    dataset, among = read_dataset(root), common_tasks(root, runs)
    if expected is None:
        with pytest.raises(ConfigError, match="which task"):
            pick_task(dataset, None, among)
    else:
        assert pick_task(dataset, None, among)[0] == expected


@pytest.mark.parametrize("runs", list(RUNS))
def test_a_task_that_is_typed_counts_more(root, runs):
    assert pick_task(read_dataset(root), "arousal", common_tasks(root, [runs]))[0] == "arousal"


def test_runs_without_a_common_task_leave_the_question_open(root):
    assert common_tasks(root, ["mood", "value"]) == []
    with pytest.raises(ConfigError, match="which task"):
        pick_task(read_dataset(root), None, [])


@pytest.mark.parametrize(
    ("runs", "bundles", "expected"),
    [
        ([], ["of_arousal"], ["arousal"]),
        (["both", "none_named"], ["of_emotion"], ["emotion"]),
        (["mood"], ["of_arousal"], []),
        ([], ["of_emotion", "of_arousal"], []),
        ([], ["not there"], ["emotion", "arousal"]),
        (["../../elsewhere"], [], ["emotion", "arousal"]),
    ],
)
def test_bundles_have_one_and_names_of_nothing_say_nothing(root, runs, bundles, expected):
    assert sorted(common_tasks(root, runs, bundles)) == sorted(expected)
