"""Ctrl-C: a job stops at once, in one line, and leaves nothing running.

Python handles a signal between two steps of its own, and tidying up may wait for others: a task, a pool, a
cluster. So a thread counts from the moment of the signal; when the job has not ended by then, it ends the
child processes and the process. Nothing is lost: whatever is published appears in one step.
"""

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from cluster import scratch

OBEYED_S = 2.5
"""How long a job may take to tidy up."""

STATUS = 130

LANDED_S = 0.02
"""How long after a swallowed interrupt the next one is raised: the callback has returned by then."""

_heard = threading.Event()
_said = threading.Event()
_swallowed = threading.Event()


def obey(say: Callable[[], object]) -> None:
    """Watch for Ctrl-C from here to the end of the process; for the main thread of a command.

    Args:
        say: prints the last line, if it has not been printed yet.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return  # started in the background, where a shell switches it off
    # Tune would wait for its trials to say what they have.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, _interrupted)
    _look_after_swallowed()
    threading.Thread(target=_watch, args=(reader, say), name="interrupt", daemon=True).start()


def was_pressed() -> bool:
    """Whether Ctrl-C was pressed: what fails after it failed by it."""
    return _heard.is_set()


def mark_reported() -> None:
    """Record that the last line is printed, so that it is printed once."""
    _said.set()


def _interrupted(number: int, frame: object) -> None:
    _heard.set()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would break the tidying up
    raise KeyboardInterrupt


def _look_after_swallowed() -> None:
    """Python prints and forgets what is raised in a finaliser or in the callback of a weak reference."""
    others = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            others(unraisable)
        elif threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, _interrupted)
            _swallowed.set()

    sys.unraisablehook = hook


def _watch(reader: int, say: Callable[[], object]) -> None:
    while signal.SIGINT not in os.read(reader, 1):
        pass
    _heard.set()
    main = threading.main_thread().ident
    assert main is not None
    end = time.monotonic() + OBEYED_S
    while (left_s := end - time.monotonic()) > 0:
        if _swallowed.wait(left_s):
            _swallowed.clear()
            time.sleep(LANDED_S)
            signal.pthread_kill(main, signal.SIGINT)
    if not _said.is_set():
        say()
    leave()


def leave() -> None:
    """End the process and its children now: an interpreter that tidies up may wait for threads."""
    with contextlib.suppress(Exception):
        end_children()
    with contextlib.suppress(Exception):
        scratch.release_all()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(STATUS)


def end_children() -> None:
    """End every process that this one started, and what those started; decoders end with their parent."""
    for process in multiprocessing.active_children():
        process.kill()
    if "ray" in sys.modules:
        from cluster.session_folder import end_sessions

        psutil = importlib.import_module("psutil")
        children = psutil.Process().children(recursive=True)
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()
        end_sessions()
