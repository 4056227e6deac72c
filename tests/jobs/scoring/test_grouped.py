"""Scores by dialogue, speaker or file are those of the obvious loop over clips."""

import math
import statistics
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cluster import storage
from cluster.errors import ConfigError
from cluster.tables import MANIFEST, SCORES
from jobs import score
from jobs.scoring.grouped import LEAST, AnswerKind, grouped

CLASSES = ("calm", "O'Hara \U0001f600", "sad")
KINDS = ("classification", "multilabel", "regression")


def answers(kind, offsets=None):
    if kind == "regression":
        return AnswerKind(kind=kind, modalities=2)
    cuts = offsets or ((0.0,) * 3 if kind == "classification" else (0.5,) * 3)
    return AnswerKind(kind=kind, classes=CLASSES, offsets=cuts, modalities=2)


def tables(kind, clips):
    """Manifest and scores of (group, figures or None, modalities, status)."""
    manifest, scores = [], []
    for number, (group, figures, read, status) in enumerate(clips):
        source = None if group is None else {"uri": f"/media/{group}", "offset": None, "size": None}
        manifest.append({"clip_id": number, "dialogue": group, "speaker": group, "audio": source})
        row = {"clip_id": number, "task": "mood", "bundle": "b", "status": status}
        row |= {"modalities": ["audio", "text"][:read]}
        if figures is not None and kind == "regression":
            row["value"] = figures[0]
        elif figures is not None:
            total = sum(figures) if kind == "classification" else 1.0
            row["probabilities"] = [(c, p / total) for c, p in zip(CLASSES, figures, strict=True)]
        scores.append(row)
    fields = [
        f for f in MANIFEST.schema if f.name in ("clip_id", "dialogue", "speaker", "video", "audio")
    ]
    return (
        pa.Table.from_pylist(manifest, pa.schema(fields)),
        pa.Table.from_pylist(scores, SCORES.schema),
    )


def obvious(scores, groups, kind, offsets, pooling):
    """Group -> its row, clip after clip in Python."""
    members = defaultdict(list)
    for row, group in zip(scores.to_pylist(), groups, strict=True):
        if group is not None:
            members[group].append(row)
    return {group: of_group(rows, kind, offsets, pooling) for group, rows in members.items()}


def of_group(rows, kind, offsets, pooling):
    said = [row for row in rows if row["probabilities"] or row["value"] is not None]
    found = {
        "clips": len(rows),
        "answered": len(said),
        "failed": sum(row["status"] == "failed" for row in rows),
        "partial": sum(row["status"] == "partial" or len(row["modalities"]) < 2 for row in said),
    }
    if not said:
        return found
    if kind == "regression":
        x = np.array([[row["value"]] for row in said])
        q, adds = x.mean(0), x
    else:
        p = np.array([[share for _, share in row["probabilities"]] for row in said])
        q, adds = p.mean(0), p
        if pooling == "log" and kind == "multilabel":
            x = np.log(np.maximum(p, LEAST)) - np.log(np.maximum(1 - p, LEAST))
            q = 1 / (1 + np.exp(-x.mean(0)))
            adds = q * (1 - q) * x
        elif pooling == "log":
            x = np.log(np.maximum(p, LEAST))
            q = np.exp(x.mean(0)) / np.exp(x.mean(0)).sum()
            adds = q * (x - (x * q).sum(1, keepdims=True))
    found["q"] = q.tolist()
    if len(said) > 1:
        reach = stats.t.ppf(0.975, len(said) - 1) / math.sqrt(len(said))
        margin = [reach * statistics.stdev(column) for column in adds.T.tolist()]
        found["low"] = [a - b for a, b in zip(found["q"], margin, strict=True)]
    if kind == "classification":
        place = int(np.argmax(np.log(np.maximum(q, LEAST)) + np.array(offsets)))
        found["label"], found["confidence"] = [CLASSES[place]], q[place]
    elif kind == "multilabel":
        found["label"] = [c for c, p, cut in zip(CLASSES, q, offsets, strict=True) if p >= cut]
    return found


def clips_of(kind):
    share = st.floats(0.001, 0.999).map(lambda number: round(number, 3))
    figures = st.none() | st.tuples(share, share, share)
    group = st.none() | st.sampled_from(["a", "a'b", "\u00e9 ", "z;drop table said"])
    state = st.sampled_from(["ok", "partial", "failed", "missing"])
    return st.lists(st.tuples(group, figures, st.integers(0, 2), state), min_size=1, max_size=12)


