"""verify --data: what makes a figure of a dataset untrue is found, counted and named."""

import csv
import io
import shutil

import numpy as np
import pyarrow as pa
import pytest

from cluster import storage, tables
from cluster.errors import ConfigError, UnsoundError
from cluster.settings import from_mapping
from jobs import prepare, verify
from jobs.datasets import folder
from jobs.verification.near_twins import near_twins
from tests.jobs.small_root import write_root


def findings(root, **options):
    verify.main(verify.Config(root=root, data=True, **options))
    rows = csv.DictReader(io.StringIO(storage.read_bytes(f"{root}/checks/findings.csv").decode()))
    clips = storage.read_table(f"{root}/checks/clips.parquet").to_pylist()
    named = {}
    for clip in clips:
        named.setdefault(clip["check"], []).append((clip["name"], clip["other"]))
    return {row["finding"]: int(row["clips"]) for row in rows}, named


def change(root, table, column, values):
    """Other values of some rows of a table of features, by the place of the row."""
    uri = f"{root}/features/{table}/rows.parquet"
    rows = storage.read_table(uri)
    cells = rows[column].to_pylist()
    for place, value in values.items():
        cells[place] = value
    at = rows.column_names.index(column)
    kind = rows.schema.field(column).type
    storage.publish_table(rows.set_column(at, column, pa.array(cells, kind)), uri)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Six clips: a twin across splits, one inside a split, a person on both sides, one without words."""
    base = tmp_path_factory.mktemp("data")
    source = base / "clips"
    source.mkdir()
    content = {"a": b"1" * 50, "b": b"2" * 50, "c": b"1" * 50, "d": b"3" * 50, "e": b"3" * 50}
    content["f"] = b"4" * 60
    for name, raw in content.items():
        (source / f"{name}.wav").write_bytes(raw)
    lines = [
        "name,text,speaker,group,split,mood",
        "a,one,ann,1,train,low",
        "b,two,ann,2,train,low",
        "c,three,bob,3,test,high",
        "d,,bob,4,train,high",
        "e,five,cyd,5,train,high",
        "f,six,ann,6,test,low",
    ]
    (base / "labels.csv").write_text("\n".join(lines) + "\n")
    given = {
        "root": str(base / "root"),
        "source": str(source),
        "labels": str(base / "labels.csv"),
        "tasks": {"mood": "classification"},
    }
    prepare.main(from_mapping(folder.Config, given))
    return given["root"]


class TestManifest:
    @pytest.fixture
    def root(self, prepared, tmp_path):
        return str(shutil.copytree(prepared, tmp_path / "root"))

    def test_everything_is_counted_and_named(self, root):
        counts, named = findings(root)
        assert counts == {
            "empty text": 1,
            "speakers across splits": 5,
            "twins": 1,
            "twins across splits": 1,
        }
        assert named["empty text"] == [("d", None)]
        (twin,) = named["twins across splits"]
        assert {twin[0], twin[1][0]} == {"a", "c"}
        (same,) = named["twins"]
        assert {same[0], same[1][0]} == {"d", "e"}
        assert {name for name, _ in named["speakers across splits"]} == set("abcdf")

    def test_the_page_says_what_each_means_and_what_was_not_looked_for(self, root, capsys):
        findings(root)
        page = storage.read_bytes(f"{root}/checks/report.html").decode()
        assert "a person on both sides of a split" in page
        assert "--encoders face_expression" in page
        assert "<script" not in page
        assert "silence: not looked for" in capsys.readouterr().out

    def test_findings_are_no_failure_unless_asked(self, root):
        with pytest.raises(UnsoundError, match="twins across splits"):
            findings(root, strict=True)
        assert storage.exists(f"{root}/checks/report.html")

    def test_a_label_that_the_task_does_not_allow_is_found(self, root):
        facts = storage.read_json(f"{root}/dataset.json")
        facts["tasks"]["mood"]["classes"] = ["low"]
        storage.publish_json(facts, f"{root}/dataset.json")
        counts, named = findings(root)
        assert counts["label out of range"] == 3
        assert {name for name, _ in named["label out of range"]} == set("cde")

    def test_names_are_shown_as_text(self, root):
        storage.publish_json(
            {**storage.read_json(f"{root}/dataset.json"), "name": "<b>x</b>"},
            f"{root}/dataset.json",
        )
        findings(root)
        assert "<b>x" not in storage.read_bytes(f"{root}/checks/report.html").decode()


class TestTexts:
    def test_equal_texts_of_some_length_are_twins_and_short_ones_are_not(self, tmp_path):
        (tmp_path / "clips").mkdir()
        lines = ["name,text,split", "a,Yes,train", "b,yes,test"]
        lines += ["c,It is  what it is,train", "d,it is what IT is,test"]
        (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
        given = {"root": str(tmp_path / "root"), "source": str(tmp_path / "clips")}
        prepare.main(from_mapping(folder.Config, {**given, "labels": str(tmp_path / "labels.csv")}))
        counts, named = findings(given["root"])
        assert counts == {"twins across splits": 1}
        (twin,) = named["twins across splits"]
        assert {twin[0], twin[1][0]} == {"c", "d"}


class TestFeatures:
    def test_a_sound_dataset_has_no_findings(self, tmp_path):
        root = write_root(str(tmp_path / "root"))
        counts, _ = findings(root)
        assert set(counts) == {"no clip content"}  # the root is written without media

    def test_near_twins_silence_and_failures_are_found(self, tmp_path):
        root = write_root(str(tmp_path / "root"))
        rows = storage.read_table(f"{root}/features/voice-1/rows.parquet")
        # Clip 0 is of the training split, clip 71 of the test split.
        change(root, "voice-1", "values", {71: rows["values"][0].as_py()})
        for column in ("step_start_s", "step_end_s", "valid"):
            change(root, "voice-1", column, {71: rows[column][0].as_py()})
        change(root, "voice-1", "valid", {5: [False] * len(rows["valid"][5].as_py())})
        change(root, "voice-1", "status", {9: "failed"})
        change(root, "voice-1", "error", {9: "Truncated: no sound"})
        counts, named = findings(root)
        assert counts["silence"] == 1
        assert named["silence"] == [("clip5", None)]
        assert named["near twins across splits"] == [("clip71", "clip0 (train)")]
        assert named["failed"] == [("clip9", "Truncated: no sound")]

    def test_a_clip_with_numbers_that_are_none_hides_no_twins_of_others(self, tmp_path):
        root = write_root(str(tmp_path / "root"))
        rows = storage.read_table(f"{root}/features/voice-1/rows.parquet")
        same = rows["values"][0].as_py()
        broken = [[float("nan")] * len(step) for step in rows["values"][5].as_py()]
        change(root, "voice-1", "values", {71: same, 5: broken})
        for column in ("step_start_s", "step_end_s", "valid"):
            change(root, "voice-1", column, {71: rows[column][0].as_py()})
        _, named = findings(root)
        assert named["near twins across splits"] == [("clip71", "clip0 (train)")]

    def test_no_face_is_said_of_clips_with_a_film(self, tmp_path):
        root = write_root(str(tmp_path / "root"))
        film = {"uri": "/nowhere/x.mp4", "offset": None, "size": None}
        for uri in storage.names(f"{root}/manifest/abc", ".parquet"):
            place = f"{root}/manifest/abc/{uri}"
            table = storage.read_table(place)
            films = pa.array([film] * len(table), tables.SOURCE)
            at = table.column_names.index("video")
            storage.publish_table(table.set_column(at, "video", films), place)
        rows = storage.read_table(f"{root}/features/face-1/rows.parquet")
        change(root, "face-1", "valid", {2: [False] * len(rows["valid"][2].as_py())})
        counts, named = findings(root)
        assert named["no face"] == [("clip2", None)]
        assert "twins" not in counts  # what is not there is like nothing

    def test_a_table_that_is_half_encoded_is_passed_over_with_a_note(self, tmp_path, capsys):
        root = write_root(str(tmp_path / "root"))
        uri = f"{root}/features/voice-1/rows.parquet"
        storage.publish_table(storage.read_table(uri).slice(0, 40), uri)
        findings(root)
        said = capsys.readouterr().out.replace("\n", " ")
        assert "voice-1 was not looked at" in said


class TestNearTwins:
    def test_it_equals_a_slow_loop(self):
        draws = np.random.default_rng(0)
        features = draws.standard_normal((60, 5))
        split = draws.choice(np.array(["train", "valid", "test", None], object), 60)
        split[:6] = ["train", "test", "train", "valid", "valid", None]
        features[1] = features[0] + 1e-4
        features[3] = features[2]
        features[5] = features[4]
        rows = np.arange(60)
        one, other = near_twins(features, rows, split)
        kept = [k for k in rows if split[k] is not None]
        scaled = (features - features[kept].mean(0)) / features[kept].std(0)
        scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
        order = {"train": 0, "valid": 1, "test": 2}
        slow = set()
        for a in kept:
            before = [b for b in kept if order[split[b]] < order[split[a]]]
            if before:
                best = max(before, key=lambda b: scaled[a] @ scaled[b])
                if scaled[a] @ scaled[best] >= 0.999:
                    slow.add((a, best))
        assert set(zip(one.tolist(), other.tolist(), strict=True)) == slow == {(1, 0), (3, 2)}

    def test_equal_features_everywhere_are_no_twins(self):
        """A column that never changes tells nothing of one from another."""
        one, _ = near_twins(
            np.ones((9, 3)), np.arange(9), np.array(["train", "test", None] * 3, object)
        )
        assert not len(one)

    def test_few_columns_tell_no_twins(self):
        """On a line every clip lies beside another."""
        draws = np.random.default_rng(0)
        split = np.array(["train", "test"] * 50, object)
        for width in (1, 2, 4):
            one, _ = near_twins(draws.standard_normal((100, width)), np.arange(100), split)
            assert not len(one)

    def test_the_same_direction_at_another_length_is_another_clip(self):
        features = np.random.default_rng(0).standard_normal((40, 8))
        features -= features.mean(0)
        features[1] = 3 * features[0]
        split = np.array(["train", "test"] * 20, object)
        assert not len(near_twins(features, np.arange(40), split)[0])

    @pytest.mark.parametrize("count", [0, 1, 2])
    def test_few_rows_have_none(self, count):
        split = np.array(["train", "test"] * 2, object)
        one, _ = near_twins(np.ones((4, 3)), np.arange(count), split)
        assert not len(one)


@pytest.mark.parametrize("options", [{"strict": True}, {"data": True, "gc": True}])
def test_options_that_do_not_go_together_are_refused(options):
    with pytest.raises(ConfigError):
        verify.Config(root="r", **options)
