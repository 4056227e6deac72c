"""The folder of a local session: private to its user; after a kill the next session removes it.

A driver that is killed cannot tidy up: its sockets, logs and spilled objects stay, and some of Ray's
processes run on. As every temporary folder (`cluster.scratch`) it holds a file that its owner keeps locked
while it lives; the next session ends what belongs to folders whose lock is free, and removes them.
"""

import contextlib
import importlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.errors import StorageError
from cluster.refusals import in_the_way, refusal
from cluster.scratch import abandoned, claimed

PREFIX = "af-"
INSIDE = "r"
"""Folder for Ray inside the private one: Ray opens its folder to all users."""

_LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107
_SOCKET = "/session_2026-01-02_03-04-05_678901_4194304/sockets/plasma_store"
MAX_PARENT = _LONGEST_SOCKET - len(f"/{PREFIX}12345678/{INSIDE}{_SOCKET}")
"""How long the path of a folder for sessions may be: the system limits that of a socket."""

LEAST_ROOM = 2**20
"""What Ray's logs take at least [bytes]; on a full disk its processes hang, and say nothing."""

OTHER_PLACE = "--session.temp-dir names another folder"
"""What to type where Ray finds no room."""

_live: list[Path] = []
"""Folders of this process's own sessions."""

_OF_RAY = re.compile(r"^ray::|/ray/(core/src|_private|autoscaler|dashboard)/")


@contextmanager
def session_folder(parent: Path) -> Iterator[Path]:
    """A folder for Ray below one of mode 0700; everything is gone at the end, running processes too.

    Args:
        parent: where it lies, beside those of other sessions; is made where it is missing.

    Raises:
        StorageError: its disk is full, or nothing can be written there.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unfit(parent, error) from error
    sweep(parent)
    if (room := shutil.disk_usage(parent).free) < LEAST_ROOM:
        raise StorageError(
            f"the disk is full at {parent}, where Ray keeps its logs: {room / 1024:.0f} KB are free; "
            f"{OTHER_PLACE}"
        )
    try:
        folder, lock = claimed(parent, PREFIX)
    except OSError as error:
        raise _unfit(parent, error) from error
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
        with contextlib.suppress(OSError), abandoned(folder):
            _remove(folder)


def _unfit(parent: Path, error: OSError) -> StorageError:
    said = refusal(error, str(parent)) or in_the_way(error) or str(error)
    return StorageError(f"{said}; {OTHER_PLACE}")


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
