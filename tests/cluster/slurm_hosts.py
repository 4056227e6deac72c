"""A Slurm script on two hosts with a network between them, and a Slurm that only knows these two.

Run by test_slurm_hosts on a host of its own, of which the two are parts.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import bridged_hosts
import toy_corpus

HOSTS = (1, 2)
STATUS = 7
"""The job ends with it, after its work, to see what becomes of it."""

SRUN = """#!{python}
import itertools, subprocess, sys, time
assert "--kill-on-bad-exit=1" in sys.argv
words = list(itertools.dropwhile(lambda word: word.startswith("--"), sys.argv[1:]))
tasks = [subprocess.Popen(["{on}", str(host), *words]) for host in {hosts}]
while any(task.poll() is None for task in tasks):
    time.sleep(0.2)
    if any(task.poll() for task in tasks):
        for task in tasks:
            task.kill()
sys.exit(max(abs(task.wait()) for task in tasks))
"""
AFFUSE = """#!/bin/bash
{python} {corpus} "$@" || exit $?
exit {status}
"""


def write_programs(on: Path) -> None:
    addresses = "\n".join(map(bridged_hosts.address, HOSTS))
    programs = {
        "srun": SRUN.format(python=sys.executable, on=on, hosts=HOSTS),
        "scontrol": f"#!/bin/bash\necho '{addresses}'\n",
        "affuse": AFFUSE.format(python=sys.executable, corpus=toy_corpus.__file__, status=STATUS),
    }
    for name, text in programs.items():
        file = on.parent / name
        file.write_text(text)
        file.chmod(0o755)


def main(script: Path, folder: Path, clips: int) -> None:
    root = toy_corpus.write_corpus(folder / "root", clips)
    for name in ("home", "worked"):
        (folder / name).mkdir()
    write_programs(bridged_hosts.connect(HOSTS, folder))
    path = [str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        ["bash", str(script), "encode", "--root", str(root), "--encoders", "toy_audio"],
        env={
            **kept,
            "PATH": os.pathsep.join(path),
            "HOME": str(folder / "home"),
            "SLURM_JOB_NODELIST": "h[1-2]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_PER_TASK": "1",
            "SLURM_GPUS_ON_NODE": "0",
            "TOY_SLEEP_S": "0.3",
            "TOY_HOSTS": str(folder / "worked"),
        },
        cwd=folder,
    )
    print("status", done.returncode)
    print("tokens left", len([*(folder / "home").glob(".affuse-token-*")]))
    for file in sorted((folder / "worked").iterdir()):
        print("clips on", file.name, len(file.read_text().splitlines()))
    shutil.rmtree(folder / "home")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
