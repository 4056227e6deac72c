"""The media files below a source, found by the names that a table of labels has for them."""

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import PurePosixPath

from encoders.media import Source
from jobs.interop.cells import name_of

File = tuple[str, Source]
"""Name below the source (or inside its shard), and where the bytes lie."""


class FilesByName:
    """Files by path and by name, each with and without its suffix, in one normal form of accents.

    Args:
        files: all media files below a source.
    """

    def __init__(self, files: Sequence[File]) -> None:
        self._found: dict[str, list[File]] = defaultdict(list)
        for file in files:
            path = PurePosixPath(name_of(file[0]) or file[0])
            for key in {str(path), str(path.with_suffix("")), path.name, path.stem}:
                self._found[key].append(file)

    def __bool__(self) -> bool:
        return bool(self._found)

    def named(self, name: str | None) -> list[File]:
        """The files that go by a name or path."""
        return self._found.get(name or "", [])

    def at(self, path: str) -> Source | None:
        """The one file at a path below the source."""
        name = name_of(path)
        whole = [place for key, place in self.named(name) if name_of(key) == name]
        return whole[0] if len(whole) == 1 else None

    def in_other_letters(self, name: str | None) -> str | None:
        """The file whose name or path differs from one that finds none in capital letters only.

        >>> found = FilesByName([("set/c4.flac", Source("/d/set/c4.flac"))])
        >>> found.in_other_letters("C4"), found.in_other_letters("set/c4"), found.in_other_letters("C5")
        ('set/c4.flac', None, None)
        """
        if not name or name in self._found:
            return None
        key = self._folded.get(name.casefold())
        return None if key is None else self._found[key][0][0]

    @cached_property
    def _folded(self) -> dict[str, str]:
        """Keys without capital letters -> one of them; made for the first name that finds no file."""
        return {key.casefold(): key for key in self._found}


def names_of(files: Sequence[File]) -> str:
    """Files in words; of one in a shard also the shard."""
    return ", ".join(
        name if place.offset is None else f"{place.uri}::{name}" for name, place in files
    )
