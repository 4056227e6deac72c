"""Media that lie inside tar and Parquet files, found as byte ranges that can be read in place."""

import contextlib
import tarfile
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster import storage
from cluster.errors import NotPreparedError
from encoders.media import Source
from jobs.preparing.adapter import is_media

NAME_COLUMNS = ("name", "path", "file_name", "__key__", "key", "id")
BYTES_COLUMNS = ("bytes", "content", "audio", "video", "data", "file")


@contextlib.contextmanager
def opened_tar(uri: str) -> Iterator[tarfile.TarFile]:
    """A tar whose members can be read in place.

    Raises:
        NotPreparedError: compressed, cut off, or not a tar.
    """
    fs, path = storage.filesystem(uri)
    try:
        with fs.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            yield tar
    except tarfile.ReadError as error:
        raise NotPreparedError(f"{uri}: not an uncompressed tar ({error})") from error
    except FileNotFoundError as error:
        raise NotPreparedError(f"{uri}: a link to nothing, or removed meanwhile") from error


def inside_tar(uri: str) -> list[tuple[str, Source]]:
    """Name and byte range of every media file in a tar.

    Raises:
        NotPreparedError: compressed, or not a tar: its members cannot be read in place.
    """
    with opened_tar(uri) as tar:
        return [
            (member.name, Source(uri, member.offset_data, member.size))
            for member in tar
            if member.isreg() and is_media(member.name)
        ]


def inside_parquet(uri: str) -> list[tuple[str, Source]]:
    """Name and byte range of every media file in a Parquet file's column of bytes.

    The column is binary, or a struct of `bytes` and `path`; names come from a column of names or that path.

    Raises:
        NotPreparedError: the column is compressed or encoded, so that its values do not lie there as such.
    """
    parquet = storage.open_parquet(uri)
    schema = parquet.schema_arrow
    column = next((name for name in BYTES_COLUMNS if _holds_bytes(schema, name)), None)
    if column is None:
        return []
    nested = pa.types.is_struct(schema.field(column).type)
    naming = next((name for name in NAME_COLUMNS if name in schema.names), None)
    if naming is None and not nested:
        raise NotPreparedError(f"{uri}: has no column of names; one of {', '.join(NAME_COLUMNS)}")
    path = naming or f"{column}.path"
    names = [
        str(cell if naming else cell and cell["path"])
        for group in range(parquet.num_row_groups)
        for cell in parquet.read_row_group(group, columns=[path])[naming or column].to_pylist()
    ]
    places = (
        place
        for starts, sizes in places_in_parquet(uri, column)
        for place in zip(starts, sizes, strict=True)
    )
    return [
        (name, Source(uri, start, size))
        for name, (start, size) in zip(names, places, strict=True)
        if start is not None
    ]


def places_in_parquet(uri: str, column: str) -> Iterator[tuple[list[int | None], list[int]]]:
    """Where the values of a column of bytes lie, a row group at a time: starts, None of no value, and sizes.

    Args:
        uri: the file.
        column: binary, or a struct with `bytes`.

    Raises:
        NotPreparedError: the column is compressed or encoded.
    """
    parquet = storage.open_parquet(uri)
    nested = pa.types.is_struct(parquet.schema_arrow.field(column).type)
    leaf = f"{column}.bytes" if nested else column
    for group in range(parquet.num_row_groups):
        chunk = _chunk(parquet, group, leaf, uri)
        cells = parquet.read_row_group(group, columns=[leaf])[column].to_pylist()
        values = [cell and cell["bytes"] for cell in cells] if nested else cells
        offsets = _offsets(uri, chunk, values)
        yield (
            [None if value is None else at for value, at in zip(values, offsets, strict=True)],
            [len(value or b"") for value in values],
        )


def _holds_bytes(schema: pa.Schema, name: str) -> bool:
    if name not in schema.names:
        return False
    kind = schema.field(name).type
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _chunk(parquet: pq.ParquetFile, group: int, leaf: str, uri: str) -> Any:
    metadata = parquet.metadata.row_group(group)
    chunks = (metadata.column(k) for k in range(metadata.num_columns))
    chunk = next(chunk for chunk in chunks if chunk.path_in_schema == leaf)
    if chunk.compression != "UNCOMPRESSED" or chunk.has_dictionary_page:
        raise NotPreparedError(
            f"{uri}: column {leaf!r} is {chunk.compression.lower()} or dictionary-encoded; media are "
            f"read in place: write it with compression={{{leaf!r}: 'NONE'}}, use_dictionary=False"
        )
    return chunk


def _offsets(uri: str, chunk: Any, values: list[bytes | None]) -> list[int]:
    """Where each value lies: plain encoding puts its length and then its bytes, in order."""
    fs, path = storage.filesystem(uri)
    start = chunk.data_page_offset
    raw = fs.cat_file(path, start=start, end=start + chunk.total_compressed_size)
    at, offsets = 0, []
    for value in values:
        if value is None:
            offsets.append(-1)
            continue
        at = raw.find(len(value).to_bytes(4, "little") + value, at)
        if at < 0:
            raise NotPreparedError(
                f"{uri}: a value of its bytes column does not lie there in plain"
            )
        offsets.append(start + at + 4)
        at += 4 + len(value)
    return offsets
