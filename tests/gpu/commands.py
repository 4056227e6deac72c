"""A command of the project inside a part, within what is left of its time."""

import signal
import subprocess
import sys

GRACE_S = 4.0
"""Time that a command of ours has to end after being told so [s]."""


def affuse(words, task):
    """One command; its last words where it fails."""
    limit_s = max(task.left_s - GRACE_S, 1)
    # Not a pipe: that would stay open for as long as a process of Ray's lives.
    log = task.work / "command.log"
    with log.open("w") as file:
        command = subprocess.Popen(
            [sys.executable, "-m", "jobs", *words], stdout=file, stderr=subprocess.STDOUT
        )
        in_time = ended(command, limit_s)
    last = (log.read_text(errors="replace").strip() or "no words").splitlines()[-1][:200]
    if not in_time:
        raise RuntimeError(f"affuse {words[0]}: stopped after {limit_s:.0f} s: {last}")
    if command.returncode:
        raise RuntimeError(f"affuse {words[0]}: {last}")


def ended(command, limit_s):
    """Wait for a command; False: it had to be stopped."""
    try:
        command.wait(limit_s)
    except subprocess.TimeoutExpired:
        command.send_signal(signal.SIGINT)  # as Ctrl-C would: it takes Ray down with it
        try:
            command.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            command.kill()
            command.wait()
        return False
    return True
