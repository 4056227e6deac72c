"""Files of Hugging Face's `datasets`: which they are, what their columns mean, and the columns themselves.

A saved dataset is folders with `state.json`, which names its Arrow files, and `dataset_info.json`, which
describes its features; `push_to_hub` writes Parquet files with the same description in their footers. Nothing
but pyarrow reads them.
"""

import contextlib
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster import storage
from cluster.errors import LabelTableError, NotPreparedError
from jobs.interop.arrays import SPLIT_KEYS
from jobs.interop.tables import PARQUET, raise_faults, read_table, twins
from jobs.preparing.adapter import decoded

STATE, INFO = "state.json", "dataset_info.json"
DESCRIBED = b"huggingface"
"""Key of a schema's metadata that holds the features."""

SPLIT = re.compile(rf"(?:^|[^a-z])({'|'.join(SPLIT_KEYS)})(?:$|[^a-z])")


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """One Arrow or Parquet file of a dataset."""

    uri: str
    split: str | None
    features: Mapping[str, Any]
    """Column -> its feature, as `datasets` writes it."""


def hub_files(source: str, uris: Sequence[str]) -> list[HubFile]:
    """The files of a dataset: those that `state.json`s name, else all Parquet files.

    Args:
        source: the folder of the dataset.
        uris: all files below it.

    Raises:
        LabelTableError: a description that is damaged, or rows that are picked by indices.
        NotPreparedError: a file that is named and not there, or cannot be opened.
    """
    states = [uri for uri in uris if PurePosixPath(uri).name == STATE]
    if states:
        return [file for state in states for file in _saved(state, set(uris))]
    return [
        HubFile(uri=uri, split=split_in(uri.removeprefix(source)), features=_described(uri))
        for uri in uris
        if PurePosixPath(uri).suffix.lower() in PARQUET
    ]


def split_in(path: str) -> str | None:
    """The split that a path below the source names: of a file, or else of a folder.

    >>> split_in("data/validation-00000-of-00002.parquet")
    'valid'
    """
    for part in reversed(PurePosixPath(path.lower()).parts):
        if found := SPLIT.search(part):
            return SPLIT_KEYS[found[1]]
    return None


class HubColumns(Mapping[str, pa.ChunkedArray]):
    """The columns of all files behind one another, read when they are asked for; classes by their names."""

    def __init__(self, files: Sequence[HubFile], leave_out: Sequence[str] = ()) -> None:
        self.files = files
        headers = [header_of(file.uri) for file in files]
        for file, header in zip(files, headers, strict=True):
            if set(header) != set(headers[0]):
                raise LabelTableError(
                    f"{file.uri}: has the columns {', '.join(header)}, "
                    f"{files[0].uri} has {', '.join(headers[0])}; all files of a dataset have the same"
                )
        self.features = _features(files)
        self._names = [name for name in headers[0] if name not in leave_out]
        self._read: dict[str, pa.ChunkedArray] = {}

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._read:
            self._read[name] = self._column(name)
        return self._read[name]

    def add(self, name: str, column: pa.ChunkedArray) -> None:
        """A further column."""
        self._names.append(name)
        self._read[name] = column

    def __contains__(self, name: object) -> bool:
        return name in self._names  # a Mapping would read the column

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _column(self, name: str) -> pa.ChunkedArray:
        pieces = [_column_of(file.uri, name) for file in self.files]
        classes = class_names(self.features.get(name))
        if classes:
            pieces = [_named(piece, classes) for piece in pieces]
        kind = pieces[0].type
        try:
            return pa.chunked_array([chunk.cast(kind) for p in pieces for chunk in p.chunks], kind)
        except pa.ArrowException as error:
            raise LabelTableError(
                f"{self.files[0].uri}: column {name!r} is {kind}, elsewhere it is not: {error}"
            ) from error


def class_names(feature: Any) -> tuple[str, ...]:
    """The names of a ClassLabel, or of a list of them; none of other features."""
    if isinstance(feature, list) and len(feature) == 1:
        feature = feature[0]
    while isinstance(feature, Mapping) and isinstance(feature.get("feature"), Mapping):
        feature = feature["feature"]
    if not isinstance(feature, Mapping) or feature.get("_type") != "ClassLabel":
        return ()
    return tuple(str(name) for name in feature.get("names") or ())


