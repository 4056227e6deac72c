"""The group of every clip; no split and no fold divides a group.

A clip's group is its `group`, else its `speaker`, else its `dialogue`, else the file that it shares with
others (segments of one film show the same people in the same room), else the clip itself.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from encoders.media import Source
from jobs.preparing.adapter import Row

NAMED = ("group", "speaker", "dialogue")
"""Columns that name the group of a row, in this order."""


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Number of groups by the column (or file) that they come from."""

    groups: Mapping[str, int]
    """Origin of the groups (group, speaker, dialogue, file, clip) -> number of groups."""

    clips: int

    def __str__(self) -> str:
        parts = [f"{count:,} by {basis}" for basis, count in self.groups.items()]
        return f"groups: {', '.join(parts)}"

    @property
    def total(self) -> int:
        """Number of groups."""
        return sum(self.groups.values())

    @property
    def warning(self) -> str | None:
        """Warning where each clip is its own group; else None."""
        if self.clips < 2 or self.total < self.clips:
            return None
        why = "no group, speaker or dialogue is named and no file is shared, so "
        named = [basis for basis in self.groups if basis in NAMED]
        if named:
            why = f"no two clips have the same {' or '.join(named)}, so "
        return (
            f"warning: {why}each clip is its own group: one person may stand on both sides of a "
            "split; name the people where you know them (--columns speaker=COLUMN or group=COLUMN)"
        )


def group_rows(rows: Sequence[Row], source: str = "") -> tuple[list[Row], Grouping]:
    """The rows with their groups, and where the groups come from.

    Args:
        rows: as an adapter collected them.
        source: folder of the media; a file below it is named by its path from there.
    """
    shared = _shared_files(rows, source)
    basis_of: dict[str, str] = {}
    grouped = []
    for index, row in enumerate(rows):
        basis = next((each for each in NAMED if getattr(row, each)), None)
        group = getattr(row, basis) if basis else shared.get(index)
        basis = basis or ("file" if group else "clip")
        group = group or row.name
        basis_of.setdefault(group, basis)
        grouped.append(replace(row, group=group))
    return grouped, Grouping(groups=Counter(basis_of.values()), clips=len(rows))


def _shared_files(rows: Sequence[Row], source: str) -> dict[int, str]:
    """Row -> the file that it shares with other rows, or of which it is a segment.

    A film and a sound recorded beside it may each be shared with other rows: whatever hangs together so is
    one group, called by the first of its files.
    """
    parent: dict[str, str] = {}

    def root(file: str) -> str:
        while parent[file] != file:
            parent[file] = parent[parent[file]]
            file = parent[file]
        return file

    uses: Counter[str] = Counter()
    files_of = [_files(row) for row in rows]
    for files in files_of:
        uses.update(files)
        for file in files:
            parent.setdefault(file, file)
        for file in files[1:]:
            first, other = sorted((root(files[0]), root(file)))
            parent[other] = first
    found = {}
    for index, (row, files) in enumerate(zip(rows, files_of, strict=True)):
        segment = row.start_s is not None or row.end_s is not None
        if files and (segment or any(uses[file] > 1 for file in files)):
            name = root(files[0])
            below = f"{source.rstrip('/')}/"
            found[index] = name.removeprefix(below) if source else name
    return found


def _files(row: Row) -> list[str]:
    """The files that a row reads, each once: members of one shard are files of their own."""
    sources: Iterable[Source] = (item for item in (row.video, row.audio) if item is not None)
    return list(
        dict.fromkeys(
            item.uri if item.offset is None else f"{item.uri}@{item.offset}" for item in sources
        )
    )
