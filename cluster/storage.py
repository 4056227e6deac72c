"""One filesystem layer: everything below a root is read and written through fsspec.

The published file is the commit. A table is finished in memory and appears under its final name in one
step: a temporary name and a rename on a POSIX disk, one PUT on an object store. A reader therefore never
sees half a file, a retry or a twin writes equal rows under the same name, and "is it done?" is "does the
name exist?".
"""

import contextlib
import errno
import io
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import AbsentError, ConfigError, StorageError, TableError
from cluster.home import expanded
from cluster.one_step import in_one_step, unless_equal
from cluster.redaction import redacted
from cluster.refusals import asking, in_the_way
from cluster.scratch import scratch_folder


def absolute(root: str) -> str:
    """A local path made absolute, a URI left alone: workers run in other folders."""
    return root if "://" in root else os.path.abspath(expanded(root))


def join(root: str, *parts: str) -> str:
    """Path or URI below `root`.

    Raises:
        ConfigError: a part leads out of it, as a name in a stranger's file may.
    """
    for part in parts:
        if ".." in part.split("/") or "\0" in part or "\n" in part:
            raise ConfigError(f"{part[:100]!r} is no place below {root}")
    return "/".join([root.rstrip("/"), *(part.strip("/") for part in parts)])


def filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec filesystem of a path or URI, and the path inside it.

    Raises:
        ConfigError: no storage goes by that scheme, or its package is not installed.
    """
    if "://" not in uri:
        # fsspec would take `a::b.mp4`, a file's name, for two chained places.
        local = fsspec.filesystem("file")
        return local, str(local._strip_protocol(uri))
    try:
        return fsspec.core.url_to_fs(uri)  # type: ignore[no-any-return]
    except (ImportError, ValueError) as error:
        what = f"{redacted(uri)[:200]}: {error}"
        raise ConfigError(
            f"{what}; expected a folder, or a URI such as s3://bucket/mine"
        ) from error


def is_local(uri: str) -> bool:
    """Whether a path or URI lies on this machine's disk."""
    return "://" not in uri or uri.startswith("file://")


def exists(uri: str) -> bool:
    """Whether something has been published under this name."""
    fs, path = filesystem(uri)
    # Else a web server that refuses would be one that has nothing.
    strict = {"strict": True} if uri.startswith(("http://", "https://")) else {}
    with asking(uri):
        return bool(fs.exists(path, **strict))


def names(folder: str, suffix: str = "") -> list[str]:
    """Names directly below a folder, sorted; an absent folder is an empty one."""
    fs, path = filesystem(folder)
    fs.invalidate_cache()
    try:
        with asking(folder):
            entries: Iterable[str] = fs.ls(path, detail=False)
    except FileNotFoundError:
        return []
    found = (entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries)
    return sorted(name for name in found if name.endswith(suffix) and not name.startswith("."))


def remove(uri: str) -> None:
    """Delete one file; an absent one is fine."""
    fs, path = filesystem(uri)
    try:
        fs.rm_file(path)
    except FileNotFoundError:
        return


def remove_tree(uri: str) -> None:
    """Delete a folder and all below it; an absent one is fine."""
    fs, path = filesystem(uri)
    fs.invalidate_cache()
    if fs.exists(path):
        fs.rm(path, recursive=True)


def read_bytes(uri: str) -> bytes:
    """The content of a file.

    Raises:
        AbsentError: there is no such file.
    """
    fs, path = filesystem(uri)
    try:
        with asking(uri):
            return bytes(fs.cat_file(path))
    except FileNotFoundError as error:
        raise AbsentError(f"{uri} is not there") from error


def check_file(uri: str) -> None:
    """Refuse to read a local place that is no file of ours to read; a pipe without a writer would block.

    Raises:
        AbsentError: there is nothing, or a link that leads nowhere.
        TableError: it is a folder, a circle of links, a pipe, a socket or a device.
        StorageError: no permission.
    """
    if not is_local(uri):
        return
    path = filesystem(uri)[1]
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            with asking(uri), open(path, "rb"):
                return
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "Is a directory", uri)
    except FileNotFoundError as error:
        why = "is a link that leads nowhere" if os.path.islink(path) else "is not there"
        raise AbsentError(f"{uri} {why}") from error
    except OSError as error:
        if (said := in_the_way(error)) is None:
            raise
        raise TableError(said) from error
    raise TableError(f"{uri} is a pipe, a socket or a device; expected a file: write it to one")


@contextlib.contextmanager
def local_copy(uri: str) -> Iterator[str]:
    """The local path of a file; a remote one is copied for the while.

    Raises:
        AbsentError: there is no such file.
        TableError: something else than a file stands there.
    """
    check_file(uri)
    if not exists(uri):
        raise AbsentError(f"{uri} is not there")
    fs, path = filesystem(uri)
    if is_local(uri):
        yield path
        return
    with scratch_folder() as folder:
        copy = os.path.join(folder, os.path.basename(path))
        fs.get_file(path, copy)
        yield copy


def publish_bytes(content: bytes, uri: str) -> None:
    """Make `content` appear under `uri` in one step; a refusal is none where it stands there already.

    Raises:
        StorageError: disk full, read-only, or no permission.
    """
    fs, path = filesystem(uri)
    with asking(uri), unless_equal(fs, path, io.BytesIO(content)):
        if not is_local(uri):
            fs.pipe_file(path, content)
            return
        with in_one_step(path) as temporary, open(temporary, "wb") as file:
            file.write(content)


