"""Reading what `prepare` wrote: the dataset's facts, its manifest, its units of work and its folds.

`<root>/dataset.json` names the present manifest by its hash; `<root>/manifest/<hash>/*.parquet` holds one
unit a row group; `<root>/units/<hash>.parquet` says where each stands; `<root>/folds/<name>.parquet` says
which fold a clip is in.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import pyarrow as pa
import pyarrow.parquet as pq

from cluster import stamps, storage
from cluster.errors import NotPreparedError, TableError
from cluster.tables import FOLDS, MANIFEST, UNITS
from cluster.unit_tables import Version
from fusion.tasks import Task
from jobs.catalog import layout, unit_rows
from jobs.catalog.names import checked_name


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The facts of a root."""

    name: str
    licence: str
    manifest_hash: str
    tasks: Mapping[str, Task]
    profile: tuple[str, ...]
    """Fields of the manifest's `profile` struct."""

    votes: tuple[str, ...] = ()
    """Tasks of which raters' votes are known: the fields of the manifest's `votes` struct."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitRef:
    """Where one unit of work stands in the manifest."""

    unit: str
    file: str
    row_group: int
    num_clips: int
    cost: float
    """Estimated seconds of work."""

    wordless: int = 0
    """Clips without a text."""

    keys: Mapping[str, str] = field(default_factory=dict)
    """Part of `cluster.tables.KEY_PARTS` -> its hash over the unit's clips."""

    def version(self, reads: Sequence[str], *more: str) -> Version:
        """The version of the unit for a table whose rows depend on these parts of its key.

        Args:
            reads: the parts.
            more: what else they depend on.
        """
        meaning = [[part, self.keys.get(part)] for part in reads]
        text = json.dumps([meaning, *more])
        return Version(self.unit, hashlib.sha256(text.encode()).hexdigest()[:16])


def read_dataset(root: str) -> Dataset:
    """The facts of a root.

    Raises:
        NotPreparedError: nothing has been prepared there.
        TableError: the file is damaged, or describes no dataset.
    """
    uri = layout.dataset_uri(root)
    if not storage.exists(uri):
        raise NotPreparedError(
            f"{root} holds no dataset.json; type: "
            f"affuse prepare DATASET --source ... --root {shlex.quote(root)}"
        )
    facts = storage.read_json(uri)
    try:
        dataset = Dataset(
            name=facts["name"],
            licence=facts.get("licence", ""),
            manifest_hash=str(facts["manifest"]),
            tasks={name: Task.from_json(task) for name, task in facts["tasks"].items()},
            profile=tuple(facts.get("profile", ())),
            votes=tuple(facts.get("votes", ())),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise TableError(
            f"{uri}: describes no dataset: expected name, manifest and tasks"
        ) from error
    checked_name(dataset.manifest_hash, f"{uri}: the manifest")
    for name in dataset.tasks:
        checked_name(name, f"{uri}: the task")
    return dataset


def manifest_files(root: str) -> list[str]:
    """The Parquet files of the present manifest."""
    folder = layout.manifest_uri(root, read_dataset(root).manifest_hash)
    files = [storage.join(folder, name) for name in storage.names(folder, ".parquet")]
    if not files:
        raise _no_files(root, folder)
    return files


def read_manifest(root: str, columns: Sequence[str] | None = None) -> pa.Table:
    """All clips of the present manifest, in the order of their units.

    Raises:
        NotPreparedError: it holds none.
    """
    parts = []
    for file in manifest_files(root):
        parquet = _opened(root, file)
        parts.append(parquet.read(columns=None if columns is None else list(columns)))
    table = pa.concat_tables(parts)
    if not table.num_rows:
        raise _no_clips(root)
    return table


def units(root: str) -> list[UnitRef]:
    """The units of the present manifest, in order.

    Raises:
        NotPreparedError: it holds none.
    """
    digest = read_dataset(root).manifest_hash
    files = stamps.of_folder(layout.manifest_uri(root, digest), ".parquet")
    return [*_units(root, digest, tuple(files.items()))]


UNITS_AT_ONCE = 4096
"""Units whose rows are Python objects twice while they are read."""


@lru_cache(1)
def _units(
    root: str, digest: str, stamped: tuple[tuple[str, stamps.FileStamp], ...]
) -> tuple[UnitRef, ...]:
    """The units of one state of a manifest: a command asks for them many times over."""
    folder = layout.manifest_uri(root, digest)
    sizes = {name: stamp.size for name, stamp in stamped}
    files = [storage.join(folder, name) for name in sizes]
    if not files:
        raise _no_files(root, folder)
    _opened(root, files[0])
    rows = unit_rows.published(layout.units_uri(root, digest), sizes)
    if rows is None:
        parts = ((file, _opened(root, file)) for file in files)
        rows = pa.concat_tables(unit_rows.of_file(file, parquet) for file, parquet in parts)
    # Of ten million clips there are 160,000 units: a text that is the same in many is held once.
    once: dict[str, str] = {}
    places = {name: storage.join(folder, name) for name in sizes}
    found = [
        UnitRef(
            unit=unit,
            file=places[file],
            row_group=group,
            num_clips=count,
            cost=cost,
            wordless=wordless,
            keys={part: once.setdefault(key, key) for part, key in (keys or {}).items() if key},
        )
        for piece in rows.to_batches(UNITS_AT_ONCE)
        for unit, file, group, count, cost, wordless, keys in zip(
            *(piece[name].to_pylist() for name in UNITS.schema.names), strict=True
        )
    ]
    if not found:
        raise _no_clips(root)
    return tuple(found)


def _no_files(root: str, folder: str) -> NotPreparedError:
    return NotPreparedError(
        f"{folder} is empty; type: affuse prepare ... --root {shlex.quote(root)}"
    )


def _no_clips(root: str) -> NotPreparedError:
    return NotPreparedError(
        f"the manifest of {root} holds no clips; type: "
        f"affuse prepare DATASET --source ... --root {shlex.quote(root)}"
    )


def _opened(root: str, file: str) -> pq.ParquetFile:
    """A file of the manifest; one of an older version is refused with the command that renews it."""
    parquet = storage.open_parquet(file)
    config = f"{file.rsplit('/', 1)[0]}/{layout.CONFIG}"
    renew = f"affuse prepare --config {shlex.quote(config)} --root {shlex.quote(root)}"
    MANIFEST.check(parquet.schema_arrow, where=file, renew=renew)
    return parquet


def read_unit(ref: UnitRef) -> pa.Table:
    """The clips of one unit."""
    return storage.open_parquet(ref.file).read_row_group(ref.row_group)


def read_columns(refs: Sequence[UnitRef], columns: Sequence[str]) -> list[pa.Table]:
    """Some columns of several units, in order; every file is opened once."""
    files = {file: storage.open_parquet(file) for file in {ref.file for ref in refs}}
    return [files[ref.file].read_row_group(ref.row_group, columns=list(columns)) for ref in refs]


def read_folds(root: str, name: str) -> dict[int, int]:
    """Clip -> fold.

    Raises:
        NotPreparedError: there are no folds of that name, naming those that are.
    """
    uri = layout.folds_uri(root, name)
    if not storage.exists(uri):
        there = ", ".join(layout.folds_there(root)) or "none"
        raise NotPreparedError(
            f"no folds {name!r} under {root} (there: {there}); type: affuse prepare ... --folds 5"
        )
    table = storage.read_table(uri)
    FOLDS.check(table.schema, where=uri)
    return dict(zip(table["clip_id"].to_pylist(), table["fold"].to_pylist(), strict=True))
