"""Beside every output stands the config that it was made with, and it means the same from any folder."""

import ast
import dataclasses
import importlib
import inspect
import itertools
import json
import re
import textwrap
import typing
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cluster import settings
from jobs import JOBS
from jobs.__main__ import run
from jobs.datasets import DATASETS

COUNT = 24


def write_corpus(base):
    """Clips of eight people with a split, their labels, and features of them."""
    (base / "clips").mkdir(parents=True)
    lines = ["name,mood,speaker,split"]
    for k in range(COUNT):
        soundfile.write(base / "clips" / f"c{k}.wav", np.zeros(800, np.float32), 8000)
        lines.append(f"c{k},{'abc'[k % 3]},s{k % 8},{'test' if k % 8 > 5 else ''}")
    (base / "labels.csv").write_text("\n".join(lines) + "\n")
    values = np.random.default_rng(0).normal(size=(COUNT, 4)) + np.arange(COUNT)[:, None] % 3
    names = np.array([f"c{k}" for k in range(COUNT)])
    np.savez(base / "au.npz", x=values.astype("f4"), name=names)


TRAIN = (
    "train", "--root", "root", "--inputs", "au", "--folds", "group3", "--epochs", 2, "--no-tracking",
    "--net-options", "hidden=8",
)  # fmt: skip
STEPS = {
    "prepare": (
        "prepare", "folder", "--source", "clips", "--labels", "labels.csv", "--root", "root",
        "--tasks", "mood=classification", "--folds", 3, "--workers", 1,
    ),
    "import": (
        "features", "import", "--root", "root", "--file", "au.npz", "--array", "x", "--name", "au",
        "--modality", "video",
    ),
    "train": (*TRAIN, "--run", "one"),
    "again": (*TRAIN, "--run", "two", "--seeds", 1),
    "ensemble": ("ensemble", "--root", "root", "--runs", "one", "two", "--resamples", 100),
    "evaluate": ("evaluate", "--root", "root", "--bundle", "ensemble", "--resamples", 100),
    "compare": ("compare", "--root", "root", "--runs", "one", "two", "--name", "both"),
    "report": ("report", "--root", "root", "--bundle", "ensemble", "--resamples", 100),
    "page": (
        "report", "--root", "root", "--bundle", "ensemble", "--resamples", 100, "--out", "page",
    ),
    "export": (
        "features", "export", "--root", "root", "--inputs", "video=au", "--out", "au.pkl",
    ),
}  # fmt: skip
PLACES = {
    "prepare": "root/manifest/*/config.json",
    "import": "root/features/au-*/config.json",
    "train": "root/runs/one/config.json",
    "again": "root/runs/two/config.json",
    "ensemble": "root/bundles/ensemble/config.json",
    "evaluate": "root/evaluations/ensemble/config.json",
    "compare": "root/comparisons/both/config.json",
    "report": "root/reports/ensemble/config.json",
    "page": "page/config.json",
    "export": "au.pkl.config.json",
}