def publish_file(path: str, uri: str) -> None:
    """Make a local file appear under `uri` in one step; too large a file for memory will do.

    Raises:
        StorageError: disk full, read-only, or no permission.
    """
    fs, target = filesystem(uri)
    with asking(uri), open(path, "rb") as content, unless_equal(fs, target, content):
        if not is_local(uri):
            fs.put_file(path, target)
            return
        with in_one_step(target) as temporary:
            shutil.copyfile(path, temporary)


def publish_json(value: object, uri: str) -> None:
    """Publish a JSON document, readable by people; URIs lose their secrets."""
    publish_bytes(json_bytes(value), uri)


def json_bytes(value: object) -> bytes:
    """A JSON document, readable by people; URIs lose their secrets."""
    return (json.dumps(redacted(value), indent=2, sort_keys=True) + "\n").encode()


def read_json(uri: str) -> Any:
    """Read a JSON document.

    Raises:
        AbsentError: there is no such file.
        TableError: it is damaged.
    """
    content = read_bytes(uri)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise TableError(
            f"{redacted(uri)}: damaged or cut off, expected JSON ({error}); copy it again, or make it again"
        ) from error


def publish_table(table: pa.Table, uri: str, *, row_group_size: int | None = None) -> None:
    """Publish rows as one Parquet file (zstd)."""
    publish_bytes(table_bytes(table, row_group_size=row_group_size), uri)


def table_bytes(table: pa.Table, *, row_group_size: int | None = None) -> bytes:
    """Rows as one Parquet file (zstd)."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=row_group_size, **parquet_options(table.schema))
    return buffer.getvalue()


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """How tables of a schema are written.

    A dictionary of the numbers in a list, which hardly ever repeat, and their smallest and largest would take
    two thirds of the time that a file of features takes to write, and some more room.
    """
    flat = [field for field in schema if not pa.types.is_nested(field.type)]
    return {
        "compression": "zstd",
        "write_page_checksum": True,
        "use_dictionary": [item.name for item in flat if pa.types.is_string(item.type)],
        "write_statistics": [item.name for item in flat],
    }


def open_parquet(uri: str, *, checked: bool = False, mapped: bool = True) -> pq.ParquetFile:
    """Open a Parquet file for reading by row group or column.

    Args:
        uri: the file.
        checked: compare what is read with its checksums.
        mapped: a file on a disk is mapped; what was read of it counts as memory until it is closed.

    Raises:
        AbsentError: there is no such file.
        TableError: it is damaged.
    """
    fs, path = filesystem(uri)
    with _reading(uri):
        if is_local(uri):
            return pq.ParquetFile(path, memory_map=mapped, page_checksum_verification=checked)
        return pq.ParquetFile(fs.open(path, "rb"), page_checksum_verification=checked)


@contextlib.contextmanager
def _reading(uri: str) -> Iterator[None]:
    try:
        with asking(uri):
            yield
    except FileNotFoundError as error:
        raise AbsentError(f"{uri} is not there") from error
    except (pa.ArrowException, OSError) as error:
        numbered = isinstance(error, StorageError) or getattr(error, "errno", None) is not None
        if numbered or (isinstance(error, OSError) and not is_local(uri)):
            raise  # of the disk or the way to it, not of what stands there
        what = f"{redacted(uri)}: damaged or cut off, expected Parquet ({error})"
        raise TableError(f"{what}; copy it again, or make it again") from error


def read_table(uri: str, columns: list[str] | None = None) -> pa.Table:
    """Read one Parquet file whole."""
    parquet = open_parquet(uri)
    with _reading(uri):
        return parquet.read(columns=columns)


PIECE_BYTES = 16_000_000
"""Of a table that is read piece by piece."""


def table_pieces(
    uri: str,
    ranges: Sequence[tuple[int, int]] | None = None,
    columns: Sequence[str] | None = None,
    *,
    lean: bool = False,
) -> Iterator[pa.Table]:
    """Rows of one Parquet file, some MB at a time.

    Args:
        uri: the file.
        ranges: first and number of the rows that are wanted, ascending; by default all.
        columns: only these columns; by default all.
        lean: read through a small buffer: of a row group larger than memory no more than a piece is held.

    Raises:
        AbsentError: there is no such file.
    """
    parquet = _open_lean(uri) if lean else open_parquet(uri)
    wanted = [(0, parquet.metadata.num_rows)] if ranges is None else ranges
    groups, at = [], []
    begin = 0
    for number in range(parquet.num_row_groups):
        end = begin + parquet.metadata.row_group(number).num_rows
        if any(start < end and start + count > begin for start, count in wanted):
            groups.append(number)
            at.append((begin, end))
        begin = end
    for number, (first, last) in zip(groups, at, strict=True):
        size = parquet.metadata.row_group(number).total_byte_size
        rows = max(1, int(PIECE_BYTES * (last - first) / max(size, 1)))
        start = first
        for batch in parquet.iter_batches(rows, [number], columns, use_threads=not lean):
            table = pa.Table.from_batches([batch]).replace_schema_metadata(None)
            stop = start + table.num_rows
            for begin, count in wanted:
                low, high = max(start, begin), min(stop, begin + count)
                if low < high:
                    yield table.slice(low - start, high - low)
            start = stop


def _open_lean(uri: str) -> pq.ParquetFile:
    fs, path = filesystem(uri)
    source = path if is_local(uri) else fs.open(path, "rb")
    with _reading(uri):
        return pq.ParquetFile(source, buffer_size=1 << 20, pre_buffer=False)
