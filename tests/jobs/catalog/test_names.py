"""What people name, and what strangers' files name, never leaves the root."""

import importlib
import json
import os
import typing
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import storage
from cluster.errors import ConfigError
from jobs import JOBS
from jobs.__main__ import run
from jobs.catalog.names import LONGEST, check_names, checked_name, joined_name

EVIL = {
    "up and out": "../../out",
    "an absolute path": "/tmp/out",
    "a folder": "a/b",
    "a folder of Windows": "a\\b",
    "the folder above": "..",
    "this folder": ".",
    "nothing": "",
    "a space": " ",
    "a zero byte": "a\0b",
    "two lines": "a\nb",
    "a control code": "a\x1b[2Jb",
    "a turned direction": "a\u202eb",
    "bytes that are no text": "a\udcff",
    "very long": "x" * 300,
    "a flag": "-rf",
    "a hidden file": ".hidden",
    "a trailing space": "a ",
}
SERVER = ("--server", "http://127.0.0.1:9/v1", "--model", "m")
NAMED = {
    ("ask", "--run"): SERVER,
    ("ask", "--folds"): SERVER,
    ("benchmark encoders", "--folds"): (),
    ("benchmark encoders", "--name"): (),
    ("train", "--run"): ("--inputs", "voice"),
    ("train", "--folds"): ("--inputs", "voice"),
    ("tune", "--run"): ("--inputs", "voice"),
    ("tune", "--folds"): ("--inputs", "voice"),
    ("ensemble", "--bundle"): ("--runs", "a"),
    ("ensemble", "--runs"): (),
    ("evaluate", "--runs"): (),
    ("evaluate", "--bundle"): (),
    ("compare", "--runs"): ("--bundles", "x", "y"),
    ("compare", "--bundles"): ("--runs", "x", "y"),
    ("compare", "--name"): ("--runs", "x", "y"),
    ("report", "--runs"): (),
    ("report", "--bundle"): (),
    ("score", "--name"): (),
    ("bundle register", "--bundle"): (),
    ("bundle promote", "--bundle"): (),
    ("features import", "--name"): ("--file", "f.npz", "--modality", "video"),
}
"""Flags of jobs that become names of files, and what else the job wants to hear."""