def command(step):
    words = STEPS[step]
    return list(words[:2]) if words[0] == "features" else [words[0]]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Every job was typed in this folder, with relative places."""
    base = tmp_path_factory.mktemp("typed here")
    write_corpus(base)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(base)
        for words in STEPS.values():
            assert run([str(word) for word in words]) == 0, words
    return base


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    return tmp_path_factory.mktemp("elsewhere")


@pytest.mark.parametrize("step", STEPS)
def test_the_config_is_there_and_its_places_are_absolute(step, base):
    (place,) = base.glob(PLACES[step])
    config = json.loads(place.read_text())
    assert config["root"] == str(base / "root")
    for name in ("source", "labels", "file", "out"):
        assert str(config.get(name) or base).startswith(str(base)), name


@pytest.mark.parametrize("step", [step for step in STEPS if step != "report"])  # as `page`
def test_from_another_folder_it_is_the_same_command(step, base, elsewhere, monkeypatch, capsys):
    (place,) = base.glob(PLACES[step])
    monkeypatch.chdir(elsewhere)
    before = {path for path in base.rglob("*") if "looks" not in path.parts}
    assert run([*command(step), "--config", str(place)]) == 0
    said = capsys.readouterr().out
    assert "nothing to do" in said or f"wrote {base}" in said
    assert {path for path in base.rglob("*") if "looks" not in path.parts} == before
    assert list(elsewhere.iterdir()) == []


def test_a_report_in_a_folder_of_somebody_else_replaces_nothing(base, tmp_path, capsys):
    (tmp_path / "report.html").write_text("my thesis")
    words = ["report", "--root", str(base / "root"), "--bundle", "ensemble", "--resamples", "100"]
    assert run([*words, "--out", str(tmp_path)]) == 2
    assert "report.html is there, and is not what an earlier run wrote" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    (tmp_path / "report.html").unlink()
    (tmp_path / "results.csv").write_text("my table")
    status = run([*words, "--out", str(tmp_path)])
    assert status == (2 if (base / "page" / "results.csv").exists() else 0)
    assert (tmp_path / "results.csv").read_text() == "my table"
    assert run([*words, "--out", str(tmp_path), "--overwrite"]) == 0


NAMED_LIKE_A_PLACE = {
    "root", "store", "out", "source", "file", "scores", "clip", "clips", "json", "font", "space", "cache",
    "imported", "labels", "path", "folder", "uri", "dir",
}  # fmt: skip
SAYS_A_PLACE = re.compile(r"\b(folder|file|uri|path|bucket)s?\b", re.IGNORECASE)
NO_PLACES = {
    "name": "of a clip, as its file is called",
    "names": "keys inside the file",
    "assume.clips": "a number, such as 100M",
    "cluster.identity": "an account of the cloud",
    "dataset_name": "a name that is made of the file's",
}
"""Fields whose sentence speaks of a file or folder, and what they are instead."""


def text_fields(kind, above=""):
    """(dotted name, type, what is said of it) of every field that is text, or several of it."""
    hints = typing.get_type_hints(kind, include_extras=True)
    said = {}
    for each in reversed(kind.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0].body
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                said[field.target.id] = ast.literal_eval(text.value)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from text_fields(hint, f"{above}{field.name}.")
        elif "str" in str(hint) and "Mapping" not in str(hint) and "dict" not in str(hint):
            yield above + field.name, str(hint), said.get(field.name, "")


def all_text_fields():
    for job in JOBS:
        module = importlib.import_module(f"jobs.{job}")
        kinds = getattr(module, "COMMANDS", None) or {"": getattr(module, "Config", None)}
        if job == "prepare":
            kinds = {n: importlib.import_module(f"jobs.datasets.{n}").Config for n in DATASETS}
        for command_name, kind in kinds.items():
            for field, hint, said in text_fields(kind):
                yield f"{job} {command_name}".strip(), field, hint, said


def test_every_field_that_is_a_path_is_declared_as_a_place():
    """What is declared is made absolute and checked; what is forgotten would write elsewhere."""
    undeclared = [
        (job, field)
        for job, field, hint, said in all_text_fields()
        if settings.PLACE not in hint
        and (re.split(r"[_.]", field)[-1] in NAMED_LIKE_A_PLACE or SAYS_A_PLACE.search(said))
    ]
    assert {field for _, field in undeclared} == set(NO_PLACES), undeclared


def test_a_home_stays_a_home_and_a_name_a_name():
    from jobs.score import Config

    config = Config(clips=("a.mp4", "s3://b/c"), bundle="plain", store="~/store", root="r")
    facts = settings.resolved(config)
    assert facts["clips"] == [str(Path.cwd() / "a.mp4"), "s3://b/c"]
    assert (facts["bundle"], facts["store"]) == ("plain", "~/store")
    assert settings.resolved(Config(clips=("a",), bundle="b/plain"))["bundle"] == str(
        Path.cwd() / "b" / "plain"
    )
