"""The manifest and the folds: what every other table of a root is compared with."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster import stamps, storage
from cluster.errors import AffuseError
from cluster.tables import FOLDS, MANIFEST, footer_of
from jobs.catalog import layout
from jobs.catalog.manifest import Dataset, UnitRef, units
from jobs.verification.findings import EXAMPLES, UNREADABLE, Clips, Findings, anew, typing
from jobs.verification.rows import ids_of, label_rows
from jobs.verification.unit_files import contract_holds, read_pieces


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What was found of the manifest, and its clips and units where they can be read."""

    found: Findings
    clips: Clips | None = None
    refs: Sequence[UnitRef] = ()


def check_manifest(root: str, dataset: Dataset) -> Manifest:
    """Read all rows of the present manifest."""
    folder = layout.manifest_uri(root, dataset.manifest_hash)
    found = Findings(table=f"manifest/{dataset.manifest_hash}")
    config = storage.join(folder, layout.CONFIG)
    mend = (
        f"remove {layout.dataset_uri(root)}, then type: "
        f"affuse prepare --config {shlex.quote(config)} --root {shlex.quote(root)}"
    )
    there = stamps.of_folder(folder, ".parquet")
    found.files, found.size = len(there), sum(stamp.size for stamp in there.values())
    if not there:
        found.add("absent", "manifests without a file", examples=[folder], mend=mend)
        return Manifest(found=found)
    check, pieces = label_rows(dataset.tasks), []
    files = [storage.join(folder, name) for name in there]
    for name, uri in zip(there, files, strict=True):
        try:
            if not contract_holds(found, storage.open_parquet(uri), MANIFEST, name, mend):
                continue
            for _, piece in read_pieces(uri):
                found.rows += len(piece)
                pieces.append(piece.select(["clip_id", "unit", "group", "split"]))
                names = piece["name"].filter
                for kind, said, odd in check(piece):
                    some = names(pa.array(odd)).slice(0, EXAMPLES).to_pylist()
                    found.add(kind, said, count=int(odd.sum()), examples=some, mend=mend)
        except UNREADABLE as error:
            found.unreadable(uri, error, mend)
    if {fault.kind for fault in found.faults} & {"unreadable", "schema"}:
        return Manifest(found=found)
    if not pieces:
        found.add("absent", "manifests without a clip", examples=[folder], mend=mend)
        return Manifest(found=found)
    return _units_and_clips(root, found, pa.concat_tables(pieces), files, mend)


def _units_and_clips(
    root: str, found: Findings, rows: pa.Table, files: Sequence[str], mend: str
) -> Manifest:
    try:
        refs = units(root)
    except (AffuseError, *UNREADABLE) as error:
        found.add("absent", "manifests without a unit", examples=[str(error)], mend=mend)
        return Manifest(found=found)
    names = pa.array([ref.unit for ref in refs], pa.string())
    again = names.value_counts().filter(pc.greater(names.value_counts().field("counts"), 1))
    doubled = again.field("values").to_pylist()
    found.add(
        "twice", "units that stand there twice", count=len(doubled), examples=doubled, mend=mend
    )
    unit = pc.fill_null(pc.index_in(rows["unit"], value_set=names), -1).to_numpy()
    group = rows["group"].combine_chunks().dictionary_encode()
    code = pc.fill_null(group.indices, -1).to_numpy(zero_copy_only=False)
    clip_id = ids_of(rows)
    order = np.argsort(clip_id, kind="stable")
    clip_id = clip_id[order]
    clips = Clips(
        root=root,
        clip_id=clip_id,
        unit=unit[order].astype(np.int32),
        group=code[order].astype(np.int32),
        groups=group.dictionary,
        files=files,
    )
    twice = clip_id[1:][clip_id[1:] == clip_id[:-1]]
    some = clips.named(twice)
    found.add("twice", "clips that stand there twice", count=len(twice), examples=some, mend=mend)
    split = rows["split"].combine_chunks().dictionary_encode().indices
    part = pc.fill_null(split, -1).to_numpy(zero_copy_only=False)[order]
    _divided(found, clips, np.arange(len(clip_id)), part, "splits", mend)
    return Manifest(found=found, clips=clips, refs=refs)


def check_folds(root: str, name: str, dataset: Dataset, clips: Clips) -> Findings:
    """Read a set of folds."""
    uri = layout.folds_uri(root, name)
    found = Findings(table=f"folds/{name}", files=1)
    config = layout.manifest_uri(root, dataset.manifest_hash, layout.CONFIG)
    command = f"affuse prepare --config {shlex.quote(config)} --root {shlex.quote(root)}"
    try:
        parquet = storage.open_parquet(uri)
        if not contract_holds(found, parquet, FOLDS, name, anew(command)):
            return found
        table = pa.concat_tables([piece for _, piece in read_pieces(uri)])
    except UNREADABLE as error:
        found.unreadable(uri, error, anew(command))
        return found
    clip_id, fold = ids_of(table), pc.fill_null(table["fold"], -1).to_numpy()
    stamp = stamps.stamp_of(uri)
    found.rows, found.size = len(clip_id), 0 if stamp is None else stamp.size
    at, known = clips.find(clip_id)
    if (
        footer_of(parquet.schema_arrow).get("manifest", dataset.manifest_hash)
        != dataset.manifest_hash
    ):
        found.notes.append("cut for an earlier manifest")
    else:
        said = "clips that are not in the manifest"
        some = clips.named(clip_id[~known])
        found.add("left", said, count=int((~known).sum()), examples=some, mend=anew(command))
    unique, counts = np.unique(clip_id, return_counts=True)
    twice = unique[counts > 1]
    some = clips.named(twice)
    found.add(
        "twice",
        "clips with more than one fold",
        count=len(twice),
        examples=some,
        mend=anew(command),
    )
    _divided(found, clips, at[known], fold[known], "folds", typing(command))
    return found


def _divided(
    found: Findings, clips: Clips, at: np.ndarray, part: np.ndarray, what: str, mend: str
) -> None:
    """Groups that stand in more than one part.

    Args:
        found: where they are counted.
        clips: of the manifest.
        at: places of clips [row].
        part: of each; below 0: none [row].
        what: the parts are.
        mend: what to do.
    """
    group = clips.group[at]
    kept = (group >= 0) & (part >= 0)
    pairs = np.unique(np.stack([group[kept], part[kept]]), axis=1)
    code, counts = np.unique(pairs[0], return_counts=True)
    divided = code[counts > 1]
    some = clips.groups.take(pa.array(divided[:EXAMPLES])).to_pylist()
    said = f"groups in several {what}"
    found.add("divided", said, count=len(divided), examples=some, mend=mend)
