"""`score` and `explain` on a full disk: what is left is named rightly, and the same command goes on."""

import errno
import os
import shlex
import shutil

import pytest

from cluster import one_step
from jobs.__main__ import run

LAST = 10
"""More files than either command publishes."""


@pytest.fixture(scope="module")
def made(write_root, tmp_path_factory):
    """A root with a bundle of one solved net."""
    root = write_root(str(tmp_path_factory.mktemp("made") / "small"))
    train = ["train", "--root", root, "--inputs", "voice", "--net", "linear", "--folds", "speaker"]
    assert run([*train, "--run", "voice", "--no-tracking"]) == 0
    assert run(["ensemble", "--root", root, "--runs", "voice", "--task", "emotion", "--bundle", "best",
                "--resamples", "100"]) == 0  # fmt: skip
    return root


@pytest.fixture
def bundled(made, tmp_path):
    """A copy of it."""
    return shutil.copytree(made, str(tmp_path / "small"))


def fills(monkeypatch, files):
    """Let the disk be full once so many files are published."""
    left = iter([None] * files)
    plain = one_step.os.replace

    def replace(source, to):
        if next(left, "full") == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(to))
        plain(source, to)

    monkeypatch.setattr(one_step.os, "replace", replace)


@pytest.mark.parametrize(
    ("job", "files"),
    [("score", 0), ("score", 1), ("score", 2), ("score", LAST), ("explain", 0), ("explain", 2)],
)
def test_what_is_left_is_mended_by_what_verify_says_to_type(
    bundled, monkeypatch, capsys, job, files
):
    command = [job, "--root", bundled, "--bundle", "best"]
    command += ["--resamples", "100"] if job == "explain" else []
    with monkeypatch.context() as full:
        fills(full, files)
        if run(command):
            (line,) = capsys.readouterr().err.splitlines()
            assert f"{job}: the disk is full at {bundled}" in line
        else:
            assert files == LAST or job == "explain"
    capsys.readouterr()
    if run(["verify", "--root", bundled]):
        said = capsys.readouterr().out
        _, _, typed = said.partition("type: affuse ")
        assert run(shlex.split(typed.splitlines()[0])) == 0
        assert run(["verify", "--root", bundled]) == 0
    if files == 1:
        assert run(["report", "--root", bundled, "--bundle", "best", "--resamples", "100"]) == 0
    assert run(command) == 0
