"""RAVDESS: acted speech of 24 actors in 8 emotions, by the codes of its file names.

A name is modality-channel-emotion-intensity-statement-repetition-actor; modality 01 is film with sound, 02
film alone, 03 sound alone. Any layout below the source will do (`Actor_01/*.wav`, one flat folder); where
a take comes in several modalities its clip has the film with sound, else the film and the sound. Song is
left out.

Livingstone and Russo 2018, https://doi.org/10.1371/journal.pone.0196391. Folds `subject`: the five of
Luna-Jimenez et al. 2021, https://doi.org/10.3390/app12010327.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from cluster.settings import Place
from encoders.media import Source
from fusion.tasks import Task
from jobs.preparing.about import About
from jobs.preparing.adapter import Collected, Preparation, Row, files_below
from jobs.preparing.named_takes import named_takes

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
STATEMENTS = ("Kids are talking by the door.", "Dogs are sitting by the door.")
SPEECH = "01"
SUBJECT_FOLDS = (
    (2, 5, 14, 15, 16),
    (3, 6, 7, 13, 18),
    (10, 11, 12, 19, 20),
    (8, 17, 21, 23, 24),
    (1, 4, 9, 22),
)
TAKE = re.compile(r"0[1-3]-0[12]-0[1-8]-0[12]-0[12]-0[12]-(0[1-9]|1\d|2[0-4])")
SHAPE = re.compile(r"\d\d(-\d\d){6}")

ABOUT = About(
    name="ravdess",
    licence="CC-BY-NC-SA-4.0",
    citation="Livingstone and Russo 2018, The Ryerson Audio-Visual Database of Emotional Speech and Song, "
    "PLoS ONE 13(5), https://doi.org/10.1371/journal.pone.0196391",
    download="https://zenodo.org/records/1188976 (Audio_Speech_Actors_01-24.zip, Video_Speech_Actor_*.zip)",
    layout=(
        "ravdess/",
        "  Actor_01/01-01-01-01-01-01-01.mp4",
        "  Actor_01/03-01-01-01-01-01-01.wav",
        "  ...",
    ),
    looked_for="files named such as 03-01-05-02-01-01-12.wav",
    groups="actors",
    splits="folds subject: the five of Luna-Jimenez et al. 2021",
    command="affuse prepare ravdess --source ravdess --root data/ravdess",
)


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """RAVDESS: 1440 clips of acted speech, 8 emotions, 24 actors."""

    source: Place
    """Folder or URI that holds the files, at any depth."""

    def collect(self) -> Collected:
        """One clip a take, sorted by actor."""
        takes: dict[str, dict[str, str]] = defaultdict(dict)
        named = named_takes(files_below(self.source), TAKE, SHAPE)
        for (name, _), uri in named.files.items():
            modality, take = name[:2], name[3:]
            if take.startswith(SPEECH):
                takes[take][modality] = uri
        if not takes:
            raise ABOUT.absent(self.source)
        rows = [
            _row(files)
            for _, files in sorted(takes.items(), key=lambda item: (item[0][-2:], item[0]))
        ]
        fold_of = {actor: k for k, actors in enumerate(SUBJECT_FOLDS) for actor in actors}
        return Collected(
            name="ravdess",
            licence=ABOUT.licence,
            tasks={"emotion": Task(kind="classification", classes=EMOTIONS)},
            rows=rows,
            faults=named.faults,
            notes=named.notes,
            folds={"subject": {row.name: fold_of[int(row.name[-2:])] for row in rows}},
        )


def _row(files: dict[str, str]) -> Row:
    # A film with sound holds all that the other two hold.
    best = next(files[modality] for modality in ("01", "03", "02") if modality in files)
    name = PurePosixPath(best).stem
    sources: dict[str, Any]
    if "01" in files:
        sources = {"video": Source(best), "audio": Source(best)}
    else:
        pairs = {"video": files.get("02"), "audio": files.get("03")}
        sources = {key: Source(uri) for key, uri in pairs.items() if uri is not None}
    _, _, emotion, _, statement, _, actor = map(int, name.split("-"))
    return Row(
        name=name,
        text=STATEMENTS[statement - 1],
        speaker=f"actor-{actor:02d}",
        labels={"emotion": EMOTIONS[emotion - 1]},
        profile={"gender": "male" if actor % 2 else "female"},
        **sources,
    )
