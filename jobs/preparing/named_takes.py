"""Files whose names are codes of what was acted: each take once, and no name with an unknown code."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from cluster import storage
from jobs.preparing.adapter import is_media, is_sound


@dataclass(frozen=True, kw_only=True)
class NamedTakes:
    """The takes below a folder."""

    files: dict[tuple[str, str], str] = field(default_factory=dict)
    """Stem of the name and kind of the file (audio, video) -> where it is."""

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def named_takes(files: Iterable[str], take: re.Pattern[str], shape: re.Pattern[str]) -> NamedTakes:
    """The files that are named as takes are; other files are no matter of the dataset.

    Args:
        files: in a fixed order.
        take: what a name may be.
        shape: what looks as such a name does, whatever its codes are.
    """
    found = NamedTakes()
    copies = 0
    for uri in files:
        stem = PurePosixPath(uri).stem
        if not is_media(uri) or not shape.fullmatch(stem):
            continue
        if not take.fullmatch(stem):
            found.faults.append(f"{uri}: a code of its name is unknown")
            continue
        first = found.files.setdefault((stem, "audio" if is_sound(uri) else "video"), uri)
        if first == uri:
            continue
        if _size(first) == _size(uri):
            copies += 1  # some archives hold the same folder twice
        else:
            found.faults.append(f"{stem} stands twice, with other content: {first} and {uri}")
    if copies:
        found.notes.append(f"{copies} files stand twice, in the same length; the first is read")
    return found


def _size(uri: str) -> int | None:
    fs, path = storage.filesystem(uri)
    size: int | None = fs.info(path)["size"]
    return size
