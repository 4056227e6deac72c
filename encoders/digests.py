"""Digest of a user's own model, in twelve hex digits behind its ``file://`` URI.

``file:///models/my-bert`` is written on as ``file:///models/my-bert#0123456789ab``: the features of a model
that was trained on under the same path are then others, and those of a model that was moved are not.
"""

import functools
import hashlib
from pathlib import Path

from cluster.errors import WeightsError

_DIGITS = 12


def stamped(uri: str) -> str:
    """The URI with the digest of what lies there; others, and absent ones, are left alone.

    Raises:
        WeightsError: it carries a digest already, and the content is another one.
    """
    if not uri.startswith("file://"):
        return uri
    path, _, digest = uri.removeprefix("file://").partition("#")
    if not Path(path).exists():
        return uri
    found = _content_digest(Path(path))
    if digest and digest != found:
        raise WeightsError(
            f"{uri} has changed: its content is now {found}; expected {digest}; put the former files "
            "back, or encode and train again from these"
        )
    return f"file://{path}#{found}"


def local_file(uri: str) -> Path:
    """The path of a ``file://`` URI."""
    return Path(uri.removeprefix("file://").partition("#")[0])


def without_path(uri: str) -> str:
    """What of a URI names the content: of a stamped file its digest, of others all."""
    return uri.rpartition("#")[2] if uri.startswith("file://") and "#" in uri else uri


def _content_digest(path: Path) -> str:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    whole = hashlib.sha256()
    for file in files:
        name = file.relative_to(path).as_posix() if file != path else file.name
        whole.update(f"{name} {file_digest(file, file.stat().st_mtime_ns)}\n".encode())
    return whole.hexdigest()[:_DIGITS]


@functools.lru_cache(maxsize=256)
def file_digest(path: Path, modified_ns: int) -> str:
    """sha256 of a file, read once per process and version of it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
