"""Scores as text: what is written is read back, and what is something else is refused in one line."""

import re

import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import SchemaError
from cluster.tables import SCORES
from jobs.scoring.files import file_bytes
from jobs.scoring.plain_scores import from_csv, from_jsonl

READERS = {"csv": from_csv, "jsonl": from_jsonl}
CLASSES = ("angry", "not+angry", "sad", "=sum")
EVERY = [(name, 0.25) for name in sorted(CLASSES)]
SHARE = st.none() | st.floats(0, 1)
NAMES = st.none() | st.lists(st.sampled_from(CLASSES), unique=True)
WORDS = st.lists(st.sampled_from(("text", "audio", "video")), unique=True)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), min_size=1).filter(
    lambda text: not text.startswith("'")
)


def row(**changes):
    plain = dict.fromkeys(SCORES.schema.names) | {
        "clip_id": 1, "name": "clip", "task": "emotion", "bundle": "b", "modalities": ["audio"],
        "status": "ok", "confidence": 0.5, "label": ["sad"], "probabilities": [("sad", 0.5)],
    }  # fmt: skip
    return plain | changes


def table(rows):
    return pa.Table.from_pylist(rows, SCORES.schema)


ROWS = st.builds(
    row,
    clip_id=st.integers(-(2**63), 2**63 - 1), name=TEXT, bundle=st.sampled_from(("one", "two")),
    start_s=st.none() | st.floats(0, 1e6), end_s=st.none() | st.floats(0, 1e6),
    label=NAMES, possible=NAMES, certain=NAMES, modalities=WORDS, unusual=st.none() | WORDS,
    confidence=SHARE, value=SHARE, low=SHARE, high=SHARE, expected=SHARE,
    probabilities=st.none() | st.just(EVERY),
    error=st.none() | TEXT,
)  # fmt: skip


@pytest.mark.parametrize("suffix", READERS)
@given(rows=st.lists(ROWS, min_size=1, max_size=4))
def test_what_is_written_is_read_back(suffix, rows):
    given = table([row(probabilities=EVERY), *rows])  # which names there are stands in the header
    assert READERS[suffix](file_bytes(given, f"s.{suffix}"), "s").equals(given)


def test_what_a_csv_lacked_stands_behind_the_columns_that_it_had():
    header = (
        file_bytes(table([row()]), "s.csv").decode().splitlines()[0].replace('"', "").split(",")
    )
    first = [
        "name",
        "task",
        "confidence",
        "value",
        "status",
        "error",
        "label",
        "modalities",
        "p_sad",
    ]
    assert header == [*first, "bundle", "clip_id", "expected", "unusual"]


def test_a_csv_without_them_is_read_too():
    content = file_bytes(table([row(), row(name="other")]), "s.csv")
    old = pa.csv.read_csv(pa.BufferReader(content)).drop_columns(["bundle", "clip_id", "expected"])
    buffer = pa.BufferOutputStream()
    pa.csv.write_csv(old, buffer)
    read = from_csv(buffer.getvalue().to_pybytes(), "s.csv")
    assert read["name"].to_pylist() == ["clip", "other"]
    assert read["clip_id"].null_count == 2


@pytest.mark.parametrize("suffix", READERS)
@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"a,b\n1,2\n", b"[1]\n", b"{}\n", b"PK\x03\x04", b"name,name\n1\n", b"[" * 9999,
     b"name,task,label,status,confidence\na,b,c,ok,much\n",
     b'{"name": 1, "probabilities": null}\n'],
)  # fmt: skip
def test_something_else_is_refused_in_one_line_with_what_to_type(suffix, content):
    with pytest.raises(SchemaError, match=r"s: came another table .*affuse score CLIP") as caught:
        READERS[suffix](content, "s")
    assert not re.search(r"[\r\n]", str(caught.value))
