"""A whole search with default flags on few people: its time, and its bundle beside the linear model.

Of a prepared root with features, some groups are kept (the rest is marked as the test split, which no search
reads) and cut into as many folds. Every draw is searched with `affuse tune`; what its bundle says of held-out
rows is compared with the linear model that reads all of the inputs, by group.

    python tests/benchmarks/bench_search.py --root data/ravdess --inputs egemaps au_mean --groups 8 12 24

Seconds of CPU are those of this process and all that it started. With --out every draw is written down as it
ends, and those of the file are not made again. Without --root it searches a toy.
"""

import argparse
import csv
import importlib.util
import itertools
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster import storage
from fusion.late.members import probabilities
from fusion.metrics import metric
from fusion.statistics import Groups, paired
from jobs import tune
from jobs.catalog.groups import groups_of
from jobs.catalog.manifest import read_dataset
from jobs.catalog.predictions import align, seeds_averaged

MOST_FOLDS = 10


def subset(root: str, out: str, count: int, per_group: int | None, seed: int) -> None:
    """A copy of a root in which all but some groups are of the test split, with folds of whole groups."""
    for name in ("dataset.json", "features", "manifest"):
        copy = shutil.copytree if Path(root, name).is_dir() else shutil.copy
        copy(str(Path(root, name)), str(Path(out, name)))
    draws = np.random.default_rng(seed)
    manifest = read_dataset(out).manifest_hash
    files = [
        Path(out, "manifest", manifest, name)
        for name in storage.names(f"{out}/manifest/{manifest}", ".parquet")
    ]
    everybody = sorted(
        {
            group
            for file in files
            for group in pq.read_table(file, columns=["group"])["group"].to_pylist()
        }
    )
    chosen = draws.permutation(everybody)[:count].tolist()
    fold_of = {group: at % MOST_FOLDS for at, group in enumerate(chosen)}
    folds: list[tuple[int, int]] = []
    for file in files:
        folds += mark(file, fold_of, per_group, draws)
    clips, numbers = zip(*sorted(folds), strict=True)
    table = pa.table(
        {"clip_id": pa.array(clips, pa.int64()), "fold": pa.array(numbers, pa.int64())}
    )
    before = storage.read_table(
        storage.join(root, "folds", storage.names(f"{root}/folds", ".parquet")[0])
    ).schema
    storage.publish_table(table.cast(before), f"{out}/folds/few.parquet")


def mark(
    file: Path, fold_of: dict[str, int], per_group: int | None, draws: np.random.Generator
) -> list[tuple[int, int]]:
    """Write the splits of one file of the manifest; returns clips and folds of those that are kept."""
    before = pq.ParquetFile(file)
    table = before.read()
    group, clips = np.array(table["group"].to_pylist()), table["clip_id"].to_numpy()
    kept = np.zeros(len(group), bool)
    for name in fold_of:
        at = draws.permutation(np.flatnonzero(group == name))
        kept[at[:per_group]] = True
    column = table.schema.get_field_index("split")
    split = pa.array([None if each else "test" for each in kept], table.schema.field(column).type)
    table = table.set_column(column, table.schema.field(column), split)
    sizes = [before.metadata.row_group(at).num_rows for at in range(before.num_row_groups)]
    with pq.ParquetWriter(file, table.schema) as writer:  # a row group is a unit of work
        for at, size in enumerate(sizes):
            writer.write_table(table.slice(sum(sizes[:at]), size), row_group_size=size)
    return [(int(clips[at]), fold_of[group[at]]) for at in np.flatnonzero(kept)]


class Clock:
    """Seconds of CPU of this process and its descendants, looked at twice a second."""

    def __enter__(self) -> "Clock":
        self.began, self.used, self.ended = time.monotonic(), {}, threading.Event()
        self.before = sum(psutil.Process().cpu_times()[:2])
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()
        own = sum(psutil.Process().cpu_times()[:2]) - self.before
        self.cpu_s, self.wall_s = own + sum(self.used.values()), time.monotonic() - self.began

    def _look(self) -> None:
        while not self.ended.wait(0.5):
            for process in psutil.Process().children(recursive=True):
                try:
                    self.used[process.pid, process.create_time()] = sum(process.cpu_times()[:2])
                except psutil.Error:
                    continue


