"""The command line: `affuse JOB --flags`, equal to `python -m jobs JOB --flags`.

Exit status 0: done. 1: failed, one line says why (a traceback is a bug of ours). 2: the command line or
config was not understood. 130, 143, 129: stopped by the keyboard, by SIGTERM (SLURM, Kubernetes, `timeout`,
Ray's job server) or with its terminal (SIGHUP); the same command goes on from there, but for `serve` and
`benchmark`.
"""

import importlib
import io
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence

from cluster import interrupt
from cluster.clock import command
from cluster.errors import AffuseError, ConfigError, MachineError, StorageError
from cluster.nearest import nearest_of
from cluster.redaction import redacted
from jobs import JOBS

STOPPED: Mapping[str, str] = {
    "benchmark": "stopped; the same command begins anew",
    "serve": "stopped",
}
"""What is said of a job of which nothing goes on."""

MEND = "mend that and type the same command, which goes on from there"
"""What is said after a fault of the machine."""

ONLY_ASCII = "this environment reads names as ASCII, others are refused; type: unset PYTHONUTF8"

NOWHERE = "the folder that this is typed in was removed; type: cd FOLDER, then the same command"

CLOSED = ("no permission", "nothing can be written")
STORE_AT = "/.cache/affuse/"

INSIDE = ("cause", "controller_failure", "health_check_failure")
"""Where Ray keeps the error that one of its own is about."""

BESIDE = ("annotate", "report")
"""Jobs that write beside what they read where no --out is named."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run one job; never returns normally with an error."""
    _fill_closed()
    for stream in (sys.stdout, sys.stderr):
        # A file's name may hold bytes that are no text: they are spelt out, no job ends by them.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.getfilesystemencoding() == "ascii":
        print(f"affuse: {ONLY_ASCII}", file=sys.stderr)
    words = list(sys.argv[1:] if argv is None else argv)
    name = next(iter(words), "")
    try:
        interrupt.obey(lambda: _stopped(name))
        status = run(words)
        if interrupt.was_stopped():
            interrupt.leave()
        sys.exit(status)
    except KeyboardInterrupt:
        # Between the jobs' own steps: before the first, or after the last.
        _stopped(name)
        interrupt.leave()
    except BrokenPipeError:
        # The reader went away (`affuse --help | head`); Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _fill_closed() -> None:
    """Standard streams that were closed (`>&-`) lead nowhere; a file of ours would take their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the least number that is free
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def run(argv: list[str]) -> int:
    """Run one job and return the exit status."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if argv else 2
    name, *rest = argv
    if name in ("-V", "--version"):
        print(f"affuse {_version()}")
        return 0
    if name == "--install-completion":
        return _install_completion()
    if name not in JOBS:
        return _fail(name, f"there is no job {name!r}; {_hint(name)}", 2)
    if not _is_somewhere():
        return _fail(name, NOWHERE, 1)
    if garbled := next((each for each in (*rest, os.getcwd()) if _is_garbled(each)), None):
        return _fail(name, f"{garbled}: {ONLY_ASCII}, then the same command", 2)
    began = time.monotonic()
    config: object = None
    try:
        from jobs._cli import parse

        module = importlib.import_module(f"jobs.{name}")
        try:
            config = parse(name, module, rest)
        except ValueError as error:
            return _fail(name, _line(error), 2)
        with command(began):
            module.main(config)
    except ConfigError as error:
        return _fail(name, _line(error), 2)
    except KeyboardInterrupt:
        return _stopped(name)
    except Exception as error:
        if interrupt.was_stopped():
            return _stopped(name)
        if isinstance(error, MachineError | StorageError):
            return _fail(name, f"{_line(error)}; {_mend(name, _line(error), config)}", 1)
        if isinstance(error, AffuseError):
            return _fail(name, _line(error), 1)
        if (said := _refused(error)) is None:
            raise
        return _fail(name, f"{said}; {_mend(name, said, config)}", 1)
    return 0


def _is_somewhere() -> bool:
    """Whether the current folder is there: without it no path becomes absolute, and MKL ends the process."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _is_garbled(word: str) -> bool:
    """Whether a name came as bytes, since this environment knows no letters beyond ASCII.

    What lies below it would be found, and be called damaged where a library has to spell its name.
    """
    return sys.getfilesystemencoding() == "ascii" and any(
        "\udc80" <= each <= "\udcff" for each in word
    )


def overview() -> str:
    """The list of jobs."""
    width = max(map(len, JOBS), default=0)
    lines = [f"  {name:<{width}}  {text}" for name, text in JOBS.items()]
    return "\n".join(
        [
            "usage: affuse JOB [options]      (affuse JOB --help lists a job's options)",
            "",
            "Recognise emotion, empathy and sentiment from video, voice and words.",
            "",
            "jobs:",
            *lines,
        ]
    )


def _install_completion() -> int:
    from jobs._cli import install_completion

    try:
        place = install_completion()
    except (ConfigError, OSError) as error:
        return _fail("", str(error), 2)
    print(f"wrote {place}")
    typed = shlex.quote(str(place))
    print(f"bash reads it when it starts; without the package bash-completion type: source {typed}")
    return 0


def _stopped(name: str) -> int:
    interrupt.mark_reported()
    said = STOPPED.get(name, "stopped; the same command goes on from here")
    return _fail(name, said, interrupt.status())


def _fail(name: str, message: str, status: int) -> int:
    from cluster.console import readable

    job = f" {name}" if name in JOBS else ""
    print(readable(redacted(f"affuse{job}: {message}")), file=sys.stderr)
    return status


def _line(error: BaseException) -> str:
    """The message of an error, without the traceback of a worker where it crossed Ray."""
    cause = getattr(error, "cause", None)
    return str(cause if isinstance(cause, AffuseError) else error)


def _mend(name: str, said: str, config: object) -> str:
    """What to type after a fault of the machine: what belongs to somebody else is left alone."""
    if not said.startswith(CLOSED):
        return MEND
    if STORE_AT in said and hasattr(config, "store"):
        return f"--store names another place; else {MEND}"
    if getattr(config, "out", None) or name in BESIDE:
        return f"--out names another place; else {MEND}"
    return MEND


def _refused(error: BaseException) -> str | None:
    """What a disk, a place or the memory refuses, among the causes of an error; None where nothing is."""
    from cluster.refusals import in_the_way, lost_worker, refusal

    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        found = waiting.pop()
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, StorageError):
            return str(found)
        if (said := refusal(found) or in_the_way(found) or lost_worker(found)) is not None:
            return said
        waiting += [found.__cause__, found.__context__]
        waiting += [getattr(found, name, None) for name in INSIDE]
        waiting += getattr(found, "worker_failures", {}).values()  # of Ray Train
    return None


def _hint(name: str) -> str:
    close = nearest_of(name, JOBS)
    return "type: affuse --help" if close is None else f"did you mean {close!r}?"


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("affuse")
    except PackageNotFoundError:
        return "of a checkout that is not installed"


if __name__ == "__main__":
    main()
