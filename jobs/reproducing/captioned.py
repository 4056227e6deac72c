"""A dialogue of the test split with captions: its films, their subtitles, and a table of what was read.

Every line is scored within its dialogue; its film then shows the label and a bar for each class.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cluster import storage
from jobs import annotate, ensemble, score
from jobs.catalog import layout
from jobs.catalog.manifest import read_manifest
from jobs.reproducing.preset import ReproduceConfig, Step
from jobs.scoring.versions import read_scores

COLUMNS = ("name", "dialogue", "turn", "speaker", "text", "split", "video")
Do = Callable[[Sequence[Step]], None]
"""Runs jobs, those that were not run on the same inputs."""


def caption_dialogue(config: ReproduceConfig, task: str, runs: Sequence[str], do: Do) -> str | None:
    """Caption the films of one dialogue.

    Args:
        config: of the preset.
        task: what is shown.
        runs: the nets that read the films.
        do: runs the jobs.

    Returns:
        Where the table is; None: no dialogue has all its films.
    """
    root = storage.absolute(config.root)
    lines = dialogue_with_films(read_manifest(root, [*COLUMNS, task]))
    if not lines:
        print("captions: no dialogue of the test split has all its films, so none is captioned")
        return None
    name = f"captions-{runs[0]}"
    fused = ensemble.Config(
        root=root,
        runs=tuple(runs),
        bundle=name,
        task=task,
        resamples=config.resamples,
        tracking=config.tracking,
        session=config.session,
    )
    scored = score.Config(root=root, bundle=name, store=config.store, session=config.session)
    steps = [Step(command="ensemble", config=fused), Step(command="score", config=scored)]
    steps += [_captioned(root, name, task, line) for line in lines]
    do(steps)
    page = layout.reproduce_uri(root, "films", "dialogue.csv")
    scores = {row["name"]: row for row in read_scores(root, name).to_pylist()}
    storage.publish_bytes(table_of(lines, scores, task).encode(), page)
    return page


def dialogue_with_films(clips: pa.Table) -> list[dict[str, Any]]:
    """The lines of the first dialogue of the test split that has every film, in order of their turns."""
    tested = clips.filter(pc.equal(clips["split"], "test"))
    for dialogue in sorted(set(tested["dialogue"].drop_null().to_pylist())):
        lines: list[dict[str, Any]] = (
            tested.filter(pc.equal(tested["dialogue"], dialogue)).sort_by("turn").to_pylist()
        )
        if all(line["video"] and storage.exists(line["video"]["uri"]) for line in lines):
            return lines
    return []


def film_of(root: str, line: Mapping[str, Any]) -> str:
    """Where the captioned film of a line is."""
    return layout.reproduce_uri(root, "films", f"{line['name'].replace('/', '_')}.mp4")


def table_of(lines: Sequence[Mapping[str, Any]], scores: Mapping[str, Any], task: str) -> str:
    """A CSV with a row a line: who said what, how it is labelled, what was read and how surely."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "turn", "speaker", "text", "labelled", "read", "confidence"])
    for line in lines:
        row = scores[line["name"]]
        sure = "" if row["confidence"] is None else f"{row['confidence']:.3f}"
        read = "|".join(row["label"] or ()) or row["status"]
        cells = (line[key] for key in ("name", "turn", "speaker", "text", task))
        writer.writerow([*cells, read, sure])
    return text.getvalue()


def _captioned(root: str, scores: str, task: str, line: Mapping[str, Any]) -> Step:
    shown = annotate.Config(
        clip=line["video"]["uri"],
        scores=layout.scores_uri(root, scores),
        name=line["name"],
        task=task,
        out=film_of(root, line),
        classes=8,
    )
    return Step(command="annotate", config=shown)