def header_of(uri: str) -> list[str]:
    """The names of a file's columns; two of one name are a fault."""
    names = [_plain(name) for name in _schema(uri).names]
    raise_faults(twins(names), uri, LabelTableError)
    return names


def type_of(uri: str, name: str) -> pa.DataType:
    """The type of a column."""
    return next(field.type for field in _schema(uri) if _plain(field.name) == name)


def rows_of(uri: str) -> int:
    """The number of a file's rows."""
    if is_parquet(uri):
        with _read_errors(uri):
            return int(storage.open_parquet(uri).metadata.num_rows)
    with opened_arrow(uri) as file:
        return sum(batch.num_rows for batch in file.batches)


class ArrowFile(NamedTuple):
    """An open file of Arrow."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    content: pa.Buffer
    """All its bytes; what is not compressed in `batches` is a view of them."""


@contextlib.contextmanager
def opened_arrow(uri: str) -> Iterator[ArrowFile]:
    """An Arrow file, written as a stream (as `datasets` does) or as a file.

    Raises:
        NotPreparedError: it is damaged.
    """
    with _read_errors(uri), storage.local_copy(uri) as path, pa.memory_map(path) as mapped:
        content = mapped.read_buffer()
        if content.slice(0, min(6, content.size)).to_pybytes() == b"ARROW1":
            file = pa.ipc.open_file(pa.BufferReader(content))
            batches = (file.get_batch(k) for k in range(file.num_record_batches))
            yield ArrowFile(file.schema, batches, content)
        else:
            stream = pa.ipc.open_stream(pa.BufferReader(content))
            yield ArrowFile(stream.schema, iter(stream), content)


def arrays_of(uri: str, name: str, rows: int, *, leaf: str = "") -> Iterator[pa.Array]:
    """One column of a file, at most so many rows at a time.

    Args:
        uri: the file.
        name: of the column.
        rows: at most.
        leaf: field of a struct; a Parquet file is not read for its others.

    Raises:
        NotPreparedError: the file is damaged.
    """
    if is_parquet(uri):
        with _read_errors(uri):
            parquet = storage.open_parquet(uri)
            plain = plain_in(parquet.schema_arrow, name)
            wanted = f"{plain}.{leaf}" if leaf else plain
            for batch in parquet.iter_batches(rows, columns=[wanted]):
                yield batch.column(0)
        return
    with opened_arrow(uri) as file:
        for batch in file.batches:
            column = sound(batch.column(plain_in(file.schema, name)))
            for start in range(0, len(column), rows):
                yield column.slice(start, rows)


def _column_of(uri: str, name: str) -> pa.ChunkedArray:
    if is_parquet(uri):
        column = read_table(uri).columns[name]
        assert isinstance(column, pa.ChunkedArray)
        return column
    with opened_arrow(uri) as file:
        plain = plain_in(file.schema, name)
        found = [sound(batch.column(plain)) for batch in file.batches]
        return pa.chunked_array(found, file.schema.field(plain).type)


def sound(column: pa.Array) -> pa.Array:
    """The column, if its offsets stay inside: those of a stranger's file may lead anywhere."""
    column.validate(full=True)
    return column


def _named(column: pa.ChunkedArray, classes: tuple[str, ...]) -> pa.ChunkedArray:
    """Class numbers, or lists of them, by their names."""
    kind = column.type
    if pa.types.is_integer(kind):
        return pa.chunked_array([_names(chunk, classes) for chunk in column.chunks], pa.string())
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not listed or not pa.types.is_integer(kind.value_type):
        return column
    chunks = []
    for chunk in column.chunks:
        lengths = pc.fill_null(pc.list_value_length(chunk), 0).to_numpy()
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        values = _names(pc.list_flatten(chunk), classes)
        chunks.append(pa.ListArray.from_arrays(offsets, values, mask=chunk.is_null()))
    return pa.chunked_array(chunks, pa.list_(pa.string()))


