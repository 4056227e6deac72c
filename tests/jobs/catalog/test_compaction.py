"""A table's folder, read raw by pandas, polars and DuckDB, holds the manifest's clips once each."""

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster import storage, tables
from cluster.unit_tables import (
    UnitIndex,
    Version,
    failed_rows,
    locate,
    mended,
    publish_unit,
    published,
)
from jobs.catalog import compaction
from jobs.catalog.layout import former_uri

READERS = {
    "pandas": lambda files: pd.concat(map(pd.read_parquet, files))["clip_id"].tolist(),
    "polars": lambda files: polars.read_parquet(files)["clip_id"].to_list(),
    "DuckDB": lambda files: [
        row[0] for row in duckdb.sql(f"select clip_id from read_parquet({files})").fetchall()
    ],
}


def rows(ids, value=1.0, failed=()):
    """FEATURES rows of two steps; a failed one has none."""
    values = [None if i in failed else [[value, float(i)]] * 2 for i in ids]
    times = pa.array([None if i in failed else [0.0, 0.1] for i in ids], pa.list_(pa.float32()))
    table = pa.table(
        {
            "clip_id": pa.array(ids, pa.int64()),
            "values": pa.array(values, pa.list_(pa.list_(pa.float32(), 2))),
            "step_start_s": times,
            "step_end_s": times,
            "valid": pa.array([None if i in failed else [True, i % 2 == 0] for i in ids]),
            "status": ["failed" if i in failed else "ok" for i in ids],
            "error": ["missing: gone" if i in failed else None for i in ids],
        }
    )
    return tables.features(2, "float32").conform(table)


def v(unit, key="k"):
    return Version(unit, key)


def versions(*units):
    return {v(unit) for unit in units}


def compact(uri, order, **changes):
    return compaction.compact(uri, lambda: list(map(v, order)), **changes)


def recall(uri, units):
    return compaction.recall(uri, versions(*units))


@pytest.fixture
def uri(tmp_path):
    """A table of three units of four clips, gathered into one file."""
    uri = str(tmp_path / "features" / "voice-abc")
    for number in range(3):
        publish_unit(uri, v(f"u{number}"), rows(range(4 * number, 4 * number + 4)))
    compact(uri, ["u0", "u1", "u2"])
    return uri


def raw(uri, reader="DuckDB"):
    return sorted(READERS[reader](sorted(map(str, Path(uri).glob("*.parquet")))))


@pytest.mark.parametrize("reader", READERS)
def test_clips_of_a_moved_file_are_read_once(uri, reader):
    publish_unit(uri, v("u1moved"), rows(range(4, 8), value=2.0))
    assert raw(uri, reader) == sorted([*range(12), *range(4, 8)])
    compact(uri, ["u0", "u1moved", "u2"], former=former_uri(uri))
    assert raw(uri, reader) == list(range(12))
    assert published(uri) == versions("u0", "u1moved", "u2")
    moved = UnitIndex(uri).read(v("u1moved"))["values"].to_pylist()
    assert moved[0][0] == [2.0, 4.0]


