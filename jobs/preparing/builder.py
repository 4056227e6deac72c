"""From an adapter to a manifest: `affuse prepare`, and files that are scored without a dataset.

Clips are rows of tables in a workplace from beginning to end (`jobs.preparing.workplace`); what follows from
many of them (twins, groups, splits, units) is asked of the database, what follows from one is made of some
thousand at a time.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from cluster import storage
from cluster.console import readable
from jobs.catalog import layout
from jobs.catalog.manifest import manifest_files
from jobs.catalog.names import checked_name
from jobs.catalog.outputs import publish_config
from jobs.preparing import probing, units
from jobs.preparing.adapter import Preparation
from jobs.preparing.clips import make_clips
from jobs.preparing.packing import pack
from jobs.preparing.publishing import NewFile, facts_of, publish_parts, write_manifest
from jobs.preparing.row_tables import of_part
from jobs.preparing.splitting import cut_folds, cut_splits, publish_folds, same_folds, split_column
from jobs.preparing.staging import sources_of, stage
from jobs.preparing.summary import show_summary
from jobs.preparing.workplace import Workplace, workplace

BEFORE = pa.schema(
    [
        ("n", pa.int64()),
        ("clip_id", pa.int64()),
        ("unit", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
    ]
)


def build(config: Preparation) -> None:
    """Collect, check, probe, split, cut into units, publish under the config's root."""
    with workplace() as place:
        _build(config, place)


def _build(config: Preparation, place: Workplace) -> None:
    root = storage.absolute(config.root)
    collected = of_part(config.collect(), config.part)
    for note in collected.notes:
        print(readable(note))
    for name in (*collected.tasks, *collected.folds):
        checked_name(name, "the task or fold")
    shape, grouping = stage(place, collected, config)
    facts_before, config_before = _before(root, place)
    stamps = probing.stamps_of((source.uri for source in sources_of(place)), config.workers)
    if config.pack:
        pack(place, stamps, root, config.shard_mb)
        stamps |= probing.stamps_of((source.uri for source in sources_of(place)), config.workers)
    known = probing.read_probes(root)
    probes = probing.probe_all(sources_of(place), stamps, known, config.workers, root)
    probing.gather_probes(probes, known, root)
    notes = make_clips(place, shape, stamps, probes, config.max_clip_s)
    place.drop("rows", "grouped", "twins")
    cut_splits(place, config, grouping, config_before)
    units.cut(place, most_clips=config.unit_clips, most_s=config.unit_s)
    plan(place)
    folds = cut_folds(place, shape.folds, config, grouping, root)
    manifest, parts = write_manifest(place, shape, stamps)
    show_summary(place, collected, shape, probes, grouping)
    for note in notes:
        print(readable(note))
    source = str(getattr(config, "source", ""))
    facts = facts_of(collected.name, collected.licence, manifest, shape, source)
    if facts == facts_before and same_folds(place, root, folds):
        count = place.one("select count(*) from clips")
        print(f"nothing to do: {root} holds these {count:,} clips already")
        return
    _publish(place, config, facts, parts, folds)


def plan(place: Workplace) -> None:
    """Make `parted`, the clips with their final splits, and `planned`, the same with their units.

    Its column `place` is their order.
    """
    split, dealt = split_column(place)
    place.run(
        f"create view parted as select clips.* exclude (split), {split} as split from clips {dealt}"
    )
    place.run(
        """
        create view planned as
        select parted.*, placed.place, placed.unit from parted join placed using (seq)
        """
    )


def _before(root: str, place: Workplace) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Facts and config of an earlier run at this root; its clips go into `before`."""
    place.add("before", BEFORE.empty_table())
    uri = layout.dataset_uri(root)
    if not storage.exists(uri):
        return {}, {}
    facts = storage.read_json(uri)
    config = storage.read_json(layout.manifest_uri(root, facts["manifest"], layout.CONFIG))
    count = 0
    for file in manifest_files(root):
        for piece in storage.table_pieces(file, columns=BEFORE.names[1:]):
            numbers = pa.array(range(count, count + piece.num_rows), pa.int64())
            place.add("before", piece.append_column("n", numbers))
            count += piece.num_rows
    return facts, config


def _publish(
    place: Workplace,
    config: Preparation,
    facts: Mapping[str, Any],
    parts: Sequence[NewFile],
    folds: Sequence[str],
) -> None:
    """Publish everything, and dataset.json last: it names the manifest that holds."""
    root = storage.absolute(config.root)
    folder = layout.manifest_uri(root, facts["manifest"])
    publish_parts(parts, root, facts["manifest"])
    name = type(config).__module__.rsplit(".", 1)[-1]
    publish_config(config, folder, dataset=name)
    publish_folds(place, root, folds, footer={"manifest": facts["manifest"], "seed": config.seed})
    storage.publish_json(facts, layout.dataset_uri(root))
    clips, cut = place.run("select count(*), count(distinct unit) from placed")[0]
    print(f"wrote {folder}: {clips:,} clips in {cut:,} units")
