"""The same clips prepared with other label names, or in another order: no job takes what was made before."""

import json
from pathlib import Path

import numpy as np
import pytest

from cluster import storage
from cluster.errors import ConfigError
from fusion.tasks import Task
from jobs import train
from jobs.__main__ import run
from jobs.catalog import layout
from jobs.catalog.label_names import check_bundle, check_run, tasks_of_run
from jobs.catalog.manifest import read_dataset
from jobs.tuning.hold import hold_of

BEFORE, AFTER = "fear,joy,rare", "joy,fear,rare"
KINDS = ("multilabel", "classification")


def prepare(root: str, kind: str, classes: str) -> None:
    words = ["arrays", "--source", f"{root}.npz", "--root", root, "--tasks", f"tags={kind}"]
    assert run(["prepare", *words, "--classes", f"tags={classes}", "--folds", "3"]) == 0


def corpus(place: str, kind: str) -> None:
    """Six speakers of eight clips with labels in an order, and features that tell them."""
    draws = np.random.default_rng(0)
    label = draws.integers(0, 3, 48)
    tags = np.eye(3)[label] if kind == "multilabel" else label
    voice = (2 * np.eye(3)[label] + draws.normal(size=(48, 3))).astype("f4")
    names = np.array([f"c{i}" for i in range(48)])
    speaker = np.array([f"s{i % 6}" for i in range(48)])
    split = np.where(speaker == "s5", "test", "train")
    np.savez(f"{place}.npz", name=names, speaker=speaker, split=split, tags=tags, v=voice)


@pytest.fixture(scope="module", params=KINDS)
def root(request, tmp_path_factory):
    """A root with runs and a bundle, prepared again with the first two labels exchanged."""
    root = str(tmp_path_factory.mktemp("names") / "root")
    corpus(root, request.param)
    prepare(root, request.param, BEFORE)
    voice = ["--file", f"{root}.npz", "--array", "v", "--name", "voice", "--modality", "audio"]
    assert run(["features", "import", "--root", root, *voice]) == 0
    for name in ("lin", "other"):
        net = ["--net", "linear", "--folds", "group3", "--run", name, "--no-tracking"]
        assert run(["train", "--root", root, "--inputs", "voice", *net]) == 0
    for name in ("b", "c"):
        fused = ["--runs", "lin", "--bundle", name, "--resamples", "100", "--no-tracking"]
        assert run(["ensemble", "--root", root, *fused]) == 0
    prepare(root, request.param, AFTER)
    return root


JOBS = {
    "train": ["train", "--inputs", "voice", "--folds", "group3", "--run", "lin", "--net", "linear"],
    "ensemble": ["ensemble", "--runs", "lin", "--bundle", "d"],
    "evaluate runs": ["evaluate", "--runs", "lin"],
    "evaluate bundle": ["evaluate", "--bundle", "b"],
    "compare runs": ["compare", "--runs", "lin", "other"],
    "compare bundles": ["compare", "--bundles", "b", "c"],
    "report runs": ["report", "--runs", "lin"],
    "report bundle": ["report", "--bundle", "b"],
    "explain": ["explain", "--bundle", "b"],
    "score": ["score", "--bundle", "b"],
    "score dry": ["score", "--bundle", "b", "--dry-run"],
    "ask": ["ask", "--server", "http://127.0.0.1:9/v1", "--model", "m", "--run", "lin", "--folds", "group3"],
}  # fmt: skip


@pytest.mark.parametrize("job", JOBS)
def test_no_job_takes_what_was_made_for_other_labels(root, job, capsys):
    name, *words = JOBS[job]
    capsys.readouterr()
    assert run([name, "--root", root, *words]) == 2
    said = capsys.readouterr().err
    if read_dataset(root).tasks["tags"].kind == "classification" and name == "train":
        assert "another manifest" in said or "was made for" in said  # its rows name the classes
        return
    assert "was made for tags of fear, joy, rare, and the dataset has joy, fear, rare" in said
    assert "with another --run" in said
    assert "affuse prepare with the former classes" in said
    assert len(said.strip().splitlines()) == 1


def test_with_the_former_classes_everything_goes_on(root, capsys):
    kind = read_dataset(root).tasks["tags"].kind
    prepare(root, kind, BEFORE)
    name, *words = JOBS["train"]
    assert run([name, "--root", root, *words]) == 0
    assert "nothing to do" in capsys.readouterr().out
    for job in ("evaluate bundle", "compare bundles", "score"):
        name, *words = JOBS[job]
        assert run([name, "--root", root, *words]) == 0
    prepare(root, kind, AFTER)


