"""How fast `affuse prepare folder` looks at many small files, beside a bare pool of processes.

The files are sounds of a fifth of a second (every third FLAC, the others WAV) and, one in fifty, a film of
some frames. In turns, as often as asked:

1. A bare pool of `--workers` processes that calls the same look at the headers (`encoders.media.probe`) on
   every path, 20 at a time, with nothing that watches it.
2. `affuse prepare folder` of the same files, of which the part that probes is also timed by itself.

Every part runs in a process of its own; its CPU seconds are those of all processes that it started. On a
machine that others use too, CPU seconds are the ones to compare.
`python tests/benchmarks/bench_probe.py --files 20000`; a folder in --at keeps the files for the next time.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

FOLDER_FILES = 1000
RATE_HZ = 16_000


def make_files(folder, count):
    """Small sounds and films, a thousand in each folder."""
    import soundfile

    from jobs.datasets.corpus.film import FPS, mux

    noise = np.random.default_rng(0).normal(scale=0.1, size=RATE_HZ // 5)
    sound = (noise * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)
    frames = [np.full((64, 64, 3), 20 * k, np.uint8) for k in range(max(1, FPS // 5))]
    folder.mkdir(parents=True)
    made = {}
    for suffix in ("wav", "flac"):
        soundfile.write(folder / f"a.{suffix}", sound, RATE_HZ)
    mux(frames, sound, RATE_HZ, str(folder / "a.mp4"))
    made = {file.suffix[1:]: file.read_bytes() for file in folder.glob("a.*")}
    for file in folder.glob("a.*"):
        file.unlink()
    for k in range(count):
        suffix = "mp4" if k % 50 == 0 else "flac" if k % 3 == 0 else "wav"
        place = folder / f"{k // FOLDER_FILES:04d}"
        place.mkdir(exist_ok=True)
        (place / f"clip{k:07d}.{suffix}").write_bytes(made[suffix])


def cpu_s():
    """CPU seconds of this process and of those that it has waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def pool(media, workers, _):
    """The bare pool, with its start: its processes are gone at the end."""
    from encoders.media import probe

    files = sorted(str(file) for file in Path(media).rglob("*.*"))
    start, before = time.perf_counter(), cpu_s()
    processes = multiprocessing.get_context("spawn").Pool(int(workers))
    probes = processes.map(probe, files, chunksize=20)
    processes.close()
    processes.join()
    assert len(probes) == len(files)
    return {"probing_wall": time.perf_counter() - start, "probing_cpu": cpu_s() - before}


def prepare(media, workers, root):
    """`affuse prepare folder` as a person types it, and what it probes with."""
    from jobs import prepare
    from jobs.preparing import probing

    figures = {}
    probe_all = probing.probe_all

    def timed(*given):
        start, before = time.perf_counter(), cpu_s()
        found = probe_all(*given)
        figures["probing_wall"] = time.perf_counter() - start
        figures["probing_cpu"] = cpu_s() - before
        return found

    probing.probe_all = timed
    flags = ["--source", media, "--root", root, "--workers", workers]
    prepare.main(prepare.configure(["folder", *flags]))
    return figures


PARTS = {"pool": pool, "prepare": prepare}


def child(part, *given):
    """Run a part in a process of its own: seconds, CPU seconds, and what it timed itself."""
    start = time.perf_counter()
    before = cpu_s()
    command = [sys.executable, __file__, "--part", part, *given]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return time.perf_counter() - start, cpu_s() - before, json.loads(said.splitlines()[-1])


def main():
    """Make the files where they are missing, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--workers", default="4")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--at", help="folder of the files, kept")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.part:
        part, *given = flags.part
        print(json.dumps(PARTS[part](*given)))
        return
    with tempfile.TemporaryDirectory() as spare:
        media = Path(flags.at or spare) / f"files{flags.files}"
        if not media.exists():
            make_files(media, flags.files)
        for k in range(flags.rounds):
            figures = {}
            for part in PARTS:
                wall_s, cpu_s, timed = child(part, str(media), flags.workers, f"{spare}/root{k}")
                figures[part] = {"wall": wall_s, "cpu": cpu_s, **timed}
                print(
                    part,
                    {name: round(value, 1) for name, value in figures[part].items()},
                    flush=True,
                )
            for what in figures["pool"]:
                share = figures["pool"][what] / figures["prepare"][what]
                print(f"{what}: the pool takes {share:.2f} of what prepare takes")
            shutil.rmtree(f"{spare}/root{k}")


if __name__ == "__main__":
    main()
