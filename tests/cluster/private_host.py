"""A host of its own for tests that start Ray on its default ports: Linux namespaces that end with it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOYS = ROOT / "tests" / "jobs" / "toys"
ENTER = "ip link set lo up; mount -t tmpfs -o size=4g shm /dev/shm; mount -t tmpfs tmp /tmp/ray; "


@cache
def is_possible() -> bool:
    """Whether this user may have one."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(command(["true"]), capture_output=True).returncode == 0


def command(words: Sequence[str]) -> list[str]:
    """The words, to be run on a host of their own; all that they start ends with them."""
    own = [
        "unshare",
        "--net",
        "--pid",
        "--mount",
        "--uts",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]
    Path("/tmp/ray").mkdir(exist_ok=True)
    return [*own, "bash", "-c", f'set -e; {ENTER}exec "$@"', "_", *words]


def run(script: str, *words: str, limit_s: float, env: Mapping[str, str] | None = None) -> str:
    """What a Python script beside this file prints on a host of its own."""
    paths = os.pathsep.join([str(ROOT), str(TOYS)])
    process = subprocess.run(
        command([sys.executable, str(Path(__file__).with_name(script)), *words]),
        env=os.environ | {"PYTHONPATH": paths, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit_s,
    )
    assert process.returncode == 0, process.stdout[-6000:]
    return process.stdout