def test_a_unit_of_a_large_file_is_read_by_its_row_groups_alone(tmp_path, monkeypatch):
    uri = str(tmp_path / "features" / "large-1")
    order = [f"u{number:02d}" for number in range(40)]
    for number, unit in enumerate(order):
        publish_unit(uri, v(unit), rows(range(64 * number, 64 * number + 64)))
    compact(uri, order)
    (file,) = Path(uri).glob("*.parquet")
    assert pq.ParquetFile(file).num_row_groups == 3
    index = UnitIndex(uri)
    read = []

    def noted(parquet, groups, columns=None, original=pq.ParquetFile.read_row_groups):
        read.append(len(groups))
        return original(parquet, groups, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", noted)
    for number, unit in enumerate(order):
        expected = list(range(64 * number, 64 * number + 64))
        assert index.read(v(unit))["clip_id"].to_pylist() == expected
    assert max(read) <= 2


def test_without_a_new_unit_clips_that_left_go_too(uri):
    compact(uri, ["u2"], former=former_uri(uri))
    assert raw(uri) == [8, 9, 10, 11]


def test_what_left_is_kept_apart_and_comes_back_with_its_manifest(uri):
    before = UnitIndex(uri).read(v("u1"))
    compact(uri, ["u0", "u2"], former=former_uri(uri))
    assert raw(uri) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert raw(former_uri(uri)) == [4, 5, 6, 7]
    assert Path(former_uri(uri)).relative_to(Path(uri).parents[1]).parts[0] == "former"
    assert recall(uri, ["u0", "u1", "u2"]) == 1
    assert recall(uri, ["u0", "u1", "u2"]) == 0
    compact(uri, ["u0", "u1", "u2"], former=former_uri(uri))
    assert raw(uri) == list(range(12))
    assert UnitIndex(uri).read(v("u1")).equals(before)


def test_a_table_that_is_in_order_is_left_alone(uri):
    (file,) = Path(uri).glob("*.parquet")
    before = file.stat().st_mtime_ns
    assert compact(uri, ["u0", "u1", "u2"], former=former_uri(uri)) == []
    assert file.stat().st_mtime_ns == before
    assert not Path(former_uri(uri)).exists()


def test_large_files_without_a_stale_row_are_not_written_again(uri):
    (large,) = Path(uri).glob("*.parquet")
    before = large.stat().st_mtime_ns
    publish_unit(uri, v("u3"), rows(range(12, 16)))
    compact(uri, ["u0", "u1", "u2", "u3"], least_mb=0.0)
    assert large.stat().st_mtime_ns == before
    assert raw(uri) == list(range(16))
    compact(uri, ["u0", "u2", "u3"], least_mb=0.0)
    assert not large.exists()
    assert raw(uri) == [*range(4), *range(8, 16)]


def test_files_of_other_kinds_are_left_alone(uri):
    pq.write_table(rows([90, 91]), Path(uri) / "imported.parquet")
    publish_unit(uri, v("u3"), rows(range(12, 16)))
    compact(uri, ["u0", "u1", "u2", "u3"])
    assert raw(uri) == [*range(16), 90, 91]


class TestKilledHalfWay:
    """Every write and every removal is once the last thing that happens."""

    ORDER = ("u0", "u1moved", "u2", "u3")

    def prepare(self, uri):
        publish_unit(uri, v("u1moved"), rows(range(4, 8), value=2.0))
        publish_unit(uri, v("u3"), rows(range(12, 16)))
        publish_unit(uri, v("u2"), rows(range(8, 12), value=3.0))  # mends the gathered one

    def kill_after(self, monkeypatch, steps):
        """The storage fails at one of its changes; how many there are."""
        done = []

        def counted(change):
            def call(*arguments):
                if len(done) == steps:
                    raise KeyboardInterrupt
                done.append(change)
                return change(*arguments)

            return call

        monkeypatch.setattr(storage, "publish_bytes", counted(storage.publish_bytes))
        monkeypatch.setattr(storage, "remove", counted(storage.remove))
        return done

    @pytest.mark.parametrize("steps", range(9))
    def test_no_clip_is_missing_and_the_mended_rows_hold(self, uri, monkeypatch, steps):
        self.prepare(uri)
        with monkeypatch.context() as patch:
            self.kill_after(patch, steps)
            with pytest.raises(KeyboardInterrupt):
                compact(uri, self.ORDER, former=former_uri(uri), target_mb=1e-9)
        assert set(raw(uri)) == set(range(16))
        self.assert_rows(uri)
        compact(uri, self.ORDER, former=former_uri(uri), target_mb=1e-9)
        assert raw(uri) == list(range(16))
        self.assert_rows(uri)
        assert raw(former_uri(uri)) == [4, 5, 6, 7]

    def assert_rows(self, uri):
        index = UnitIndex(uri)
        firsts = {unit: index.read(v(unit))["values"][0].as_py()[0][0] for unit in self.ORDER}
        assert firsts == {"u0": 1.0, "u1moved": 2.0, "u2": 3.0, "u3": 1.0}

    def test_these_are_all_its_steps(self, uri, monkeypatch):
        self.prepare(uri)
        done = self.kill_after(monkeypatch, 99)
        compact(uri, self.ORDER, former=former_uri(uri), target_mb=1e-9)
        assert len(done) == 9  # five files appear, four go


class TestMending:
    def test_failed_rows_are_found_by_unit(self, uri):
        publish_unit(uri, v("u3"), rows(range(12, 16), failed={13, 15}))
        publish_unit(uri, v("gone"), rows([50], failed={50}))
        assert failed_rows(uri, versions("u0", "u3")) == {"u3": {13, 15}}

    def test_only_failed_rows_that_were_done_again_change(self):
        before = rows(range(4), failed={1, 2})
        again = rows([0, 1], value=7.0)
        after = mended(before, again)
        assert after.schema.equals(again.schema, check_metadata=True)
        assert after["status"].to_pylist() == ["ok", "ok", "failed", "ok"]
        assert after["values"][1].as_py() == [[7.0, 1.0]] * 2
        for number in (0, 2, 3):
            assert after.slice(number, 1).equals(before.slice(number, 1))

    def test_a_unit_of_its_own_file_counts_over_a_gathered_one(self, uri):
        publish_unit(uri, v("u1"), rows(range(4, 8), value=9.0))
        assert locate(uri)[v("u1")].uri.endswith("/u1-k.parquet")
        assert UnitIndex(uri).read(v("u1"))["values"][0].as_py()[0][0] == 9.0
        compact(uri, ["u0", "u1", "u2"])
        assert raw(uri) == list(range(12))
        assert UnitIndex(uri).read(v("u1"))["values"][0].as_py()[0][0] == 9.0


def test_half_precision_survives_gathering_bit_by_bit(tmp_path):
    uri = str(tmp_path / "features" / "half-1")
    values = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float16)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 6)
    table = rows(range(4)).set_column(
        1, "values", pa.ListArray.from_arrays(pa.array([0, 1, 2, 3, 4], pa.int32()), flat)
    )
    publish_unit(uri, v("u0"), table)
    publish_unit(uri, v("u1"), mended(table, table))
    compact(uri, ["u0", "u1"])
    for unit in ("u0", "u1"):
        found = np.array(UnitIndex(uri).read(v(unit))["values"].to_pylist(), np.float16)
        assert found.reshape(4, 6).tobytes() == values.tobytes()


def test_what_left_a_bucket_stays_in_the_bucket():
    assert former_uri("s3://bucket/root/transcripts/ear-1") == (
        "s3://bucket/root/former/transcripts/ear-1"
    )
