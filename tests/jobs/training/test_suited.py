"""What has no meaning for a task's kind is refused before a run takes its name."""

import json
from pathlib import Path

import numpy as np
import pytest

from cluster import storage
from fusion.losses import KINDS, LOSSES
from fusion.metrics import METRICS, metric
from jobs.__main__ import run as affuse

TASKS = {"tags": "multilabel", "val": "regression", "mood": "classification"}


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> str:
    """A root with a task of each kind, all of which its one input tells."""
    folder = tmp_path_factory.mktemp("three")
    draws = np.random.default_rng(0)
    hidden = draws.standard_normal((90, 3))
    voice = hidden + 0.3 * draws.standard_normal((90, 3))
    mood = np.array(["calm", "glad", "sad"])[hidden.argmax(1)]
    np.savez(
        folder / "data.npz", voice=voice.astype("f4"), tags=(hidden > 0).astype(int),
        val=hidden[:, 0], mood=mood, speaker=[f"s{row % 9}" for row in range(90)],
    )  # fmt: skip
    root, file = str(folder / "root"), str(folder / "data.npz")
    assert (
        affuse(
            [
                "prepare", "arrays", "--source", file, "--root", root, "--folds", "3",
                "--tasks", *(f"{name}={kind}" for name, kind in TASKS.items()),
                "--classes", "tags=joy,fear,rare",
            ]
        ) == 0
    )  # fmt: skip
    add = ["--file", file, "--array", "voice", "--name", "voice", "--modality", "audio"]
    assert affuse(["features", "import", "--root", root, *add]) == 0
    return root


def train(root: str, run: str, *more: str) -> int:
    return affuse(
        [
            "train", "--root", root, "--inputs", "voice", "--folds", "group3", "--no-refit",
            "--epochs", "25", "--lr", "0.02", "--patience", "0", "--run", run, "--no-tracking", *more,
        ]
    )  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "kl"])
def test_every_loss_learns_or_is_refused_with_those_that_suit(three, task, loss, capsys):
    run = f"{loss}-{task}"
    came = train(three, run, "--tasks", task, "--loss", loss)
    if TASKS[task] in KINDS[loss]:
        assert came == 0
        lines = Path(three, "runs", run, "history.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        losses = [record["train/loss"] for record in records if record["fold"] == 0]
        assert losses[-1] < 0.95 * losses[0]
        return
    assert came == 2
    line = capsys.readouterr().err.strip()
    assert line.count("\n") == 0
    assert f"task '{task}' is {TASKS[task]}" in line
    for other, kinds in KINDS.items():
        assert (f" {other}" in line.partition("type --loss")[2]) == (TASKS[task] in kinds)
    assert not Path(three, "runs", run).exists()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("job", ["train", "tune"])
@pytest.mark.parametrize("name", ["accuracy", "multilabel_nll", "pearson"])
def test_a_metric_of_another_kind_is_refused_with_those_of_the_kind(three, job, task, name, capsys):
    if metric(name).kind == TASKS[task]:
        return
    flag = "--monitor" if job == "train" else "--score"
    more = ["--inputs", "voice", "--folds", "group3", "--tasks", task, "--no-tracking"]
    assert affuse([job, "--root", three, "--run", "m", *more, flag, name]) == 2
    line = capsys.readouterr().err.strip()
    assert line.count("\n") == 0
    told = line.partition(f"type {flag} ")[2].replace(" or ", ", ").split(", ")
    of_kind = [each for each in METRICS if metric(each).kind == TASKS[task]]
    assert told == (["loss"] if job == "train" else []) + of_kind
    assert not Path(three, "runs", "m").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--loss", "focal"], "--tasks of one kind"),
        (["--tasks", "val", "--class-weights"], "--class-weights takes a classification"),
        (["--tasks", "tags", "--label-smoothing", "0.1"], "--label-smoothing takes a class"),
        (["--tasks", "val", "--balanced"], "--balanced draws classes equally often"),
        (["--tasks", "mood", "--loss", "kl"], "takes raters' votes"),
        (["--tasks", "mood", "--loss", "focal", "--loss-options", "gama=2"], "mean 'gamma'"),
        (["--tasks", "val", "--loss-options", "gamma=2"], "it has none"),
        (["--tasks", "mood", "--task-weights", "val=2"], "no task that is trained is called"),
    ],
)
def test_so_is_every_other_flag_that_is_for_a_kind(three, more, said, capsys):
    assert train(three, "other", *more) == 2
    assert said in capsys.readouterr().err
    assert not Path(three, "runs", "other").exists()


@pytest.mark.parametrize("space", ["loss: [focal, mse]", "monitor: mae", "loss: l1\nnet: [lmf]"])
def test_a_search_that_would_draw_it_is_refused_before_its_first_trial(
    three, space, tmp_path, capsys
):
    (tmp_path / "space.yaml").write_text(space)
    more = ["--tasks", "mood", "--run", "t", "--no-tracking"]
    start = ["tune", "--root", three, "--inputs", "voice", "--folds", "group3", *more]
    assert affuse([*start, "--space", str(tmp_path / "space.yaml")]) == 2
    assert "a trial of the search: --" in capsys.readouterr().err
    assert not Path(three, "runs", "t").exists()


def test_a_net_that_is_solved_reads_neither(three, capsys):
    assert train(three, "l", "--tasks", "val", "--net", "linear", "--loss", "focal") == 0
    assert "without effect" in capsys.readouterr().out
    assert storage.exists(f"{three}/runs/l/summary.json")
