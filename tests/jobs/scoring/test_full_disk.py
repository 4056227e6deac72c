"""`score` and `explain` on a full disk: what is left is named rightly, and the same command goes on."""

import errno
import os
import shlex

import pytest

from cluster import one_step
from jobs.__main__ import run

LAST = 10
"""More files than either command publishes."""


@pytest.fixture
def bundled(root):
    """A root with a bundle of one solved net."""
    train = ["train", "--root", root, "--inputs", "voice", "--net", "linear", "--folds", "speaker"]
    assert run([*train, "--run", "voice", "--no-tracking"]) == 0
    assert run(["ensemble", "--root", root, "--runs", "voice", "--task", "emotion", "--bundle", "best",
                "--resamples", "100"]) == 0  # fmt: skip
    return root


def fills(monkeypatch, files):
    """Let the disk be full once so many files are published."""
    left = iter([None] * files)
    plain = one_step.os.replace

    def replace(source, to):
        if next(left, "full") == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(to))
        plain(source, to)

    monkeypatch.setattr(one_step.os, "replace", replace)


@pytest.mark.parametrize("files", [0, 1, 2, 3, 4, LAST])
@pytest.mark.parametrize("job", [["score"], ["explain", "--resamples", "100"]], ids=" ".join)
def test_what_is_left_is_mended_by_what_verify_says_to_type(
    bundled, monkeypatch, capsys, job, files
):
    command = [job[0], "--root", bundled, "--bundle", "best", *job[1:]]
    with monkeypatch.context() as full:
        fills(full, files)
        if run(command):
            (line,) = capsys.readouterr().err.splitlines()
            assert f"{job[0]}: the disk is full at {bundled}" in line
        else:
            assert files == LAST or job[0] == "explain"
    capsys.readouterr()
    if run(["verify", "--root", bundled]):
        said = capsys.readouterr().out
        _, _, typed = said.partition("type: affuse ")
        assert run(shlex.split(typed.splitlines()[0])) == 0
        assert run(["verify", "--root", bundled]) == 0
    assert run(["report", "--root", bundled, "--bundle", "best", "--resamples", "100"]) == 0
    assert run(command) == 0