@pytest.mark.parametrize("pooling", ["mean", "log"])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_groups_are_those_of_the_obvious_loop(kind, pooling, data):
    clips = data.draw(clips_of(kind))
    per = data.draw(st.sampled_from(["dialogue", "speaker", "file"]))
    offsets = (0.3, 0.5, 0.7) if kind == "multilabel" else (0.0, 0.4, -0.4)
    manifest, scores = tables(kind, clips)
    parts = [scores.slice(start, 5) for start in range(0, len(clips), 5)]
    found = [*grouped([manifest], parts, per, answers(kind, offsets), pooling)]
    rows = [row for part in found for row in part.to_pylist()]
    names = [group and (f"/media/{group}" if per == "file" else group) for group, *_ in clips]
    expected = obvious(scores, names, kind, offsets, pooling)
    assert [row["group"] for row in rows] == sorted(expected, key=str.encode)
    for row in rows:
        check(row, expected[row["group"]], kind)


def check(row, other, kind):
    for name in ("clips", "answered", "failed", "partial"):
        assert row[name] == other[name]
    if "q" not in other:
        assert row["probabilities"] is row["value"] is row["label"] is None
        return
    column = "value" if kind == "regression" else "probabilities"
    figures = [row["value"]] if kind == "regression" else [p for _, p in row["probabilities"]]
    assert figures == pytest.approx(other["q"], abs=1e-9), column
    low = [row["low"]] if kind == "regression" else [p for _, p in row["low_probabilities"]]
    if "low" in other:
        floor = -math.inf if kind == "regression" else 0.0
        assert low == pytest.approx([max(floor, value) for value in other["low"]], abs=1e-9)
    else:
        assert low == [None] * len(low)
    if kind != "regression":
        assert row["label"] == other["label"]
        assert [name for name, _ in row["probabilities"]] == list(CLASSES)
    if kind == "classification":
        assert row["confidence"] == pytest.approx(other["confidence"])


class TestTheJob:
    @pytest.fixture
    def root(self, toys, tmp_path, with_columns):
        toys.corpus.write_corpus(tmp_path, 6, texts=[None, *[f"words of {i}" for i in range(1, 6)]])
        (tmp_path / "media" / "0.wav").unlink()
        (tmp_path / "media" / "3.wav").unlink()
        toys.bundle.write_bundle(tmp_path)
        with_columns(tmp_path, speaker=["ann", "ann", "ann", "bob", "bob", None])
        return str(tmp_path)

    def test_writes_a_table_a_kind_of_group_beside_the_scores(self, root, here, capsys):
        options = {"max_failed_share": 1.0, "bundle": "b", "pooling": "log"}
        score.main(score.Config(root=root, per=("speaker", "file", "dialogue"), **options))
        said = capsys.readouterr().out
        assert "per speaker: 2 rows of 5 clips; 1 name no speaker" in said
        assert "per dialogue: 0 rows of 0 clips; 6 name no dialogue" in said
        assert "answered from: audio+text 4 (80.0%), text 1 (20.0%)" in said
        facts = storage.read_json(f"{root}/scores/b/summary.json")
        assert facts["clips"] == sum(facts["status"].values()) == 6
        assert sum(facts["failures"].values()) == facts["status"]["failed"] == 1
        assert sum(label["clips"] for label in facts["labels"].values()) == 5
        assert facts["answered_from"] == {"audio+text": 4, "text": 1}
        ann, bob = storage.read_table(f"{root}/scores/b/groups/speaker.parquet").to_pylist()
        assert (ann["group"], ann["clips"], ann["answered"], ann["failed"]) == ("ann", 3, 2, 1)
        assert (bob["group"], bob["clips"], bob["partial"]) == ("bob", 2, 1)
        assert sum(p for _, p in ann["probabilities"]) == pytest.approx(1)
        assert storage.read_table(f"{root}/scores/b/groups/file.parquet").num_rows == 6

    def test_the_table_follows_scores_that_were_there_already(self, root, here):
        options = {"max_failed_share": 1.0, "bundle": "b"}
        score.main(score.Config(root=root, **options))
        score.main(score.Config(root=root, per=("speaker",), **options))
        assert storage.read_table(f"{root}/scores/b/groups/speaker.parquet").num_rows == 2
        assert score.read_scores(root, "b").num_rows == 6

    def test_files_without_a_manifest_name_no_groups(self):
        with pytest.raises(ConfigError, match="--per speaker"):
            score.Config(clips=("a.wav",), per=("speaker",))
