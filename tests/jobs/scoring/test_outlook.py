"""What `score` says of a whole collection: the accuracy to expect, and features unlike those of training."""

import dataclasses
import json

import pyarrow as pa
import pytest

from cluster import storage
from cluster.tables import SCORES
from fusion.shift import Expectation
from jobs import score
from jobs.catalog import layout
from jobs.catalog.manifest import read_dataset, read_manifest
from jobs.scoring.bundle import Bundle
from jobs.scoring.grouped import answers_of
from jobs.scoring.opening import open_bundle
from jobs.scoring.outlook import outlook, was_trained_on
from jobs.scoring.tally import tally_of

EXPECTATION = Expectation(
    members=("words", "voice"),
    slopes=(0.0, 0.0),
    offsets={("words", "voice"): 2.0, ("voice",): 0.0},
    accuracy=0.85,
    groups=12,
    spread=0.05,
)


@pytest.fixture
def root(toys, tmp_path):
    toys.corpus.write_corpus(tmp_path, 6)
    toys.bundle.write_bundle(tmp_path)
    return tmp_path


def equip(root, *, limit=1e9, **facts):
    """Give the toy bundle what a bundle of `affuse ensemble` has."""
    where = layout.bundle_uri(str(root), "b", layout.BUNDLE)
    there = storage.read_json(where)
    (voice,) = [m["card"]["inputs"]["audio"] for m in there["members"] if m["run"] == "voice"]
    ranges = {voice["features"]: {"run": "voice", "input": "audio", "limit": limit, "usual": 0.02}}
    more = {"expectation": EXPECTATION.state(), "ranges": ranges, **facts}
    storage.publish_json({**there, **more}, where)


def files(root):
    return tuple(str(root / "media" / f"{i}.wav") for i in range(6))


def scored(root, tmp_path):
    out = tmp_path / "s.jsonl"
    score.main(score.Config(clips=files(root), root=str(root), bundle="b", out=str(out)))
    return [json.loads(line) for line in out.read_text().splitlines()]


class TestFiles:
    def test_the_accuracy_to_expect_is_that_of_the_members_that_are_there(
        self, root, tmp_path, capsys
    ):
        equip(root)
        rows = scored(root, tmp_path)
        assert {row["expected"] for row in rows} == {0.5}
        assert {tuple(row["unusual"]) for row in rows} == {()}
        said = capsys.readouterr().out
        assert "expected accuracy: 0.50 [" in said
        assert "0.85 in training, on people left out" in said

    def test_features_outside_the_training_range_are_named_and_leave_nothing_to_tell(
        self, root, tmp_path, capsys
    ):
        equip(root, limit=0.0)
        rows = scored(root, tmp_path)
        assert {tuple(row["unusual"]) for row in rows} == {("toy_audio",)}
        said = capsys.readouterr().out
        assert "cannot tell: most clips lie outside the training range in toy_audio" in said
        assert "warning: toy_audio: features of 100% of the clips lie outside" in said

    def test_a_bundle_of_an_earlier_version_says_what_to_type(self, root, tmp_path, capsys):
        rows = scored(root, tmp_path)
        assert {(row["expected"], row["unusual"]) for row in rows} == {(None, None)}
        assert "cannot tell: the bundle was made before" in capsys.readouterr().out


def rows_of(expected, unusual=(), modalities=("audio",)):
    rows = [
        dict.fromkeys(SCORES.schema.names)
        | {"clip_id": i, "name": str(i), "task": "mood", "label": ["calm"], "expected": one}
        | {"unusual": list(unusual) if i % 10 == 0 else [], "modalities": list(modalities)}
        for i, one in enumerate(expected)
    ]
    return tally_of([pa.Table.from_pylist(rows, SCORES.schema)])


def bundle(root, **facts):
    equip(root, **facts)
    return open_bundle("b", str(root))


