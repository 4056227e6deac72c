"""A disk that is full or closed is one line wherever it is met."""

import errno
import io
import os

import pytest

from cluster import storage
from cluster.errors import StorageError
from jobs import __main__ as line


def refused(number):
    def opened(*_, **__):
        raise OSError(number, os.strerror(number), "/disk/.x.tmp")

    return opened


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full at"),
        (errno.EDQUOT, "the disk is full at"),
        (errno.EROFS, "nothing can be written at"),
        (errno.EACCES, "no permission at"),
        (errno.EPERM, "no permission at"),
    ],
)
def test_publishing_names_the_file_and_the_reason(tmp_path, monkeypatch, number, said):
    monkeypatch.setattr(os, "fsync", refused(number))
    with pytest.raises(StorageError, match=f"^{said} {tmp_path}/a.json: "):
        storage.publish_json({}, f"{tmp_path}/a.json")
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_may_pass_stays_what_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", refused(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        storage.publish_json({}, f"{tmp_path}/a.json")


class WrappedError(Exception):
    """As Ray's are: the cause in an attribute."""

    def __init__(self, **attributes):
        super().__init__("a long traceback of a worker")
        vars(self).update(attributes)


FULL = OSError(errno.ENOSPC, "No space left on device", "/tmp/cache/weights")


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        StorageError("the disk is full at /tmp/cache/weights: No space left on device"),
        WrappedError(cause=FULL),
        WrappedError(worker_failures={0: WrappedError(cause=FULL)}),
        WrappedError(
            cause=StorageError("the disk is full at /tmp/cache/weights: No space left on device")
        ),
    ],
    ids=["plain", "published", "of a task", "of a training worker", "published by a task"],
)
def test_any_job_ends_in_one_line_however_deep_the_error_lies(monkeypatch, capsys, error):
    def main(config):
        raise error

    monkeypatch.setattr("jobs.models.main", main)
    monkeypatch.setattr("jobs._cli.parse", lambda *_: None)
    assert line.run(["models"]) == 1
    assert capsys.readouterr().err == (
        "affuse models: the disk is full at /tmp/cache/weights: No space left on device; "
        "mend that and type the same command, which goes on from there\n"
    )


def test_a_bug_still_shows_its_traceback(monkeypatch):
    def main(config):
        raise WrappedError(cause=io.UnsupportedOperation("a bug"))

    monkeypatch.setattr("jobs.models.main", main)
    monkeypatch.setattr("jobs._cli.parse", lambda *_: None)
    with pytest.raises(WrappedError):
        line.run(["models"])
