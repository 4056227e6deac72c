"""The columns of every table, in one place.

A table is plain Arrow in Parquet: pandas, polars and DuckDB read it without this project. Its schema's
name and version stand in the footer as `affuse.schema = NAME/VERSION`. Times are seconds from the
start of the clip; `null` means "not there", never a placeholder.

`Table.conform` is called on both sides: by whoever writes (so that a declaration cannot lie) and by
whoever reads (so that an older or foreign file is refused by name).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import SchemaError

SCHEMA_KEY = b"affuse.schema"

ROLES = ("train", "valid", "oof", "test")
"""valid: chose the epoch. oof: held out from training and stopping. test: loaded by `evaluate` only."""

SPLITS = ("train", "valid", "test")

SOURCE = pa.struct([("uri", pa.string()), ("offset", pa.int64()), ("size", pa.int64())])
"""A media file, or a byte range of a tar or Parquet shard (offset and size null: the whole file)."""

WORDS = pa.list_(
    pa.struct([("text", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64())])
)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Name, version, columns and key of one kind of table."""

    name: str
    version: int
    schema: pa.Schema
    key: tuple[str, ...]
    """Columns that together identify a row."""

    open_ended: bool = False
    """Further columns are allowed (tasks of a manifest, side columns of an encoder)."""

    @property
    def tag(self) -> str:
        """The footer value, e.g. ``MANIFEST/1``."""
        return f"{self.name}/{self.version}"

    def conform(self, table: pa.Table, *, footer: Mapping[str, object] | None = None) -> pa.Table:
        """Order and cast the columns, check the key's presence, and stamp the footer.

        Args:
            table: rows to write.
            footer: further facts for the footer, stored as JSON under `affuse.<key>`.

        Raises:
            SchemaError: a column is missing, unknown, or has a type that does not cast.
        """
        missing = [name for name in self.schema.names if name not in table.column_names]
        if missing:
            raise SchemaError(
                f"{self.tag}: columns {missing} are missing; came: {table.column_names}"
            )
        extra = [name for name in table.column_names if name not in self.schema.names]
        if extra and not self.open_ended:
            raise SchemaError(f"{self.tag}: unknown columns {extra}; known: {self.schema.names}")
        fields = [*self.schema, *(table.schema.field(name).remove_metadata() for name in extra)]
        try:
            cast = table.select([*self.schema.names, *extra]).cast(pa.schema(fields))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise SchemaError(f"{self.tag}: {error}") from error
        for name in self.key:
            if cast[name].null_count:
                raise SchemaError(f"{self.tag}: key column {name!r} holds nulls")
        metadata = {SCHEMA_KEY: self.tag.encode()}
        for name, value in (footer or {}).items():
            metadata[f"affuse.{name}".encode()] = json.dumps(value, sort_keys=True).encode()
        return cast.replace_schema_metadata(metadata)

    def check(self, schema: pa.Schema, *, where: str, renew: str = "") -> None:
        """Refuse a file whose footer names another table.

        Args:
            schema: of the file.
            where: its name.
            renew: the command that writes an older version anew.

        Raises:
            SchemaError: naming the file, what it is, what was expected and what to type.
        """
        tag = (schema.metadata or {}).get(SCHEMA_KEY, b"no affuse table").decode()
        if tag != self.tag:
            older = renew and tag.startswith(f"{self.name}/")
            hint = f"; type: {renew}" if older else ""
            raise SchemaError(f"{where}: is {tag}, expected {self.tag}{hint}")


def footer_of(schema: pa.Schema) -> dict[str, object]:
    """The facts that `conform` put into the footer."""
    return {
        key.decode().removeprefix("affuse."): json.loads(value)
        for key, value in (schema.metadata or {}).items()
        if key.startswith(b"affuse.") and key != SCHEMA_KEY
    }


KEY_PARTS = ("sound", "heard", "picture", "text", "words", "past", "around", "split", "people")
"""What the rows of a unit may depend on, each a hash over its clips, the same in all rows of a unit.

sound, picture: the source, its size and time of change or ETag, and the segment. heard: the sound of those
clips alone that have no text, which a transcriber reads. text, words: of the clips. past, around: the texts
before, or before and after them, in their dialogues' order. split: which are of the test split. people:
dialogue, turn and speaker. The key of a unit in a table is the hash of the parts that its encoder reads.
"""