def _names(numbers: pa.Array, classes: tuple[str, ...]) -> pa.Array:
    """Class numbers by their names; -1 is no class, and a number beyond the names stays one."""
    inside = pc.and_(pc.greater_equal(numbers, 0), pc.less(numbers, len(classes)))
    nothing = pa.scalar(None, numbers.type)
    known = pc.take(pa.array(classes, pa.string()), pc.if_else(inside, numbers, nothing))
    other = pc.if_else(pc.equal(numbers, -1), nothing, numbers).cast(pa.string())
    return pc.if_else(inside, known, other)


def _saved(state: str, uris: set[str]) -> Iterator[HubFile]:
    """The files that a `state.json` names, which lie beside it."""
    folder = state.rpartition("/")[0]
    said = _json(state)
    if said.get("_indices_data_files") or said.get("_indices_files"):
        raise LabelTableError(
            f"{state}: picks rows by indices; save the dataset again after flatten_indices()"
        )
    info = storage.join(folder, INFO)
    features = _json(info).get("features") if info in uris else None
    named = said.get("_data_files")
    names = (
        [entry.get("filename") for entry in named if isinstance(entry, Mapping)]
        if isinstance(named, list)
        else []
    )
    if not names:
        raise LabelTableError(f"{state}: names no data files (_data_files)")
    for name in names:
        if not isinstance(name, str) or PurePosixPath(name).name != name:
            raise LabelTableError(f"{state}: the data file {name!r} does not lie beside it")
        uri = storage.join(folder, name)
        if uri not in uris:
            raise NotPreparedError(f"{state}: names {name}, which is not beside it; copy it again")
        split = split_in(str(said.get("_split") or "")) or split_in(PurePosixPath(folder).name)
        described = features if isinstance(features, Mapping) else _described(uri)
        yield HubFile(uri=uri, split=split, features=described)


def _described(uri: str) -> Mapping[str, Any]:
    """The features that a file's own schema describes."""
    content = (_schema(uri).metadata or {}).get(DESCRIBED)
    try:
        features = json.loads(content or b"{}").get("info", {}).get("features")
    except (AttributeError, RecursionError, ValueError) as error:
        raise LabelTableError(f"{uri}: its description of features is damaged: {error}") from error
    return features if isinstance(features, Mapping) else {}


def _features(files: Sequence[HubFile]) -> Mapping[str, Any]:
    """The features of all files, which agree on the names of classes."""
    features = {_plain(name): feature for name, feature in files[0].features.items()}
    for file in files:
        for name, feature in file.features.items():
            ours, theirs = class_names(features.get(_plain(name))), class_names(feature)
            if ours != theirs:
                raise LabelTableError(
                    f"{file.uri}: {name!r} has the classes {', '.join(theirs)}; "
                    f"{files[0].uri} has {', '.join(ours)}"
                )
    return features


def _json(uri: str) -> Mapping[str, Any]:
    try:
        content = json.loads(decoded(storage.read_bytes(uri)))
    except (RecursionError, ValueError) as error:
        raise LabelTableError(f"{uri}: not JSON: {error}") from error
    if not isinstance(content, Mapping):
        raise LabelTableError(f"{uri}: expected an object of keys and values")
    return content


def _schema(uri: str) -> pa.Schema:
    if is_parquet(uri):
        with _read_errors(uri):
            return storage.open_parquet(uri).schema_arrow
    with opened_arrow(uri) as file:
        return file.schema


@contextlib.contextmanager
def _read_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, EOFError) as error:
        raise NotPreparedError(f"{uri}: damaged, or no Arrow or Parquet file: {error}") from error


def is_parquet(uri: str) -> bool:
    """Whether a file is Parquet by its name."""
    return PurePosixPath(uri).suffix.lower() in PARQUET


def _plain(name: str) -> str:
    """A column's name as tables have it."""
    return unicodedata.normalize("NFC", name.strip())


def plain_in(schema: pa.Schema, name: str) -> str:
    """A column's name as the file has it."""
    names: list[str] = schema.names
    return next(own for own in names if _plain(own) == name)
