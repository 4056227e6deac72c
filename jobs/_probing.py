"""Looking into every file once: stamps (size, time of change) and headers, in supervised processes."""

import dataclasses
import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa

from cluster import console, storage
from cluster.errors import MediaError
from encoders.media import Decoder, Probe, Source

Item = TypeVar("Item")
Result = TypeVar("Result")

Outcome = Probe | MediaError

PROBE_TYPES = {
    "duration_s": pa.float64(),
    "has_video": pa.bool_(),
    "has_audio": pa.bool_(),
    "fps": pa.float64(),
    "width": pa.int64(),
    "height": pa.int64(),
    "rotation": pa.int64(),
    "video_codec": pa.string(),
    "audio_codec": pa.string(),
    "rate_hz": pa.int64(),
    "channels": pa.int64(),
}
Stamp = Mapping[str, object] | None


def stamps_of(uris: Iterable[str], workers: int) -> dict[str, Stamp]:
    """Size and time of change of every file; None where there is none."""

    def stamp(uri: str) -> Stamp:
        try:
            return storage.storage_facts(uri)
        except (OSError, ValueError):
            return None

    unique = sorted(set(uris))
    with ThreadPoolExecutor(workers) as pool:
        return dict(zip(unique, pool.map(stamp, unique), strict=True))


def probe_all(
    sources: Iterable[Source],
    stamps: Mapping[str, Stamp],
    known: Mapping[str, Outcome],
    workers: int,
) -> dict[str, Outcome]:
    """Headers of every source by `key`; those known from an earlier time are not opened again."""
    wanted = {key(source, stamps): source for source in sources}
    found = {name: known[name] for name in wanted if name in known}
    todo = [(name, source) for name, source in wanted.items() if name not in found]
    if todo:
        outcomes = _in_processes(_look, [source for _, source in todo], workers)
        found |= {name: outcome for (name, _), outcome in zip(todo, outcomes, strict=True)}
    return found


def key(source: Source, stamps: Mapping[str, Stamp]) -> str:
    """What a probe depends on."""
    return json.dumps([source.uri, source.offset, source.size, stamps.get(source.uri)])


def read_probes(root: str) -> dict[str, Probe]:
    """The probes that an earlier run of `prepare` kept; files with faults are looked at again each time."""
    uri = storage.join(root, "probes.parquet")
    if not storage.exists(uri):
        return {}
    table = storage.read_table(uri)
    return {row.pop("key"): Probe(**row) for row in table.to_pylist()}


def publish_probes(probes: Mapping[str, Outcome], known: Mapping[str, Probe], root: str) -> None:
    """Keep the probes for the next time, a row a file with its length, codecs, size and rates."""
    found = {name: probe for name, probe in probes.items() if isinstance(probe, Probe)}
    if set(found) <= set(known):
        return
    rows = [
        {"key": name, **dataclasses.asdict(probe)}
        for name, probe in sorted({**known, **found}.items())
    ]
    schema = pa.schema([("key", pa.string()), *((f, PROBE_TYPES[f]) for f in PROBE_TYPES)])
    table = pa.Table.from_pylist(rows, schema)
    storage.publish_table(table, storage.join(root, "probes.parquet"))


def _look(decoder: Decoder, source: Source) -> Outcome:
    try:
        return decoder.probe(source)
    except MediaError as error:
        return error


def _in_processes(
    act: Callable[[Decoder, Item], Result], items: Sequence[Item], workers: int
) -> list[Result]:
    """`act` on every item, in threads that own a decoder each; results in the items' order."""
    results: dict[int, Result] = {}
    waiting = iter(enumerate(items))
    lock = threading.Lock()
    with console.bar("probing", len(items)) as advance:

        def serve() -> None:
            # A decoder belongs to the thread that made it.
            with Decoder() as decoder:
                while True:
                    with lock:
                        number, item = next(waiting, (None, None))
                    if number is None:
                        return
                    results[number] = act(decoder, item)  # type: ignore[arg-type]
                    advance()

        workers = min(workers, len(items))
        with ThreadPoolExecutor(workers) as pool:
            for future in [pool.submit(serve) for _ in range(workers)]:
                future.result()
    return [results[number] for number in range(len(items))]