KEYS = pa.struct([(part, pa.string()) for part in KEY_PARTS])

MANIFEST = Table(
    name="MANIFEST",
    version=2,
    key=("clip_id",),
    open_ended=True,  # one column per task (string, float64 or list<float64>), structs `profile`, `votes`
    schema=pa.schema(
        [
            ("clip_id", pa.int64()),
            ("name", pa.string()),
            ("unit", pa.string()),
            ("video", SOURCE),
            ("audio", SOURCE),
            ("text", pa.string()),
            ("start_s", pa.float64()),
            ("end_s", pa.float64()),
            ("duration_s", pa.float64()),
            ("words", WORDS),
            ("dialogue", pa.string()),
            ("turn", pa.int64()),
            ("speaker", pa.string()),
            ("group", pa.string()),
            ("split", pa.string()),
            ("cost", pa.float64()),
            ("keys", KEYS),
            # Texts of the dialogue's turns that stand in other units, in order: in the first row of a
            # dialogue in a unit, null where the unit holds the whole dialogue.
            ("before", pa.list_(pa.string())),
            ("after", pa.list_(pa.string())),
        ]
    ),
)

UNITS = Table(
    name="UNITS",
    version=1,
    key=("unit",),
    # Its footer holds the sizes of the manifest's files: of other files it says nothing.
    schema=pa.schema(
        [
            ("unit", pa.string()), ("file", pa.string()), ("row_group", pa.int64()),
            ("num_clips", pa.int64()), ("cost", pa.float64()), ("wordless", pa.int64()), ("keys", KEYS),
        ]
    ),
)  # fmt: skip

FOLDS = Table(
    name="FOLDS",
    version=1,
    key=("clip_id",),
    schema=pa.schema([("clip_id", pa.int64()), ("fold", pa.int64())]),
)

TRANSCRIPTS = Table(
    name="TRANSCRIPTS",
    version=1,
    key=("clip_id",),
    schema=pa.schema(
        [
            ("clip_id", pa.int64()),
            ("text", pa.string()),
            ("words", WORDS),
            ("language", pa.string()),
            ("confidence", pa.float64()),
            ("status", pa.string()),
            ("error", pa.string()),
        ]
    ),
)


def features(dim: int, dtype: str = "float16") -> Table:
    """The FEATURES table of an encoder: `steps x dim` values a clip.

    Args:
        dim: width of one step (of all stacked layers together).
        dtype: ``float16`` for nets, ``float32`` for handcrafted and imported features, ``uint8`` of pictures.
    """
    value = {"float16": pa.float16(), "float32": pa.float32(), "uint8": pa.uint8()}[dtype]
    return Table(
        name="FEATURES",
        version=1,
        key=("clip_id",),
        open_ended=True,
        schema=pa.schema(
            [
                ("clip_id", pa.int64()),
                ("values", pa.list_(pa.list_(value, dim))),
                ("step_start_s", pa.list_(pa.float32())),
                ("step_end_s", pa.list_(pa.float32())),
                ("valid", pa.list_(pa.bool_())),
                ("status", pa.string()),
                ("error", pa.string()),
            ]
        ),
    )


PREDICTIONS = Table(
    name="PREDICTIONS",
    version=1,
    key=("clip_id", "run", "fold", "seed", "task"),
    schema=pa.schema(
        [
            ("clip_id", pa.int64()), ("run", pa.string()), ("split", pa.string()),
            ("fold", pa.int64()), ("seed", pa.int64()), ("task", pa.string()),
            ("target", pa.list_(pa.float64())), ("role", pa.string()), ("scores", pa.list_(pa.float64())),
        ]
    ),
)  # fmt: skip

