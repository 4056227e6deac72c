"""A disk that is full or closed is one line wherever it is met."""

import errno
import io
import os
import shutil
from types import SimpleNamespace

import pytest
from ray.exceptions import NodeDiedError, OutOfMemoryError
from ray.train import ControllerError, WorkerGroupError

from cluster import storage
from cluster.errors import ConfigError, StorageError
from cluster.mlflow_store import Guard
from cluster.refusals import refusal
from cluster.scratch import scratch_folder
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


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("many", [False, True])
def test_a_copy_that_finds_no_room_names_the_disk_that_it_goes_to(tmp_path, number, many):
    """Not that of temporary files, where it comes from: of a copy an error names both."""

    def copied():
        with scratch_folder(str(tmp_path)) as folder:
            error = OSError(number, os.strerror(number), f"{folder}/net", None, "/root/mlflow/net")
            if many:
                error = shutil.Error([(f"{folder}/net", "/root/mlflow/net", str(error))])
            raise error

    with pytest.raises(OSError, match=r"\w") as caught:
        copied()
    assert refusal(caught.value).startswith("the disk is full at /root/mlflow/net: ")
    assert not isinstance(caught.value, StorageError)


def test_a_database_that_finds_no_room_is_named(capsys):
    error = RuntimeError("(sqlite3.OperationalError) database or disk is full [SQL: INSERT]")
    assert (
        refused_by("sqlite:////data/mlflow.db", error, capsys).count("full at /data/mlflow.db)")
        == 1
    )
    assert "no room" in refused_by("http://host", RuntimeError("no room"), capsys)
    copied = OSError(errno.ENOSPC, "No space left on device", "/tmp/a", None, "/data/mlflow/a")
    assert "full at /data/mlflow/a: No space" in refused_by("sqlite:////d.db", copied, capsys)


def refused_by(uri, error, capsys):
    def act():
        raise error

    assert Guard(uri)(act) is None
    return capsys.readouterr().err


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


NO_ROOM = OutOfMemoryError(
    "6 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.1, "
    "ID: 41e6) was 22.05GB used / 23.54GB limit (0.936790)\nOOM kill reason: Memory usage 24037834752B"
)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NO_ROOM, "(22.05GB used / 23.54GB limit)"),
        (ControllerError(NO_ROOM), "(22.05GB used / 23.54GB limit)"),
        (
            WorkerGroupError("r", {0: WrappedError(health_check_failure=NO_ROOM)}),
            "(22.05GB used / 23.54GB limit)",
        ),
        (ControllerError(NodeDiedError("10.0.0.1")), "a machine of the cluster was lost"),
    ],
    ids=["plain", "of the controller", "of a training worker", "of a machine"],
)
def test_workers_that_ended_for_want_of_memory_or_with_their_machine_are_one_line(
    monkeypatch, capsys, error, said
):
    def main(config):
        raise error

    monkeypatch.setattr("jobs.train.main", main)
    monkeypatch.setattr("jobs._cli.parse", lambda *_: None)
    assert line.run(["train"]) == 1
    out = capsys.readouterr().err
    assert said in out
    assert len(out.splitlines()) == 1
    assert out.endswith("type the same command, which goes on from there\n")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
@pytest.mark.parametrize(
    ("job", "fields", "at", "flag"),
    [
        ("report", {"out": None}, "/theirs/reports/x.html", "--out"),
        ("annotate", {"out": None}, "/theirs/film.annotated.mp4", "--out"),
        ("explain", {"out": "/theirs/e.jsonl"}, "/theirs/e.jsonl", "--out"),
        ("explain", {"out": None}, "/theirs/explanations/x", None),
        ("score", {"out": "/theirs/x.csv"}, "/theirs/x.csv", "--out"),
        ("score", {"out": None}, "/theirs/scores/x", None),
        ("train", {}, "/theirs/runs/x", None),
        ("models", {"store": None}, "/home/x/.cache/affuse/store/y", "--store"),
        ("report", {"out": None}, "/home/x/.cache/affuse/compiled", "--out"),
    ],
)
def test_a_folder_of_others_is_told_with_the_flag_that_names_another(
    monkeypatch, capsys, number, job, fields, at, flag
):
    def main(config):
        raise OSError(number, os.strerror(number), at)

    monkeypatch.setattr(f"jobs.{job}.main", main)
    monkeypatch.setattr("jobs._cli.parse", lambda *_: SimpleNamespace(**fields))
    assert line.run([job]) == 1
    said = capsys.readouterr().err
    assert f"{flag} names another place; else mend that" in said or flag is None
    assert ("names another place" in said) == (flag is not None)


def test_a_bug_still_shows_its_traceback(monkeypatch):
    def main(config):
        raise WrappedError(cause=io.UnsupportedOperation("a bug"))

    monkeypatch.setattr("jobs.models.main", main)
    monkeypatch.setattr("jobs._cli.parse", lambda *_: None)
    with pytest.raises(WrappedError):
        line.run(["models"])


def client_error(package):
    """An error of a store's client, which is no OSError."""
    return type("Closed", (Exception,), {"__module__": f"{package}.exceptions"})("gone\nmore")


class Silent:
    """A store whose client gives up."""

    def __init__(self, error):
        self.error = error

    def __getattr__(self, name):
        if name == "invalidate_cache":
            return lambda *_: None

        def fail(*_, **__):
            raise self.error

        return fail


@pytest.mark.parametrize("package", ["botocore", "aiobotocore", "aiohttp", "gcsfs", "azure"])
@pytest.mark.parametrize(
    "ask",
    [
        lambda uri: storage.publish_bytes(b"x", uri),
        storage.read_bytes,
        storage.exists,
        storage.names,
        storage.read_table,
        storage.read_json,
    ],
)
def test_a_store_that_does_not_answer_is_one_line_whatever_is_asked(monkeypatch, package, ask):
    fs = Silent(client_error(package))
    monkeypatch.setattr(storage, "filesystem", lambda uri: (fs, uri))
    with pytest.raises(
        StorageError, match=r"^the storage does not answer at s3://b/x: gone$"
    ) as raised:
        ask("s3://b/x")
    assert line._refused(raised.value) is not None


def test_errors_of_others_stay_what_they_are(monkeypatch):
    monkeypatch.setattr(storage, "filesystem", lambda uri: (Silent(KeyError("x")), uri))
    with pytest.raises(KeyError):
        storage.read_bytes("s3://b/x")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("file.csv/below", "a file stands where a folder is expected"),
        ("round/below", "links lead in a circle"),
        ("n" * 300, "the name is too long"),
        ("folder", "a folder stands where a file is expected"),
        ("file.csv", "a file stands where a folder is expected"),
    ],
)
def test_a_place_that_is_none_is_one_line(tmp_path, place, said):
    def reach(path):
        path.mkdir(parents=True, exist_ok=True) if place == "file.csv" else path.read_bytes()

    (tmp_path / "file.csv").write_text("a")
    (tmp_path / "folder").mkdir()
    (tmp_path / "round").symlink_to(tmp_path / "round")
    with pytest.raises(OSError, match=r"Errno") as caught:
        reach(tmp_path / place)
    assert line._refused(caught.value) == f"{said}: {tmp_path / place}"


@pytest.mark.parametrize("uri", ["foo://bucket/x", "s4://x", "https+x://y"])
def test_a_storage_that_nobody_knows_is_one_line(uri):
    with pytest.raises(ConfigError, match=r"expected a folder, or a URI such as s3://"):
        storage.exists(uri)