def searched(root: str, inputs: tuple[str, ...], more: dict[str, Any]) -> dict[str, float]:
    """One search, and how its bundle compares with the linear model of all inputs."""
    with Clock() as clock:
        tune.main(tune.Config(root=root, inputs=inputs, run="search", tracking=False, **more))
    tasks = read_dataset(root).tasks
    name = next(iter(more.get("tasks") or tasks))
    task = tasks[name]
    records = [
        json.loads(path.read_text()) for path in Path(root, "runs/search/trials").glob("*.json")
    ]
    linear = next(
        record["number"]
        for record in records
        if record["values"]["net"] == "linear" and set(record["values"]["inputs"]) == set(inputs)
    )
    tables = {
        "bundle": storage.read_table(f"{root}/bundles/search/predictions.parquet"),
        "linear": storage.read_table(f"{root}/runs/search/trials/{linear:05d}.parquet"),
    }
    rows = {key: table.filter(pc.equal(table["task"], name)) for key, table in tables.items()}
    held = align({key: seeds_averaged(table, task) for key, table in rows.items()}, task)
    said = [probabilities(task.kind, held.members.alone(at)) for at in range(2)]
    gain = paired("nll", (said[0], said[1]), held.target, Groups.of(groups_of(root, held.clip_id)))
    return {
        "trials": len(records),
        "wall_s": clock.wall_s,
        "cpu_s": clock.cpu_s,
        "accuracy": metric("accuracy")(said[0], held.target),
        "nll": metric("nll")(said[0], held.target),
        "linear": metric("nll")(said[1], held.target),
        "gain": gain.value,
        "low": gain.low,
        "high": gain.high,
    }


def toy(folder: str) -> tuple[str, tuple[str, ...]]:
    """A root of the tests."""
    place = Path(__file__).parents[1] / "jobs" / "small_root.py"
    spec = importlib.util.spec_from_file_location("small_root", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_root(f"{folder}/toy"), ("voice", "face")


def drawn(
    root: str,
    inputs: tuple[str, ...],
    count: int,
    per_group: int | None,
    draw: int,
    more: dict[str, Any],
) -> dict[str, float]:
    """What `searched` finds on one draw of groups."""
    with tempfile.TemporaryDirectory(prefix="af-bench-search-") as out:
        subset(root, out, count, per_group, draw)
        found = searched(out, inputs, {"folds": "few"} | more)
    return {"groups": count, "draw": draw} | found


def written(file: Path | None) -> list[dict[str, float]]:
    """The draws that a file holds already."""
    if file is None or not file.exists():
        return []
    with file.open(newline="") as lines:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(lines)]


def write(file: Path, rows: list[dict[str, float]]) -> None:
    """All draws so far, as one table."""
    with file.open("w", newline="") as lines:
        table = csv.DictWriter(lines, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def main() -> None:
    """Search every draw and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root")
    parser.add_argument("--inputs", nargs="+")
    parser.add_argument("--groups", type=int, nargs="+", default=[8])
    parser.add_argument("--per-group", type=int, help="clips kept of each group; by default all")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--out", type=Path, help="a CSV that holds the draws made so far")
    asked = parser.parse_args()
    if asked.root is None:
        with tempfile.TemporaryDirectory(prefix="af-bench-search-") as folder:
            root, inputs = toy(folder)
            more = {"folds": "speaker", "tasks": ("emotion",), "trials": 10}
            print(searched(root, inputs, more))
        return
    rows = written(asked.out)
    made = {(row["groups"], row["draw"]) for row in rows}
    more = {"trials": asked.trials, "minutes": asked.minutes}
    for draw, count in itertools.product(range(asked.draws), asked.groups):
        if (count, draw) in made:
            continue
        rows.append(drawn(asked.root, tuple(asked.inputs), count, asked.per_group, draw, more))
        print(
            "=== " + "  ".join(f"{key} {value:.3f}" for key, value in rows[-1].items()), flush=True
        )
        if asked.out:
            write(asked.out, rows)
    for count in asked.groups:
        print(f"=== {count} groups: {summary([row for row in rows if row['groups'] == count])}")


def summary(rows: list[dict[str, float]]) -> str:
    """The gain over the linear model: its mean, and the draws that show one or a loss."""
    mean = statistics.fmean(row["gain"] for row in rows)
    better, worse = sum(row["low"] > 0 for row in rows), sum(row["high"] < 0 for row in rows)
    return f"mean gain in NLL {mean:+.4f}; of {len(rows)} draws {better} gain and {worse} lose beyond noise"


if __name__ == "__main__":
    main()
