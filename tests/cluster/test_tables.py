"""Tables: what a writer may not forget and a reader may not overlook."""

import pyarrow as pa
import pytest

from cluster import tables
from cluster.errors import SchemaError

ROW = {"clip_id": [1], "fold": [0]}


def test_the_footer_names_the_table_and_keeps_further_facts():
    table = tables.FOLDS.conform(pa.table(ROW), footer={"units": ["a", "b"], "n": 3})
    assert table.schema.metadata[tables.SCHEMA_KEY] == b"FOLDS/1"
    assert tables.footer_of(table.schema) == {"units": ["a", "b"], "n": 3}


def test_columns_come_out_in_the_declared_order_and_type():
    table = tables.FOLDS.conform(pa.table({"fold": pa.array([0], pa.int8()), "clip_id": [1]}))
    assert table.schema.equals(tables.FOLDS.schema)


def test_a_missing_column_is_refused_by_name():
    with pytest.raises(SchemaError, match=r"FOLDS/1: columns \['fold'\] are missing"):
        tables.FOLDS.conform(pa.table({"clip_id": [1]}))


def test_an_unknown_column_is_refused_unless_the_table_is_open_ended():
    with pytest.raises(SchemaError, match=r"unknown columns \['colour'\]"):
        tables.FOLDS.conform(pa.table({**ROW, "colour": ["red"]}))
    wide = tables.features(2).conform(one_feature_row(2, side=[[0.5]]))
    assert wide.column_names[-1] == "side"


def test_a_value_that_does_not_cast_is_refused():
    with pytest.raises(SchemaError, match="FOLDS/1"):
        tables.FOLDS.conform(pa.table({"clip_id": ["seven"], "fold": [0]}))


def test_a_null_in_the_key_is_refused():
    with pytest.raises(SchemaError, match="key column 'clip_id' holds nulls"):
        tables.FOLDS.conform(pa.table({"clip_id": pa.array([None], pa.int64()), "fold": [0]}))


def test_a_feature_of_another_width_is_refused():
    with pytest.raises(SchemaError):
        tables.features(3).conform(one_feature_row(2))


def test_a_reader_refuses_another_table_by_name():
    schema = tables.FOLDS.conform(pa.table(ROW)).schema
    with pytest.raises(SchemaError, match=r"x\.parquet: is FOLDS/1, expected MANIFEST/2"):
        tables.MANIFEST.check(schema, where="x.parquet")
    with pytest.raises(SchemaError, match="is no affuse table"):
        tables.FOLDS.check(pa.schema([]), where="x.parquet")


def one_feature_row(dim: int, **side: list) -> pa.Table:
    return pa.table(
        {
            "clip_id": [1],
            "values": pa.array([[[0.0] * dim]], pa.list_(pa.list_(pa.float32(), dim))),
            "step_start_s": [[0.0]],
            "step_end_s": [[1.0]],
            "valid": [[True]],
            "status": ["ok"],
            "error": pa.array([None], pa.string()),
            **side,
        }
    )
