"""Versions of files under their names: sizes and marks of change, on disks and object stores."""

import contextlib
import datetime
import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from cluster.storage import filesystem, is_local

CHANGE_MARKS = (
    "mtime",
    "ETag",
    "etag",
    "LastModified",
    "last_modified",
    "Last-Modified",
    "updated",
    "generation",
    "md5Hash",
    "content_md5",
    "checksum",
    "modified",
    "created",
)
"""What filesystems call the time or the content of a version: disks, S3, Azure, GCS, HTTP, memory."""

CHANGE_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")
"""Those that are a time, latest first."""

SAMPLE_BYTES = 65536

LISTED = 16
"""Files of one folder from which on it is listed: a folder with many others costs a request a thousand."""


def source_facts(uri: str) -> Mapping[str, object]:
    """Size and mark of the present version of a file, for the key of what is made of it.

    Returns:
        ``{"size": bytes, "mtime": text}``; on an object store the ETag, or whatever it has, stands in for
        the time. Where a store has nothing of the kind, the hash of the first and last 64 KiB does.

    Raises:
        FileNotFoundError: there is no such file.
    """
    fs, path = filesystem(uri)
    info = fs.info(path)
    return _facts(info) or _sampled(fs, path, info)


def listed_facts(uris: Iterable[str]) -> dict[str, Mapping[str, object]]:
    """What `source_facts` says of files on object stores, by one request for a thousand of them.

    Args:
        uris: files; those on a disk, with few others in their folder, or without an ETag are left out.

    Raises:
        OSError: the storage did not answer.
    """
    folders: dict[str, list[str]] = {}
    for uri in uris:
        if not is_local(uri):
            folders.setdefault(uri.rpartition("/")[0], []).append(uri)
    found: dict[str, Mapping[str, object]] = {}
    for folder, members in folders.items():
        if len(members) < LISTED:
            continue
        fs, path = filesystem(folder)
        try:
            entries = {entry["name"]: entry for entry in fs.ls(path, detail=True, refresh=True)}
        except (FileNotFoundError, TypeError):  # no folders there, or no such option
            continue
        for uri in members:
            entry = entries.get(filesystem(uri)[1], {})
            # A listing gives times with other digits than a single look; an ETag is the same in both.
            if not entry.get("mtime") and (entry.get("ETag") or entry.get("etag")):
                found[uri] = _facts(entry) or {}
    return found


class FileStamp(NamedTuple):
    """Size and mark of a file; another file under the same name has another stamp."""

    size: int
    mark: str
    node: int | None


def of_folder(folder: str, suffix: str = "") -> dict[str, FileStamp]:
    """Name of each file of a folder -> its stamp, sorted; one listing."""
    fs, path = filesystem(folder)
    fs.invalidate_cache()
    try:
        entries = fs.ls(path, detail=True)
    except FileNotFoundError:
        return {}
    found = {entry["name"].rstrip("/").rsplit("/", 1)[-1]: _stamp(entry) for entry in entries}
    return {
        name: stamp
        for name, stamp in sorted(found.items())
        if name.endswith(suffix) and not name.startswith(".")
    }


def stamp_of(uri: str) -> FileStamp | None:
    """As `of_folder` gives it for one file; None where it is gone."""
    fs, path = filesystem(uri)
    fs.invalidate_cache(os.path.dirname(path))
    try:
        return _stamp(fs.info(path))
    except FileNotFoundError:
        return None


def changed_s(info: Mapping[str, Any]) -> float | None:
    """When a listed file changed [s since 1970]; None where its filesystem does not say."""
    for name in CHANGE_TIMES:
        value = info.get(name)
        if isinstance(value, datetime.datetime):
            return value.timestamp()
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                return datetime.datetime.fromisoformat(value).timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None


def _stamp(info: Mapping[str, Any]) -> FileStamp:
    # A file that is renamed into place has a node of its own, whatever the clock says.
    mark = (_facts(info) or {}).get("mtime", "")
    return FileStamp(int(info.get("size") or 0), str(mark), info.get("ino"))


def _facts(info: Mapping[str, Any]) -> dict[str, object] | None:
    """Size and mark of a version; None where the filesystem has no mark."""
    mark = next((info[name] for name in CHANGE_MARKS if info.get(name)), None)
    if isinstance(mark, datetime.datetime):
        mark = mark.timestamp()  # a listing and a single look may give it in different types
    return None if mark is None else {"size": int(info.get("size") or 0), "mtime": str(mark)}


def _sampled(fs: Any, path: str, info: Mapping[str, Any]) -> dict[str, object]:
    size = int(info.get("size") or 0)
    ends = [(0, min(size, SAMPLE_BYTES)), (max(0, size - SAMPLE_BYTES), size)]
    digest = hashlib.sha256(b"".join(bytes(fs.cat_file(path, *each)) for each in ends))
    return {"size": size, "mtime": f"sample {digest.hexdigest()[:16]}"}
