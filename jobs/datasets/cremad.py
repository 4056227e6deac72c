"""CREMA-D: acted speech of 91 actors in 6 emotions, by the codes of its file names.

A name is actor_sentence_emotion_intensity, such as 1001_DFA_ANG_XX.wav or .flv; where a take has both a film
and a sound file, its clip has the pictures of the one and the sound of the other.

The class is the emotion that was acted. What about ten people each took it for stands in
`processedResults/tabulatedVotes.csv`; `--votes` adds that, of raters of the voice, of the face, or of both.

Cao et al. 2014, https://doi.org/10.1109/TAFFC.2014.2336244.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from cluster.settings import Place
from encoders.media import Source
from fusion.tasks import Task
from jobs.preparing.about import About
from jobs.preparing.adapter import (
    Collected,
    Preparation,
    Row,
    files_below,
    read_rows,
)
from jobs.preparing.named_takes import named_takes
from jobs.preparing.votes import from_counts

EMOTIONS = {
    "ANG": "angry",
    "DIS": "disgust",
    "FEA": "fearful",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
LETTERS = ("A", "D", "F", "H", "N", "S")
"""Columns of the table of votes, in the order of `EMOTIONS`."""

ASKED = {"voice": 1, "face": 2, "both": 3}
"""What raters were shown -> the hundred thousands of a row's number in the table of votes."""

VOTES = "tabulatedVotes.csv"
TAKE = re.compile(rf"(\d{{4}})_({'|'.join(SENTENCES)})_({'|'.join(EMOTIONS)})_(LO|MD|HI|XX|X)")
SHAPE = re.compile(r"\d{4}_[A-Z]{3}_[A-Z]{3}_[A-Z]{1,2}")

ABOUT = About(
    name="cremad",
    licence="ODbL-1.0",
    citation="Cao et al. 2014, CREMA-D: Crowd-Sourced Emotional Multimodal Actors Dataset, IEEE Transactions "
    "on Affective Computing 5(4), https://doi.org/10.1109/TAFFC.2014.2336244",
    download="https://github.com/CheyneyComputerScience/CREMA-D (git lfs)",
    layout=(
        "CREMA-D/",
        "  AudioWAV/1001_DFA_ANG_XX.wav",
        "  VideoFlash/1001_DFA_ANG_XX.flv",
        "  processedResults/tabulatedVotes.csv  (what raters chose: optional)",
        "  ...",
    ),
    looked_for="files named such as 1001_DFA_ANG_XX.wav",
    groups="actors",
    splits="none of its own; --folds 5 cuts by actor",
    command="affuse prepare cremad --source CREMA-D --root data/cremad --folds 5",
)


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """CREMA-D: 7,442 clips of acted speech, 6 emotions, 91 actors."""

    source: Place
    """Folder or URI that holds the files, at any depth."""

    votes: Literal["none", "voice", "face", "both"] = "none"
    """Raters' votes to add: those on the voice, on the face, or on both together."""

    def collect(self) -> Collected:
        """One clip a take, sorted by actor; groups are actors."""
        takes: dict[str, dict[str, str]] = defaultdict(dict)
        files = files_below(self.source)
        named = named_takes(files, TAKE, SHAPE)
        for (name, kind), uri in named.files.items():
            takes[name][kind] = uri
        if not takes:
            raise ABOUT.absent(self.source)
        faults = list(named.faults)
        votes = _votes(files, self.votes, self.source, faults) if self.votes != "none" else {}
        return Collected(
            name="cremad",
            licence=ABOUT.licence,
            tasks={"emotion": Task(kind="classification", classes=tuple(EMOTIONS.values()))},
            rows=[_row(name, of, votes.get(name, ())) for name, of in sorted(takes.items())],
            faults=faults,
            notes=named.notes,
        )


def _votes(
    files: list[str], shown: str, source: str, faults: list[str]
) -> dict[str, Sequence[Sequence[float]]]:
    """Take -> what each of its raters chose, who were shown its voice, its face or both."""
    uri = next((uri for uri in files if PurePosixPath(uri).name == VOTES), None)
    if uri is None:
        raise ABOUT.absent(source, why=f"--votes needs processedResults/{VOTES}, found none")
    found: dict[str, Sequence[Sequence[float]]] = {}
    for number, cells in enumerate(read_rows(uri), 1):
        try:
            if int(cells["(column 1)"]) // 100_000 != ASKED[shown]:
                continue
            name = str(cells["fileName"]).strip()
            if name in found:
                raise ValueError(f"{name} stands twice")
            found[name] = _counted(cells)
        except (KeyError, TypeError, ValueError) as error:
            faults.append(f"{uri}, row {number}: {error!r}")
    return found


def _counted(cells: Mapping[str, Any]) -> Sequence[Sequence[float]]:
    counts = [int(cells[letter]) for letter in LETTERS]
    if sum(counts) != int(cells["numResponses"]):
        raise ValueError(f"{sum(counts)} votes of {cells['numResponses']} responses")
    return from_counts(counts)


def _row(name: str, files: dict[str, str], votes: Sequence[Sequence[float]]) -> Row:
    actor, sentence, emotion, _ = name.split("_")
    film, sound = files.get("video"), files.get("audio") or files["video"]
    return Row(
        name=name,
        video=None if film is None else Source(film),
        audio=Source(sound),
        text=SENTENCES[sentence],
        speaker=f"actor-{actor}",
        labels={"emotion": EMOTIONS[emotion]},
        votes={"emotion": votes} if votes else {},
    )
