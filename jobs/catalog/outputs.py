"""Outputs whose place the user chose, with the resolved config beside them.

A file of that name may be there already, also the source itself. It is replaced where its record says that it
is an unchanged earlier output, or with --overwrite; a source is never replaced.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cluster import settings, storage
from cluster.errors import ConfigError, StorageError
from cluster.refusals import asking
from jobs.catalog import layout

Content = bytes | Path
"""What becomes a file: its bytes, or a local file that is copied."""


def publish_config(config: Any, folder: str, **more: object) -> None:
    """The resolved config of an output, with absolute places: `--config` takes it from anywhere.

    Args:
        config: of the job.
        folder: of the output.
        more: further entries, such as the dataset of `prepare`.
    """
    facts = {**more, **settings.resolved(config)}
    storage.publish_json(facts, storage.join(folder, layout.CONFIG))


def record_of(out: str) -> str:
    """Place of the record of a single file (config and hash): beside the file."""
    return f"{out}.{layout.CONFIG}"


def check_outputs(
    files: Iterable[str], record: str, *, sources: Iterable[str] = (), overwrite: bool = False
) -> None:
    """Refuse to write where something else is; before the work, and again before it is written.

    Args:
        files: paths or URIs to write.
        record: as `publish_outputs` writes it.
        sources: what the job reads.
        overwrite: files that are no sources may be replaced.

    Raises:
        ConfigError: a file is a source, a folder, or was not made by an earlier run.
        StorageError: one that is not there yet cannot be written.
    """
    files, sources = list(files), list(sources)
    check_place(files)
    for file in (*files, record):
        fs, path = storage.filesystem(file)
        if fs.exists(path) and any(_same(file, source) for source in sources):
            raise ConfigError(f"{file} is what is read; type another --out")
        if fs.isdir(path):
            raise ConfigError(f"{file} is a folder; type another --out")
    made = None if overwrite else _made(record)
    foreign = [file for file in files if made is not None and not _is_made(file, record, made)]
    if made is not None and not made and storage.exists(record):
        foreign.append(record)
    if foreign:
        raise ConfigError(
            f"{foreign[0]} is there, and is not what an earlier run wrote; type another --out, or "
            "--overwrite"
        )


def check_place(files: Iterable[str]) -> None:
    """Refuse new files where nothing can be written: before the work that makes them.

    Of a file that is there nothing is asked, since equal content is written nowhere; nor of object stores.

    Raises:
        StorageError: the disk is read-only or full, or its folder is somebody else's.
        OSError: a file stands where a folder is expected.
    """
    for file in files:
        if not storage.is_local(file) or os.path.lexists(path := storage.filesystem(file)[1]):
            continue
        folder = os.path.dirname(path)
        while not os.path.exists(folder):
            folder = os.path.dirname(folder)
        with asking(path):
            try:
                tempfile.TemporaryFile(dir=folder).close()
            except FileNotFoundError as error:  # as in /proc, whose folders take none
                raise StorageError(f"no file can be made at {folder}") from error
            except OSError as error:
                raise OSError(error.errno, error.strerror, folder) from error


def publish_outputs(
    config: Any, files: Mapping[str, Content], record: str, *, whole: bool = False
) -> None:
    """Write files, and before them their record: the resolved config and the hash of each.

    The record also keeps the hashes of the files that it replaces, so that a run that ends between the
    two leaves nothing that the next run takes for somebody else's.

    Args:
        config: of the job; None: left out of a record that goes elsewhere, since it names places.
        files: path or URI -> content.
        record: place of the record.
        whole: they are all that belongs beside the record; what an earlier run made there besides is
            removed, unless it was changed since.
    """
    before = _made(record)
    made = {}
    for file, content in files.items():
        name, digest = _below(file, record), _digest(content)
        made[name] = [digest, *(each for each in before.get(name, ()) if each != digest)][:2]
    typed = {} if config is None else settings.resolved(config)
    facts = {**typed, settings.MADE: {**before, **made}}
    storage.publish_json(facts, record)
    for file, content in files.items():
        if isinstance(content, bytes):
            storage.publish_bytes(content, file)
        else:
            storage.publish_file(str(content), file)
    for name in before.keys() - made.keys() if whole else ():
        # A record that came from elsewhere may name any file; none above its folder is removed.
        if ".." not in name.split("/"):
            former = storage.join(record.rpartition("/")[0], name)
            if _is_made(former, record, before):
                storage.remove(former)


def _made(record: str) -> Mapping[str, list[str]]:
    """File name -> hashes, of an earlier record; empty where there is none or another file."""
    if not storage.exists(record):
        return {}
    try:
        made = storage.read_json(record)[settings.MADE]
        return {str(name): [str(digest) for digest in digests] for name, digests in made.items()}
    except (ValueError, TypeError, KeyError, AttributeError, OSError):
        return {}


def _below(file: str, record: str) -> str:
    """The name of a file as its record has it: from the folder of the record on."""
    return file.removeprefix(record.rpartition("/")[0] + "/")


def _is_made(file: str, record: str, made: Mapping[str, list[str]]) -> bool:
    if not storage.exists(file):
        return True
    hashes = made.get(_below(file, record), ())
    if not hashes:
        return False
    with storage.local_copy(file) as path:
        return _digest(Path(path)) in hashes


def _digest(content: Content) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _same(left: str, right: str) -> bool:
    """Whether two places are one file, also by way of links."""
    if storage.is_local(left) and storage.is_local(right):
        paths = [storage.filesystem(each)[1] for each in (left, right)]
        return all(map(os.path.exists, paths)) and os.path.samefile(*paths)
    return left == right
