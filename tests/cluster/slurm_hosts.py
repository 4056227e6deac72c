"""A Slurm script on two hosts with a network between them, and a Slurm that only knows these two.

Run by test_slurm_hosts on a host of its own, of which the two are parts: each has its own address, processes,
shared memory and Ray folder; the file system is shared, as on a Slurm cluster.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

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
ON = """#!/bin/bash
# ON HOST WORDS...: everything that is started ends with it.
host=$1; shift
exec ip netns exec "h$host" unshare --uts --pid --mount --fork --kill-child --mount-proc bash -c '
    set -e; mount -t tmpfs -o size=1g shm /dev/shm; mount --bind "{folder}/ray$1" /tmp/ray
    hostname "h$1"; shift; set +e
    "$@"  # not in place of this shell, which is process 1 there and has to clear away what ended
    exit $?' _ "$host" "$@"
"""
AFFUSE = """#!/bin/bash
{python} {corpus} "$@" || exit $?
exit {status}
"""


def sh(line: str) -> None:
    subprocess.run(line.split(), check=True)


def connect() -> None:
    """Two hosts at a bridge."""
    sh("mount -t tmpfs run /run")
    sh("ip link add br0 type bridge")
    sh("ip link set br0 up")
    for host in HOSTS:
        sh(f"ip netns add h{host}")
        sh(f"ip link add v{host} type veth peer name eth0 netns h{host}")
        sh(f"ip link set v{host} master br0 up")
        sh(f"ip -n h{host} addr add 10.77.0.{host}/24 dev eth0")
        sh(f"ip -n h{host} link set lo up")
        sh(f"ip -n h{host} link set eth0 up")


def write_programs(folder: Path) -> None:
    on = folder / "bin" / "on-host"
    addresses = "\n".join(f"10.77.0.{host}" for host in HOSTS)
    programs = {
        "on-host": ON.format(folder=folder),
        "srun": SRUN.format(python=sys.executable, on=on, hosts=HOSTS),
        "scontrol": f"#!/bin/bash\necho '{addresses}'\n",
        "affuse": AFFUSE.format(python=sys.executable, corpus=toy_corpus.__file__, status=STATUS),
    }
    on.parent.mkdir()
    for name, text in programs.items():
        file = on.parent / name
        file.write_text(text)
        file.chmod(0o755)


def main(script: Path, folder: Path, clips: int) -> None:
    root = toy_corpus.write_corpus(folder / "root", clips)
    for name in ("home", "worked", *(f"ray{host}" for host in HOSTS)):
        (folder / name).mkdir()
    connect()
    write_programs(folder)
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