class TestOutlook:
    def test_the_mean_over_the_answered_clips_is_expected(self, root):
        seen = outlook(bundle(root), rows_of([0.9, 0.7, 0.8]), people=3)
        assert seen.expected == pytest.approx(0.8)
        assert 0 <= seen.low < 0.8 < seen.high <= 1
        assert (seen.reason, seen.clips) == ("", 3)

    def test_more_people_narrow_the_interval(self, root):
        one, many = (outlook(bundle(root), rows_of([0.8] * 100), people=n) for n in (1, 50))
        assert many.high - many.low < one.high - one.low

    def test_a_tenth_of_unusual_clips_is_warned_of_and_the_accuracy_still_told(self, root):
        seen = outlook(bundle(root), rows_of([0.8] * 100, unusual=["toy_audio"]), people=5)
        assert seen.odd == ("toy_audio",)
        assert seen.unusual["toy_audio"] == pytest.approx(0.1)
        assert seen.expected == pytest.approx(0.8)

    def test_a_modality_that_no_clip_has_is_missing(self, root):
        seen = outlook(bundle(root), rows_of([0.8] * 10), people=5)
        assert seen.missing == {"audio": 0.0, "text": 1.0}

    @pytest.mark.parametrize(
        ("facts", "why"),
        [
            ({"expectation": None, "kind": "regression"}, "values have none"),
            ({"expectation": None}, "too few people"),
        ],
    )
    def test_where_nothing_is_expected_the_reason_is_given(self, root, facts, why):
        seen = outlook(bundle(root, **facts), rows_of([None] * 5), people=2)
        assert seen.expected is None
        assert why in seen.reason
        assert json.dumps(seen.facts(), allow_nan=False)

    def test_of_the_dataset_that_it_was_trained_on_nothing_is_expected(self, root):
        own = bundle(root)
        seen = outlook(own, rows_of([0.9] * 10), people=5, is_own=True)
        assert seen.expected is None
        assert "was trained on clips of this dataset" in seen.reason
        assert "0.85 on people left out" in seen.reason
        again = outlook(own, rows_of([0.9] * 10), people=5)
        assert again.expected == pytest.approx(0.9)

    @pytest.mark.parametrize(
        ("facts", "clips", "expected"),
        [
            ({"manifest": "{hash}"}, None, True),  # of an earlier version: it knows no clips
            ({"manifest": "other", "dataset": "{name}"}, None, False),
            (
                {"manifest": "other", "dataset": "{name}"},
                6,
                True,
            ),  # the same clips, others came since
            ({"manifest": "other", "dataset": "{name}"}, 1, True),
            ({"manifest": "other", "dataset": "{name}"}, 0, False),
            ({"manifest": "other", "dataset": "another"}, 6, True),  # it lies under the root
        ],
    )
    def test_its_own_clips_are_known_also_where_others_came_or_left(
        self, root, facts, clips, expected
    ):
        dataset, table = read_dataset(str(root)), read_manifest(str(root), ["clip_id"])
        values = {
            key: value.format(hash=dataset.manifest_hash, name=dataset.name)
            for key, value in facts.items()
        }
        own = bundle(root, **values)
        if clips is not None:
            shared = [*table["clip_id"].to_pylist()[:clips], -1, -2, -3]
            storage.publish_table(
                pa.table({"clip_id": pa.array(shared, pa.int64())}),
                f"{own.uri}/predictions.parquet",
            )
        assert was_trained_on(own, str(root)) == expected

    def test_in_another_dataset_equal_names_are_other_clips(self, root, tmp_path):
        own = dataclasses.replace(
            bundle(root, manifest="other", dataset="another"), uri=f"{root}/x"
        )
        clips = read_manifest(str(root), ["clip_id"])
        storage.publish_table(clips, f"{own.uri}/predictions.parquet")
        assert not was_trained_on(own, str(root))

    @pytest.mark.parametrize("kinds", [{"a": "audio", "b": "video"}, {"a": "audio", "b": "audio"}])
    def test_modalities_of_imported_inputs_are_missing_too(self, tmp_path, kinds):
        imported = Bundle(
            name="b",
            uri=str(tmp_path),
            encoders=(),
            transcriber=None,
            imported={"a-1": "a", "b-1": "b"},
        )
        for name, kind in kinds.items():
            where = layout.features_uri(str(tmp_path), f"{name}-1", layout.DESCRIPTOR)
            storage.publish_json({"modality": kind}, where)
        seen = outlook(imported, rows_of([0.8] * 10), people=5, root=str(tmp_path))
        assert seen.missing == {"audio": 0.0, **({"video": 1.0} if kinds["b"] == "video" else {})}
        assert answers_of(imported, str(tmp_path)).modalities == len({*kinds.values()})

    def test_no_answers_at_all_and_no_rows_at_all_can_be_told_nothing_of(self, root):
        for rows in (rows_of([]), rows_of([None])):
            seen = outlook(bundle(root), rows, people=1)
            assert "no clip has an answer" in seen.reason
            assert json.dumps(seen.facts(), allow_nan=False)

    def test_what_was_not_fitted_on_labels_knows_nothing(self):
        untrained = Bundle(name="face_expression", uri=None, encoders=(), transcriber=None)
        assert "not fitted on anybody's labels" in outlook(untrained, rows_of([None]), 1).reason
