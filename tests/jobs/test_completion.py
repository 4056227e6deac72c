"""`affuse --install-completion`: bash completes jobs, commands, flags and their values."""

import importlib
import shlex
import subprocess

import pytest

from jobs import JOBS, _cli
from jobs.__main__ import run
from jobs.datasets import DATASETS


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    home = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(home))
        assert run(["--install-completion"]) == 0
    return home / "bash-completion" / "completions" / "affuse"


@pytest.fixture
def completed(place):
    """What bash offers for words of which the last is not finished."""

    def completed(*words):
        script = (
            'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _affuse; '
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        out = subprocess.run(
            ["bash", "-c", script, str(place), "affuse", *words], capture_output=True, text=True
        )
        assert out.returncode == 0, out.stderr
        assert out.stderr == ""
        return out.stdout.split()

    return completed


def test_the_first_word_is_a_job(completed):
    assert completed("") == list(JOBS)
    assert completed("en") == ["encode", "ensemble"]
    assert completed("--v") == ["--version"]


def test_the_second_word_of_a_job_with_commands_is_a_command(completed):
    assert completed("prepare", "") == list(DATASETS)
    assert completed("features", "im") == ["import"]


def test_every_flag_that_is_offered_is_one(completed, capsys):
    for job in ("encode", "train", "annotate", "submit"):
        with pytest.raises(SystemExit):
            _cli.parse(job, importlib.import_module(f"jobs.{job}"), ["--help"])
        shown = capsys.readouterr().out
        offered = completed(job, "--")
        assert "--help" in offered
        for flag in set(offered) - {"--help"}:
            assert flag in shown, (job, flag)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("encode", "--auto"), ["--autotune"]),
        (("encode", "--root", "x", "--autotune", ""), ["auto", "always", "never"]),
        (("encode", "--workers.act"), ["--workers.actors"]),
        (("train", "--no-tr"), ["--no-tracking"]),
        (("prepare", "meld", "--sou"), ["--source"]),
        (("submit", "--token-path", "t", "--", "enc"), ["encode"]),
        (("submit", "--", "encode", "--auto"), ["--autotune"]),
        (("prepare", "-"), ["--help"]),
        (("annotate", "--cli"), []),
        (("no such job", "--ro"), []),
    ],
    ids=lambda part: " ".join(part),
)
def test_a_word_is_completed(words, expected, completed):
    assert completed(*words) == expected


def test_where_nothing_is_known_bash_offers_files(completed):
    assert completed("encode", "--root", "") == []
    assert completed("score", "") == []


def test_a_file_of_somebody_else_is_not_replaced(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert run(["--install-completion"]) == 0
    assert run(["--install-completion"]) == 0
    place = tmp_path / "bash-completion" / "completions" / "affuse"
    place.write_text("mine")
    assert run(["--install-completion"]) == 2
    assert "was not written by affuse; remove it first" in capsys.readouterr().err
    assert place.read_text() == "mine"


@pytest.mark.parametrize("name", ["plain", "with a space", "it's; $(touch odd)"])
def test_the_line_to_type_names_the_file_whatever_its_folder_is_called(
    name, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / name))
    assert run(["--install-completion"]) == 0
    words = shlex.split(capsys.readouterr().out.rpartition("type: ")[2])
    assert words == ["source", str(tmp_path / name / "bash-completion" / "completions" / "affuse")]
