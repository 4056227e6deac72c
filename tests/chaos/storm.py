"""Storms over `encode`: `python tests/chaos/storm.py --seeds 10`, or `make chaos SEEDS=10`.

A seed draws a dataset of 60 to 200 clips, where it lies (disk, or a store that answers 503), perhaps a clip
that hangs or kills its process, and two to four strikes, each at a number of published files:

    driver    SIGKILL of the driver             readonly  the disk is read-only for a while
    decoder   SIGKILL of a decode worker        store     a fifth of all requests fails for a while
    encoder   SIGKILL of an encoder actor       twin      a second driver on the same root
    node      a whole node dies, another comes  clock     published files are of another year
    disk      the disk is full for a while

The same command is typed until it exits with 0. Then `affuse verify` has to find the root sound, and every
row has to be that of an undisturbed run. Printed a seed: strikes, clips lost, twice, different, commands that
hung; exit status 1 on any. All seeds share one Ray of two nodes. As root everything runs on a host of its
own, by Linux's namespaces; else the two strikes that mount disks are left out, and said so.
"""

import argparse
import contextlib
import importlib.util
import io
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
TOYS = HERE.parent / "jobs" / "toys"
INSIDE = "AFFUSE_STORM_INSIDE"
sys.path[:0] = [str(CHECKOUT), str(TOYS), str(HERE)]

import fsspec  # noqa: E402
import numpy as np  # noqa: E402
import toy_corpus  # noqa: E402
from stumbling import TROUBLE, StumblingFileSystem, install  # noqa: E402

from cluster.health import HEALTH_CHECK  # noqa: E402
from cluster.unit_tables import unmoved  # noqa: E402
from jobs.__main__ import run as typed  # noqa: E402
from jobs.catalog.features import feature_folders, read_features, read_transcripts  # noqa: E402

MOST_CLIPS = 200
STRIKES = (
    "driver", "decoder", "encoder", "node", "disk", "readonly", "store", "twin", "clock",
)  # fmt: skip
NEEDS_MOUNTS = {"disk", "readonly"}
STOPS = {"driver", "disk", "readonly", "store"}
"""Strikes after which a command may end with an error, to be typed again."""

HANG_S = 600.0
"""A command that takes longer hangs; on a quiet machine the undisturbed one takes ten seconds."""

STALL_S = 15.0
TROUBLE_S = 1.5
"""How long a disk or store fails."""

MOST_STARTS = 12
DISK_MB = 64
STORE = 150_000_000


@dataclass(frozen=True)
class Strike:
    """What happens, and once how many files are published."""

    kind: str
    at: int


