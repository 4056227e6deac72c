"""MELD: utterances of a television series in dialogues, 7 emotions and 3 sentiments.

Reads `{train,dev,test}_sent_emo.csv` anywhere below the source, and films `dia{D}_utt{U}.mp4` in folders
named after the split (`train_splits`, `dev_splits_complete`, `output_repeated_splits_test`). Films and lines
are joined by dialogue and utterance, never by their order. Without any film it is a corpus of text.

Poria et al. 2019, https://doi.org/10.18653/v1/P19-1050.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from cluster.errors import LabelTableError
from cluster.settings import Place
from fusion.tasks import Task
from jobs.preparing.about import About
from jobs.preparing.adapter import Collected, Preparation, Row, files_below, media, read_rows

EMOTIONS = ("neutral", "joy", "sadness", "anger", "surprise", "fear", "disgust")
SENTIMENTS = ("negative", "neutral", "positive")
GLUED = (
    "anger-negative", "disgust-negative", "fear-negative", "joy-positive", "neutral-neutral",
    "sadness-negative", "surprise-negative", "surprise-positive",
)  # fmt: skip
"""The pairs of emotion and sentiment that occur."""
SPLIT_OF = {"train": "train", "dev": "valid", "test": "test"}
TABLE = re.compile(r"(train|dev|test)_sent_emo\.csv")
FILM = re.compile(r"dia(\d+)_utt(\d+)")
FOLDER = re.compile(r"(?:output_repeated_splits_)?(train|dev|test)(?:_splits.*)?")

Key = tuple[str, int, int]
"""Part (train, dev, test), dialogue, utterance: dialogues are counted anew in every part."""

ABOUT = About(
    name="meld",
    licence="GPL-3.0 (text of a television series; research use)",
    citation="Poria et al. 2019, MELD: A Multimodal Multi-Party Dataset for Emotion Recognition in "
    "Conversations, ACL, https://doi.org/10.18653/v1/P19-1050",
    download="https://affective-meld.github.io (MELD.Raw.tar.gz; unpack train, dev and test inside it too)",
    layout=(
        "MELD.Raw/",
        "  train_sent_emo.csv  dev_sent_emo.csv  test_sent_emo.csv",
        "  train_splits/dia0_utt0.mp4 ...  (films: optional)",
        "  dev_splits_complete/dia0_utt0.mp4 ...",
        "  output_repeated_splits_test/dia0_utt0.mp4 ...",
    ),
    looked_for="train_sent_emo.csv, dev_sent_emo.csv or test_sent_emo.csv",
    groups="dialogues",
    splits="train, dev, test as published",
    command="affuse prepare meld --source MELD.Raw --root data/meld",
)


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """MELD: 13,708 utterances in 1,432 dialogues, 7 emotions, 3 sentiments."""

    source: Place
    """Folder or URI with the CSV tables and, below it, the films."""

    glued: bool = False
    """Add the task `emotion_sentiment`: the eight pairs of emotion and sentiment as classes of their own."""

    def collect(self) -> Collected:
        """One clip an utterance; groups are dialogues."""
        files = files_below(self.source)
        tables = {m[1]: uri for uri in files if (m := TABLE.fullmatch(PurePosixPath(uri).name))}
        if not tables:
            raise ABOUT.absent(self.source)
        films = {key: uri for uri in files if (key := _key(uri)) is not None}
        rows: list[Row] = []
        faults: list[str] = []
        for part in SPLIT_OF:
            for number, cells in enumerate(read_rows(tables[part]) if part in tables else [], 1):
                try:
                    row = _row(part, cells, films, self.source)
                    rows.append(_with_pair(row) if self.glued else row)
                except (KeyError, ValueError) as error:
                    faults.append(f"{part}_sent_emo.csv, row {number}: {error!r}")
        if faults and not rows:
            raise LabelTableError(f"--source {self.source}: {faults[0]}")
        glued = {"emotion_sentiment": Task(kind="classification", classes=GLUED)}
        return Collected(
            name="meld",
            licence=ABOUT.licence,
            tasks={
                "emotion": Task(kind="classification", classes=EMOTIONS),
                "sentiment": Task(kind="classification", classes=SENTIMENTS),
                **(glued if self.glued else {}),
            },
            rows=rows,
            faults=faults,
        )


def _key(uri: str) -> Key | None:
    path = PurePosixPath(uri)
    film = FILM.fullmatch(path.stem)
    part = next((m[1] for name in reversed(path.parts[:-1]) if (m := FOLDER.fullmatch(name))), None)
    if film is None or part is None or path.suffix.lower() == ".csv":
        return None
    return part, int(film[1]), int(film[2])


def _row(part: str, cells: Mapping[str, str], films: Mapping[Key, str], source: str) -> Row:
    dialogue, utterance = int(cells["Dialogue_ID"]), int(cells["Utterance_ID"])
    name = f"{part}/dia{dialogue}_utt{utterance}"
    # A film that should be there and is not keeps its name, so that its row says what is missing.
    film = films.get((part, dialogue, utterance), f"{source.rstrip('/')}/{name}.mp4")
    return Row(
        name=name,
        **(media(film) if films else {}),
        text=cells["Utterance"].strip(),
        dialogue=f"{part}/dia{dialogue}",
        turn=utterance,
        speaker=cells["Speaker"].strip(),
        group=f"{part}/dia{dialogue}",
        split=SPLIT_OF[part],
        labels={"emotion": cells["Emotion"], "sentiment": cells["Sentiment"]},
    )


def _with_pair(row: Row) -> Row:
    pair = f"{row.labels['emotion']}-{row.labels['sentiment']}"
    return replace(row, labels={**row.labels, "emotion_sentiment": pair})
