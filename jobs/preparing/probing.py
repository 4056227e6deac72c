"""Probe every file once: stamp (size, time of change) and headers, in supervised processes.

What is found is kept a piece at a time, so that a job that is killed loses the files of a few seconds, and
gathered to one file when it is done. Ctrl-C waits for nobody: the threads that watch the processes are
daemons.

Reads and writes: <root>/probes.parquet, a row a file; <root>/probes/ while a job goes on
"""

import errno
import hashlib
import json
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import TypeVar

import pyarrow as pa

from cluster import console, stamps, storage
from cluster.errors import AffuseError, MediaError, NotPreparedError
from encoders.media import Decoder, Probe, Source
from jobs.catalog import layout

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

WAITS_S = (0.5, 2.0, 8.0)
"""Before a storage that did not answer is asked again [s]."""

NEVER_THERE = frozenset({errno.EACCES, errno.EINVAL, errno.ELOOP, errno.ENAMETOOLONG, errno.EPERM})
"""What a disk says of names that no file can be read by."""

PIECE, PIECE_S = 1000, 10.0
"""A piece of probes is kept after so many files, or so long [s], whichever comes first."""

PROBES_A_CHILD = 10_000
"""Headers leave nothing behind in the process that reads them, and its start costs as much as 500 of them."""


def stamps_of(uris: Iterable[str], workers: int) -> dict[str, Stamp]:
    """Size and time of change of every file; None where there is none.

    Raises:
        AffuseError: the storage did not answer, also when asked again: "not there" would make other keys,
            and every feature of the file would be made anew.
    """
    unique = sorted(set(uris))
    try:
        listed: Mapping[str, Stamp] = stamps.listed_facts(unique)
    except OSError:
        listed = {}  # each is asked for, patiently
    single = [uri for uri in unique if uri not in listed]
    found = dict(_in_threads(lambda: nullcontext(partial(map, _stamp)), single, workers))
    return {**listed, **{uri: found[number] for number, uri in enumerate(single)}}


def _stamp(uri: str) -> Stamp:
    fault: OSError | None = None
    for wait_s in (0.0, *WAITS_S):
        time.sleep(wait_s)
        try:
            return stamps.source_facts(uri)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        except OSError as error:
            if storage.is_local(uri) and error.errno in NEVER_THERE:
                return None
            fault = error
            if isinstance(error, PermissionError):
                break
    raise AffuseError(
        f"{uri}: the storage does not say whether it is there ({fault}); nothing was written; "
        "type the same command again"
    )


def probe_all(
    sources: Iterable[Source],
    stamps: Mapping[str, Stamp],
    known: Mapping[str, Outcome],
    workers: int,
    root: str | None = None,
) -> dict[str, Outcome]:
    """Headers of every source by `key`; those known from an earlier time are not opened again.

    Args:
        sources: files, or members of shards.
        stamps: of their files.
        known: probes of an earlier time.
        workers: files that are looked at at once.
        root: where pieces are kept while it goes on; None: nowhere.
    """
    wanted = {key(source, stamps): source for source in sources}
    found = {name: known[name] for name in wanted if name in known}
    todo = [(name, source) for name, source in wanted.items() if name not in found]
    if todo:
        with console.bar("probing", len(todo)) as advance, _kept(root) as keep:
            outcomes = _in_threads(_looking, [source for _, source in todo], workers)
            for number, outcome in outcomes:
                name = todo[number][0]
                found[name] = outcome
                keep(name, outcome)
                advance()
    return found


def key(source: Source, stamps: Mapping[str, Stamp]) -> str:
    """Key of a probe: everything that it depends on."""
    return json.dumps([source.uri, source.offset, source.size, stamps.get(source.uri)])


def read_probes(root: str) -> dict[str, Probe]:
    """The probes that earlier runs of `prepare` kept; files with faults are looked at again each time."""
    found: dict[str, Probe] = {}
    # The gathered file last: a second job on this root gathers before it removes the pieces.
    for uri in [*_pieces(root), layout.probes_uri(root)]:
        with suppress(NotPreparedError):
            found |= {row.pop("key"): Probe(**row) for row in storage.read_table(uri).to_pylist()}
    return found