SCORES = Table(
    name="SCORES",
    version=4,
    key=("clip_id", "task", "bundle"),
    schema=pa.schema(
        [
            ("clip_id", pa.int64()), ("name", pa.string()), ("task", pa.string()), ("bundle", pa.string()),
            # A piece of the clip; null: all of it.
            ("start_s", pa.float64()), ("end_s", pa.float64()),
            ("label", pa.list_(pa.string())), ("confidence", pa.float64()),
            ("probabilities", pa.map_(pa.string(), pa.float64())), ("value", pa.float64()),
            ("possible", pa.list_(pa.string())), ("certain", pa.list_(pa.string())),
            ("low", pa.float64()), ("high", pa.float64()), ("modalities", pa.list_(pa.string())),
            ("expected", pa.float64()), ("unusual", pa.list_(pa.string())),
            ("status", pa.string()), ("error", pa.string()),
        ]
    ),
)  # fmt: skip

COVERED = Table(
    name="COVERED",
    version=1,
    key=("clip_id",),
    # covered: 1 or 0, one number a label or one; null where the truth or the answer is not known.
    schema=pa.schema(
        [("clip_id", pa.int64()), ("covered", pa.list_(pa.float64())), ("size", pa.float64())]
    ),
)

EXPLANATIONS = Table(
    name="EXPLANATIONS",
    version=1,
    key=("clip_id", "task", "kind", "player"),
    schema=pa.schema(
        [
            ("clip_id", pa.int64()),
            ("name", pa.string()),
            ("task", pa.string()),
            # modality or member: what the player adds. answer: of the bundle; empty: told nothing.
            ("kind", pa.string()),
            ("player", pa.string()),
            ("values", pa.map_(pa.string(), pa.float64())),
        ]
    ),
)

Column: TypeAlias = pa.ChunkedArray | pa.Array
"""A column of lists. Arrays of all rows' steps go in and come out; a null list is a clip that has none."""


def vector_lists(
    arrays: Sequence[np.ndarray | None], width: int, dtype: np.dtype[Any] | type[np.generic]
) -> pa.Array:
    """A column of lists of vectors.

    Args:
        arrays: of each row its steps [step width]; None is null.
        width: of a vector.
        dtype: of its numbers.
    """
    flat = _joined([None if a is None else np.reshape(a, -1) for a in arrays], dtype)
    return _lists(arrays, pa.FixedSizeListArray.from_arrays(pa.array(flat), width))


def scalar_lists(
    arrays: Sequence[np.ndarray | None],
    dtype: np.dtype[Any] | type[np.generic],
    *,
    nan_is_null: bool = False,
) -> pa.Array:
    """A column of lists of single values.

    Args:
        arrays: of each row its steps [step]; None is null.
        dtype: of the values.
        nan_is_null: write nan, which stands for what is not known, as null.
    """
    return _lists(arrays, pa.array(_joined(arrays, dtype), from_pandas=nan_is_null))


def vectors_of(column: Column) -> np.ndarray:
    """The vectors of all rows behind one another [step width]."""
    width = column.type.value_type.list_size
    return scalars_of(_flat(column)).reshape(-1, width)


def scalars_of(column: Column) -> np.ndarray:
    """The values of all rows behind one another [step]."""
    return np.asarray(_flat(column).to_numpy(zero_copy_only=False))


def lengths_of(column: Column) -> np.ndarray:
    """Items of each row, int64 [row]; a null list has none."""
    counts = pc.fill_null(pc.list_value_length(column), 0)
    return np.asarray(counts.to_numpy(zero_copy_only=False), np.int64)


def _joined(
    arrays: Sequence[np.ndarray | None], dtype: np.dtype[Any] | type[np.generic]
) -> np.ndarray:
    present = [np.asarray(array, dtype) for array in arrays if array is not None]
    return np.concatenate(present) if present else np.zeros(0, dtype)


def _lists(arrays: Sequence[np.ndarray | None], values: pa.Array) -> pa.Array:
    lengths = [0 if array is None else len(array) for array in arrays]
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    absent = pa.array([array is None for array in arrays], pa.bool_())
    return pa.ListArray.from_arrays(offsets, values, mask=absent)


def _flat(column: Column) -> pa.Array:
    """The items of all lists behind one another."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array.flatten()
