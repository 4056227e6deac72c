"""Where the media of a dataset lie: a folder that vanished is named before a row is made for each clip."""

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence

import pyarrow.compute as pc

from cluster import storage
from cluster.errors import NotPreparedError
from cluster.session import SessionConfig, cluster_address
from jobs.catalog import layout
from jobs.catalog.manifest import UnitRef, read_columns, read_dataset
from jobs.stream.job import Todo, Work

SAMPLED_UNITS = 8
"""Units, evenly spaced over the manifest, whose media stand for all."""


def check_media(
    root: str,
    work: Work,
    todos: Iterable[Todo],
    refs: Sequence[UnitRef],
    session: SessionConfig,
) -> None:
    """Refuse a job whose clips all lie below a folder that is gone, such as a disk that is not mounted.

    Single files that are missing cost a row each, and so does a folder that only some clips lie in. Of a
    cluster nothing is said: its workers may see folders that this machine does not.

    Args:
        root: of the dataset.
        work: what will be made.
        todos: what is missing of some clip.
        refs: all units.
        session: of the job.

    Raises:
        NotPreparedError: the folder is not there, or is empty.
    """
    if cluster_address(session) is not None:
        return
    needs = [work.needs(todo) for todo in todos]
    sounds, pictures = any(n.rates_hz for n in needs), any(n.frames for n in needs)
    columns = [*(["audio"] if sounds else []), *(["video"] if pictures else [])]
    paths = [*_local_media(refs[:: -(-len(refs) // SAMPLED_UNITS)], columns)] if columns else []
    # The place of one that is remote is not looked for; it is asked when it is read.
    if not paths or None in paths:
        return
    files = [path for path in paths if path is not None]
    if any(os.path.exists(path) for path in files):
        return
    folder = os.path.commonpath([os.path.dirname(path) for path in files])
    if os.path.isdir(folder) and any(os.scandir(folder)):
        return
    state = "is empty" if os.path.isdir(folder) else "is not there"
    config = layout.manifest_uri(root, read_dataset(root).manifest_hash, layout.CONFIG)
    raise NotPreparedError(
        f"{folder} {state}, and the media of {root} lie below it; mount it, or, where they lie elsewhere "
        f"now, type: affuse prepare --config {shlex.quote(config)} "
        f"--root {shlex.quote(root)} --source FOLDER"
    )


def _local_media(refs: Sequence[UnitRef], columns: Sequence[str]) -> Iterator[str | None]:
    """Paths of the media of some units; None for what is not a path."""
    for table in read_columns(refs, columns):
        for name in columns:
            for uri in pc.struct_field(table[name], "uri").unique().to_pylist():
                if uri is not None:
                    yield storage.filesystem(uri)[1] if storage.is_local(uri) else None
