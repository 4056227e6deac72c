"""Which task is meant where none is typed: the one that runs and bundles have in common."""

import json
from pathlib import Path

import pytest

from cluster.errors import ConfigError
from jobs import ensemble, train
from jobs.__main__ import run
from jobs.catalog.manifest import read_dataset
from jobs.catalog.tasks import pick_task
from jobs.evaluation.sibling_runs import chosen_task, common_tasks

RUNS = {"both": None, "none_named": [], "mood": ["emotion"], "value": ["arousal"]}
"""Tasks in the config of a run; None: it has no config, as one that was made elsewhere."""


@pytest.fixture(scope="module")
def root(tmp_path_factory, write_root):
    made = write_root(str(tmp_path_factory.mktemp("tasks") / "root"))
    for each, tasks in RUNS.items():
        folder = Path(made, "runs", each)
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


def test_runs_without_a_common_task_are_refused_and_not_asked_which(root):
    assert common_tasks(root, ["mood", "value"]) == []
    with pytest.raises(
        ConfigError,
        match=r"^run mood \(of emotion\), run value \(of arousal\) have no task in common",
    ):
        chosen_task(root, None, ["mood", "value"])
    with pytest.raises(ConfigError, match=r"^run mood .*, bundle of_arousal .* no task in common"):
        chosen_task(root, None, ["mood"], ["of_arousal"])


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


@pytest.mark.parametrize(
    ("runs", "bundles", "named"),
    [
        (["mood"], [], r"run mood \(of emotion\)"),
        (["both", "mood"], [], r"run mood \(of emotion\)"),
        ([], ["of_emotion"], r"bundle of_emotion \(of emotion\)"),
        (["value"], ["of_emotion"], r"bundle of_emotion \(of emotion\)"),
    ],
)
def test_a_task_that_one_was_not_made_for_is_refused(root, runs, bundles, named):
    with pytest.raises(ConfigError, match=f"^{named}: nothing there is of the task arousal"):
        chosen_task(root, "arousal", runs, bundles)


BOTH_TASKS = {
    "report": ["report", "--bundle", "of_emotion"],
    "evaluate": ["evaluate", "--bundle", "of_emotion"],
    "evaluate runs": ["evaluate", "--runs", "mood"],
    "compare": ["compare", "--runs", "mood", "both"],
    "compare bundles": ["compare", "--bundles", "of_emotion", "again"],
    "ensemble": ["ensemble", "--runs", "mood", "both"],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_root):
    """Runs of one task, of the other, of both, and bundles of one."""
    made = write_root(str(tmp_path_factory.mktemp("tasks") / "root"))
    for name, tasks in {"both": (), "mood": ("emotion",), "value": ("arousal",)}.items():
        train.main(
            train.Config(
                root=made, run=name, inputs=("voice",), net="linear", folds="speaker", tasks=tasks,
                tracking=False, workers=0,
            )
        )  # fmt: skip
    for name in ("of_emotion", "again"):
        ensemble.main(ensemble.Config(root=made, runs=("mood",), bundle=name, resamples=100))
    return made


@pytest.mark.parametrize("job", BOTH_TASKS)
def test_every_job_refuses_a_task_that_its_runs_or_bundle_do_not_have(trained, job, capsys):
    name, *words = BOTH_TASKS[job]
    assert run([name, "--root", trained, *words, "--task", "arousal"]) == 2
    said = capsys.readouterr().err.strip()
    assert "nothing there is of the task arousal" in said
    assert len(said.splitlines()) == 1
    assert run([name, "--root", trained, *words, "--task", "emotion", "--resamples", "100"]) == 0


@pytest.mark.parametrize("job", ["compare", "ensemble", "report", "evaluate"])
def test_every_job_says_that_its_runs_have_no_task_in_common(trained, job, capsys):
    assert run([job, "--root", trained, "--runs", "mood", "value"]) == 2
    assert "have no task in common" in capsys.readouterr().err


def test_a_report_offers_only_tasks_that_it_can_show(trained, capsys):
    for words in (["--bundle", "of_emotion"], ["--runs", "both", "mood"]):
        assert run(["report", "--root", trained, *words, "--resamples", "100"]) == 0
        assert "--task" not in capsys.readouterr().out
    assert run(["report", "--root", trained, "--runs", "both", "--resamples", "100"]) == 0
    assert "type --task NAME for another one: emotion" in capsys.readouterr().out
    shown = ["--runs", "both", "--task", "emotion", "--resamples", "100"]
    assert run(["report", "--root", trained, *shown]) == 0
