"""Every flag that takes a file says what stands at its place, in one line, and waits for no pipe."""

import os
import socket
from pathlib import Path

import pytest

from cluster import storage
from jobs import __main__ as command

FLAGS = {
    "labels": (
        "prepare folder --source {root} --labels {file} --root {root}x --tasks a=regression",
        ("csv", "jsonl", "parquet", "tsv"),
    ),
    "features": (
        "features import --root {root} --file {file} --name mine --modality audio",
        ("csv", "h5", "npy", "npz", "parquet", "pkl"),
    ),
    "arrays": ("prepare arrays --source {file} --root {root}x --tasks a=regression", ("npz",)),
    "pickle": ("prepare mmsa --source {file} --root {root}x", ("pkl",)),
    "predictions": (
        "ensemble --root {root} --imported {file} --task emotion --bundle b",
        ("csv", "jsonl", "parquet"),
    ),
    "config": ("train --config {file}", ("json", "yaml")),
    "space": ("tune --root {root} --inputs voice --space {file}", ("yaml",)),
}
CASES = [(words, kind) for words, kinds in FLAGS.values() for kind in kinds]


def absent(file: Path) -> None:
    del file


def dangling(file: Path) -> None:
    file.symlink_to("nowhere")


def circle(file: Path) -> None:
    file.symlink_to(file.name)


def folder(file: Path) -> None:
    file.mkdir()


def pipe(file: Path) -> None:
    os.mkfifo(file)


def door(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(file))


def closed(file: Path) -> None:
    file.touch(mode=0)


SAID = {
    absent: ("is not there", "there is no such file"),
    dangling: ("leads nowhere", "there is no such file"),
    circle: ("links lead in a circle",),
    folder: (
        "a folder stands where a file is expected",
        "expected files NAME.npy",
        "expected a pickle",
    ),
    pipe: ("is a pipe, a socket or a device; expected a file",),
    door: ("is a pipe, a socket or a device; expected a file",),
    closed: ("no permission at",),
}


@pytest.mark.parametrize(("place", "said"), SAID.items(), ids=[each.__name__ for each in SAID])
@pytest.mark.parametrize(("words", "kind"), CASES)
def test_what_stands_there_is_said(
    words, kind, place, said, write_root, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    root, file = write_root("root"), Path(f"given.{kind}")
    place(file)
    if place is closed and os.access(file, os.R_OK):  # root may read everything

        def refuse(path, *mode):
            raise PermissionError(13, "Permission denied", path)

        monkeypatch.setattr(storage, "open", refuse, raising=False)
    status = command.run(words.format(root=root, file=file).split())
    out = capsys.readouterr().err.strip()
    assert status in (1, 2)
    assert len(out.splitlines()) == 1
    assert any(each in out for each in said), out
    assert str(file) in out


@pytest.mark.parametrize("job", ["encode", "prepare", "train", "verify"])
def test_a_command_typed_in_a_folder_that_was_removed_is_told_to_leave_it(
    job, tmp_path, monkeypatch, capsys
):
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert command.run([job, "--root", "mine"]) == 1
    out = capsys.readouterr().err
    assert out.startswith(f"affuse {job}: the folder that this is typed in was removed; type: cd ")
    assert len(out.splitlines()) == 1
    assert command.run(["--version"]) == 0
