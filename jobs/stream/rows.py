"""The rows that the stages of a stream hand each other, as plain Arrow columns.

span    units to decode, up to 64
unit    one decoded unit, or why there is none
report  what became of a unit
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from cluster.tables import MANIFEST
from jobs.catalog.manifest import UnitRef
from jobs.stream.job import FACTS, Todo, UnitReport, UnitTask

TASK = pa.struct(
    {
        "ref": pa.struct(
            {
                "unit": pa.string(),
                "file": pa.string(),
                "row_group": pa.int64(),
                "num_clips": pa.int64(),
                "cost": pa.float64(),
                "keys": pa.map_(pa.string(), pa.string()),
            }
        ),
        "todo": pa.struct({"encoders": pa.list_(pa.string()), "transcribe": pa.bool_()}),
        "clips": pa.list_(pa.int64()),
        "mend": pa.bool_(),
    }
)
REPORT = pa.schema(
    {
        "unit": pa.string(),
        "num_clips": pa.int64(),
        "failed": pa.int64(),
        "decode_s": pa.float64(),
        "encode_s": pa.map_(pa.string(), pa.float64()),
        "decode_mb": pa.float64(),
        "encode_mb": pa.float64(),
        "reasons": pa.map_(pa.string(), pa.int64()),
        "lost": pa.string(),
        "detail": pa.string(),
    }
)
UNIT = pa.schema(
    {
        "task": TASK,
        "facts": pa.list_(pa.struct([MANIFEST.schema.field(name) for name in FACTS])),
        "n_clips": pa.int64(),
        "decode_s": pa.float64(),
        "decode_mb": pa.float64(),
        "clips": pa.large_binary(),
        "lost": pa.struct(list(REPORT)),
    }
)


def span_row(tasks: Sequence[UnitTask]) -> pa.Table:
    """Units that one decode task takes in turn."""
    return pa.table({"span": pa.array([[_plain(task) for task in tasks]], pa.list_(TASK))})


def tasks_of(span: pa.Table) -> list[UnitTask]:
    """The units of `span_row`."""
    return [_task(each) for row in span["span"].to_pylist() for each in row]


def unit_row(
    task: UnitTask,
    facts: Sequence[Mapping[str, Any]],
    clips: pa.Buffer,
    *,
    decode_s: float,
    decode_mb: float,
    lost: UnitReport | None,
) -> pa.Table:
    """One unit on its way to an encoder; its clips go along without a copy.

    Args:
        task: the unit.
        facts: of its clips.
        clips: as `jobs.stream.clip_buffer.pack` writes them.
        decode_s: what decoding took [s].
        decode_mb: memory of the process that did it [MB].
        lost: why there are no clips.
    """
    offsets = pa.array([0, clips.size], pa.int64()).buffers()[1]
    plain = {
        "task": _plain(task),
        "facts": list(facts),
        "n_clips": len(facts),
        "decode_s": decode_s,
        "decode_mb": decode_mb,
        "lost": None if lost is None else vars(lost),
    }
    columns = [
        pa.Array.from_buffers(field.type, 1, [None, offsets, clips])
        if field.name == "clips"
        else pa.array([plain[field.name]], field.type)
        for field in UNIT
    ]
    return pa.table(columns, schema=UNIT)


def task_of(row: pa.Table) -> UnitTask:
    """The unit of `unit_row`."""
    return _task(row["task"][0].as_py())


def report_row(report: UnitReport | Mapping[str, Any]) -> pa.Table:
    """A report, or the plain one that came with a unit, on its way to the driver."""
    plain = vars(report) if isinstance(report, UnitReport) else report
    return pa.Table.from_pylist([plain], REPORT)


def reports_of(rows: pa.Table) -> list[UnitReport]:
    """What `report_row` wrote."""
    return [
        UnitReport(
            **{**row, "encode_s": dict(row["encode_s"]), "reasons": dict(row["reasons"])},
        )
        for row in rows.to_pylist()
    ]


def _plain(task: UnitTask) -> dict[str, Any]:
    return {**vars(task), "ref": asdict(task.ref), "todo": vars(task.todo)}


def _task(plain: Mapping[str, Any]) -> UnitTask:
    ref, todo = plain["ref"], plain["todo"]
    return UnitTask(
        ref=UnitRef(**{**ref, "keys": dict(ref["keys"])}),
        todo=Todo(encoders=tuple(todo["encoders"]), transcribe=todo["transcribe"]),
        clips=tuple(plain["clips"]),
        mend=plain["mend"],
    )
