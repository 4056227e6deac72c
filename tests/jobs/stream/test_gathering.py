"""Tasks of Ray gather a table as the process itself does, and lose nothing where one is lost."""

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster import storage, tables
from cluster.errors import AbsentError, MachineError
from cluster.session import SessionConfig, ray_session
from cluster.unit_tables import UnitRows, Version, publish_unit, published
from jobs.catalog.compaction import LargeFile, compact
from jobs.stream import gathering
from jobs.stream.gathering import by_tasks

ORDER = [Version(f"u{number}", "k") for number in range(5)]


def rows(ids):
    steps = pa.array([[0.0]] * len(ids), pa.list_(pa.float32()))
    table = pa.table(
        {
            "clip_id": pa.array(ids, pa.int64()),
            "values": pa.array(
                [[[float(i), 1.0]] for i in ids], pa.list_(pa.list_(pa.float32(), 2))
            ),
            "step_start_s": steps,
            "step_end_s": steps,
            "valid": pa.array([[True]] * len(ids)),
            "status": ["ok"] * len(ids),
            "error": pa.nulls(len(ids), pa.string()),
        }
    )
    return tables.features(2, "float32").conform(table)


@pytest.fixture(scope="module")
def session():
    with ray_session(SessionConfig(num_cpus=2, num_gpus=0)):
        yield


@pytest.fixture
def uri(tmp_path):
    uri = str(tmp_path / "features" / "voice-abc")
    for number, version in enumerate(ORDER):
        publish_unit(uri, version, rows(range(4 * number, 4 * number + 4)))
    return uri


def gathered(uri, write=by_tasks):
    return compact(uri, lambda: ORDER, target_mb=1e-9, least_mb=0.0, write=write)


def content(uri):
    """All rows of the files in a folder, by clip."""
    return pa.concat_tables(pq.read_table(file) for file in Path(uri).glob("*.parquet")).sort_by(
        "clip_id"
    )


def test_the_table_is_that_of_one_process_and_none_of_it_is_written_here(
    session, uri, tmp_path, monkeypatch
):
    other = shutil.copytree(uri, tmp_path / "other")
    with monkeypatch.context() as patch:
        patch.setattr(storage, "publish_bytes", None)  # it would fail if it were called
        names = gathered(uri)
    assert len(names) == len(ORDER) == len(compact(str(other), lambda: ORDER, target_mb=1e-9))
    assert content(uri).equals(content(other))
    assert published(uri) == set(ORDER)
    assert {file.name for file in Path(uri).glob("*.parquet")} == set(names)


def test_a_worker_that_dies_behind_its_file_leaves_no_clip_twice(session, uri, tmp_path):
    before, mark = content(uri), str(tmp_path / "died")

    class Dying(LargeFile):
        def write(self):
            name = LargeFile.write(self)
            if not os.path.exists(mark):
                Path(mark).touch()
                os._exit(1)
            return name

    def write(files):
        return by_tasks([Dying(file.folder, file.rows, file.copies) for file in files])

    gathered(uri, write)
    assert os.path.exists(mark)
    assert content(uri).equals(before)


def test_a_file_that_kills_every_worker_ends_in_one_line(session, uri, monkeypatch):
    class Deadly(LargeFile):
        def write(self):
            os._exit(1)

    monkeypatch.setattr(gathering, "RETRIES", 1)
    before = content(uri)
    with pytest.raises(
        MachineError, match=r"workers died 2 times .*; no row is lost; give a worker"
    ):
        gathered(uri, lambda files: by_tasks([Deadly(file.folder, {}, {}) for file in files]))
    assert content(uri).equals(before)


def test_a_file_that_is_gone_is_told_as_it_is_here(session, uri):
    gone = {ORDER[0]: UnitRows(uri=f"{uri}/gone.parquet", start=0, count=4)}
    with pytest.raises((AbsentError, FileNotFoundError)):
        by_tasks([LargeFile(uri, gone, {})] * 2)
