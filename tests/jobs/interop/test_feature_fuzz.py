"""Random files of features against a slow, obvious reader: right steps by name, or exit 1."""

import contextlib
import csv
import io
import json
import re
import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster import storage
from cluster.errors import TableError
from jobs import features, prepare
from jobs.catalog.features import read_features
from jobs.catalog.manifest import read_manifest
from jobs.datasets.folder import Config
from jobs.features import Import

EXAMPLES = 1500
CLIPS = ("007", "7", "a", "b", "c", "Zo\u00eb")
NOTHING = {"", "NA", "null", "None"}
NAN = {"nan", "NaN"}
FORMS = (",", ";", "\t", "jsonl", "parquet", "npz", "h5")
KINDS = (
    "point",
    "point",
    "comma",
    "whole",
    "words",
    "part",
    "index",
    "empty",
    "label",
    "gap",
    "truth",
)
POOLS = {
    "point": ("1.5", "-2", "1e3", ".25"),
    "comma": ("1,5", "-2,25", "3"),
    "words": ("x", "y z", "n;m"),
    "part": ("1", "2.5", "oops", "7"),
    "whole": ("3", "5", "8"),
    "empty": ("",),
    "gap": ("1.5", "", "NaN", "NA", "inf"),
    "truth": ("True", "False", ""),
}


@dataclass
class File:
    """What is written: the clip of every row, and the columns with their cells as text."""

    form: str
    names: list[str]
    columns: dict[str, list[str]] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    twin: bool = False
    encoding: str = "utf-8"


@st.composite
def files(draw):
    form = draw(st.sampled_from(FORMS))
    pool = (*CLIPS, "other") if draw(st.booleans()) else CLIPS
    once = draw(st.integers(0, 3)) > 0
    names = draw(st.lists(st.sampled_from(pool), min_size=0, max_size=8, unique=once))
    if draw(st.integers(0, 15)) == 0 and names:
        names[0] = ""
    file = File(
        form=form, names=names, encoding=draw(st.sampled_from(("utf-8", "utf-8-sig", "utf-16")))
    )
    if form in ("npz", "h5"):
        file.arrays = draw(arrays(len(names)))
        return file
    for number in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(KINDS))
        if kind == "index":
            file.columns[f"i{number}"] = [str(k) for k in range(len(names))]
            continue
        column = "mood" if kind == "label" else f"f{number}"
        cell = st.sampled_from(POOLS.get(kind, ("0", "1")))
        file.columns[column] = [draw(cell) for _ in names]
    file.twin = len(form) == 1 and draw(st.integers(0, 9)) == 0
    return file


@st.composite
def arrays(draw, count):
    """An array of features, perhaps with lengths, now and then one that does not fit."""
    shape = draw(
        st.sampled_from(
            [(count,), (count, 2), (count, 3, 2), (count, 2, 2), (count + 1, 2), (count, 0), ()]
        )
    )
    kind = draw(st.sampled_from(["f4", "f8", "i8", "?", "u1", "U3", "c8"]))
    numbers = draw(st.lists(st.integers(0, 9), min_size=1, max_size=5))
    values = np.resize(np.array(numbers), shape).astype(kind)
    found = {"x": values}
    if len(shape) == 3 and draw(st.booleans()):
        lengths = draw(st.lists(st.sampled_from([0, 1, 2, 3, 5, -1]), min_size=1, max_size=3))
        found["x_lengths"] = np.resize(np.array(lengths), count)
    return found


def written(file, folder):
    if file.form in ("npz", "h5"):
        path = folder / f"f.{file.form}"
        names = np.array(file.names, "U8")
        if file.form == "npz":
            np.savez(path, name=names, **file.arrays)
            return path
        with h5py.File(path, "w") as out:
            out.create_dataset(
                "name", data=file.names, shape=(len(file.names),), dtype=h5py.string_dtype()
            )
            for key, value in file.arrays.items():
                kept = value.astype("S3") if value.dtype.kind == "U" else value
                out[key] = kept
        return path
    columns = {"name": file.names, **file.columns}
    if file.form == "parquet":
        table = {
            c: pa.array([cell or None for cell in cells], pa.string())
            for c, cells in columns.items()
        }
        pq.write_table(pa.table(table), folder / "f.parquet")
        return folder / "f.parquet"
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    if file.form == "jsonl":
        (folder / "f.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        return folder / "f.jsonl"
    out = io.StringIO()
    writer = csv.writer(out, delimiter=file.form)
    writer.writerow([*columns, [*columns][-1]] if file.twin else [*columns])
    writer.writerows([[*row.values(), "1"] if file.twin else [*row.values()] for row in rows])
    (folder / "f.csv").write_bytes(out.getvalue().encode(file.encoding))
    return folder / "f.csv"


# ---- the slow, obvious reader


def column_of(cells, semicolons):
    """("numbers", values), ("not", None) or ("fault", None) for a column."""
    number = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|inf)")
    comma = re.compile(r"[+-]?(\d+|\d*,\d+)([eE][+-]?\d+)?")
    if any(cells) and all(cell in ("", "True", "False") for cell in cells):
        return "numbers", [{"True": 1.0, "False": 0.0, "": np.nan}[cell] for cell in cells]
    there = [cell for cell in cells if cell not in NOTHING]
    if not there:
        return "not", None
    plain = [cell for cell in there if cell not in NAN]
    if any("," in cell for cell in plain) and all(comma.fullmatch(cell) for cell in plain):
        cells = [cell.replace(",", ".") for cell in cells]
        plain = [cell.replace(",", ".") for cell in plain]
    right = [bool(number.fullmatch(cell)) for cell in plain]
    if not all(right):
        return ("not" if len(plain) == len(there) and not any(right) else "fault"), None
    return "numbers", [float(c) if number.fullmatch(c) else np.nan for c in cells]


