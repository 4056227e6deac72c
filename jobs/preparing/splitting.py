"""Splits and folds: groups are dealt out whole, and every part that was asked for gets some."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster import storage
from cluster.errors import ConfigError
from cluster.tables import FOLDS, SPLITS, footer_of
from jobs.catalog import layout
from jobs.preparing.adapter import Preparation
from jobs.preparing.groups import Grouping
from jobs.preparing.workplace import BATCH_ROWS, Workplace

FIRST_SHOWN = 6


def deal(
    sizes: Iterable[tuple[str, int]],
    shares: Sequence[float],
    fixed: Sequence[tuple[int, int]],
    *,
    rest: int,
    total: int,
) -> Iterator[tuple[str, int]]:
    """Deal groups out to parts so that each gets its share of the clips.

    The largest groups first, each to the part that lacks most; the last ones to parts that would stay empty.

    Args:
        sizes: groups without a part and their numbers of clips, largest first.
        shares: of each part; they sum to 1.
        fixed: parts and sizes of the groups that have theirs already.
        rest: number of groups without a part.
        total: number of all clips.

    Yields:
        Groups and their parts.
    """
    lacks = [share * total for share in shares]
    given: set[int] = set()
    for part, size in fixed:
        lacks[part] -= size
        given.add(part)
    for index, (group, size) in enumerate(sizes):
        left = rest - index
        choices: Sequence[int] = range(len(shares))
        if left <= len(shares):
            empty = set(choices) - given
            wanting = [part for part in empty if shares[part] > 0]
            choices = wanting if left <= len(wanting) else choices
        part = max(choices, key=lambda k: lacks[k])
        given.add(part)
        lacks[part] -= size
        yield group, part


def cut_splits(
    place: Workplace, config: Preparation, grouping: Grouping, config_before: Mapping[str, Any]
) -> None:
    """Cut the splits that were asked for, as `split_of`; groups of an equal cut before keep theirs.

    Args:
        place: with `clips`, and `before`, the clips of the run before at this root.
        config: of this run.
        grouping: where the groups come from.
        config_before: of the run before, empty where there was none.

    Raises:
        ConfigError: fewer groups than parts.
    """
    if not config.shares:
        return
    asked = {"split": config.split, "seed": config.seed}
    again = all(config_before.get(name) == value for name, value in asked.items())
    parts = sum(share > 0 for share in config.shares)
    _group_sizes(place, "clips")
    _check_enough(place, f"--split {config.split}", parts, "parts", grouping)
    number = " ".join(f"when '{split}' then {k}" for k, split in enumerate(SPLITS))
    place.run(
        f"""
        create or replace table fixed as
        select "group", case arg_max(split, n) {number} end as part, min(n) as n
        from before where split is not null and {"true" if again else "false"} group by "group"
        """
    )
    _deal_out(place, config.shares, config.seed)
    place.run("alter table dealt rename to split_of")


def split_column(place: Workplace) -> tuple[str, str]:
    """The split of a clip as SQL, and what has to be joined to `clips` for it."""
    if not place.has("split_of"):
        return "split", ""
    name = " ".join(f"when {k} then '{split}'" for k, split in enumerate(SPLITS))
    return f"case split_of.part {name} end", 'join split_of using ("group")'


def cut_folds(
    place: Workplace, own: Sequence[str], config: Preparation, grouping: Grouping, root: str
) -> list[str]:
    """Fill `folds0`, `folds1` ... (clip_id, fold, n): the dataset's own, and those that were asked for.

    Args:
        place: with `parted` and `planned`.
        own: names of the folds that the dataset brings.
        config: of this run.
        grouping: where the groups come from.
        root: with the folds of an earlier time.

    Returns:
        The names of all.

    Raises:
        ConfigError: fewer groups than folds.
    """
    for k in range(len(own)):
        place.run(
            f"""
            create table folds{k} as select clip_id, fold{k} as fold, place as n
            from planned where fold{k} is not null order by n
            """
        )
    if not config.folds:
        return list(own)
    name = f"group{config.folds}"
    kept = "split is distinct from 'test'"
    _group_sizes(place, f"parted where {kept}")
    _check_enough(place, f"--folds {config.folds}", config.folds, "folds", grouping)
    _fold_before(place, root, name, config.seed)
    place.run(
        f"""
        create or replace table fixed as select "group", arg_max(fold, place) as part, min(place) as n
        from planned join fold_before using (clip_id) where {kept} group by "group"
        """
    )
    _deal_out(place, [1 / config.folds] * config.folds, config.seed)
    names = list(dict.fromkeys([*own, name]))
    place.run(
        f"""
        create or replace table folds{names.index(name)} as
        select clip_id, part as fold, place as n
        from planned join dealt using ("group") where {kept} order by n
        """
    )
    return names


def _group_sizes(place: Workplace, clips: str) -> None:
    place.run(
        f'create or replace table sizes as select "group", count(*) as n from {clips} group by "group"'
    )


def _deal_out(place: Workplace, shares: Sequence[float], seed: int) -> None:
    """Fill `dealt` (group, part) from `sizes` and `fixed`; equal groups in an order drawn from the seed."""
    place.run(
        """
        create or replace table dealt as
        select "group", part::bigint as part, sizes.n as size, fixed.n as n
        from sizes join fixed using ("group")
        """
    )
    fixed = place.run("select part, sum(size)::bigint from dealt group by part order by min(n)")
    place.run(
        f"""
        create or replace table undealt as
        select "group", n from (select *, sha256('{seed:d}/' || "group") as draw from sizes
            where "group" not in (select "group" from dealt))
        order by n desc, draw
        """
    )
    sizes = (
        pair
        for batch in place.stream('select "group", n from undealt')
        for pair in zip(batch["group"].to_pylist(), batch["n"].to_pylist(), strict=True)
    )
    count = place.one("select count(*) from undealt")
    total = place.one("select coalesce(sum(n), 0)::bigint from sizes")
    batch: list[tuple[str, int]] = []
    schema = pa.schema([("group", pa.string()), ("part", pa.int64())])

    def flush() -> None:
        columns = [[group for group, _ in batch], [part for _, part in batch]]
        place.add("dealt_anew", pa.table(columns, schema))
        batch.clear()

    place.run("drop table if exists dealt_anew")
    for pair in deal(sizes, shares, fixed, rest=count, total=total):
        batch.append(pair)
        if len(batch) == BATCH_ROWS:
            flush()
    flush()
    place.run('insert into dealt by name select "group", part from dealt_anew')


def _check_enough(place: Workplace, what: str, parts: int, noun: str, grouping: Grouping) -> None:
    """Refuse fewer groups than parts; with the flag to type.

    Raises:
        ConfigError: there are.
    """
    count, clips = place.run("select count(*), coalesce(sum(n), 0)::bigint from sizes")[0]
    if count >= parts:
        return
    first = [g for (g,) in place.run(f'select "group" from sizes order by 1 limit {FIRST_SHOWN}')]
    some = ", ".join(first[: FIRST_SHOWN - 1]) + (", ..." if count >= FIRST_SHOWN else "")
    by = " and ".join(grouping.groups)
    plural = "group" if count == 1 else "groups"
    raise ConfigError(
        f"{what}: the {clips} clips are only {count} {plural} (by {by}: {some}), "
        f"too few for {parts} {noun} that share none; ask for fewer {noun}, or, where clips of one "
        f"{by} may stand on both sides, type: --columns group=name"
    )


def _fold_before(place: Workplace, root: str, name: str, seed: int) -> None:
    """Fill `fold_before` with the folds of a name where they were cut with the same seed."""
    place.add("fold_before", FOLDS.schema.empty_table())
    uri = layout.folds_uri(root, name)
    if not storage.exists(uri):
        return
    schema = storage.open_parquet(uri).schema_arrow
    FOLDS.check(schema, where=uri)
    of_seed = footer_of(schema).get("seed", seed)
    if of_seed != seed:
        print(f"folds/{name} are cut anew: seed {seed}, before {of_seed}; train on them again")
        return
    for piece in storage.table_pieces(uri):
        place.add("fold_before", piece)


def same_folds(place: Workplace, root: str, names: Sequence[str]) -> bool:
    """Whether the folds of these names are published already, clip by clip."""
    for k, name in enumerate(names):
        uri = layout.folds_uri(root, name)
        if not storage.exists(uri):
            return False
        place.run("drop table if exists published")
        place.add("published", FOLDS.schema.empty_table())
        for piece in storage.table_pieces(uri):
            place.add("published", piece)
        other = f"select clip_id, fold from folds{k}"
        there = "select clip_id, fold from published"
        if place.run(
            f"(({other}) except ({there})) union all (({there}) except ({other})) limit 1"
        ):
            return False
    return True


def publish_folds(
    place: Workplace, root: str, names: Sequence[str], *, footer: Mapping[str, object]
) -> None:
    """Write every set of folds; the footer says which manifest it is of and the seed it was cut with."""
    for k, name in enumerate(names):
        path = os.path.join(place.folder, "folds.parquet")
        schema = FOLDS.conform(FOLDS.schema.empty_table(), footer=footer).schema
        with pq.ParquetWriter(path, schema, **storage.parquet_options(schema)) as writer:
            for rows in place.in_order(f"select clip_id, fold from folds{k}", "n", f"folds{k}"):
                writer.write_table(FOLDS.conform(rows, footer=footer))
        uri = layout.folds_uri(root, name)
        storage.publish_file(path, uri)
        print(f"wrote {uri}: {place.one(f'select count(distinct fold) from folds{k}')} folds")
