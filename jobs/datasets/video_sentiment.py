"""Video sentiment: short cuts of films, negative or positive by the last digit of the file's name.

A name is film, second from, second to and label, such as `The_Conjuring_100.5-101.0_0.mp4`, or film, number
and label, such as `pos_hero1801.mp4`; 0 is negative, 1 positive. Cuts of one film stay together.

A table `final_result.csv` (file, label, text, text_pred, audio_pred, predicted_mean_pool) gives the words of
a cut, and what three classifiers said of it. `--predictions FOLDER` writes that as members to vote on:

    affuse prepare video_sentiment --source cuts --root R --predictions votes
    affuse ensemble --root R --imported votes/text.csv votes/audio.csv votes/image.csv
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from cluster import storage
from cluster.errors import LabelTableError
from cluster.settings import Place
from fusion.tasks import Task
from jobs.preparing.about import About
from jobs.preparing.adapter import (
    VIDEO_SUFFIXES,
    Collected,
    Preparation,
    Row,
    files_below,
    media,
    read_rows,
)

CLASSES = ("negative", "positive")
TABLE = "final_result.csv"
MEMBERS = {"text": "text_pred", "audio": "audio_pred", "image": "predicted_mean_pool"}
"""Member -> its column, 0 or 1."""
CUT = re.compile(r"(?P<film>.+?)_[\d.]+-[\d.]+(?:_\d)?_(?P<label>[01])")
NUMBERED = re.compile(r"(?P<film>.*\D)\d+(?P<label>[01])")

ABOUT = About(
    name="video_sentiment",
    licence="cuts of commercial films; yours to clear",
    citation="multimodal_vsa, https://github.com/ystan98/multimodal_vsa",
    download="https://github.com/ystan98/multimodal_vsa, and the cuts from its author",
    layout=(
        "cuts/",
        "  The_Conjuring_100.5-101.0_0.mp4",
        "  pos_hero1801.mp4",
        "  ...",
        f"  {TABLE}  (optional)",
    ),
    looked_for=f"films named such as The_Conjuring_100.5-101.0_0.mp4, or {TABLE}",
    groups="films",
    splits="none of its own; --folds 5 cuts by film",
    command="affuse prepare video_sentiment --source cuts --root data/cuts --folds 5",
)


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """Video sentiment: short cuts of films, negative or positive, with three classifiers' votes."""

    source: Place
    """Folder or URI of the cuts, of final_result.csv, or of both."""

    predictions: Place = ""
    """Folder that receives one table a classifier (text.csv, audio.csv, image.csv); empty: none."""

    def collect(self) -> Collected:
        """One clip a cut; groups are films."""
        files = files_below(self.source)
        films = {
            PurePosixPath(uri).name: uri
            for uri in files
            if PurePosixPath(uri).suffix.lower() in VIDEO_SUFFIXES and _parsed(uri)
        }
        table = next((uri for uri in files if PurePosixPath(uri).name == TABLE), None)
        cells = {} if table is None else _by_file(table)
        if not films and not cells:
            raise ABOUT.absent(self.source)
        faults = [fault for name, said in cells.items() if (fault := _fault(name, said))]
        if self.predictions:
            _write_members(cells, storage.absolute(self.predictions), table or self.source)
        return Collected(
            name="video_sentiment",
            licence=ABOUT.licence,
            tasks={"sentiment": Task(kind="classification", classes=CLASSES)},
            rows=[
                _row(name, films, cells.get(name, {}), self.source)
                for name in sorted({*films, *cells})
            ],
            faults=faults,
        )


def _parsed(uri: str) -> re.Match[str] | None:
    stem = PurePosixPath(uri).stem
    return CUT.fullmatch(stem) or NUMBERED.fullmatch(stem)


def _by_file(table: str) -> dict[str, Mapping[str, Any]]:
    """The rows of the table by the names of their files.

    Raises:
        LabelTableError: no column `file`, or a file that stands twice.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for number, cells in enumerate(read_rows(table), 1):
        if "file" not in cells or "label" not in cells:
            raise LabelTableError(
                f"{table}: expected columns file and label; came {', '.join(cells)}"
            )
        name = PurePosixPath(str(cells["file"]).strip()).name
        if name in found:
            raise LabelTableError(f"{table}, row {number}: {name} stands twice")
        found[name] = cells
    return found


def _fault(name: str, cells: Mapping[str, Any]) -> str:
    """What is wrong with a row of the table: its label against the name tells rows that have shifted."""
    match, label = _parsed(name), _digit(cells["label"])
    if match is None:
        return f"{TABLE}: {name} does not end in its label, 0 or 1"
    if label != match["label"]:
        return f"{TABLE}: label {cells['label']!r} of {name}, expected {match['label']}, as the name has it"
    wrong = (
        column for column in MEMBERS.values() if _digit(cells.get(column, "")) not in ("", "0", "1")
    )
    return next(
        (f"{TABLE}: {column} {cells[column]!r} of {name}, expected 0 or 1" for column in wrong), ""
    )


def _digit(cell: Any) -> str:
    """`1`, `1.0` and ` 1` are one answer; a classifier that said nothing is empty."""
    text = re.sub(r"\.0+$", "", str(cell).strip())
    return "" if text.lower() in ("nan", "none") else text


def _row(name: str, films: Mapping[str, str], cells: Mapping[str, Any], source: str) -> Row:
    match = _parsed(name)
    film = films.get(name, f"{source.rstrip('/')}/{name}")
    label = None if match is None else CLASSES[int(match["label"])]
    return Row(
        name=name,
        **(media(film) if films else {}),
        text=str(cells.get("text") or "").strip() or None,
        group=name if match is None else match["film"],
        labels={"sentiment": label},
    )


def _write_members(cells: Mapping[str, Mapping[str, Any]], folder: str, where: str) -> None:
    """One table a classifier as `affuse ensemble --imported` reads it; held out: trained on other data.

    Raises:
        LabelTableError: there is no table, or it lacks all columns of answers.
    """
    columns: Sequence[str] = list(next(iter(cells.values()), {}))
    known = {member: column for member, column in MEMBERS.items() if column in columns}
    if not known:
        raise LabelTableError(
            f"{where}: --predictions needs {TABLE} with {', '.join(MEMBERS.values())}"
        )
    for member, column in known.items():
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["name", "fold", "role", *CLASSES])
        for name, said in cells.items():
            if (answer := _digit(said[column])) in ("0", "1"):
                writer.writerow([name, 0, "oof", 1 - int(answer), int(answer)])
        storage.publish_bytes(text.getvalue().encode(), storage.join(folder, f"{member}.csv"))
