"""A user without a home folder, as in a container: one line where it matters, nothing where it does not."""

import os
import pwd

import pytest

from cluster import storage
from cluster.errors import ConfigError, SubmissionError
from cluster.home import expanded
from cluster.jobs_api import read_token
from cluster.session import SessionConfig
from encoders.store import DEFAULT_STORE, mirror
from jobs import __main__ as line
from jobs.training.mapped import Mapped


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """Neither HOME nor a line for this user in the list of users; an empty folder to be in."""

    def unknown(number):
        raise KeyError(number)

    for name in ("HOME", "XDG_DATA_HOME", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert list(tmp_path.iterdir()) == []  # above all no folder called ~


@pytest.mark.parametrize(
    "act",
    [
        lambda: storage.absolute("~/x"),
        lambda: storage.absolute("~"),
        lambda: mirror([], DEFAULT_STORE),
        lambda: SessionConfig(temp_dir="~/x"),
        lambda: Mapped("~/.cache/x", (1, 1), "float32"),
    ],
)
def test_a_place_below_it_is_refused_with_what_to_type(homeless, act):
    with pytest.raises(ConfigError, match=r"^~.*: this user has no home folder; type: export HOME"):
        act()


@pytest.mark.parametrize("place", ["/a/~", "a~", "~nobody-of-this-name/x", "s3://b/~/x"])
def test_other_places_are_what_they_were(homeless, place):
    assert expanded(place) == place


def test_a_token_that_nobody_named_is_none_and_one_that_was_is_told(homeless):
    assert read_token(None, {}) is None
    with pytest.raises(SubmissionError, match="token file ~/t: No such file"):
        read_token("~/t", {})


@pytest.mark.parametrize(
    "words", [["--install-completion"], ["models", "--encoders", "face_expression"]]
)
def test_a_command_ends_in_one_line(homeless, capsys, words):
    assert line.run(words) == 2
    said = capsys.readouterr().err
    assert "has no home folder" in said
    assert len(said.splitlines()) == 1


def test_home_wins_over_the_list_of_users(homeless, monkeypatch):
    monkeypatch.setenv("HOME", os.sep + "h")
    assert storage.absolute("~/x") == "/h/x"
