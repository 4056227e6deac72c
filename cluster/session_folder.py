"""The folder of a local session: private to its user; after a kill the next session removes it.

A driver that is killed cannot tidy up: its sockets, logs and spilled objects stay, and some of Ray's
processes run on. Each folder therefore holds a file that its owner keeps locked while it lives; the next
session ends what belongs to folders whose lock is free, and removes them.
"""

import contextlib
import fcntl
import importlib
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PREFIX = "af-"
OWNER = "owner"
INSIDE = "r"
"""Folder for Ray inside the private one: Ray opens its folder to all users."""

_LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107
_SOCKET = "/session_2026-01-02_03-04-05_678901_4194304/sockets/plasma_store"
MAX_PARENT = _LONGEST_SOCKET - len(f"/{PREFIX}12345678/{INSIDE}{_SOCKET}")
"""How long the path of a folder for sessions may be: the system limits that of a socket."""

_live: list[Path] = []
"""Folders of this process's own sessions."""

_OF_RAY = re.compile(r"^ray::|/ray/(core/src|_private|autoscaler|dashboard)/")


@contextmanager
def session_folder(parent: Path) -> Iterator[Path]:
    """A folder for Ray below one of mode 0700; everything is gone at the end, running processes too.

    Args:
        parent: where it lies, beside those of other sessions; is made where it is missing.
    """
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent)
    folder, lock = _claimed(parent)
    _live.append(folder)
    try:
        yield folder / INSIDE
    finally:
        _remove(folder)
        _live.remove(folder)
        os.close(lock)


def end_sessions() -> None:
    """End this process's own sessions by force, for one that is about to end."""
    for folder in _live:
        _remove(folder)


def sweep(parent: Path) -> None:
    """Remove the folders of this user's sessions that were killed, and end what they left running."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), _abandoned(folder):
            _remove(folder)


def _claimed(parent: Path) -> tuple[Path, int]:
    """A new folder and its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        folder.chmod(0o700)  # mkdtemp leaves out what the umask does
        lock = os.open(folder / OWNER, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # a session that starts at this moment sweeps it
            os.close(lock)
            continue
        if os.fstat(lock).st_nlink:
            return folder, lock
        os.close(lock)


@contextmanager
def _abandoned(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder that nobody holds.

    Raises:
        OSError: somebody does, or it is not a folder of ours.
    """
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
        raise PermissionError(f"{folder} is not a session of this user")
    lock = os.open(folder / OWNER, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


def _remove(folder: Path) -> None:
    _end_processes(folder)
    shutil.rmtree(folder / INSIDE, ignore_errors=True)
    if not (folder / INSIDE).exists():  # else the next session finds it by its owner's file
        shutil.rmtree(folder, ignore_errors=True)


def _end_processes(folder: Path) -> None:
    """End Ray's processes that have this folder open or in their command line."""
    psutil = _psutil()
    inside = (f"{folder}/", f"{folder.resolve()}/")
    left = [process for process in psutil.process_iter() if _belongs(process, inside)]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=5)


def _belongs(process: Any, inside: tuple[str, ...]) -> bool:
    psutil = _psutil()
    try:
        if process.pid == os.getpid() or process.uids().effective != os.geteuid():
            return False
        words = process.cmdline()
        if not any(_OF_RAY.search(word) for word in words[:3]):  # somebody's pager shows a log
            return False
        # Ray replaces the command line of some by a title, which says nothing of the session.
        return any(folder in word for word in words for folder in inside) or any(
            file.path.startswith(inside) for file in process.open_files()
        )
    except psutil.Error:
        return False


def _psutil() -> Any:
    importlib.import_module("ray")  # which brings it
    return importlib.import_module("psutil")
