"""Unit files gathered to large ones that hold the present manifest's rows and no others.

Clips that were moved, changed or left out belong to units that the manifest no longer has. Their rows would
stand in a table beside the new ones, and who reads its files without us would see those clips twice. They
are not deleted: a root may be prepared again as it was (a narrower manifest, then the wide one), other
manifests' runs name their hash, and features cost GPU hours. So they are moved to `<root>/former/`, which no
reader of a table opens, and come back from there when their units are wanted again.
"""

import hashlib
import io
import json
from collections.abc import Collection, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from cluster import storage
from jobs._features import (
    PART,
    UnitIndex,
    UnitRows,
    by_file,
    first_of,
    publish_unit,
    published_units,
    with_units,
)


def former_uri(table_uri: str) -> str:
    """Where the rows of units that left the manifest are kept, of `<root>/<kind>/<folder>`."""
    root, kind, folder = table_uri.rstrip("/").rsplit("/", 2)
    return storage.join(root, "former", kind, folder)


def recall(table_uri: str, current: Collection[str]) -> int:
    """Publish again what is kept of units that are in the manifest again.

    Returns:
        How many units.
    """
    former = UnitIndex(former_uri(table_uri))
    back = [unit for unit in current if unit in former]
    wanted = set(back) - (published_units(table_uri) if back else set())
    for unit in back:
        if unit in wanted:
            publish_unit(table_uri, unit, former.read(unit))
    return len(wanted)


def compact(
    table_uri: str,
    order: Sequence[str],
    *,
    former: str | None = None,
    target_mb: float = 256.0,
    least_mb: float = 128.0,
) -> list[str]:
    """Gather unit files (and files smaller than `least_mb`) into files of about `target_mb`.

    Afterwards the folder holds every published unit of `order` once, and nothing else. Killed at any
    moment it leaves every unit readable: the large file appears first, then others go, those that may
    hold older rows of a unit before its own file.

    Args:
        table_uri: folder of the table.
        order: units of the manifest, in its order.
        former: folder for the rows of all other units; None: they go.
        target_mb: size of a large file [MB].
        least_mb: files below this size are gathered again [MB].

    Returns:
        Names of the files written.
    """
    inside = by_file(table_uri)  # an imported file lists no units, and is left alone
    where = first_of(inside)
    rank = {unit: index for index, unit in enumerate(order)}

    def clean(name: str) -> bool:
        """Whether it is a gathered file whose units are all current and stand nowhere newer."""
        uri = storage.join(table_uri, name)
        return name.startswith(PART) and all(
            unit in rank and where[unit].uri == uri for unit in inside[name]
        )

    if all(map(clean, inside)):
        return []
    sizes = {name: _size(storage.join(table_uri, name)) for name in inside}
    settled = {name for name in sizes if clean(name) and sizes[name] >= least_mb * 1e6}
    kept = {unit for name in settled for unit in inside[name]}
    loose = {unit: at for unit, at in where.items() if unit not in kept}
    gone = sorted(unit for unit in loose if unit not in rank)
    if former is not None:
        for group in _groups(gone, loose, sizes, target_mb * 1e6):
            _write_part(former, group, loose)
    in_order = sorted((unit for unit in loose if unit in rank), key=rank.__getitem__)
    written = [
        _write_part(table_uri, group, loose)
        for group in _groups(in_order, loose, sizes, target_mb * 1e6)
    ]
    for name in sorted(sizes, key=lambda name: not name.startswith(PART)):
        if name not in settled and name not in written:
            storage.remove(storage.join(table_uri, name))
    return written


def _size(uri: str) -> int:
    fs, path = storage.filesystem(uri)
    return int(fs.size(path))


def _groups(
    in_order: Sequence[str],
    loose: Mapping[str, UnitRows],
    sizes: Mapping[str, int],
    target: float,
) -> Iterator[list[str]]:
    """Cut the units into files of about `target` bytes; a shared file's bytes count by rows."""
    rows: dict[str, int] = {}
    for at in loose.values():
        rows[at.uri] = max(rows.get(at.uri, 0), at.start + at.count)
    group: list[str] = []
    total = 0.0
    for unit in in_order:
        at = loose[unit]
        share = sizes[at.uri.rsplit("/", 1)[-1]] * at.count / max(1, rows[at.uri])
        if group and total + share > target:
            yield group
            group, total = [], 0.0
        group.append(unit)
        total += share
    if group:
        yield group


def _write_part(table_uri: str, group: Sequence[str], loose: Mapping[str, UnitRows]) -> str:
    """One file of several units, finished in memory and published in one step."""
    inside = [(unit, loose[unit].count) for unit in group]
    digest = hashlib.sha256(json.dumps(inside).encode()).hexdigest()[:16]
    name = f"{PART}{digest}.parquet"
    first = storage.open_parquet(loose[group[0]].uri).schema_arrow
    schema = with_units(first.empty_table(), inside).schema
    buffer = io.BytesIO()
    cached: tuple[str, pa.Table] | None = None
    pending: list[pa.Table] = []
    with pq.ParquetWriter(buffer, schema, compression="zstd") as writer:
        for unit in group:
            at = loose[unit]
            if cached is None or cached[0] != at.uri:
                cached = (at.uri, storage.read_table(at.uri))
            rows = cached[1].slice(at.start, at.count).replace_schema_metadata(schema.metadata)
            pending.append(rows)
            if sum(table.num_rows for table in pending) >= 1024:
                writer.write_table(pa.concat_tables(pending))
                pending = []
        if pending:
            writer.write_table(pa.concat_tables(pending))
    storage.publish_bytes(buffer.getvalue(), storage.join(table_uri, name))
    return name