LOOKED_UP = {
    ("annotate", "--bundle"),
    ("benchmark serve", "--bundle"),
    ("bundle export", "--bundle"),
    ("encode", "--encoders"),
    ("explain", "--bundle"),
    ("score", "--bundle"),
    ("serve", "--bundle"),
}
"""Flags that name something known; a bundle may be a folder anywhere."""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a prepared root in its middle."""
    return tmp_path_factory.mktemp("base")


def status_of(words):
    """The exit status, whether returned or raised by the parser."""
    try:
        return run(words)
    except SystemExit as stop:
        return stop.code


def everything(base):
    return sorted(str(path) for path in Path(base).rglob("*"))


@pytest.mark.parametrize(("job", "flag"), NAMED)
@pytest.mark.parametrize("evil", EVIL)
def test_a_name_that_is_no_name_is_refused_and_nothing_is_written(
    evil, job, flag, write_root, base, capsys
):
    root = base / "in" / "root"
    if not root.exists():
        write_root(str(root))
    before = everything(base)
    words = [*job.split(), "--root", str(root), *NAMED[job, flag], f"{flag}={EVIL[evil]}"]
    assert status_of(words) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    error.encode()
    assert everything(base) == before


def test_every_flag_that_names_files_is_in_the_list():
    found = set()
    for job in JOBS:
        module = importlib.import_module(f"jobs.{job}")
        commands = getattr(module, "COMMANDS", None) or {"": getattr(module, "Config", None)}
        for command, kind in commands.items():
            hints = typing.get_type_hints(kind) if kind else {}
            found |= {
                (f"{job} {command}".strip(), f"--{field.name}")
                for field in fields(kind or ConfigLess)
                if field.name in ("run", "runs", "bundle", "bundles", "name", "folds")
                and "str" in str(hints[field.name])
            }
    assert found - LOOKED_UP - {("annotate", "--name")} == set(NAMED)


class ConfigLess:
    """A job whose config depends on its first word."""

    __dataclass_fields__: typing.ClassVar = {}


class TestTasks:
    @pytest.mark.parametrize("evil", ["../../mood", "a/b", "two\nlines", "x" * 300, ".x"])
    def test_a_column_that_is_no_name_stops_prepare(self, evil, tmp_path, capsys):
        (tmp_path / "a.wav").write_bytes(b"")
        labels = tmp_path / "labels.jsonl"
        labels.write_text(json.dumps({"name": "a", evil: "low"}) + "\n")
        status = run(
            ["prepare", "folder", "--source", str(tmp_path), "--labels", str(labels), "--root",
             str(tmp_path / "root"), "--tasks", f"{evil}=classification"]
        )  # fmt: skip
        assert status == 2
        assert "the task or fold" in capsys.readouterr().err
        assert not (tmp_path / "root" / "dataset.json").exists()

    def test_sentences_and_signs_are_names(self):
        check_names(tasks=("how do you feel? (1)", "Stimmung", "[/b]".replace("/", ""), "a=b", "1"))


class TestFilesOfStrangers:
    def spoil(self, path, change):
        facts = json.loads(Path(path).read_text())
        change(facts)
        Path(path).write_text(json.dumps(facts))

    @pytest.mark.parametrize(
        "change",
        [
            lambda facts: facts.update(manifest="../../elsewhere"),
            lambda facts: facts["tasks"].update({"../../x": {"kind": "regression"}}),
        ],
    )
    @pytest.mark.parametrize(
        "words",
        [
            ["train", "--inputs", "voice", "--no-tracking"],
            ["encode", "--encoders", "minilm", "--no-tracking"],
            ["score", "--bundle", "face_expression"],
        ],
    )
    def test_a_dataset_that_points_elsewhere_is_refused(self, words, change, root, capsys):
        self.spoil(f"{root}/dataset.json", change)
        before = everything(Path(root).parent)
        assert run([words[0], "--root", root, *words[1:]]) == 2
        assert "dataset.json" in capsys.readouterr().err
        assert everything(Path(root).parent) == before

    @pytest.mark.parametrize(
        "facts",
        [
            {"name": "../../scores", "members": []},
            {"name": "b", "members": [{"run": "../../../nets", "card": {}}]},
        ],
    )
    @pytest.mark.parametrize("job", ["score", "evaluate", "report"])
    def test_a_bundle_that_points_elsewhere_is_refused(self, job, facts, root, capsys):
        folder = Path(root, "bundles", "b")
        folder.mkdir(parents=True)
        (folder / "bundle.json").write_text(json.dumps({"task": "emotion", **facts}))
        before = everything(Path(root).parent)
        assert run([job, "--root", root, "--bundle", "b"]) == 2
        assert "bundle.json: the name" in capsys.readouterr().err
        assert everything(Path(root).parent) == before

    def test_folds_of_a_runs_config_that_points_elsewhere_are_not_read(self, root, capsys):
        words = ["train", "--root", root, "--inputs", "voice", "--no-tracking"]
        config = Path(root, "config.json")
        config.write_text(json.dumps({"root": root, "inputs": ["voice"], "folds": "../secret"}))
        assert status_of([*words, "--config", str(config)]) == 2
        assert "--folds '../secret'" in capsys.readouterr().err


@given(st.lists(st.text(alphabet="ab./\\ \n\0"), max_size=4))
def test_no_part_of_a_path_leads_out_of_its_root(parts):
    try:
        path = storage.join("/base/root", *parts)
    except ConfigError:
        return
    assert f"{os.path.normpath(path)}/".startswith("/base/root/")


@given(st.text())
def test_a_name_is_one_segment_below_its_folder(name):
    try:
        checked_name(name, "it")
    except ConfigError:
        return
    assert os.path.basename(name) == name
    assert len(name.encode()) <= LONGEST


@given(st.lists(st.text("abc", min_size=1, max_size=60), min_size=1, max_size=9))
def test_names_joined_are_a_name_and_tell_long_lists_apart(names):
    name = joined_name(names, "+")
    assert checked_name(name, "it") == name
    assert name == "+".join(names) or name != joined_name([*names, "z"], "+")


@pytest.mark.parametrize(
    "words",
    [
        "compare --root r --runs a b a",
        "compare --root r --bundles a a",
        "report --root r --runs a a",
        "evaluate --root r --runs a a",
    ],
)
def test_what_is_compared_is_named_once(words, capsys):
    assert status_of(words.split()) == 2
    assert "'a' is named 2 times; type it once" in capsys.readouterr().err
