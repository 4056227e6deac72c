"""Temporary folders: gone at the end, at Ctrl-C, and after a kill with the next one that is made."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cluster.errors import StorageError
from cluster.scratch import (
    LEAST_ROOM,
    OWNER,
    PREFIX,
    claim_scratch,
    release_scratch,
    scratch_folder,
)

ROOT = Path(__file__).resolve().parents[2]

HOLD = """
import os, sys
from cluster import interrupt
from cluster.scratch import scratch_folder
with scratch_folder(sys.argv[1]) as folder:
    open(os.path.join(folder, "spilled"), "w").close()
    print(folder, flush=True)
    if sys.stdin.readline() == "leave\\n":
        interrupt.leave()
"""

OF_OTHERS = {
    "cluster/scratch.py",  # makes them
    "fusion/nets/kernels/compiled.py",  # beside its cache, for a rename; imports nothing of ours
    "jobs/serving/desk.py",  # rooms inside one
    "jobs/serving/replicas.py",  # likewise
}


def started(parent):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


class TestFolder:
    def test_is_empty_for_its_user_alone_and_gone_at_the_end_also_after_an_error(self, tmp_path):
        def fail():
            with scratch_folder(str(tmp_path)) as folder:
                assert os.listdir(folder) == []
                assert Path(folder).parent.stat().st_mode & 0o777 == 0o700
                Path(folder, "part").touch()
                raise RuntimeError("job")

        with pytest.raises(RuntimeError, match="job"):
            fail()
        assert list(tmp_path.iterdir()) == []

    def test_may_be_released_twice(self, tmp_path):
        folder = claim_scratch(str(tmp_path))
        release_scratch(folder)
        release_scratch(folder)
        assert list(tmp_path.iterdir()) == []

    def test_that_nobody_released_goes_with_its_process(self, tmp_path):
        code = "import sys; from cluster.scratch import claim_scratch; claim_scratch(sys.argv[1])"
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True)
        assert list(tmp_path.iterdir()) == []

    def test_goes_where_ctrl_c_ends_the_process_in_the_middle(self, tmp_path):
        process, folder = started(tmp_path)
        assert folder.is_dir()
        process.communicate("leave\n", timeout=120)
        assert list(tmp_path.iterdir()) == []

    def test_is_its_owners_and_not_that_of_a_process_that_was_forked_off(self, tmp_path):
        code = """if True:
            import os, sys
            from cluster import interrupt
            from cluster.scratch import scratch_folder
            with scratch_folder(sys.argv[1]) as folder:
                if (child := os.fork()) == 0:
                    interrupt.leave()
                os.waitpid(child, 0)
                print(os.path.isdir(folder))
        """
        words = [sys.executable, "-c", code, str(tmp_path)]
        said = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
        assert said.stdout == "True\n"
        assert list(tmp_path.iterdir()) == []


class TestLeftovers:
    def test_are_looked_for_once_in_a_process(self, tmp_path, monkeypatch):
        with scratch_folder(str(tmp_path)):
            monkeypatch.setattr(Path, "glob", lambda *_: pytest.fail("looked again"))
            with scratch_folder(str(tmp_path)):
                pass

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_of_a_killed_process_go_and_those_of_a_living_one_stay(self, tmp_path, number):
        living, kept = started(tmp_path)
        dead, left = started(tmp_path)
        dead.send_signal(number)
        dead.communicate(timeout=120)
        assert (left / "spilled").is_file()
        with scratch_folder(str(tmp_path)):
            assert not left.parent.exists()
            assert (kept / "spilled").is_file()
        living.communicate("\n", timeout=120)
        assert list(tmp_path.iterdir()) == []

    def test_what_is_not_such_a_folder_is_never_touched(self, tmp_path):
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / OWNER).touch()
        parent = tmp_path / "parent"
        (parent / f"{PREFIX}notes").mkdir(parents=True)
        (parent / f"{PREFIX}file").touch()
        (parent / f"{PREFIX}link").symlink_to(elsewhere)
        before = sorted(parent.iterdir())
        with scratch_folder(str(parent)):
            pass
        assert sorted(parent.iterdir()) == before
        assert (elsewhere / OWNER).is_file()


class TestNoRoom:
    def test_nowhere_at_all_is_one_line_that_says_what_to_set(self, monkeypatch):
        def nowhere():
            raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in []")

        monkeypatch.setenv("TMPDIR", "/full")
        monkeypatch.setattr(tempfile, "gettempdir", nowhere)
        with pytest.raises(StorageError, match=r"at /full or /tmp or /var/tmp; TMPDIR=FOLDER"):
            claim_scratch()

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
    def test_a_folder_that_cannot_be_made_is_told_with_its_place(
        self, tmp_path, monkeypatch, number
    ):
        def refuse(*_, **__):
            raise OSError(number, os.strerror(number), f"{tmp_path}/affuse-12345678")

        monkeypatch.setattr(tempfile, "mkdtemp", refuse)
        with pytest.raises(StorageError, match=f" at {tmp_path}: .*; TMPDIR=FOLDER"):
            claim_scratch(str(tmp_path))

    @pytest.mark.parametrize("free", [0, LEAST_ROOM - 1, LEAST_ROOM + 1])
    @pytest.mark.parametrize("named", ["inside", "outside", "nothing", "a list"])
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
    def test_a_disk_that_fills_up_is_told_where_it_is_that_of_the_folder(
        self, tmp_path, monkeypatch, number, named, free
    ):
        """Writers of tables and films name no file; a disk of an output is told by who writes that."""
        usage = shutil.disk_usage(tmp_path)._replace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        of_ours = named == "inside" or (named in ("nothing", "a list") and free < LEAST_ROOM)
        of_ours = of_ours and (number != errno.EIO or named == "a list")

        def fail():
            with scratch_folder(str(tmp_path)) as folder:
                error = OSError(number, os.strerror(number))
                if named == "a list":
                    error = shutil.Error([("a", "b", "[Errno 28] No space left on device")])
                elif named != "nothing":
                    error.filename = f"{folder if named == 'inside' else '/elsewhere'}/x"
                raise error

        with pytest.raises(OSError, match=r"\w") as caught:
            fail()
        told = f"the disk is full at {tmp_path}, where temporary files are; TMPDIR=FOLDER"
        assert str(caught.value).startswith(told) == of_ours
        assert isinstance(caught.value, StorageError) == of_ours
        assert list(tmp_path.iterdir()) == []


def test_no_code_makes_temporary_folders_in_another_way():
    made = re.compile(r"mkdtemp|TemporaryDirectory|NamedTemporaryFile|mkstemp")
    found = {
        str(path.relative_to(ROOT))
        for package in ("cluster", "encoders", "fusion", "jobs")
        for path in (ROOT / package).rglob("*.py")
        if made.search(path.read_text())
    }
    assert found == OF_OTHERS
