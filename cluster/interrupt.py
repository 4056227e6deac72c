"""Ctrl-C, SIGTERM and SIGHUP: a job stops at once, in one line, and leaves nothing running.

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

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C; what SLURM, Kubernetes, `timeout` and Ray's job server send; a terminal that is gone."""

LANDED_S = 0.02
"""How long after a swallowed interrupt the next one is raised: the callback has returned by then."""

_obeyed: list[signal.Signals] = []
_first: list[int] = []
"""The number of the signal that came first."""

_heard = threading.Event()
_said = threading.Event()
_swallowed = threading.Event()


def obey(say: Callable[[], object]) -> None:
    """Watch for these signals from here to the end of the process; for the main thread of a command.

    Args:
        say: prints the last line, if it has not been printed yet.
    """
    # A shell switches Ctrl-C off in the background, `nohup` the lost terminal: what is off stays off.
    usual = (signal.default_int_handler, signal.SIG_DFL)
    _obeyed[:] = [stop for stop in STOPS if signal.getsignal(stop) in usual]
    if not _obeyed:
        return
    # Tune would wait for its trials to say what they have.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    obey_again()
    # A copy of the process is ended by those that made it, without tidying up.
    os.register_at_fork(after_in_child=_forget)
    _look_after_swallowed()
    threading.Thread(target=_watch, args=(reader, say), name="interrupt", daemon=True).start()


def obey_again() -> None:
    """Take the signals back from a library that took them, as Ray does where it is begun."""
    if threading.current_thread() is threading.main_thread() and not _first:
        for stop in _obeyed:
            signal.signal(stop, _interrupted)


def status() -> int:
    """Exit status of a command that was stopped: 130 by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP."""
    return 128 + next(iter(_first), signal.SIGINT)


def was_stopped() -> bool:
    """Whether one of the signals came: what fails after it failed by it."""
    return _heard.is_set()


def mark_reported() -> None:
    """Record that the last line is printed, so that it is printed once."""
    _said.set()


def _interrupted(number: int, frame: object) -> None:
    _note(number)
    for stop in _obeyed:
        signal.signal(stop, _unheeded)  # a second one would break the tidying up
    raise KeyboardInterrupt


def _unheeded(number: int, frame: object) -> None:
    """Not SIG_IGN, which programs that are started from here would inherit."""


def _note(number: int) -> None:
    if not _first:
        _first.append(number)
    _heard.set()


def _forget() -> None:
    for stop in _obeyed:
        usual = signal.default_int_handler if stop == signal.SIGINT else signal.SIG_DFL
        signal.signal(stop, usual)
    signal.set_wakeup_fd(-1)
    _obeyed.clear()


def _look_after_swallowed() -> None:
    """Python prints and forgets what is raised in a finaliser or in the callback of a weak reference."""
    others = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            others(unraisable)
        elif threading.current_thread() is threading.main_thread():
            signal.signal(_obeyed[0], _interrupted)
            _swallowed.set()

    sys.unraisablehook = hook


def _watch(reader: int, say: Callable[[], object]) -> None:
    while (number := os.read(reader, 1)[0]) not in _obeyed:
        pass
    _note(number)
    main = threading.main_thread().ident
    assert main is not None
    end = time.monotonic() + OBEYED_S
    while (left_s := end - time.monotonic()) > 0:
        if _swallowed.wait(left_s):
            _swallowed.clear()
            time.sleep(LANDED_S)
            signal.pthread_kill(main, _obeyed[0])
    if not _said.is_set():
        with contextlib.suppress(OSError):  # of a terminal that is gone
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
    os._exit(status())


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
