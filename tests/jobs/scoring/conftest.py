"""Scoring raw clips in the process of the test."""

from dataclasses import replace

import pyarrow as pa
import pytest

from cluster import storage
from encoders.media import Decoder
from jobs import score
from jobs.scoring import raw_clips
from jobs.scoring.judges import by_transcriber
from jobs.stream import decode
from jobs.stream.job import facts_of
from jobs.stream.workbench import Workbench


class Here:
    """What the stream does with units, in this process; stops after some of them."""

    def __init__(self, limit=None):
        self.encoded, self.limit = [], limit

    def __call__(self, config, judges, refs):
        for group in by_transcriber(judges):
            job = raw_clips.stream_job(replace(config, store="/none"), group)
            bench, publish = Workbench(job.work), job.sink.open(job)
            with Decoder(**vars(config.decoding), threads=1) as decoder:
                for task in raw_clips.tasks_of(config.root, group, refs):
                    if len(self.encoded) == self.limit:
                        raise KeyboardInterrupt
                    rows = decode.rows_of(task)
                    decoded = decode.decode_rows(job.work, task.todo, rows, decoder)
                    publish(task, bench.run(decoded, task.todo), facts_of(rows))
                    self.encoded.append((task.ref.unit, sorted(task.todo.encoders)))


@pytest.fixture
def here(monkeypatch):
    """The stand-in for the stream."""
    runner = Here()
    monkeypatch.setattr(score, "score_clips", runner)
    return runner


@pytest.fixture
def with_columns():
    """Puts values of columns into a manifest, in its order."""

    def put(root, **columns):
        (file,) = (root / "manifest").glob("*/part-00000.parquet")
        table = storage.read_table(str(file))
        for name, values in columns.items():
            at = table.column_names.index(name)
            table = table.set_column(at, name, pa.array(values, table.schema.field(name).type))
        storage.publish_table(table, str(file), row_group_size=4)

    return put
