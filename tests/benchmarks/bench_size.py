"""How long a command takes to its first unit, and how much memory, on a manifest of many rows of text.

Each part runs in a process of its own, whose seconds, CPU seconds and peak memory are printed:

1. `prepare` of N rows of text and labels from a Parquet file.
2. All that `affuse encode` does on that root before Ray starts, where all but 100 units are done: the rows of
   a gathered table are as narrow as a table may be, since none of them is read.
3. The same on the root as one was prepared before the units had a table of their own.
4. With --score: `affuse score` of all rows from a gathered table of one step of 16 numbers, by a bundle
   of one small net, beside a plain loop: read the table, let the net predict a row group at a time, write
   names, labels and probabilities as Parquet.

`python tests/benchmarks/bench_size.py --rows 1000000`; a folder in --at keeps the inputs for the next time.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

LEFT = 100
READ, WIDTH = "minilm:pool=cls", 16
FILE_UNITS = 4096
WORDS = ("the", "a", "we", "they", "went", "home", "again", "never", "said", "fine", "you", "today")


def make_labels(file, rows):
    """A table of clips that are only text; 500 of each speaker."""
    draws = np.random.default_rng(0)
    with contextlib.ExitStack() as stack:
        writer = None
        for start in range(0, rows, 100_000):
            count = min(100_000, rows - start)
            said = np.array(WORDS)[draws.integers(len(WORDS), size=(count, 8))]
            table = pa.table(
                {
                    "name": [f"clip{k:09d}" for k in range(start, start + count)],
                    "text": [" ".join(row) for row in said],
                    "mood": np.array(["happy", "sad", "calm"])[np.arange(count) % 3],
                    "speaker": [f"s{k}" for k in draws.integers(max(5, rows // 500), size=count)],
                }
            )
            writer = writer or stack.enter_context(pq.ParquetWriter(file, table.schema))
            writer.write_table(table)


def prepared(source, root):
    """`affuse prepare` as a person types it."""
    from jobs import prepare

    flags = ["--source", source, "--root", root, "--labels", f"{source}/labels.parquet"]
    prepare.main(prepare.configure(["folder", *flags, "--tasks", "mood=classification"]))


def encode_most(root):
    """A gathered table of `minilm` that lacks the last units; its values are of one number."""
    from cluster import storage, tables
    from cluster.unit_tables import PART, with_versions
    from encoders.registry import describe
    from jobs.catalog.layout import DESCRIPTOR, features_uri
    from jobs.catalog.manifest import read_columns, units

    item = describe("minilm")
    refs = units(root)[:-LEFT]
    uri = features_uri(root, item.folder)
    for start in range(0, len(refs), FILE_UNITS):
        part = refs[start : start + FILE_UNITS]
        ids = pa.concat_tables(read_columns(part, ["clip_id"]))["clip_id"]
        empty = tables.features(1, "float32").schema.empty_table()
        columns = {field.name: pa.nulls(len(ids), field.type) for field in empty.schema}
        columns |= {"clip_id": ids, "status": pa.array(["ok"] * len(ids))}
        table = tables.features(1, "float32").conform(pa.table(columns))
        inside = [(ref.version(item.reads), ref.num_clips, 0) for ref in part]
        name = f"{PART}{uuid.uuid4().hex[:16]}.parquet"
        storage.publish_table(with_versions(table, inside), f"{uri}/{name}", row_group_size=1024)
    storage.publish_json(item.facts(), f"{uri}/{DESCRIPTOR}")


def begun(root):
    """What `affuse encode` does before Ray starts."""
    from jobs.catalog.manifest import units
    from jobs.stream.pending import counted_before, missing_tasks, recall_former
    from jobs.stream.selection import chosen_work

    refs = units(root)
    work = chosen_work(root, ["minilm"], "whisper_tiny_en_asr", "unused", find_weights=False)
    recall_former(root, work, refs)
    tasks = missing_tasks(root, work, refs)
    assert len(tasks) == LEFT
    assert counted_before(root, work, refs, tasks)[1] == 0


def encode_small(root):
    """A gathered table of one step of a few numbers a clip, and the bundle `b` that reads it."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "jobs" / "toys"))
    from toy_bundle import CLASSES, source, write_bundle

    from cluster import storage, tables
    from cluster.unit_tables import PART, with_versions
    from encoders.registry import describe
    from jobs.catalog.layout import DESCRIPTOR, features_uri
    from jobs.catalog.manifest import read_columns, units

    item = describe(READ)
    refs, uri, kind = (
        units(root),
        features_uri(root, item.folder),
        tables.features(WIDTH, "float16"),
    )
    draws = np.random.default_rng(1)
    for start in range(0, len(refs), FILE_UNITS):
        part = refs[start : start + FILE_UNITS]
        ids = pa.concat_tables(read_columns(part, ["clip_id"]))["clip_id"]
        ends = pa.array(np.arange(len(ids) + 1, dtype=np.int32))
        noise = pa.array(draws.normal(size=len(ids) * WIDTH).astype(np.float16))
        zeros = pa.ListArray.from_arrays(ends, pa.array(np.zeros(len(ids), np.float32)))
        columns = {
            "clip_id": ids,
            "values": pa.ListArray.from_arrays(
                ends, pa.FixedSizeListArray.from_arrays(noise, WIDTH)
            ),
            "step_start_s": zeros,
            "step_end_s": zeros,
            "valid": pa.ListArray.from_arrays(ends, pa.array(np.ones(len(ids), bool))),
            "status": ["ok"] * len(ids),
            "error": pa.nulls(len(ids), pa.string()),
        }
        inside = [(ref.version(item.reads), ref.num_clips, 0) for ref in part]
        table = with_versions(kind.conform(pa.table(columns)), inside)
        name = f"{PART}{uuid.uuid4().hex[:16]}.parquet"
        storage.publish_table(table, f"{uri}/{name}", row_group_size=1024)
    storage.publish_json(item.facts(), f"{uri}/{DESCRIPTOR}")
    write_bundle(root, text=None, sound=source(READ), width=WIDTH, classes=CLASSES)


