"""Hosts at one bridge, for scripts that run on a host of their own, of which these are parts.

Each has its own address, processes, shared memory and Ray folder; the file system is shared, as on a Slurm
cluster.
"""

import subprocess
from collections.abc import Iterable
from pathlib import Path

ON = """#!/bin/bash
# ON HOST WORDS...: everything that is started ends with it.
host=$1; shift
exec ip netns exec "h$host" unshare --uts --pid --mount --fork --kill-child --mount-proc bash -c '
    set -e; mount -t tmpfs -o size=1g shm /dev/shm; mount --bind "{folder}/ray$1" /tmp/ray
    hostname "h$1"; shift; set +e
    "$@"  # not in place of this shell, which is process 1 there and has to clear away what ended
    exit $?' _ "$host" "$@"
"""


def sh(line: str) -> None:
    subprocess.run(line.split(), check=True)


def address(host: int) -> str:
    return f"10.77.0.{host}"


def connect(hosts: Iterable[int], folder: Path) -> Path:
    """Set up the hosts; the program that runs words on one of them."""
    sh("mount -t tmpfs run /run")
    sh("ip link add br0 type bridge")
    sh("ip link set br0 up")
    for host in hosts:
        (folder / f"ray{host}").mkdir()
        sh(f"ip netns add h{host}")
        sh(f"ip link add v{host} type veth peer name eth0 netns h{host}")
        sh(f"ip link set v{host} master br0 up")
        sh(f"ip -n h{host} addr add {address(host)}/24 dev eth0")
        sh(f"ip -n h{host} link set lo up")
        sh(f"ip -n h{host} link set eth0 up")
    on = folder / "bin" / "on-host"
    on.parent.mkdir()
    on.write_text(ON.format(folder=folder))
    on.chmod(0o755)
    return on


def cut(host: int) -> None:
    """From now on its packets vanish, and those to it."""
    sh(f"ip link set v{host} down")


def mend(host: int) -> None:
    sh(f"ip link set v{host} up")
