"""The group of every clip; no split and no fold divides a group.

A clip's group is its `group`, else its `speaker`, else its `dialogue`, else the file that it shares with
others (segments of one film show the same people in the same room), else the clip itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from jobs.preparing.workplace import Workplace, quoted

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


def group_rows(place: Workplace, source: str = "") -> Grouping:
    """Fill `grouped` (seq, grp) with the group of each of `rows`, and say where the groups come from.

    Args:
        place: with `rows`.
        source: folder of the media; a file below it is named by its path from there.
    """
    _shared_files(place, source)
    named = ", ".join(f"""nullif("{column}", '')""" for column in NAMED)
    first = " ".join(f"""when "{column}" <> '' then '{column}'""" for column in NAMED)
    place.run(
        f"""
        create table grouped as
        select seq, coalesce({named}, file, name) as grp,
            case {first} when file is not null then 'file' else 'clip' end as basis
        from rows left join shared using (seq) order by seq
        """
    )
    counts = place.run(
        """
        select basis, count(*) from (
            select arg_min(basis, seq) as basis, min(seq) as seq from grouped group by grp
        ) group by basis order by min(seq)
        """
    )
    return Grouping(groups=dict(counts), clips=place.one("select count(*) from rows"))


def _shared_files(place: Workplace, source: str) -> None:
    """Fill `shared` (seq, file): the file that a row shares with other rows, or of which it is a segment.

    A film and a sound recorded beside it may each be shared with other rows: whatever hangs together so is
    one group, called by the first of its files. Members of one shard are files of their own.
    """
    named = " or ".join(f""""{column}" <> ''""" for column in NAMED)
    unnamed = place.one(
        f"select count(*) from rows where not coalesce({named}, false) "
        "and (video is not null or audio is not null)"
    )
    if not unnamed:
        place.run("create table shared (seq bigint, file varchar)")
        return
    file = """case when {0}."offset" is null then {0}.uri else {0}.uri || '@' || {0}."offset" end"""
    place.run(
        f"""
        create table files as
        select *, coalesce(film, sound) as one, coalesce(sound, film) as other from (
            select seq, start_s is not null or end_s is not null as segment,
                {file.format("video")} as film, {file.format("audio")} as sound
            from rows where video is not null or audio is not null)
        """
    )
    place.run(
        """
        create table uses as select file, count(*) as n from (
            select one as file from files
            union all select other from files where other <> one
        ) group by file having count(*) > 1
        """
    )
    _join_files(place)
    below = f"{source.rstrip('/')}/"
    cut = f"substr(file, {len(below) + 1})"
    short = f"case when starts_with(file, {quoted(below)}) then {cut} else file end"
    place.run(
        f"""
        create table shared as select seq, {short if source else "file"} as file from (
            select seq, coalesce(together.first, least(one, other)) as file
            from files left join together on together.file = files.one
            where segment or one in (select file from uses) or other in (select file from uses))
        """
    )


def _join_files(place: Workplace) -> None:
    """Fill `together` (file, first): files that hang together through several rows, by the first of them."""
    parent: dict[str, str] = {}

    def root(file: str) -> str:
        while parent[file] != file:
            parent[file] = parent[parent[file]]
            file = parent[file]
        return file

    pairs = """
        select distinct one, other from files where one <> other
            and (one in (select file from uses) or other in (select file from uses))
    """
    for batch in place.stream(pairs):
        for pair in zip(batch["one"].to_pylist(), batch["other"].to_pylist(), strict=True):
            for file in pair:
                parent.setdefault(file, file)
            first, other = sorted(map(root, pair))
            parent[other] = first
    columns = {"file": list(parent), "first": [root(file) for file in parent]}
    schema = pa.schema([("file", pa.string()), ("first", pa.string())])
    place.add("together", pa.table(columns, schema))