def scored(root):
    """`affuse score` as a person types it."""
    from jobs import score

    score.main(score.Config(root=root, bundle="b", source="features"))


def plain_loop(root):
    """Read the table, let the net predict a row group at a time, write Parquet."""
    import torch

    from cluster import storage
    from encoders.registry import describe
    from fusion.batch import Batch, Steps
    from jobs.catalog.layout import features_uri
    from jobs.catalog.manifest import read_manifest
    from jobs.scoring.opening import open_bundle
    from jobs.scoring.scorer import Scorer

    scorer = Scorer(open_bundle("b", root), root)
    (net,), classes = scorer.members[0].nets, np.array(scorer.fusion.kind.classes)
    folder = Path(features_uri(root, describe(READ).folder))
    facts = read_manifest(root, ["clip_id", "name"])
    order = np.argsort(facts["clip_id"].to_numpy())
    known = facts["clip_id"].to_numpy()[order]
    with contextlib.ExitStack() as stack, torch.no_grad():
        writer = None
        for file in sorted(folder.glob("*.parquet")):
            parquet = storage.open_parquet(str(file))
            for group in range(parquet.num_row_groups):
                table = parquet.read_row_group(group, columns=["clip_id", "values", "valid"])
                ids = table["clip_id"].to_numpy()
                flat = table["values"].combine_chunks().flatten().flatten().to_numpy()
                steps = torch.from_numpy(flat.reshape(-1, 1, WIDTH).astype(np.float32))
                one = Steps(values=steps, mask=torch.ones(len(ids), 1, dtype=torch.bool))
                rows = torch.arange(len(ids))
                batch = Batch(inputs={"audio": one}, clip_id=torch.tensor(ids), index=rows)
                shares = net(batch).logits["mood"].double().softmax(-1).numpy()
                best = shares.argmax(1)
                ends = pa.array(np.arange(len(ids) + 1, dtype=np.int32) * len(classes))
                keys, flat = pa.array(np.tile(classes, len(ids))), pa.array(shares.ravel())
                answer = pa.table(
                    {
                        "clip_id": ids,
                        "name": facts["name"].take(order[np.searchsorted(known, ids)]),
                        "label": classes[best],
                        "confidence": shares.max(1),
                        "probabilities": pa.MapArray.from_arrays(ends, keys, flat),
                    }
                )
                writer = writer or stack.enter_context(
                    pq.ParquetWriter(f"{root}/plain.parquet", answer.schema, compression="zstd")
                )
                writer.write_table(answer)


PARTS = {
    "prepared": prepared,
    "encode_most": encode_most,
    "begun": begun,
    "encode_small": encode_small,
    "scored": scored,
    "plain_loop": plain_loop,
}


def child(part, *places):
    """Run a part in a process of its own: seconds, CPU seconds and peak memory [MB]."""
    start = time.perf_counter()
    command = [sys.executable, __file__, "--part", part, *places]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{part}: exit {process.returncode}"
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3


def say(what, figures):
    """One line of the table."""
    seconds, cpu_s, peak_mb = figures
    print(f"{what:58} {seconds:8.1f} s {cpu_s:8.1f} CPU s {peak_mb:7.0f} MB", flush=True)


def main():
    """Make the inputs where they are missing, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--at", help="folder of the inputs, kept")
    parser.add_argument("--score", action="store_true", help="measure `affuse score` too")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.part:
        part, *places = flags.part
        PARTS[part](*places)
        return
    with tempfile.TemporaryDirectory() as spare:
        place = Path(flags.at or spare) / str(flags.rows)
        source, root = place / "source", place / "root"
        source.mkdir(parents=True, exist_ok=True)
        if not (source / "labels.parquet").exists():
            make_labels(str(source / "labels.parquet"), flags.rows)
        if not (root / "dataset.json").exists():
            say(f"prepare of {flags.rows} rows", child("prepared", str(source), str(root)))
        if not (root / "features").exists():
            child("encode_most", str(root))
        say(f"encode with {LEFT} units left, to its start", child("begun", str(root)))
        away = place / "units"
        shutil.move(root / "units", away)
        say("the same without a table of units", child("begun", str(root)))
        shutil.move(away, root / "units")
        if flags.score:
            if not (root / "bundles").exists():
                child("encode_small", str(root))
            shutil.rmtree(root / "scores", ignore_errors=True)
            say("a plain loop over the table", child("plain_loop", str(root)))
            say("score from stored features", child("scored", str(root)))


if __name__ == "__main__":
    main()
