"""The table of units beside a manifest: it follows from the manifest, row by row."""

import shlex

import pyarrow as pa
import pyarrow.compute as pc

from cluster import stamps, storage
from cluster.errors import AffuseError
from cluster.tables import UNITS
from jobs.catalog import layout, unit_rows
from jobs.catalog.manifest import Dataset
from jobs.verification.findings import EXAMPLES, UNREADABLE, Findings


def check_units(root: str, dataset: Dataset) -> Findings | None:
    """Compare the table of units with the files of the manifest, a file at a time.

    Every job takes its work from this table. Where it cannot be read or is of other files the jobs read the
    manifest's own row groups, which takes minutes of a large one; where its rows are wrong, so is their work.

    Returns:
        None where there is no such table, as in roots that an earlier version prepared.
    """
    uri = layout.units_uri(root, dataset.manifest_hash)
    stamp = stamps.stamp_of(uri)
    if stamp is None:
        return None
    found = Findings(table=f"units/{dataset.manifest_hash}", files=1, size=stamp.size)
    config = layout.manifest_uri(root, dataset.manifest_hash, layout.CONFIG)
    mend = (
        f"remove {uri}, which the jobs do without; for large manifests remove {layout.dataset_uri(root)} "
        f"too, then type: affuse prepare --config {shlex.quote(config)} --root {shlex.quote(root)}"
    )
    folder = layout.manifest_uri(root, dataset.manifest_hash)
    there = stamps.of_folder(folder, ".parquet")
    try:
        storage.open_parquet(uri, checked=True).read()
        rows = unit_rows.published(uri, {name: one.size for name, one in there.items()})
    except (AffuseError, *UNREADABLE) as error:
        found.unreadable(uri, error, mend)
        return found
    if rows is None:
        said = "tables of units of another manifest's files, or of another version"
        found.add("footer", said, examples=[uri.rsplit("/", 1)[-1]], mend=mend)
        return found
    found.rows = len(rows)
    for name in there:
        file = storage.join(folder, name)
        own = unit_rows.of_file(file, storage.open_parquet(file))
        _compare(found, own, rows.filter(pc.equal(rows["file"], name)), mend)
    known = pa.array(list(there), pa.string())
    strange = rows.filter(pc.invert(pc.is_in(rows["file"], value_set=known)))["unit"]
    found.add(
        "left",
        "units of files that the manifest does not have",
        count=len(strange),
        examples=strange.slice(0, EXAMPLES).to_pylist(),
        mend=mend,
    )
    return found


def _compare(found: Findings, own: pa.Table, said: pa.Table, mend: str) -> None:
    """Count the units of one file whose row is not what the file says."""
    if own.equals(said):
        return
    if len(own) != len(said):
        what = "units more or fewer than in the manifest"
        found.add("missing", what, count=abs(len(own) - len(said)), mend=mend)
    for name in UNITS.schema.names:
        pairs = zip(own[name].to_pylist(), said[name].to_pylist(), own["unit"], strict=False)
        odd = [unit.as_py() for mine, theirs, unit in pairs if mine != theirs]
        what = f"units whose {name} is not that of the manifest"
        found.add("footer", what, count=len(odd), examples=odd[:EXAMPLES], mend=mend)