def gather_probes(probes: Mapping[str, Outcome], known: Mapping[str, Probe], root: str) -> None:
    """Put all probes into one file and remove the pieces that it holds.

    Args:
        probes: of this run.
        known: of earlier ones, as `read_probes` found them.
        root: of the dataset.
    """
    pieces = _pieces(root)
    found = {name: probe for name, probe in probes.items() if isinstance(probe, Probe)}
    if pieces or not set(found) <= set(known):
        # Read again: a second job on this root may have kept some since.
        rows = {**known, **read_probes(root), **found}
        storage.publish_table(_table(rows), layout.probes_uri(root))
    for uri in pieces:
        storage.remove(uri)


def _pieces(root: str) -> list[str]:
    folder = layout.probe_pieces_uri(root)
    return [storage.join(folder, name) for name in storage.names(folder, ".parquet")]


def _table(probes: Mapping[str, Probe]) -> pa.Table:
    names = sorted(probes)
    columns = {
        fact: pa.array([getattr(probes[name], fact) for name in names], kind)
        for fact, kind in PROBE_TYPES.items()
    }
    return pa.table({"key": pa.array(names, pa.string()), **columns})


@contextmanager
def _kept(root: str | None) -> Iterator[Callable[[str, Outcome], None]]:
    """What to call with each outcome: pieces of them are published while the work goes on."""
    pending: dict[str, Probe] = {}
    said = time.monotonic()

    def publish() -> None:
        if pending and root is not None:
            name = hashlib.sha256("\n".join(sorted(pending)).encode()).hexdigest()[:16]
            storage.publish_table(_table(pending), layout.probe_pieces_uri(root, f"{name}.parquet"))
        pending.clear()

    def keep(name: str, outcome: Outcome) -> None:
        nonlocal said
        if isinstance(outcome, Probe):
            pending[name] = outcome
        if len(pending) >= PIECE or time.monotonic() - said >= PIECE_S:
            publish()
            said = time.monotonic()

    try:
        yield keep
    finally:
        publish()


@contextmanager
def _looking() -> Iterator[Callable[[Iterator[Source]], Iterator[Outcome]]]:
    """A decoder, which belongs to the thread that made it."""
    with Decoder(recycle_after=PROBES_A_CHILD) as decoder:
        yield decoder.probe_each


def _in_threads(
    begin: Callable[[], AbstractContextManager[Callable[[Iterator[Item]], Iterator[Result]]]],
    items: Sequence[Item],
    workers: int,
) -> Iterator[tuple[int, Result]]:
    """(place, result) of every item as it is done, by threads that begin with something of their own.

    The threads are daemons and are waited for at the end only: whoever stops the work in the middle, by
    Ctrl-C above all, does not wait for a file that hangs.
    """
    results: queue.SimpleQueue[tuple[int, Result] | BaseException] = queue.SimpleQueue()
    waiting = iter(enumerate(items))
    lock, stop = threading.Lock(), threading.Event()

    def taken(places: deque[int]) -> Iterator[Item]:
        while not stop.is_set():
            with lock:
                found = next(waiting, None)
            if found is None:
                return
            places.append(found[0])
            yield found[1]

    def serve() -> None:
        places: deque[int] = deque()
        try:
            with begin() as act:
                for result in act(taken(places)):
                    results.put((places.popleft(), result))
        except BaseException as error:  # noqa: BLE001 (the caller raises it)
            results.put(error)

    threads = [
        threading.Thread(target=serve, daemon=True, name=f"look-{number}")
        for number in range(min(workers, len(items)))
    ]
    try:
        for thread in threads:
            thread.start()
        for _ in items:
            found = results.get()
            if isinstance(found, BaseException):
                raise found
            yield found
        for thread in threads:
            thread.join()
    finally:
        stop.set()
