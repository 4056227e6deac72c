"""What the stages of a stream hand each other comes out as it went in."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from cluster.tables import KEY_PARTS
from jobs.catalog.manifest import UnitRef
from jobs.stream import rows
from jobs.stream.job import Todo, UnitReport, UnitTask

texts = st.text(max_size=8)
ids = st.integers(min_value=-(2**63), max_value=2**63 - 1)
counts = st.integers(min_value=0, max_value=2**40)
numbers = st.floats(allow_nan=False)
refs = st.builds(
    UnitRef,
    unit=texts,
    file=texts,
    row_group=counts,
    num_clips=counts,
    cost=numbers,
    keys=st.dictionaries(st.sampled_from(KEY_PARTS), st.none() | texts),
)
tasks = st.builds(
    UnitTask,
    ref=refs,
    todo=st.builds(Todo, encoders=st.lists(texts).map(tuple), transcribe=st.booleans()),
    clips=st.lists(ids, max_size=4).map(tuple),
    mend=st.booleans(),
)
reports = st.builds(
    UnitReport,
    unit=texts,
    num_clips=counts,
    failed=counts,
    decode_s=numbers,
    encode_s=st.dictionaries(texts, numbers, max_size=3),
    decode_mb=numbers,
    encode_mb=numbers,
    reasons=st.dictionaries(texts, counts, max_size=3),
    lost=st.none() | texts,
    detail=texts,
)
facts = st.fixed_dictionaries(
    {
        "clip_id": ids,
        "name": texts,
        "dialogue": st.none() | texts,
        "turn": st.none() | ids,
        "speaker": st.none() | texts,
    }
)


@given(span=st.lists(tasks, max_size=4))
def test_a_span_brings_its_units_in_their_order(span):
    row = rows.span_row(span)
    assert row.num_rows == 1  # one decode task
    assert rows.tasks_of(row) == span


@given(task=tasks, known=st.lists(facts, max_size=3), payload=st.binary(max_size=64), lost=reports)
def test_a_unit_brings_its_task_its_facts_and_its_clips(task, known, payload, lost):
    clips = pa.py_buffer(payload)
    row = rows.unit_row(task, known, clips, decode_s=1.5, decode_mb=2.5, lost=lost)
    assert rows.task_of(row) == task
    assert row["facts"][0].as_py() == known
    assert row["n_clips"][0].as_py() == len(known)
    assert row["clips"][0].as_py() == payload
    assert rows.reports_of(rows.report_row(row["lost"][0].as_py())) == [lost]


def test_the_clips_of_a_unit_are_not_copied():
    clips = pa.py_buffer(bytes(1000))
    task = UnitTask(
        ref=UnitRef(unit="u", file="f", row_group=0, num_clips=1, cost=0.0),
        todo=Todo(encoders=(), transcribe=False),
    )
    row = rows.unit_row(task, [], clips, decode_s=0.0, decode_mb=0.0, lost=None)
    assert row["clips"].chunk(0).buffers()[2].address == clips.address
    assert row["lost"][0].as_py() is None


@given(some=st.lists(reports, min_size=1, max_size=4))
def test_reports_come_back_as_they_were(some):
    table = pa.concat_tables([rows.report_row(report) for report in some])
    assert rows.reports_of(table) == some
