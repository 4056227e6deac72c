"""The manifest is read as prepare wrote it, a unit a row group."""

from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import stamps, storage, tables
from cluster.errors import NotPreparedError, SchemaError
from jobs.catalog import layout, manifest, unit_rows


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


def test_units_come_from_their_table_as_from_the_manifest_itself(tmp_path):
    """Empty row groups are no units; the text of some clips is not known."""
    prepare(str(tmp_path))
    (file,) = manifest.manifest_files(str(tmp_path))
    table = storage.read_table(file)
    with pq.ParquetWriter(file, table.schema) as writer:
        for part in (table.slice(0, 2), table.slice(0, 0), table.slice(2)):
            writer.write_table(part, row_group_size=2)
    read = manifest.units(str(tmp_path))
    assert [(ref.row_group, ref.wordless) for ref in read] in ([(0, 1), (1, 0)], [(0, 1), (2, 0)])
    publish_rows(str(tmp_path))
    assert from_table(str(tmp_path)) == read


def test_a_table_of_units_of_other_files_is_not_believed(tmp_path):
    prepare(str(tmp_path))
    publish_rows(str(tmp_path))
    before = from_table(str(tmp_path))
    (file,) = manifest.manifest_files(str(tmp_path))
    table = storage.read_table(file).slice(1)
    storage.publish_table(table, file, row_group_size=1)
    after = manifest.units(str(tmp_path))
    assert [ref.num_clips for ref in before] == [2, 1]
    assert [ref.num_clips for ref in after] == [1, 1]
    storage.publish_table(table, file.replace("part-0", "part-1"), row_group_size=2)
    assert [ref.num_clips for ref in manifest.units(str(tmp_path))] == [1, 1, 2]


@pytest.mark.parametrize(
    "odd", ["another version", "no footer", "damaged", "empty", "a bit flipped"]
)
def test_a_table_of_units_that_cannot_be_read_is_done_without(tmp_path, odd):
    prepare(str(tmp_path))
    read = manifest.units(str(tmp_path))
    publish_rows(str(tmp_path))
    uri = layout.units_uri(str(tmp_path), "h")
    table = storage.read_table(uri)
    if odd == "another version":
        metadata = {**table.schema.metadata, tables.SCHEMA_KEY: b"UNITS/99"}
        storage.publish_table(table.replace_schema_metadata(metadata), uri)
    elif odd == "no footer":
        storage.publish_table(table.replace_schema_metadata(None), uri)
    elif odd == "a bit flipped":
        content = bytearray(storage.read_bytes(uri))
        content[content.index(b"u1")] ^= 1
        storage.publish_bytes(bytes(content), uri)
    else:
        content = b"" if odd == "empty" else b"PAR1" + bytes(200) + b"PAR1"
        storage.publish_bytes(content, uri)
    manifest._units.cache_clear()
    assert manifest.units(str(tmp_path)) == read


@given(
    st.lists(
        st.lists(st.tuples(st.none() | st.floats(0, 9), st.booleans()), max_size=4), max_size=5
    )
)
def test_rows_of_units_are_those_that_a_loop_over_the_clips_gives(groups):
    clips = [(f"u{k}", *clip) for k, group in enumerate(groups) for clip in group]
    table = pa.table(
        {
            "unit": pa.array([unit for unit, _, _ in clips], pa.string()),
            "cost": pa.array([cost for _, cost, _ in clips], pa.float64()),
            "text": pa.array([None if mute else "" for _, _, mute in clips], pa.string()),
            "keys": pa.array([{"text": unit} for unit, _, _ in clips], tables.KEYS),
        }
    )
    rows = unit_rows.unit_rows(table, [len(group) for group in groups], "s3://b/m/p.parquet")
    assert [(*row.values(),)[:6] for row in rows.to_pylist()] == [
        (
            f"u{k}", "p.parquet", k, len(group),
            pytest.approx(sum(cost or 0.0 for cost, _ in group)), sum(mute for _, mute in group),
        )
        for k, group in enumerate(groups) if group
    ]  # fmt: skip
    assert [keys["text"] for keys in rows["keys"].to_pylist()] == rows["unit"].to_pylist()


def publish_rows(root):
    """A table of units as `prepare` publishes it."""
    files = manifest.manifest_files(root)
    rows = [unit_rows.of_file(file, storage.open_parquet(file)) for file in files]
    sizes = {file.rsplit("/", 1)[-1]: stamps.stamp_of(file).size for file in files}
    unit_rows.publish(rows, sizes, layout.units_uri(root, "h"))


def from_table(root):
    """The units of a root whose manifest is not looked into."""
    manifest._units.cache_clear()
    with mock.patch.object(unit_rows, "of_file", side_effect=AssertionError("read")):
        return manifest.units(root)


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
