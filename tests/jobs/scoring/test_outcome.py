"""The table at the end of `score`: every clip is in one of its lines, and means are those of the rows."""

import itertools
import json
from collections import Counter
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import storage, tables
from cluster.unit_tables import publish_unit
from encoders.registry import describe
from jobs.__main__ import run
from jobs.catalog.layout import features_uri
from jobs.catalog.manifest import read_unit, units
from jobs.scoring import tally
from jobs.scoring.outcome import MOST_LABELS, by_label, by_value, show_outcome, summary
from jobs.scoring.tally import tally_of

BLANK = dict.fromkeys(tables.SCORES.schema.names)


def scores(rows):
    plain = [BLANK | {"clip_id": k, "task": "mood", "status": "ok"} | r for k, r in enumerate(rows)]
    return pa.Table.from_pylist(plain, tables.SCORES.schema)


LABELS = st.lists(
    st.one_of(
        st.just({}),
        st.builds(
            lambda labels, p: {"label": labels, "confidence": p},
            st.lists(st.sampled_from("abc"), unique=True, max_size=3),
            st.floats(0, 1),
        ),
    ),
    min_size=1,
    max_size=20,
)


@given(LABELS)
def test_clips_and_confidences_by_label_are_those_of_the_obvious_loop(rows):
    header, *lines = by_label(tally_of([scores(rows)]))
    said = Counter(label for row in rows for label in row.get("label", ()))
    silent = sum("label" not in row for row in rows)
    assert {line[0]: int(line[1]) for line in lines} == said + Counter({"no label": silent})
    for label, _, _, mean in lines[: len(said)]:
        shares = [row["confidence"] for row in rows if label in row.get("label", ())]
        assert float(mean) == pytest.approx(np.mean(shares), abs=0.0051)
    counts = [int(line[1]) for line in lines[: len(said)]]
    assert counts == sorted(counts, reverse=True)
    assert len(header) == 4


@given(LABELS, st.sets(st.integers(1, 19)), st.integers(1, 8))
def test_a_tally_says_of_pieces_what_it_says_of_the_whole(rows, cuts, at_once):
    more = [
        {"modalities": ["audio", "text"][: k % 3], "unusual": ["x"] if k % 4 == 0 else None}
        | {"expected": k / 40 if k % 5 else None, "status": "failed" if k % 7 == 0 else "ok"}
        | {"error": f"decode: file {k}: broken" if k % 7 == 0 else None, "value": k**0.5}
        for k in range(len(rows))
    ]
    whole = scores([row | extra for row, extra in zip(rows, more, strict=True)])
    ends = [0, *sorted(cut for cut in cuts if cut < len(rows)), len(rows)]
    pieces = [whole.slice(a, b - a) for a, b in itertools.pairwise(ends)]
    with mock.patch.object(tally, "ROWS", at_once):
        left = tally_of(pieces)
    right = tally_of([whole])
    exact = ("rows", "labelled", "labels", "status", "failures", "answered", "read", "listed")
    assert all(getattr(left, name) == getattr(right, name) for name in exact)
    assert left.failures.total() == sum(extra["status"] == "failed" for extra in more)
    assert left.foreseen == right.foreseen == sum(e["expected"] is not None for e in more)
    assert (left.expected, left.sure) == (
        pytest.approx(right.expected), pytest.approx(right.sure)
    )  # fmt: skip
    values = [extra["value"] for extra in more]
    assert left.value.mean == pytest.approx(np.mean(values))
    assert left.value.deviation == pytest.approx(np.std(values), abs=1e-9)
    assert (left.value.least, left.value.most) == (min(values), max(values))
    assert json.dumps(summary(left), allow_nan=False)


def test_values_are_shown_with_their_spread():
    _, every, silent = by_value(
        tally_of([scores([{"value": 1.0}, {"value": 3.0}, {"value": None}])])
    )
    assert every == ("all", "2", "2.000", "1.000", "1.000", "3.000")
    assert silent[:2] == ("no value", "1")


def test_one_value_alone_has_no_spread(capsys):
    show_outcome(tally_of([scores([{"value": 1.0}])]))
    assert "0.000" in capsys.readouterr().out


def test_of_many_labels_the_commonest_are_shown(capsys):
    rows = [{"label": [f"l{k:03d}"], "confidence": 0.5} for k in range(50) for _ in range(50 - k)]
    show_outcome(tally_of([scores(rows)]))
    said = capsys.readouterr().out
    assert said.count("│ l0") == MOST_LABELS
    assert "and 20 rarer labels" in said


def test_names_of_classes_are_shown_letter_by_letter(capsys):
    show_outcome(tally_of([scores([{"label": ["[red]x\x1b[2J"], "confidence": 1.0}])]))
    assert "[red]x\\x1b[2J" in capsys.readouterr().out


def test_score_ends_with_the_table_and_its_rate(toys, tmp_path, capsys):
    root = str(toys.corpus.write_corpus(tmp_path, 8))
    toys.bundle.write_bundle(root)
    for name, dim, kind in (("toy_text", 3, "float16"), ("toy_audio", 2, "float32")):
        item = describe(name)
        uri = features_uri(root, item.folder)
        storage.publish_json(item.facts(), f"{uri}/descriptor.json")
        for ref in units(root):
            ids = read_unit(ref)["clip_id"]
            one = pa.array([[0.0]] * len(ids), pa.list_(pa.float32()))
            columns = {
                "clip_id": ids, "step_start_s": one, "step_end_s": one,
                "valid": pa.array([[True]] * len(ids)), "status": ["ok"] * len(ids),
                "error": pa.nulls(len(ids), pa.string()),
            }  # fmt: skip
            table = tables.features(dim, kind)
            cells = [[[np.float16(1)] * dim]] * len(ids)
            columns["values"] = pa.array(cells, table.schema.field("values").type)
            publish_unit(uri, ref.version(item.reads), table.conform(pa.table(columns)))
    words = ["score", "--root", root, "--bundle", "b"]
    assert run(words) == 0
    said = capsys.readouterr().out
    assert "mean confidence" in said
    assert "8 clips scored in 0:0" in said
    assert run(words) == 0
    said = capsys.readouterr().out
    assert "mean confidence" in said
    assert "clips scored" not in said
    assert run(["verify", "--root", root]) == 0
