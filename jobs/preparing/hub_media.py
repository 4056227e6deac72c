"""Films and sounds in columns of bytes: read in place where they lie there as such, else packed into tars.

`datasets` stores a film or sound as a struct of `bytes` and `path`. Arrow files and uncompressed Parquet
files hold the bytes as they are: their ranges are what the manifest names. Compressed ones are unpacked once,
a tar a file, below the root.
"""

import hashlib
import io
import json
import os
import tarfile
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster import storage
from cluster.errors import NotPreparedError
from cluster.scratch import scratch_folder
from cluster.tables import SOURCE
from jobs.catalog import layout
from jobs.preparing.hub_files import (
    arrays_of,
    is_parquet,
    opened_arrow,
    plain_in,
    rows_of,
    sound,
    type_of,
)
from jobs.preparing.probing import stamps_of
from jobs.preparing.shards import opened_tar, places_in_parquet

PACKED_ROWS = 16
"""Rows that are unpacked at once: some are films."""


def holds_media(kind: pa.DataType) -> bool:
    """Whether a column of a type is films or sounds: bytes, or a struct of bytes and path."""
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _is_bytes(field.type) for field in kind)
    return _is_bytes(kind)


def media_places(uri: str, name: str, root: str) -> pa.Array:
    """Where the film or sound of each row lies, as `SOURCE`; null where the row has no bytes.

    Args:
        uri: of the Arrow or Parquet file.
        name: of the column.
        root: compressed media are packed below it.

    Raises:
        NotPreparedError: the file is damaged.
    """
    found = _in_parquet(uri, name) if is_parquet(uri) else _in_arrow(uri, name)
    return _packed(uri, name, root) if found is None else found


def paths_of(uri: str, name: str) -> pa.Array:
    """The path that each row's film or sound had."""
    kind = type_of(uri, name)
    if not pa.types.is_struct(kind) or kind.get_field_index("path") < 0:
        return pa.nulls(rows_of(uri), pa.string())
    kept = [
        pc.struct_field(column, "path").cast(pa.string())
        for column in arrays_of(uri, name, 1024, leaf="path")
    ]
    return pa.concat_arrays(kept) if kept else pa.array([], pa.string())


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _bytes_of(column: pa.Array) -> pa.Array:
    """The bytes of every row; null where the row or its bytes are."""
    return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column


def _in_arrow(uri: str, name: str) -> pa.Array | None:
    """The ranges inside an Arrow file; None where it is compressed."""
    starts, sizes = [], []
    with opened_arrow(uri) as file:
        first, last = file.content.address, file.content.address + file.content.size
        plain = plain_in(file.schema, name)
        for batch in file.batches:
            values = _bytes_of(sound(batch.column(plain)))
            large = pa.types.is_large_binary(values.type)
            _, offsets, content = values.buffers()
            at = np.zeros(len(values) + 1, np.int64)
            if offsets is not None and len(values):
                whole = np.frombuffer(offsets, np.int64 if large else np.int32)
                at = whole[values.offset : values.offset + len(values) + 1].astype(np.int64)
            if content is not None and content.size and not first <= content.address < last:
                return None
            start = 0 if content is None else content.address - first
            starts.append(pa.array(start + at[:-1], mask=np.asarray(values.is_null())))
            sizes.append(pa.array(np.diff(at)))
    return _sources(uri, starts, sizes)


def _in_parquet(uri: str, name: str) -> pa.Array | None:
    """The ranges inside a Parquet file; None where they are compressed or encoded."""
    try:
        places = list(places_in_parquet(uri, name))
    except NotPreparedError:
        return None
    starts = [pa.array(offsets, pa.int64()) for offsets, _ in places]
    return _sources(uri, starts, [pa.array(sizes, pa.int64()) for _, sizes in places])


def _packed(uri: str, name: str, root: str) -> pa.Array:
    """The ranges inside the tar that the column is unpacked into; once, for files of one size and time."""
    stamp = json.dumps([uri, name, stamps_of([uri], 1)[uri]], sort_keys=True)
    digest = hashlib.sha256(stamp.encode()).hexdigest()[:16]
    shard = layout.shards_uri(root, f"{digest}.tar")
    if not storage.exists(shard):
        with scratch_folder() as folder:
            path = os.path.join(folder, "shard.tar")
            _write_tar(uri, name, path)
            storage.publish_file(path, shard)
    count = rows_of(uri)
    starts: list[int | None] = [None] * count
    sizes = [0] * count
    with opened_tar(shard) as tar:
        for member in tar:
            row = int(member.name.partition(".")[0])
            starts[row], sizes[row] = member.offset_data, member.size
    return _sources(shard, [pa.array(starts, pa.int64())], [pa.array(sizes, pa.int64())])


def _write_tar(uri: str, name: str, path: str) -> None:
    row = 0
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for column in arrays_of(uri, name, PACKED_ROWS):
            nested = pa.types.is_struct(column.type)
            for cell in column.to_pylist():
                content = cell["bytes"] if nested and cell is not None else cell
                if content is not None:
                    named = cell.get("path") if nested else None
                    suffix = PurePosixPath(named or "").suffix or ".bin"
                    member = tarfile.TarInfo(f"{row:08d}{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
                row += 1


def _sources(uri: str, starts: list[pa.Array], sizes: list[pa.Array]) -> pa.Array:
    """`SOURCE`s of one file; null where a start is."""
    offsets = pa.concat_arrays(starts) if starts else pa.array([], pa.int64())
    lengths = pa.concat_arrays(sizes) if sizes else pa.array([], pa.int64())
    uris = pa.repeat(pa.scalar(uri), len(offsets))
    columns = [uris, offsets, lengths]
    return pa.StructArray.from_arrays(columns, fields=list(SOURCE), mask=offsets.is_null())