@dataclass(frozen=True)
class Weather:
    """What a seed draws."""

    seed: int
    clips: int
    odd: tuple[int, str] | None
    """A clip that misbehaves, and how; None for most seeds."""

    strikes: tuple[Strike, ...]

    @classmethod
    def drawn(cls, seed: int) -> "Weather":
        draws = np.random.default_rng([seed, 7])
        clips = int(draws.integers(60, MOST_CLIPS + 1))
        odd = None
        if draws.random() < 0.2:
            kind = "HANG" if draws.random() < 0.3 else "CRASH"
            odd = (3 * int(draws.integers(clips // 3)) + 1, kind)
        kinds = [str(kind) for kind in draws.choice(STRIKES, draws.integers(2, 5))]
        if "store" in kinds:  # the root lies in the store, which is no disk of its own
            kinds = [kind for kind in kinds if kind not in NEEDS_MOUNTS]
        files = 2 * clips // toy_corpus.UNIT
        at = sorted(int(x) for x in draws.integers(1, files + 1, len(kinds)))
        return cls(seed, clips, odd, tuple(map(Strike, kinds, at)))

    @property
    def in_store(self) -> bool:
        return any(strike.kind == "store" for strike in self.strikes)


@dataclass
class Outcome:
    """What became of a seed."""

    fell: list[str] = field(default_factory=list)
    starts: int = 0
    lost: int = 0
    twice: int = 0
    different: int = 0
    hung: int = 0
    unsound: list[str] = field(default_factory=list)

    @property
    def bad(self) -> bool:
        return bool(self.lost or self.twice or self.different or self.hung or self.unsound)

    def __str__(self) -> str:
        return (
            f"{' '.join(self.fell) or 'calm'}; {self.starts} starts; lost {self.lost}, twice "
            f"{self.twice}, different {self.different}, hung {self.hung}"
            + "".join(f"\n    {line}" for line in self.unsound)
        )


def text_of(clip: int, odd: tuple[int, str] | None) -> str | None:
    """Every third clip has to be heard; some are slow."""
    if odd is not None and clip == odd[0]:
        return odd[1]
    if clip % 3 == 0:
        return None
    return f"SLEEP 0.3 of clip {clip}" if clip % 37 == 5 else f"clip number {clip}"


class Sky:
    """One Ray for all seeds, and a folder for their roots."""

    def __init__(self, folder: Path, *, mounts: bool) -> None:
        from ray.cluster_utils import Cluster

        self.folder, self.mounts = folder, mounts
        self.trouble = folder / "trouble"
        head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": STORE}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.node = self.cluster.add_node(num_cpus=2, object_store_memory=STORE)

    def another_node(self) -> None:
        self.cluster.remove_node(self.node, allow_graceful=False)
        self.node = self.cluster.add_node(num_cpus=2, object_store_memory=STORE)

    def start(self, root: str) -> subprocess.Popen[str]:
        """The command of a user."""
        words = ["encode", "--root", root, "--encoders", "toy_text", "toy_audio", "--no-tracking"]
        words += ["--transcriber", "toy_ear", "--stall-limit-s", str(STALL_S)]
        return subprocess.Popen(
            [sys.executable, str(TOYS / "toy_corpus.py"), *words],
            env=os.environ | {"RAY_ADDRESS": self.cluster.address},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


class Storm:
    """One seed."""

    def __init__(self, sky: Sky, weather: Weather) -> None:
        self.sky, self.weather, self.outcome = sky, weather, Outcome()
        self.path = sky.folder / f"seed{weather.seed}"
        self.path.mkdir()
        if sky.mounts:
            self._mount("-t", "tmpfs", "-o", f"size={DISK_MB}m", "disk")
        texts = [text_of(clip, weather.odd) for clip in range(weather.clips)]
        toy_corpus.write_corpus(self.path, weather.clips, texts=texts)
        self.root = f"stumbling://{self.path}" if weather.in_store else str(self.path)
        self.draws = np.random.default_rng([weather.seed, 8])

    def run(self, calm: "Rows") -> Outcome:
        try:
            left = list(self.weather.strikes)
            while not self._once(left) and not self.outcome.hung:
                if self.outcome.starts >= MOST_STARTS:
                    self.outcome.unsound.append(f"no end after {MOST_STARTS} starts")
                    return self.outcome
            if not self.outcome.hung:
                self._judge(calm)
            return self.outcome
        finally:
            if self.sky.mounts:
                subprocess.run(["umount", "-l", str(self.path)], check=True)
            shutil.rmtree(self.path, ignore_errors=True)

    def _once(self, left: list[Strike]) -> bool:
        """Type the command, strike while it runs; whether it ended well, with nothing left to fall."""
        self.outcome.starts += 1
        processes, excused = [self.sky.start(self.root)], False
        deadline = time.monotonic() + HANG_S
        while any(process.poll() is None for process in processes):
            if time.monotonic() > deadline:
                return self._hangs(processes)
            if left and self._published() >= left[0].at:
                strike = left.pop(0)
                excused |= strike.kind in STOPS
                self._strike(strike, processes)
            time.sleep(0.05)
        said = [process.stdout.read() for process in processes if process.stdout]
        ends = [process.returncode for process in processes]
        if any(ends) and not excused:
            last = [text.strip().splitlines()[-1:] for text in said]
            self.outcome.unsound.append(f"a command ended with {ends} by itself: {last}")
        return not any(ends)

    def _hangs(self, processes: list[subprocess.Popen[str]]) -> bool:
        self.outcome.hung += 1
        for process in processes:
            process.kill()
            process.wait()
        return False

    def _published(self) -> int:
        return sum(1 for _ in self.path.glob("features/*/*.parquet"))

    # ---- strikes

    def _strike(self, strike: Strike, processes: list[subprocess.Popen[str]]) -> None:
        if strike.kind in NEEDS_MOUNTS and not self.sky.mounts:
            self.outcome.fell.append(f"({strike.kind} needs root)")
            return
        self.outcome.fell.append(f"{strike.kind}@{strike.at}")
        if strike.kind == "driver":
            processes[0].kill()
        elif strike.kind == "twin":
            processes.append(self.sky.start(self.root))
        elif strike.kind == "node":
            self.sky.another_node()
        elif strike.kind in ("decoder", "encoder"):
            self._kill_worker({"decoder": "decode_span", "encoder": "UnitEncoder"}[strike.kind])
        else:
            {"disk": self._fill, "readonly": self._close, "store": self._trouble,
             "clock": self._turn_the_clock}[strike.kind]()  # fmt: skip

    def _kill_worker(self, title: str) -> None:
        found = sorted(pid for pid, words in descendants().items() if title in words)
        if found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(self.draws.choice(found)), signal.SIGKILL)

    def _fill(self) -> None:
        filler = self.path / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        time.sleep(TROUBLE_S)
        filler.unlink()

    def _close(self) -> None:
        for _ in range(100):
            with contextlib.suppress(subprocess.CalledProcessError):  # busy while a file is written
                self._mount("-o", "remount,ro", "disk")
                break
            time.sleep(0.01)
        time.sleep(TROUBLE_S)
        self._mount("-o", "remount,rw", "disk")

    def _trouble(self) -> None:
        self.sky.trouble.touch()
        time.sleep(TROUBLE_S)
        self.sky.trouble.unlink()

    def _turn_the_clock(self) -> None:
        for file in self.path.glob("features/*/*.parquet"):
            then = time.time() + float(self.draws.integers(-2, 2)) * 365 * 86400
            with contextlib.suppress(OSError):
                os.utime(file, (then, then))

    def _mount(self, *words: str) -> None:
        subprocess.run(["mount", *words, str(self.path)], check=True, stderr=subprocess.DEVNULL)

    # ---- judgement

    def _judge(self, calm: "Rows") -> None:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            if typed(["verify", "--root", self.root]):
                self.outcome.unsound += [
                    line for line in said.getvalue().splitlines() if line.startswith("  ")
                ]
        odd = self.weather.odd
        for table, (ids, rows) in rows_of(self.root).items():
            counts = Counter(ids)
            self.outcome.lost += len(set(range(self.weather.clips)) - counts.keys())
            self.outcome.twice += sum(count > 1 for count in counts.values())
            for clip, row in rows.items():
                if odd is not None and clip == odd[0]:
                    well = table == "transcripts" or row[0] == "failed"
                else:
                    well = same(row, calm[table][1][clip])
                self.outcome.different += not well


Rows = dict[str, tuple[list[int], dict[int, tuple[object, ...]]]]


def rows_of(root: str) -> Rows:
    """Table -> all clip ids, and by clip what was found."""
    found: Rows = {}
    for folder, facts in feature_folders(root).items():
        table = unmoved(lambda folder=folder: read_features(root, folder))
        rows = table.select(["clip_id", "status", "values"]).to_pylist()
        ids = [row["clip_id"] for row in rows]
        found[facts["name"]] = ids, {r["clip_id"]: (r["status"], r["values"]) for r in rows}
    heard = read_transcripts(root, "toy_ear").to_pylist()
    ids = [row["clip_id"] for row in heard]
    found["transcripts"] = ids, {r["clip_id"]: (r["status"], r["text"]) for r in heard}
    return found


def same(row: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Equal status and content; numbers within what float16 keeps."""
    if row[0] != other[0] or isinstance(row[1], str) or row[1] is None or other[1] is None:
        return row == other
    left, right = np.asarray(row[1], float), np.asarray(other[1], float)
    return left.shape == right.shape and bool(np.allclose(left, right, rtol=1e-3))


def descendants() -> dict[int, str]:
    """Processes that this one or its own have started -> their command lines."""
    parents, words = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int(
                    (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]
                )
                words[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
    ours: set[int] = set()
    more = {os.getpid()}
    while more:
        ours |= more
        more = {pid for pid, parent in parents.items() if parent in more} - ours
    return {pid: words.get(pid, "") for pid in ours}


def undisturbed(sky: Sky) -> Rows:
    """The rows of the largest dataset, of which every other is the beginning."""
    root = sky.folder / "calm"
    texts = [text_of(clip, None) for clip in range(MOST_CLIPS)]
    toy_corpus.write_corpus(root, MOST_CLIPS, texts=texts)
    process = sky.start(str(root))
    output, _ = process.communicate(timeout=HANG_S)
    assert process.returncode == 0, output
    return rows_of(str(root))


def storms(seeds: range, folder: Path, *, mounts: bool) -> bool:
    """Run the seeds; whether all ended well."""
    toy_corpus.register()
    sky = Sky(folder, mounts=mounts)
    calm = undisturbed(sky)
    total, faults, begun = Outcome(), Counter(), time.monotonic()
    bad = 0
    for seed in seeds:
        weather, start = Weather.drawn(seed), time.monotonic()
        outcome = Storm(sky, weather).run(calm)
        where = "store" if weather.in_store else "disk"
        odd = "" if weather.odd is None else f", clip {weather.odd[0]} {weather.odd[1]}"
        seconds = time.monotonic() - start
        print(
            f"seed {seed} ({weather.clips} clips, {where}{odd}): {outcome}; {seconds:.0f} s",
            flush=True,
        )
        faults.update(each.partition("@")[0] for each in outcome.fell)
        bad += outcome.bad
        for name in ("starts", "lost", "twice", "different", "hung"):
            setattr(total, name, getattr(total, name) + getattr(outcome, name))
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(faults.items()))
    print(
        f"total: {len(seeds)} seeds, {sum(faults.values())} strikes ({kinds}), {total.starts} starts: "
        f"lost {total.lost}, twice {total.twice}, different {total.different}, hung {total.hung}, "
        f"seeds with a fault {bad}; {time.monotonic() - begun:.0f} s"
    )
    return not bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds")
    parser.add_argument("--first", type=int, default=0, help="the first one")
    given = parser.parse_args()
    spec = importlib.util.spec_from_file_location(
        "private_host", HERE.parent / "cluster" / "private_host.py"
    )
    private_host = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(private_host)
    if INSIDE not in os.environ and private_host.is_possible():
        words = private_host.command([sys.executable, *sys.argv])
        sys.exit(subprocess.run(words, env=os.environ | {INSIDE: "1"}).returncode)
    with tempfile.TemporaryDirectory(prefix="af-storm-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        install(folder / "store")
        path = os.pathsep.join(map(str, (CHECKOUT, TOYS, HERE, folder / "store")))
        os.environ |= HEALTH_CHECK | {
            "PYTHONPATH": path,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_TMPDIR": name,
            "TOY_SLEEP_S": "0.03",
            "OMP_NUM_THREADS": "1",
            TROUBLE: str(folder / "trouble"),
        }
        fsspec.register_implementation("stumbling", StumblingFileSystem)
        seeds = range(given.first, given.first + given.seeds)
        well = storms(seeds, folder, mounts=INSIDE in os.environ)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
