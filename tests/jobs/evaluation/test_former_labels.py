"""Labels that were corrected after training: whatever judges the run by the former ones says so."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from cluster import storage
from fusion.tasks import Task
from jobs.__main__ import run as affuse
from jobs.evaluation import former_labels

OTHER = {"emotion": "glad", "arousal": 0.123}


def corrected(root, task, clips, value):
    """Write another label of some clips, as `prepare` does where a table was corrected."""
    for path in sorted(Path(root, "manifest", "abc").glob("*.parquet")):
        table = storage.read_table(str(path))
        pairs = zip(table["clip_id"].to_pylist(), table[task].to_pylist(), strict=True)
        values = [value if clip in clips else old for clip, old in pairs]
        column = pa.array(values, table[task].type)
        storage.publish_table(
            table.set_column(table.column_names.index(task), task, column), str(path)
        )


def typed(root, job, *words):
    return affuse([job, "--root", root, *words])


@pytest.fixture
def trained(root, request):
    """A root with two linear runs of a task."""
    for run, inputs in {"v": ["voice"], "f": ["face"]}.items():
        words = ["--inputs", *inputs, "--net", "linear", "--folds", "speaker", "--run", run]
        assert typed(root, "train", *words, "--tasks", request.param, "--no-tracking") == 0
    return root


JOBS = {
    "ensemble": ["--runs", "v", "f", "--bundle", "b"],
    "compare": ["--runs", "v", "f"],
    "report": ["--runs", "v", "f"],
}


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("trained", ["emotion", "arousal"], indirect=True)
def test_it_is_said_how_many_clips_have_another_label_by_now(trained, job, request, capsys):
    task = request.node.callspec.params["trained"]
    assert typed(trained, job, *JOBS[job]) == 0
    assert "in the dataset than when" not in capsys.readouterr().out
    clips = sorted(
        storage.read_table(f"{trained}/runs/v/fold=0/seed=0/predictions.parquet")[
            "clip_id"
        ].to_pylist()
    )
    assert clips
    corrected(trained, task, clips[:1], None)
    corrected(trained, task, clips[1:3], OTHER[task])
    capsys.readouterr()
    more = ["--overwrite"] if job == "report" else []
    assert typed(trained, job, *JOBS[job], *more) == 0
    said = capsys.readouterr().out
    assert f"clips have another {task} in the dataset than when what is judged was trained" in said
    assert "type affuse train with another --run" in said
    if job == "report":
        (page,) = Path(trained, "reports").glob("*/report.html")
        count = re.search(r"warning: (\d+) of", said)[1]
        assert f", {count} of them by labels that were corrected since" in page.read_text()


NAN = float("nan")


@pytest.mark.parametrize(
    ("task", "then", "now", "count"),
    [
        (Task(kind="classification", classes=("a", "b")), [0, 1, 1], ["a", "b", "b"], 0),
        (Task(kind="classification", classes=("a", "b")), [0, 1, 1], ["b", None, "b"], 2),
        (Task(kind="regression"), [0.1, 2.0, 3.0], [0.1, 2.0, 3.0], 0),
        (Task(kind="regression"), [0.1, 2.0, 3.0], [0.1, 2.5, None], 2),
        (
            Task(kind="multilabel", classes=("a", "b")),
            [[0.0, 1.0], [NAN, 1.0], [1.0, 1.0]], [[0.0, 1.0], [None, 1.0], [1.0, 1.0]], 0,
        ),
        (
            Task(kind="multilabel", classes=("a", "b")),
            [[0.0, 1.0], [NAN, 1.0], [1.0, 1.0]], [[1.0, 1.0], [0.0, 1.0], None], 3,
        ),
    ],
)  # fmt: skip
def test_every_changed_new_or_lost_label_counts_once(task, then, now, count, monkeypatch, capsys):
    # Clips come in another order, and one is new.
    table = pa.table({"clip_id": [9, 7, 5, 3], "mood": [None, *reversed(now)]})
    monkeypatch.setattr(former_labels, "read_manifest", lambda *_: table)
    clips = np.array([3, 5, 7])
    then = torch.tensor(then)
    assert former_labels.warn_of_former_labels("root", "mood", task, clips, then) == count
    said = capsys.readouterr().out
    assert f"{count} of 3 clips have another mood" in said if count else not said
