"""Loose media files into tar shards, so that a large set is not a hundred million objects.

A shard holds the files of successive clips under `<root>/shards/<hash>.tar`, plain tar in the WebDataset
naming (`key.suffix`). A file that has been packed is found again by its path, size and time of change, or by
its path alone once the loose file is gone; shards are never rewritten.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from cluster import storage
from encoders.media import Source
from jobs.catalog import layout
from jobs.preparing.probing import Stamp
from jobs.preparing.workplace import Workplace

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


def pack(place: Workplace, stamps: Mapping[str, Stamp], root: str, shard_mb: float) -> None:
    """Replace every loose file of `rows` by its place in a shard.

    Args:
        place: with `rows`, in the order in which their files should lie in the shards.
        stamps: size and time of change of every source; None where there is no such file.
        root: shards go below it.
        shard_mb: a shard is closed when it holds this many megabytes.
    """
    places = _read_index(root)
    latest = {uri: at for (uri, _), at in places.items()}
    known = len(places)
    kinds = (
        f"""select {kind}.uri as uri, 2 * seq + {k} as n, name from rows where {kind}."offset" is null"""
        for k, kind in enumerate(("video", "audio"))
    )
    place.run(
        f"""
        create table loose as select uri, arg_min(name, n) as name, min(n) as n
        from ({" union all ".join(kinds)}) where uri is not null group by uri
        """
    )
    batch: list[tuple[str, str, bytes]] = []
    for uri, name in _loose(place):
        if stamps.get(uri) is None or (uri, _text(stamps[uri])) in places:
            continue
        batch.append((uri, name, storage.read_bytes(uri)))
        if sum(len(content) for _, _, content in batch) >= shard_mb * 1e6:
            _write_shard(batch, stamps, root, places)
            batch = []
    if batch:
        _write_shard(batch, stamps, root, places)
    if len(places) > known:
        _publish_index(places, root)
    for uri, _ in _loose(place):
        stamp = stamps.get(uri)
        at = latest.get(uri) if stamp is None else places.get((uri, _text(stamp)))
        if at is not None:
            moved = {"loose": uri, "uri": at.uri, "offset": at.offset, "size": at.size}
            place.add("moved", pa.Table.from_pylist([moved]))
    if place.has("moved"):
        for kind in ("video", "audio"):
            place.run(
                f"""
                update rows set {kind} = {{'uri': moved.uri, 'offset': moved."offset", 'size': moved."size"}}
                from moved where {kind}."offset" is null and {kind}.uri = moved.loose
                """
            )


def _loose(place: Workplace) -> Iterator[tuple[str, str]]:
    """Every loose file once, and the name of the first clip that names it."""
    for batch in place.stream("select uri, name from loose order by n"):
        yield from zip(batch["uri"].to_pylist(), batch["name"].to_pylist(), strict=True)


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
