"""Loose media files into tar shards, so that a large set is not a hundred million objects.

A shard holds the files of successive clips under `<root>/shards/<hash>.tar`, plain tar in the WebDataset
naming (`key.suffix`). A file that has been packed is found again by its path, size and time of change, or by
its path alone once the loose file is gone; shards are never rewritten.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from cluster import storage
from encoders.media import Source
from jobs.catalog import layout
from jobs.preparing.adapter import Row
from jobs.preparing.probing import Stamp

INDEX = pa.schema(
    [
        ("uri", pa.string()),
        ("stamp", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
    ]
)

Places = dict[tuple[str, str], Source]
"""(URI, stamp) of a loose file -> where it was packed."""


def packed(
    rows: Sequence[Row], stamps: Mapping[str, Stamp], root: str, shard_mb: float
) -> list[Row]:
    """The same rows with every loose file replaced by its place in a shard.

    Args:
        rows: in the order in which they should lie in the shards.
        stamps: size and time of change of every source; None where there is no such file.
        root: shards go below it.
        shard_mb: a shard is closed when it holds this many megabytes.
    """
    places = _read_index(root)
    latest = {uri: place for (uri, _), place in places.items()}
    known = len(places)
    todo: dict[str, str] = {}
    for row in rows:
        for source in (row.video, row.audio):
            if source is None or source.offset is not None or stamps.get(source.uri) is None:
                continue
            if (source.uri, _text(stamps[source.uri])) not in places:
                todo.setdefault(source.uri, row.name)
    batch: list[tuple[str, str, bytes]] = []
    for uri, name in todo.items():
        batch.append((uri, name, storage.read_bytes(uri)))
        if sum(len(content) for _, _, content in batch) >= shard_mb * 1e6:
            _write_shard(batch, stamps, root, places)
            batch = []
    if batch:
        _write_shard(batch, stamps, root, places)
    if len(places) > known:
        _publish_index(places, root)

    def place(source: Source | None) -> Source | None:
        if source is None or source.offset is not None:
            return source
        stamp = stamps.get(source.uri)
        if stamp is None:
            return latest.get(source.uri, source)
        return places.get((source.uri, _text(stamp)), source)

    return [replace(row, video=place(row.video), audio=place(row.audio)) for row in rows]


def _write_shard(
    batch: Sequence[tuple[str, str, bytes]],
    stamps: Mapping[str, Stamp],
    root: str,
    places: Places,
) -> None:
    buffer = io.BytesIO()
    inside: list[tuple[str, int, int]] = []
    names: set[str] = set()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for uri, name, content in batch:
            if not content:
                continue  # an empty file stays where it is and gets its error row
            member = tarfile.TarInfo(_member(uri, name, names))
            member.size = len(content)
            start = buffer.tell()
            tar.addfile(member, io.BytesIO(content))
            # addfile pads to whole blocks: the content begins after the header's blocks.
            padded = -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            inside.append((uri, buffer.tell() - padded, len(content)))
            assert buffer.tell() - padded > start
    if not inside:
        return
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()[:16]
    shard = layout.shards_uri(root, f"{digest}.tar")
    storage.publish_bytes(buffer.getvalue(), shard)
    for uri, offset, size in inside:
        places[uri, _text(stamps[uri])] = Source(shard, offset, size)


def _member(uri: str, name: str, taken: set[str]) -> str:
    """A key without dots and folders plus the file's suffix, unique in its shard."""
    suffix = uri.rsplit(".", 1)[-1] if "." in uri.rsplit("/", 1)[-1] else "bin"
    stem = name.rsplit(".", 1)[0] if name.endswith("." + suffix) else name
    key = stem.replace("/", "_").replace(".", "_")
    member, number = f"{key}.{suffix}", 1
    while member in taken:
        number += 1
        member = f"{key}-{number}.{suffix}"
    taken.add(member)
    return member


def _text(stamp: Stamp) -> str:
    return json.dumps(stamp, sort_keys=True)


def _read_index(root: str) -> Places:
    uri = layout.shards_uri(root, layout.INDEX)
    if not storage.exists(uri):
        return {}
    return {
        (row["uri"], row["stamp"]): Source(row["shard"], row["offset"], row["size"])
        for row in storage.read_table(uri).to_pylist()
    }


def _publish_index(places: Places, root: str) -> None:
    rows = [
        {"uri": uri, "stamp": stamp, "shard": at.uri, "offset": at.offset, "size": at.size}
        for (uri, stamp), at in places.items()
    ]
    table = pa.Table.from_pylist(rows, INDEX)
    storage.publish_table(table, layout.shards_uri(root, layout.INDEX))
