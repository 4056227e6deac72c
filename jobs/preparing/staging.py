"""The rows of a source, gathered in a workplace and checked: every fault of the labels is told at once."""

from collections.abc import Iterator

import pyarrow as pa

from cluster import storage
from cluster.errors import LabelTableError
from encoders.media import Source
from jobs.interop.tables import MOST_LISTED, Faults, raise_faults
from jobs.preparing.adapter import Collected, Preparation
from jobs.preparing.groups import Grouping, group_rows
from jobs.preparing.row_tables import Shape, clip_ids, row_tables, shape_of
from jobs.preparing.workplace import Workplace


def stage(place: Workplace, collected: Collected, config: Preparation) -> tuple[Shape, Grouping]:
    """Fill `rows` and their groups, `grouped`.

    Raises:
        LabelTableError: listing every fault.
    """
    faults = Faults(collected.faults)
    shape = shape_of(collected)
    fill(place, collected, shape, faults)
    faults.extend(_twins(place))
    grouping = group_rows(place, storage.absolute(getattr(config, "source", "") or "."))
    faults.extend(_straddling(place, "split", "split"))
    for k, name in enumerate(shape.folds):
        faults.extend(_straddling(place, f"fold{k}", f"fold of {name!r}"))
    if not grouping.clips and not faults:
        faults.append("the source holds no clip")
    raise_faults(faults, f"the labels of {collected.name}", LabelTableError)
    return shape, grouping


def sources_of(place: Workplace) -> Iterator[Source]:
    """Every file or part of a file that the rows name, each once."""
    kinds = (
        f"select {kind} as source from rows where {kind} is not null" for kind in ("video", "audio")
    )
    for batch in place.stream(
        f"select distinct source from ({' union all '.join(kinds)}) order by source"
    ):
        yield from (Source(**source) for source in batch["source"].to_pylist())


def fill(place: Workplace, collected: Collected, shape: Shape, faults: Faults) -> None:
    """Fill `rows`; faults of labels are added to the others."""
    count = 0
    empty = shape.schema.empty_table()
    for table in row_tables(collected, shape, faults):
        _add(place, table, count)
        count += table.num_rows
    if not count:
        _add(place, empty, 0)


def _add(place: Workplace, table: pa.Table, start: int) -> None:
    seq = pa.array(range(start, start + table.num_rows), pa.int64())
    place.add(
        "rows", table.append_column("seq", seq).append_column("clip_id", clip_ids(table["name"]))
    )


def _twins(place: Workplace) -> list[str]:
    """A fault for every row whose name, or the id that is made of it, stands before."""
    place.run(
        "create table twins as select clip_id, min(seq) as first, max(seq) as last from rows "
        "group by clip_id having count(*) > 1"
    )
    later = place.run(
        f"""
        select r.name, f.name from twins join rows r using (clip_id) join rows f on f.seq = twins.first
        where r.seq > twins.first order by r.seq limit {MOST_LISTED}
        """
    )
    return [
        f"{name}: the name stands twice" if name == other else f"{name}: id of {other}"
        for name, other in later
    ]


def _straddling(place: Workplace, column: str, what: str) -> list[str]:
    """A fault for every group of which rows stand in several parts."""
    # Of a name that stands twice the last row counts: its fault is told already.
    found = place.run(
        f"""
        select grp, list_sort(list(distinct part)) from (
            select grp, rows.seq,
                (case when later.seq is null then rows."{column}" else later."{column}" end)::varchar as part
            from rows join grouped using (seq) left join twins using (clip_id)
                left join rows later on later.seq = twins.last
        ) where part is not null group by grp having count(distinct part) > 1
        order by min(seq) limit {MOST_LISTED}
        """
    )
    return [
        f"group {group!r} stands in more than one {what}: {', '.join(parts)}; people, "
        "dialogues and films must not straddle them; where clips may, type: --columns group=name"
        for group, parts in found
    ]
