"""Three hosts encode; the link of one is cut until the host counts as dead, and is mended a little later.

Packets to a host without a link vanish: nothing is refused, unlike with one that was killed. Run by
test_link_loss on a host of its own, of which the three are parts: prints the output of the job, how long
nothing was published, and whether every row is that of an undisturbed run.
"""

import itertools
import subprocess
import sys
import threading
import time
from pathlib import Path

import bridged_hosts
import ray
import toy_corpus
from losing_a_node import ended, rows, started, wait_for_units

from jobs.catalog.features import feature_folders

HOSTS = (1, 2, 3)
HEAD = f"{bridged_hosts.address(1)}:6379"
LOST = 3
LIMIT_S = 700.0
AWAY_S = 3.0
"""The link stays cut for so long after its host counts as dead."""

RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--object-store-memory=150000000"]
UNTIL_KILLED = 'while true; do "$@" || true; sleep 1; done'
"""As a service manager does: a host that comes back finds that it counts as dead, ends, and starts anew."""


def published(root: Path) -> int:
    return len([*root.glob("features/*/u*.parquet")])


def wait_for(file: Path, *processes: subprocess.Popen) -> float:
    """What the time in a file is, once it is there."""
    deadline = time.monotonic() + LIMIT_S
    while not file.exists() or not file.read_text():
        assert time.monotonic() < deadline, f"no {file.name}"
        assert all(process.poll() is None for process in processes), f"ended before {file.name}"
        time.sleep(0.1)
    return float(file.read_text())


def note_deaths(folder: Path) -> None:
    """Write down when a host counts as dead, and when it has come back."""
    while True:
        nodes = ray.nodes()
        now = str(time.time())
        if not (folder / "dead").exists() and any(not node["Alive"] for node in nodes):
            (folder / "dead").write_text(now)
        alive = sum(node["Alive"] for node in nodes)
        if (folder / "dead").exists() and alive == len(HOSTS) and not (folder / "back").exists():
            (folder / "back").write_text(now)
        time.sleep(0.1)


def on_the_head(folder: Path) -> None:
    """The commands of a user, on the first host."""
    words = ["--head", "--port=6379", "--num-cpus=1", "--include-dashboard=false"]
    words += [f"--node-ip-address={bridged_hosts.address(1)}"]
    subprocess.run([*RAY, *words], check=True, stdout=subprocess.DEVNULL)
    ray.init(address=HEAD, log_to_driver=False)
    deadline = time.monotonic() + LIMIT_S
    while len(ray.nodes()) < len(HOSTS):
        assert time.monotonic() < deadline, ray.nodes()
        time.sleep(0.1)
    ended(started(folder / "calm", HEAD, 0.0))
    threading.Thread(target=note_deaths, args=[folder], daemon=True).start()
    process = started(folder / "stormy", HEAD, 1.8)
    wait_for_units(folder / "stormy", 20, process)
    (folder / "begun").write_text(str(time.time()))
    print(ended(process), flush=True)
    # The others may have done all units before: that the host comes back is waited for, not raced with.
    wait_for(folder / "back")


def watch(root: Path, seen: list[tuple[float, int]]) -> None:
    """Note when files are published."""
    while True:
        count = published(root)
        if not seen or count != seen[-1][1]:
            seen.append((time.time(), count))
        time.sleep(0.05)


def tell(cut: float, dead: float, seen: list[tuple[float, int]]) -> None:
    """How the others went on."""
    after = [(at, count) for at, count in seen if at > cut]
    times = [cut, *(at for at, _ in after)]
    gap, begun = max((late - early, early) for early, late in itertools.pairwise(times))
    before = max((count for at, count in seen if at <= cut), default=0)
    meanwhile = max((count for at, count in after if at <= dead), default=before) - before
    print(f"dead after {dead - cut:.1f} s, {meanwhile} files meanwhile")
    print(f"longest gap {gap:.1f} s, {begun - cut:.1f} s after the cut")


def main(folder: Path, clips: int) -> None:
    for name in ("calm", "stormy"):
        toy_corpus.write_corpus(folder / name, clips)
    on = str(bridged_hosts.connect(HOSTS, folder))
    with (folder / "hosts.log").open("w") as log:
        others = []
        for host in HOSTS[1:]:
            words = [*RAY, f"--address={HEAD}", "--num-cpus=2", "--block"]
            words += [f"--node-ip-address={bridged_hosts.address(host)}"]
            looped = [on, str(host), "bash", "-c", UNTIL_KILLED, "_", *words]
            others.append(subprocess.Popen(looped, stdout=log, stderr=log))
        head = subprocess.Popen([on, "1", sys.executable, __file__, "head", str(folder)])
        seen: list[tuple[float, int]] = []
        threading.Thread(target=watch, args=[folder / "stormy", seen], daemon=True).start()
        wait_for(folder / "begun", head)
        cut = time.time()
        bridged_hosts.cut(LOST)
        print("cut", flush=True)
        dead = wait_for(folder / "dead", head)
        time.sleep(AWAY_S)
        bridged_hosts.mend(LOST)
        mended = time.time()
        back = wait_for(folder / "back", head)
        print(f"works again after {back - mended:.1f} s", flush=True)
        assert head.wait(timeout=LIMIT_S) == 0
        tell(cut, dead, seen)
        for process in others:
            process.kill()
    for name in ("calm", "stormy"):
        assert len(feature_folders(str(folder / name))) == 2
    assert len(rows(folder / "calm")["toy_audio"]) == clips
    print("equal" if rows(folder / "calm") == rows(folder / "stormy") else "different")


if __name__ == "__main__":
    if sys.argv[1] == "head":
        on_the_head(Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]))
