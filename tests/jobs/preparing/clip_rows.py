"""Clips as rows of Python in and out of a workplace, for tests."""

import pyarrow as pa

from encoders.media import Source
from jobs.interop.tables import Faults
from jobs.preparing import units
from jobs.preparing.adapter import Collected, Preparation, Row
from jobs.preparing.builder import BEFORE, plan
from jobs.preparing.clips import CLIP
from jobs.preparing.groups import group_rows
from jobs.preparing.keys import keyed
from jobs.preparing.publishing import cut_dialogues, manifest_table
from jobs.preparing.row_tables import COLUMNS, Shape, shape_of
from jobs.preparing.staging import fill, stage
from jobs.preparing.workplace import workplace


def checked(collected):
    """The rows of an adapter, if their labels hold no fault."""
    with workplace() as place:
        shape, _ = stage(place, collected, Preparation(root=""))
        if collected.tables is None:
            return collected.rows
        staged = pa.concat_tables(place.stream("select * from rows order by seq")).to_pylist()
    return [_row(facts, shape) for facts in staged]


def _row(facts, shape):
    given = {name: facts[name] for name in COLUMNS.names}
    for kind in ("video", "audio"):
        given[kind] = given[kind] and Source(**given[kind])
    labels = {task: facts[f"label{k}"] for k, task in enumerate(shape.tasks)}
    profile = {fact: facts[f"profile{k}"] for k, fact in enumerate(shape.profile)}
    return Row(**given, labels=labels, profile=profile)


def groups_of(rows, source=""):
    """The group of each row of an adapter, and where the groups come from."""
    collected = Collected(name="toy", licence="", tasks={}, rows=rows)
    with workplace() as place:
        fill(place, collected, shape_of(collected), Faults())
        grouping = group_rows(place, source)
        return [group for (group,) in place.run("select grp from grouped order by seq")], grouping


def in_units(clips, present, stamps, *, most_clips, most_s=1e9):
    """Rows of a manifest with their units and keys, in its order.

    Args:
        clips: rows without them.
        present: clip ids of each unit of the manifest before.
        stamps: of the sources.
        most_clips: clips a unit may hold.
        most_s: media it may hold [s].
    """
    before = [
        {"clip_id": clip_id, "unit": units.unit_id(ids)} for ids in present for clip_id in ids
    ]
    shape = Shape(tasks={}, profile=(), folds=())
    with workplace() as place:
        for name, rows, schema in (("clips", clips, CLIP), ("before", before, BEFORE)):
            number = "seq" if name == "clips" else "n"
            numbered = [{**row, number: k} for k, row in enumerate(rows)]
            fields = {field.name: field for field in [*schema, pa.field(number, pa.int64())]}
            place.add(name, pa.Table.from_pylist(numbered, pa.schema(list(fields.values()))))
        units.cut(place, most_clips=most_clips, most_s=most_s)
        plan(place)
        tables = list(place.stream("select * from planned order by place"))
        whole = pa.concat_tables(tables).combine_chunks()
        keyed_rows = keyed(whole, stamps, cut_dialogues(place))
        return manifest_table(keyed_rows, shape).to_pylist()
