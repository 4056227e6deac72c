"""CREMA-D: acted speech of 91 actors in 6 emotions, by the codes of its file names.

A name is actor_sentence_emotion_intensity, such as 1001_DFA_ANG_XX.wav or .flv; where a take has both a film
and a sound file, its clip has the pictures of the one and the sound of the other.

Cao et al. 2014, https://doi.org/10.1109/TAFFC.2014.2336244.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath

from cluster.settings import Place
from encoders.media import Source
from fusion.tasks import Task
from jobs.preparing.about import About
from jobs.preparing.adapter import (
    AUDIO_SUFFIXES,
    Collected,
    Preparation,
    Row,
    files_below,
    is_media,
)

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
TAKE = re.compile(rf"(\d{{4}})_({'|'.join(SENTENCES)})_({'|'.join(EMOTIONS)})_(LO|MD|HI|XX|X)")

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

    def collect(self) -> Collected:
        """One clip a take, sorted by actor; groups are actors."""
        takes: dict[str, dict[str, str]] = defaultdict(dict)
        for uri in files_below(self.source):
            path = PurePosixPath(uri)
            if is_media(uri) and TAKE.fullmatch(path.stem):
                kind = "audio" if path.suffix.lower() in AUDIO_SUFFIXES else "video"
                takes[path.stem][kind] = uri
        if not takes:
            raise ABOUT.absent(self.source)
        return Collected(
            name="cremad",
            licence=ABOUT.licence,
            tasks={"emotion": Task(kind="classification", classes=tuple(EMOTIONS.values()))},
            rows=[_row(name, files) for name, files in sorted(takes.items())],
        )


def _row(name: str, files: dict[str, str]) -> Row:
    actor, sentence, emotion, _ = name.split("_")
    film, sound = files.get("video"), files.get("audio") or files["video"]
    return Row(
        name=name,
        video=None if film is None else Source(film),
        audio=Source(sound),
        text=SENTENCES[sentence],
        speaker=f"actor-{actor}",
        labels={"emotion": EMOTIONS[emotion]},
    )
