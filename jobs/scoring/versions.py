"""Versions of scores: the scores of a unit are current while everything they were made from is."""

import shlex
from collections.abc import Iterator, Sequence

import pyarrow as pa

from cluster import storage
from cluster.errors import NotPreparedError
from cluster.unit_tables import Version, locate, ranges_of, unmoved
from jobs.catalog import layout
from jobs.catalog.manifest import UnitRef, read_dataset, units
from jobs.scoring.bundle import Bundle


def reads_of(bundle: Bundle) -> tuple[str, ...]:
    """Parts of `cluster.tables.KEY_PARTS` on which the scores of a clip depend."""
    readers = [*bundle.encoders, *([bundle.transcriber] if bundle.transcriber else [])]
    return tuple(sorted({"people", *(part for item in readers for part in item.reads)}))


def versions_of(root: str, bundle: Bundle, refs: Sequence[UnitRef]) -> dict[str, Version]:
    """Unit -> its scores as they follow from what is read; of linked clips from the whole manifest."""
    reads = reads_of(bundle)
    more = [read_dataset(root).manifest_hash] if bundle.linked else []
    more += bundle.told_stamps
    return {ref.unit: ref.version(reads, *more) for ref in refs}


def describe_scores(uri: str, bundle: Bundle) -> None:
    """Write beside the scores the parts that they depend on."""
    facts = {"reads": reads_of(bundle), "linked": list(bundle.linked)}
    facts |= {"told": list(bundle.told_stamps)} if bundle.told else {}
    storage.publish_json(facts, storage.join(uri, layout.DESCRIPTOR))


def read_scores(root: str, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The current scores of a dataset, one row a clip and task.

    Args:
        root: of the dataset.
        name: of the scores.
        columns: only these; by default all.

    Raises:
        NotPreparedError: there are none of that name, or none of this manifest.
    """
    return pa.concat_tables(unmoved(lambda: [*score_pieces(root, name, columns)]))


def score_pieces(root: str, name: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """As `read_scores`, some rows at a time; to be begun anew where a file is gathered meanwhile."""
    uri = layout.scores_uri(root, name)
    where = storage.join(uri, layout.DESCRIPTOR)
    facts = storage.read_json(where) if storage.exists(where) else {"reads": [], "linked": []}
    more = [read_dataset(root).manifest_hash] if facts["linked"] else []
    more += facts.get("told", [])
    found = locate(uri)
    versions = (ref.version(facts["reads"], *more) for ref in units(root))
    there = [version for version in versions if version in found]
    if not there:
        raise NotPreparedError(
            f"{uri} holds no scores; type: affuse score --root {shlex.quote(root)}"
        )
    for file, ranges in ranges_of(found, there):
        yield from storage.table_pieces(file, ranges, columns)
