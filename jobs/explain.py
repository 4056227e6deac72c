"""Say why a bundle answers as it does: what each modality and each member adds, exactly.

For a clip: Shapley values of the modalities and of the members; they sum to the answer less the answer of a
bundle that is told nothing. For a dataset also, on rows that no net trained on: how much is lost where a
modality is shuffled among the clips, and how good each set of modalities is by itself.

Reads:  files, or <root>/manifest/, <root>/features/, <root>/runs/; the bundle
Writes: <root>/explanations/<bundle>/  values.parquet (cluster.tables.EXPLANATIONS), rests_on.json, which
        `affuse report` shows; or --out FILE for files without a manifest

Own video: affuse explain clip.mp4 --bundle data/ravdess/bundles/ensemble
Laptop:    affuse explain --root data/ravdess --bundle ensemble
Cluster:   affuse submit --address URL -- explain --root s3://bucket/mosei --bundle best
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tyro

from cluster import console, storage
from cluster.console import Table
from cluster.errors import ConfigError
from cluster.scratch import scratch_folder
from cluster.settings import NameOrPlace, Place
from cluster.tables import EXPLANATIONS
from fusion.number_format import figure_text
from fusion.tasks import Kind
from jobs.catalog import bundles, layout
from jobs.catalog.label_names import check_bundle
from jobs.catalog.manifest import units
from jobs.catalog.outputs import check_outputs, publish_config, publish_outputs, record_of
from jobs.evaluation.judging import check_resamples
from jobs.explaining.clip_values import Explained, explain
from jobs.explaining.on_held_out import RestsOn, check_judged_here, rests_on
from jobs.library.clip_rows import ClipRow
from jobs.library.loaded_bundle import load
from jobs.scoring.bundle import Bundle, from_features
from jobs.scoring.files import found_files
from jobs.scoring.opening import UNTRAINED, open_bundle
from jobs.scoring.scorer import Scorer
from jobs.scoring.stored import SPAN_CLIPS, StoredFacts, reading_order, spans
from jobs.scoring.stored_table import UnitTable
from jobs.scoring.untrained import NAME
from jobs.stream.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Config:
    """Whose answers are explained."""

    clips: Annotated[tuple[Place, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CLIPS")] = ()
    """Files, folders and patterns such as ``calls/*.mp4``; without any, the dataset under --root."""

    root: Place = ""
    """Folder or URI of a dataset; a bundle's plain name is looked up under it."""

    bundle: NameOrPlace = UNTRAINED
    """Bundle: a name under --root, a folder, or face_expression, which needs no training."""

    out: Place | None = None
    """File for the values of files without a manifest: .jsonl or .parquet."""

    overwrite: bool = False
    """Replace an --out that no earlier run made; an input is never replaced."""

    store: Place | None = None
    """Store of the weights; by default ~/.cache/affuse/store, or ROOT/../store where ROOT is remote."""

    resamples: int = 2000
    """Number of bootstrap resamples of the groups."""

    seed: int = 0
    """Seed of the bootstrap and of the shuffling."""

    def __post_init__(self) -> None:
        check_resamples(self.resamples)
        if not self.clips and not self.root:
            raise ConfigError("explain what? type: affuse explain clip.mp4, or --root FOLDER")
        if self.out is not None and not self.out.endswith((".jsonl", ".parquet")):
            raise ConfigError(f"--out {self.out}: expected a name in .jsonl or .parquet")
        if self.out is not None and not self.clips:
            raise ConfigError(
                f"--out {self.out} is for files; those of a dataset lie under {self.root}"
            )
        if not self.clips and self.bundle in (UNTRAINED, NAME):
            raise ConfigError(
                f"{self.bundle} has no rows that it was judged on; type: --bundle NAME, or explain FILES"
            )


def main(config: Config) -> None:
    """Explain files, or the dataset."""
    if config.clips:
        explain_files(config)
    else:
        explain_dataset(config)


def explain_files(config: Config) -> None:
    """Values of a few files, printed and written."""
    files = found_files(config.clips)
    if config.out is not None:
        out = storage.absolute(config.out)
        check_outputs([out], record_of(out), sources=files, overwrite=config.overwrite)
    opened = load(config.bundle, root=config.root, store=config.store)
    opened.bundle.refuse_raw()
    rows, features = opened.encode(files)
    say_unread(rows, features)
    explained = explain(opened.scorer, [row.facts for row in rows], features)
    show_clips(explained)
    if config.out is not None:
        out = storage.absolute(config.out)
        ids = np.array([row.clip_id for row in rows])
        publish_outputs(config, {out: content_of(explained, ids, out)}, record_of(out))
        print(f"wrote {out}: {len(rows)} clips")


def say_unread(rows: Sequence[ClipRow], features: Mapping[str, pa.Table]) -> None:
    """Print which clips have no features of some input, and why: nothing there adds to their answer."""
    names = {row.clip_id: row.name for row in rows}
    reasons: dict[tuple[str, str], None] = {}
    for table in features.values():
        failed = table.filter(pc.equal(table["status"], "failed"))
        for clip_id, error in zip(
            *(failed[key].to_pylist() for key in ("clip_id", "error")), strict=True
        ):
            reasons.setdefault((names[clip_id], error))
    for name, error in reasons:
        print(f"{name}: explained without what failed: {error}")


def explain_dataset(config: Config) -> None:
    """Values of every clip from its stored features, and what the answers rest on over held-out rows."""
    root = storage.absolute(config.root)
    bundle = open_bundle(config.bundle, root, store=config.store)
    check_bundle(root, bundle.facts, bundle.uri)
    check_judged_here(root, bundle)
    from_features(root, bundle, "features")
    folder = layout.explanation_uri(root, bundle.name)
    publish_config(config, folder)
    count = write_values(root, bundle, storage.join(folder, layout.VALUES))
    found = rests_on(root, bundle, resamples=config.resamples, seed=config.seed)
    facts = {**found.facts(), "bundle": bundles.digest(bundle.facts)}
    storage.publish_json(facts, storage.join(folder, layout.RESTS_ON))
    show_rests_on(found)
    print(f"wrote {folder}: values of {count} clips")


def write_values(root: str, bundle: Bundle, uri: str) -> int:
    """Write the values of all clips, some at a time; returns how many clips."""
    count = 0
    with scratch_folder() as folder:
        path = Path(folder, layout.VALUES)
        schema = EXPLANATIONS.conform(EXPLANATIONS.schema.empty_table()).schema
        with pq.ParquetWriter(path, schema) as writer:
            for ids, explained in explained_spans(root, bundle):
                writer.write_table(table_of(explained, ids))
                count += len(ids)
        storage.publish_file(str(path), uri)
    return count


def explained_spans(root: str, bundle: Bundle) -> Iterator[tuple[np.ndarray, Explained]]:
    """Clip ids, ascending, and the explanation of some units at a time."""
    scorer, facts = Scorer(bundle, root), StoredFacts()
    stored = {folder: UnitTable(root, folder) for folder in bundle.folders}
    ordered = reading_order(units(root), [*stored.values()])
    with Progress(sum(ref.num_clips for ref in ordered), label="explain") as progress:
        for part in spans(root, ordered, (), bundle.linked, SPAN_CLIPS):
            clips = facts.read(part)
            ids = clips["clip_id"].to_numpy()
            features = {folder: table.read(part, ids) for folder, table in stored.items()}
            found = explain(scorer, clips.to_pylist(), features, looks=False)
            progress.add(len(ids), 0)
            yield np.sort(ids), found


def table_of(explained: Explained, clip_id: np.ndarray) -> pa.Table:
    """Explanations as rows.

    Args:
        explained: of the clips.
        clip_id: int64, ascending.
    """
    rows = []
    for ident, each in zip(clip_id.tolist(), explained.rows(), strict=True):
        start = {"clip_id": ident, "name": each["name"], "task": each["task"]}
        players: list[tuple[str, str, Mapping[str, float]]] = [
            ("answer", "", each["answer"]),
            ("empty", "", each["empty"]),
            *(("modality", name, values) for name, values in each["modalities"].items()),
            *(("member", name, values) for name, values in each["members"].items()),
        ]
        rows += [
            {**start, "kind": kind, "player": name, "values": list(values.items())}
            for kind, name, values in players
        ]
    return EXPLANATIONS.conform(pa.Table.from_pylist(rows, EXPLANATIONS.schema))


def content_of(explained: Explained, clip_id: np.ndarray, out: str) -> bytes:
    """Explanations as the content of a file."""
    if out.endswith(".jsonl"):
        return "".join(json.dumps(row) + "\n" for row in explained.rows()).encode()
    sink = pa.BufferOutputStream()
    pq.write_table(table_of(explained, clip_id), sink)
    return bytes(sink.getvalue())


def show_clips(explained: Explained) -> None:
    """Print of each clip what is added to the answer that is given."""
    for row in explained.rows():
        best = max(row["answer"], key=lambda name: row["answer"][name])
        given, start = row["answer"][best], row["empty"][best]
        said, before = figure_text(given, start), figure_text(start, given)
        table = Table(title=f"{row['name']}: {best} {said}, told nothing {before}")
        for column in ("", "adds"):
            table.add_column(column, justify="right" if column else "left")
        for kind in ("modalities", "members"):
            for name, values in row[kind].items():
                table.add_row(
                    name,
                    figure_text(values[best], given, start, sign="+"),
                    end_section=name == [*row[kind]][-1],
                )
        console.show(table)


def show_rests_on(found: RestsOn) -> None:
    """Print what the answers rest on."""
    drawn = "" if found.num_clips == found.of_clips else f" of {found.of_clips}, drawn by group"
    console.show(
        f"{found.num_clips} held-out clips{drawn}, {found.num_groups} groups; "
        f"{found.metric} {found.whole[found.metric]!s}"
    )
    # The table of `ensemble` cross-fits the fusion too, and has another figure.
    console.show(
        "nets that did not train on them, fused by weights that were fitted on all of them"
    )
    table = Table("modality", f"{found.metric} lost where shuffled", f"{found.metric} alone")
    for name, lost in found.shuffled.items():
        table.add_row(name, str(lost), str(found.alone[name][found.metric]))
    console.show(table)
    _show_means("modality", found.mean_values["modalities"], found.kind)
    _show_means("member", found.mean_values["members"], found.kind)


def _show_means(player: str, means: Mapping[str, float], kind: Kind) -> None:
    ordered: Sequence[tuple[str, Any]] = sorted(means.items(), key=lambda item: -item[1])
    if ordered and kind == "regression":
        said = ", ".join(f"{name} {value:.3g}" for name, value in ordered)
        console.show(f"a {player} moves the value, up or down, by on average: {said}")
    elif ordered:
        said = ", ".join(f"{name} {value:+.3f}" for name, value in ordered)
        console.show(f"a {player} adds to the answer, on average: {said}")
