"""Sessions that were killed are swept; those that live, and what is not ours, are left alone."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import ray

from cluster.errors import StorageError
from cluster.scratch import OWNER
from cluster.session import SessionConfig, ray_session
from cluster.session_folder import MAX_PARENT, session_folder, sweep

HOLD = """
import sys
from pathlib import Path
from cluster.session_folder import session_folder
with session_folder(Path(sys.argv[1])) as folder:
    folder.mkdir()
    print(folder, flush=True)
    sys.stdin.read()
"""

DRIVER = """
import sys, time, ray
from cluster.session import SessionConfig, ray_session
with ray_session(SessionConfig(num_cpus=1, num_gpus=0, temp_dir=sys.argv[1])):
    ray.get(ray.remote(lambda: 1).remote())
    print(ray._private.worker.global_worker.node.get_session_dir_path(), flush=True)
    time.sleep(300)
"""


@pytest.fixture
def parent(tmp_path_factory):
    """A short path, as sockets want it."""
    folder = Path(tempfile.mkdtemp(prefix="s", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def started(code, parent):
    """A process that holds a session, and its folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline().strip()
    assert line, "it did not start"
    return process, parent / Path(line).relative_to(parent).parts[0]


def killed(process):
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stdin.close()
    process.stdout.close()


def using(folder):
    """Processes that have a file of this folder open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [os.readlink(link) for link in (process / "fd").iterdir()]
        except OSError:
            continue
        if any(link.startswith(str(folder)) for link in links):
            found.append(int(process.name))
    return found


class TestFolder:
    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o277])
    def test_nobody_else_may_look_into_it(self, tmp_path, umask):
        before = os.umask(umask)
        try:
            with session_folder(tmp_path) as folder:
                assert folder.parent.stat().st_mode & 0o777 == 0o700
        finally:
            os.umask(before)

    def test_it_is_gone_at_the_end_also_after_an_error(self, tmp_path):
        def fail():
            with session_folder(tmp_path) as folder:
                folder.mkdir()
                (folder / "spilled").write_text("x")
                raise RuntimeError("job")

        with pytest.raises(RuntimeError, match="job"):
            fail()
        assert not list(tmp_path.iterdir())

    def test_a_path_that_is_too_long_for_sockets_is_refused_in_one_line(self):
        SessionConfig(temp_dir="/" + "x" * (MAX_PARENT - 1))
        with pytest.raises(ValueError, match=r"session.temp_dir: /x+ is longer than the \d+"):
            SessionConfig(temp_dir="/" + "x" * MAX_PARENT)


class TestSweeping:
    def test_what_a_killed_owner_left_goes_and_a_living_one_stays(self, tmp_path):
        dead, left = started(HOLD, tmp_path)
        living, kept = started(HOLD, tmp_path)
        killed(dead)
        assert left.is_dir()
        with session_folder(tmp_path):
            assert not left.exists()
            assert kept.is_dir()
        living.communicate("")
        assert not list(tmp_path.iterdir())

    def test_what_is_not_a_session_of_ours_is_never_touched(self, tmp_path):
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / OWNER).write_text("")
        parent = tmp_path / "parent"
        (parent / "af-notes").mkdir(parents=True)
        (parent / "af-file").write_text("")
        (parent / "af-link").symlink_to(elsewhere)
        (parent / "other").mkdir()
        before = sorted(parent.iterdir())
        sweep(parent)
        assert sorted(parent.iterdir()) == before
        assert (elsewhere / OWNER).is_file()

    def test_what_belongs_to_another_user_is_never_touched(self, tmp_path, monkeypatch):
        dead, left = started(HOLD, tmp_path)
        killed(dead)
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        sweep(tmp_path)
        assert left.is_dir()

    @pytest.mark.ray
    @pytest.mark.slow
    def test_what_a_killed_driver_left_running_ends_and_a_reader_of_its_log_does_not(self, parent):
        dead, left = started(DRIVER, parent)
        living, kept = started(DRIVER, parent)
        log = next(left.rglob("raylet.out"))
        pager = subprocess.Popen(["tail", "-f", str(log)], stdout=subprocess.DEVNULL)
        try:
            assert len(using(left)) > 4
            killed(dead)
            busy = using(kept)
            sweep(parent)
            assert not left.exists()
            assert set(using(left)) <= {pager.pid}
            assert pager.poll() is None
            assert set(using(kept)) >= set(busy)
        finally:
            pager.kill()
            pager.wait()
            living.send_signal(signal.SIGINT)
            living.wait(60)
            living.stdin.close()
            living.stdout.close()
        deadline = time.monotonic() + 60
        while using(kept) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert not using(kept)
        assert not kept.exists()


@pytest.mark.parametrize("room", [0, 4096, 2**20 - 1])
def test_a_full_disk_is_said_before_anything_starts(parent, monkeypatch, room):
    usage = shutil.disk_usage(parent)._replace(free=room)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("it started"))
    with (
        pytest.raises(StorageError, match=f"the disk is full at {parent}.*--session.temp-dir"),
        ray_session(SessionConfig(temp_dir=str(parent))),
    ):
        pytest.fail("it started")
    assert not list(parent.iterdir())


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_takes_nothing_is_said_with_the_flag_that_names_another(
    parent, monkeypatch, number
):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number), f"{parent}/af-12345678")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with (
        pytest.raises(StorageError, match=f" at {parent}: .*; --session.temp-dir names another"),
        session_folder(parent),
    ):
        pytest.fail("it started")


@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_a_file_at_the_place_of_the_folder_is_one_line(tmp_path, below):
    (tmp_path / "file").touch()
    said = "a file stands where a folder is expected: .*/file.*; --session.temp-dir names another"
    with pytest.raises(StorageError, match=said), session_folder(tmp_path / "file" / below):
        pytest.fail("it started")