def tasks_are(root: str, task: Task) -> None:
    uri = layout.dataset_uri(root)
    facts = storage.read_json(uri)
    storage.publish_json({**facts, "tasks": {"emotion": task.to_json()}}, uri)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (Task(kind="classification", classes=("calm", "sad")), "has calm, sad;"),
        (Task(kind="classification", classes=("calm", "glad", "sad", "shy")), "has calm, glad, sad, shy;"),
        (Task(kind="multilabel", classes=("calm", "glad", "sad")), "has it as a multilabel"),
        (Task(kind="regression"), "has it as a regression"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("noted", ["tasks", "summary", "card", "member"])
def test_runs_of_earlier_versions_are_known_by_their_nets(write_root, tmp_path, now, said, noted):
    root = write_root(str(tmp_path / "root"))
    tasks = {"emotion": {"kind": "classification", "classes": ["calm", "glad", "sad"]}}
    places = {
        "tasks": (f"{root}/runs/r/tasks.json", tasks),
        "summary": (f"{root}/runs/r/summary.json", {"tasks": tasks}),
        "card": (f"{root}/runs/r/fold=0/seed=0/model.json", {"tasks": tasks}),
        "member": (f"{root}/runs/r-00001/refit/seed=0/model.json", {"tasks": tasks}),
    }
    storage.publish_json(*reversed(places[noted]))
    storage.publish_json({}, f"{root}/runs/r/space.json")
    check_run(root, "r")
    tasks_are(root, now)
    with pytest.raises(ConfigError, match=f"run 'r' was made for emotion .*{said}"):
        check_run(root, "r")


def test_a_run_that_nobody_noted_anything_of_is_taken(write_root, tmp_path):
    root = write_root(str(tmp_path / "root"))
    Path(root, "runs", "r").mkdir(parents=True)
    assert tasks_of_run(root, "r") == {}
    check_run(root, "r")


def test_a_search_is_not_taken_up_with_other_labels(write_root, tmp_path):
    root = write_root(str(tmp_path / "root"))
    base = train.Config(root=root, inputs=("voice",), run="hunt", tasks=("emotion",))
    hold_of(base, {"one": 1})
    storage.publish_json({}, f"{root}/runs/hunt/trials/00000.json")
    hold_of(base, {"one": 1})
    tasks_are(root, Task(kind="classification", classes=("glad", "calm", "sad")))
    with pytest.raises(ConfigError, match="run 'hunt' was made for emotion of calm, glad, sad"):
        hold_of(base, {"one": 1})


def test_of_many_classes_the_message_names_those_that_differ(write_root, tmp_path):
    root = write_root(str(tmp_path / "root"))
    before = [f"c{i:02}" for i in range(28)]
    after = [*before[:20], "new", *before[21:]]
    tasks = {"emotion": {"kind": "classification", "classes": before}}
    storage.publish_json(tasks, f"{root}/runs/r/tasks.json")
    tasks_are(root, Task(kind="classification", classes=tuple(after)))
    with pytest.raises(ConfigError, match="c20") as refused:
        check_run(root, "r")
    assert "new" in str(refused.value)
    assert "(28 classes)" in str(refused.value)
    assert "c10" not in str(refused.value)


@pytest.mark.parametrize(
    ("place", "manifest", "is_refused"),
    [
        (None, "other", True),
        ("{root}/bundles/b", "other", True),
        ("/elsewhere/b", "abc", True),
        ("/elsewhere/b", "other", False),
    ],
)
def test_a_bundle_of_other_clips_keeps_its_own_names(
    write_root, tmp_path, place, manifest, is_refused
):
    root = write_root(str(tmp_path / "root"))
    facts = {
        "name": "b", "task": "emotion", "manifest": manifest, "kind": "classification",
        "classes": ["sad", "glad", "calm"],
    }  # fmt: skip
    uri = None if place is None else place.format(root=root)
    if is_refused:
        with pytest.raises(ConfigError, match="bundle 'b' was made for emotion"):
            check_bundle(root, json.loads(json.dumps(facts)), uri)
    else:
        check_bundle(root, facts, uri)


def test_a_bundle_that_was_fused_of_nets_of_the_former_labels_is_refused(write_root, tmp_path):
    root = write_root(str(tmp_path / "root"))
    now = read_dataset(root).tasks["emotion"].to_json()
    card = {"tasks": {"emotion": {**now, "classes": ["glad", "calm", "sad"]}}}
    facts = {"name": "b", "task": "emotion", **now, "members": [{"run": "r", "card": card}]}
    with pytest.raises(ConfigError, match="bundle 'b' was made for emotion of glad, calm, sad"):
        check_bundle(root, facts)
    check_bundle(root, {**facts, "members": [{"run": "r", "card": {"tasks": {"emotion": now}}}]})