def counts(values):
    start = values[0]
    return start in (0, 1) and all(value == start + k for k, value in enumerate(values))


def expected(file):
    """Steps by clip, or None where the file has to be refused."""
    if file.arrays:
        return from_arrays(file)
    if not file.names or "" in file.names or file.twin:
        return None
    rows = defaultdict(list)
    for index, name in enumerate(file.names):
        rows[name].append(index)
    kept = []
    for name, cells in file.columns.items():
        what, values = column_of(cells, file.form == ";")
        if what == "fault":
            return None
        if what == "not" or name == "mood":
            continue
        long = max(map(len, rows.values())) >= 4
        steps = long and all(counts([values[k] for k in each]) for each in rows.values())
        if (len(values) >= 4 and counts(values)) or steps:
            continue
        kept.append(values)
    if not kept or not set(rows) & set(CLIPS):
        return None
    return {name: [[column[k] for column in kept] for k in each] for name, each in rows.items()}


def from_arrays(file):
    values, lengths = file.arrays["x"], file.arrays.get("x_lengths")
    count = len(file.names)
    bad = values.ndim == 0 or not values.size or values.dtype.kind not in "fiub"
    if bad or len(values) != count or "" in file.names or len(set(file.names)) < count:
        return None
    if lengths is not None and (lengths < 0).any():
        return None
    if not set(file.names) & set(CLIPS):
        return None
    found = {}
    for k, name in enumerate(file.names):
        steps = np.asarray(values[k], np.float64)
        steps = steps.reshape(1, -1) if steps.ndim < 2 else steps
        found[name] = steps[: lengths[k]].tolist() if lengths is not None else steps.tolist()
    return found


# ---- the two side by side


@pytest.mark.slow
def test_every_random_file_is_read_as_the_obvious_reader_does(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)
    root = str(tmp_path / "root")
    (tmp_path / "none").mkdir()
    rows = "".join(f"{name},{'xy'[k % 2]}\n" for k, name in enumerate(CLIPS))
    (tmp_path / "l.csv").write_text("name,mood\n" + rows)
    flags = {"source": str(tmp_path / "none"), "labels": str(tmp_path / "l.csv")}
    prepare.main(Config(root=root, tasks={"mood": "classification"}, **flags))
    clips = dict(zip(*read_manifest(root, ["clip_id", "name"]).to_pydict().values(), strict=True))
    outcomes = Counter()

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(files())
    def check(file):
        shutil.rmtree(tmp_path / "root" / "features", ignore_errors=True)
        truth = expected(file)
        array = "x" if file.arrays else None
        path = str(written(file, tmp_path))
        config = Import(root=root, file=path, name="mine", modality="audio", array=array)
        said = io.StringIO()
        refused = None
        try:
            with contextlib.redirect_stdout(said):
                features.main(config)
        except TableError as error:
            refused = error
        if refused is not None:
            outcomes["refused"] += 1
            assert truth is None, refused
            assert not storage.names(storage.join(root, "features"))
            return
        outcomes["read"] += 1
        assert truth is not None, said.getvalue()
        [folder] = storage.names(storage.join(root, "features"))
        got = {clips[row["clip_id"]]: row for row in read_features(root, folder).to_pylist()}
        assert set(got) == set(CLIPS)
        for name, row in got.items():
            steps = np.array(truth.get(name, []), np.float32)
            if not len(steps):
                assert row["status"] == "missing"
                continue
            np.testing.assert_array_equal(row["values"], np.where(np.isfinite(steps), steps, 0))
            assert row["status"] == ("ok" if np.isfinite(steps).all() else "partial")
        for column in set(file.columns) - set(
            storage.read_json(storage.join(root, "features", folder, "descriptor.json"))["columns"]
        ):
            assert re.search(rf"not read: .*\b{column}\b", said.getvalue()), (
                column,
                said.getvalue(),
            )
        others = set(truth) - set(CLIPS)
        assert all(name in said.getvalue() for name in others)

    check()
    assert sum(outcomes.values()) >= EXAMPLES
    assert min(outcomes["read"], outcomes["refused"]) > EXAMPLES / 25
