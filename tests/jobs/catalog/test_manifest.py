"""The manifest is read as prepare wrote it, a unit a row group."""

import pyarrow as pa
import pytest

from cluster import storage, tables
from cluster.errors import NotPreparedError, SchemaError
from jobs.catalog import manifest


def prepare(root: str) -> None:
    clips = pa.table(
        {
            "clip_id": [1, 2, 3],
            "name": ["a", "b", "c"],
            "unit": ["u1", "u1", "u2"],
            "video": pa.nulls(3, tables.SOURCE),
            "audio": pa.nulls(3, tables.SOURCE),
            "text": ["hello", None, "no"],
            "start_s": pa.nulls(3, pa.float64()),
            "end_s": pa.nulls(3, pa.float64()),
            "duration_s": [1.0, 2.0, 3.0],
            "words": pa.nulls(3, tables.WORDS),
            "dialogue": pa.nulls(3, pa.string()),
            "turn": pa.nulls(3, pa.int64()),
            "speaker": ["s", "s", "t"],
            "group": ["s", "s", "t"],
            "split": ["train", "train", "test"],
            "cost": [1.0, 2.0, 3.0],
            "keys": pa.nulls(3, tables.KEYS),
            "before": pa.nulls(3, pa.list_(pa.string())),
            "after": pa.nulls(3, pa.list_(pa.string())),
            "mood": ["low", "high", "low"],
        }
    )
    table = tables.MANIFEST.conform(clips)
    storage.publish_table(
        table, storage.join(root, "manifest", "h", "part-0.parquet"), row_group_size=2
    )
    storage.publish_json(
        {
            "name": "tiny",
            "manifest": "h",
            "tasks": {"mood": {"kind": "classification", "classes": ["low", "high"]}},
        },
        storage.join(root, "dataset.json"),
    )


def test_units_are_row_groups_with_their_summed_cost(tmp_path):
    prepare(str(tmp_path))
    refs = manifest.units(str(tmp_path))
    assert [(ref.unit, ref.num_clips, ref.cost) for ref in refs] == [("u1", 2, 3.0), ("u2", 1, 3.0)]
    assert manifest.read_unit(refs[1])["name"].to_pylist() == ["c"]


def test_tasks_come_with_their_classes_in_order(tmp_path):
    prepare(str(tmp_path))
    task = manifest.read_dataset(str(tmp_path)).tasks["mood"]
    assert (task.kind, task.classes, task.outputs) == ("classification", ("low", "high"), 2)


def test_only_the_wanted_columns_are_read(tmp_path):
    prepare(str(tmp_path))
    assert manifest.read_manifest(str(tmp_path), ["name"]).column_names == ["name"]


def test_an_empty_root_and_unknown_folds_say_what_to_type(tmp_path):
    with pytest.raises(NotPreparedError, match="affuse prepare"):
        manifest.read_dataset(str(tmp_path))
    prepare(str(tmp_path))
    with pytest.raises(NotPreparedError, match=r"no folds 'subject' .*there: none"):
        manifest.read_folds(str(tmp_path), "subject")


def test_a_file_of_another_table_is_refused(tmp_path):
    prepare(str(tmp_path))
    stray = tables.FOLDS.conform(pa.table({"clip_id": [1], "fold": [0]}))
    storage.publish_table(stray, storage.join(str(tmp_path), "manifest", "h", "part-1.parquet"))
    with pytest.raises(SchemaError, match="is FOLDS/1, expected MANIFEST/2"):
        manifest.read_manifest(str(tmp_path))
