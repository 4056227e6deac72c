"""Columns of SCORES of many clips at once say what each clip by itself says."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import tables
from fusion.late.calibration import Decision
from fusion.tasks import Task
from jobs.scoring.score_columns import scores_table, state_columns, verdict_columns

CLASSES = ("calm", "happy", "sad")
KINDS = {
    "classification": Task(kind="classification", classes=CLASSES),
    "multilabel": Task(kind="multilabel", classes=CLASSES),
    "regression": Task(kind="regression"),
}


def verdict(row, task, decision):
    """Of one clip by itself."""
    nothing = {"label": None, "confidence": None, "probabilities": None, "value": None}
    if row.isnan().any():
        return nothing
    if task.kind == "regression":
        return nothing | {"value": row.item()}
    decided = decision.decide(row[None])[0]
    if task.kind == "classification":
        shares = row.softmax(-1)
        label, confidence = [CLASSES[int(decided)]], float(shares[int(decided)])
    else:
        shares = row.sigmoid()
        label = [name for name, so in zip(CLASSES, decided.tolist(), strict=True) if so]
        confidence = min(
            p if so else 1 - p for p, so in zip(shares.tolist(), decided.tolist(), strict=True)
        )
    pairs = list(zip(CLASSES, shares.tolist(), strict=True))
    return {"label": label, "confidence": confidence, "probabilities": pairs, "value": None}


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=25)
def test_many_clips_say_what_each_says_by_itself(kind, data):
    task = KINDS[kind]
    silent = data.draw(st.lists(st.booleans(), min_size=1, max_size=9))
    seed = data.draw(st.integers(0, 99))
    scores = torch.from_numpy(np.random.default_rng(seed).normal(size=(len(silent), task.outputs)))
    scores[torch.tensor(silent)] = torch.nan
    decision = Decision.plain(task.kind, task.outputs)
    columns = verdict_columns(scores, task, decision)
    found = scores_table(columns, len(silent)).select(
        ["label", "confidence", "probabilities", "value"]
    )
    for mine, row in zip(found.to_pylist(), scores, strict=True):
        expected = verdict(row, task, decision)
        assert mine["label"] == expected["label"]
        assert mine["confidence"] == pytest.approx(expected["confidence"], abs=1e-12)
        assert mine["value"] == expected["value"]
        if expected["probabilities"] is None:
            assert mine["probabilities"] is None
        else:
            assert dict(mine["probabilities"]) == pytest.approx(dict(expected["probabilities"]))


def features(rows):
    """FEATURES of clips given as (values of steps of width 1, valid, status, error)."""
    values, valid, status, error = zip(*rows, strict=True)
    element = tables.features(1, "float32").schema.field("values").type
    return pa.table(
        {
            "clip_id": pa.array(range(len(rows)), pa.int64()),
            "values": pa.array([[[v] for v in steps] for steps in values], element),
            "valid": pa.array(valid, pa.list_(pa.bool_())),
            "status": pa.array(status),
            "error": pa.array(error, pa.string()),
        }
    )


def test_what_was_there_and_what_went_wrong_is_said_of_each_clip():
    nan = float("nan")
    sound = features(
        [
            ([1.0], [True], "ok", None),
            ([1.0], [True], "partial", "cut short"),
            ([], [], "failed", "no track"),
            ([nan], [True], "ok", None),
            ([1.0], [False], "missing", None),
        ]
    )
    words = features(
        [
            ([1.0], [True], "ok", None),
            ([1.0], [True], "ok", None),
            ([], [], "failed", "too long"),
            ([1.0], [True], "ok", None),
            ([], [], "missing", None),
        ]
    )
    silent = np.array([False, False, True, False, True])
    # Rows stand in tables as units were published: in no order.
    tables_ = {"a": sound, "t": words.take(pa.array([3, 0, 4, 1, 2]))}
    columns = state_columns(
        tables_, {"a": "audio", "t": "text"}, silent, sound["clip_id"].to_numpy()
    )
    assert pa.table(dict(columns)).to_pylist() == [
        {"modalities": ["audio", "text"], "status": "ok", "error": None},
        {"modalities": ["audio", "text"], "status": "partial", "error": "audio: cut short"},
        {"modalities": [], "status": "failed", "error": "audio: no track; text: too long"},
        {"modalities": ["text"], "status": "partial", "error": "audio: 1 steps are not finite"},
        {
            "modalities": [],
            "status": "missing",
            "error": "nothing in it that the bundle reads (no face, no speech)",
        },
    ]
