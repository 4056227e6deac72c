"""One row a unit: where it stands in the manifest, what it costs and what its rows are made of.

A manifest of ten million clips has 160,000 units, each a row group of its own: to open all of them for three
columns takes minutes. `prepare` writes their rows beside the manifest. The rows follow from the manifest, so
that they are no part of its hash, and are read off its files where they are missing.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster import storage
from cluster.errors import AbsentError
from cluster.tables import SCHEMA_KEY, UNITS, footer_of

COLUMNS = ("unit", "cost", "text", "keys")
"""Columns of the manifest that the rows are made of."""


def unit_rows(clips: pa.Table, counts: Sequence[int], file: str) -> pa.Table:
    """The rows of the units of one file.

    Args:
        clips: `COLUMNS` of its clips.
        counts: clips of each row group; a group without any is no unit.
        file: its path or URI.

    Returns:
        A table without the footer of UNITS.
    """
    sizes = np.asarray(counts, np.int64)
    groups = np.flatnonzero(sizes)
    sizes = sizes[groups]
    starts = np.cumsum(sizes) - sizes
    first = clips.select(["unit", "keys"]).take(pa.array(starts))
    name = file.rsplit("/", 1)[-1]
    wordless = pc.is_null(clips["text"]).to_numpy().astype(np.int64)
    columns = {
        "unit": first["unit"],
        "file": pa.array([name] * len(groups), pa.string()),
        "row_group": groups,
        "num_clips": sizes,
        "cost": _sums(pc.fill_null(clips["cost"], 0.0).to_numpy(), starts),
        "wordless": _sums(wordless, starts),
        "keys": first["keys"],
    }
    return pa.table(columns).cast(UNITS.schema)


def _sums(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.add.reduceat(values, starts) if len(starts) else values[:0]


def of_file(file: str, parquet: pq.ParquetFile) -> pa.Table:
    """The rows of the units of one file of a manifest, read off that file."""
    footer = parquet.metadata
    counts = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
    return unit_rows(parquet.read(columns=list(COLUMNS)), counts, file)


def publish(rows: Sequence[pa.Table], sizes: Mapping[str, int], uri: str) -> None:
    """Publish the rows of a manifest.

    Args:
        rows: of each of its files, in order.
        sizes: name of each of its files -> bytes.
        uri: the file to write.
    """
    storage.publish_table(UNITS.conform(pa.concat_tables(rows), footer={"files": dict(sizes)}), uri)


def published(uri: str, sizes: Mapping[str, int]) -> pa.Table | None:
    """The rows that were published of these files; None where none can be read, or they are of others."""
    try:
        parquet = storage.open_parquet(uri, checked=True)
        schema = parquet.schema_arrow
        same_table = (schema.metadata or {}).get(SCHEMA_KEY) == UNITS.tag.encode()
        if not same_table or footer_of(schema).get("files") != dict(sizes):
            return None
        return parquet.read().replace_schema_metadata(None)
    except (AbsentError, OSError, ValueError):
        return None
