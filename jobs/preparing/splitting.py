"""Splits and folds: groups are dealt out whole, and every part that was asked for gets some."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cluster import storage
from cluster.errors import ConfigError
from cluster.tables import FOLDS, SPLITS, footer_of
from jobs.catalog import layout
from jobs.catalog.manifest import read_folds
from jobs.preparing import units
from jobs.preparing.adapter import Collected, Preparation
from jobs.preparing.groups import Grouping

Folds = Mapping[str, Mapping[int, int]]
"""Name of the folds -> clip -> fold."""


def cut_splits(
    clips: list[units.Clip],
    config: Preparation,
    grouping: Grouping,
    config_before: Mapping[str, Any],
    splits_before: Mapping[str, str],
) -> list[units.Clip]:
    """Cut the splits that were asked for; groups of an equal cut before keep theirs.

    Args:
        clips: manifest rows with their groups.
        config: of this run.
        grouping: where the groups come from.
        config_before: of the run before at this root, empty where there was none.
        splits_before: its splits, by group.

    Raises:
        ConfigError: fewer groups than parts.
    """
    if not config.shares:
        return clips
    asked = {"split": config.split, "seed": config.seed}
    again = all(config_before.get(name) == value for name, value in asked.items())
    fixed = {g: SPLITS.index(split) for g, split in splits_before.items()} if again else {}
    sizes = Counter(clip["group"] for clip in clips)
    parts = sum(share > 0 for share in config.shares)
    if len(sizes) < parts:
        raise ConfigError(too_few(f"--split {config.split}", sizes, parts, "parts", grouping))
    part_of = units.parted(sizes, config.shares, config.seed, fixed)
    return [{**clip, "split": SPLITS[part_of[clip["group"]]]} for clip in clips]


def cut_folds(
    clips: Sequence[units.Clip],
    collected: Collected,
    config: Preparation,
    grouping: Grouping,
    root: str,
) -> Folds:
    """The dataset's own folds, and those that were asked for, over rows that are not test.

    Raises:
        ConfigError: fewer groups than folds.
    """
    folds = {
        name: {c["clip_id"]: fold_of[c["parent"]] for c in clips if c["parent"] in fold_of}
        for name, fold_of in collected.folds.items()
    }
    if not config.folds:
        return folds
    name = f"group{config.folds}"
    kept = [clip for clip in clips if clip["split"] != "test"]
    sizes = Counter(clip["group"] for clip in kept)
    if len(sizes) < config.folds:
        what = f"--folds {config.folds}"
        raise ConfigError(too_few(what, sizes, config.folds, "folds", grouping))
    there = folds_before(root, name, config.seed)
    fixed = {c["group"]: there[c["clip_id"]] for c in kept if c["clip_id"] in there}
    shares = [1 / config.folds] * config.folds
    part_of = units.parted(sizes, shares, config.seed, fixed)
    return {**folds, name: {clip["clip_id"]: part_of[clip["group"]] for clip in kept}}


def folds_before(root: str, name: str, seed: int) -> Mapping[int, int]:
    """The folds of that name where they were cut with the same seed; those of another are cut anew."""
    uri = layout.folds_uri(root, name)
    if not storage.exists(uri):
        return {}
    of_seed = footer_of(storage.open_parquet(uri).schema_arrow).get("seed", seed)
    if of_seed != seed:
        print(f"folds/{name} are cut anew: seed {seed}, before {of_seed}; train on them again")
        return {}
    return read_folds(root, name)


def publish_folds(root: str, folds: Folds, manifest: str, seed: int) -> None:
    """Write every set of folds, each with the manifest it is of and the seed it was cut with."""
    import pyarrow as pa

    for fold, fold_of in folds.items():
        rows = pa.table({"clip_id": list(fold_of), "fold": list(fold_of.values())})
        uri = layout.folds_uri(root, fold)
        footer = {"manifest": manifest, "seed": seed}
        storage.publish_table(FOLDS.conform(rows, footer=footer), uri)
        print(f"wrote {uri}: {len(set(fold_of.values()))} folds")


def too_few(what: str, sizes: Mapping[str, int], parts: int, noun: str, grouping: Grouping) -> str:
    """Error: there are fewer groups than parts; with the flag to type."""
    some = ", ".join(sorted(sizes)[:5]) + (", ..." if len(sizes) > 5 else "")
    by = " and ".join(grouping.groups)
    plural = "group" if len(sizes) == 1 else "groups"
    return (
        f"{what}: the {sum(sizes.values())} clips are only {len(sizes)} {plural} (by {by}: {some}), "
        f"too few for {parts} {noun} that share none; ask for fewer {noun}, or, where clips of one "
        f"{by} may stand on both sides, type: --columns group=name"
    )
