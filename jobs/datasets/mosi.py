"""CMU-MOSI, CMU-MOSEI and CH-SIMS: opinion videos cut into utterances with a sentiment score.

Reads `label.csv` with the columns video_id, clip_id, text, label, mode (and label_T, label_A, label_V for
SIMS) and films `Raw/{video_id}/{clip_id}.mp4`; or a Parquet table of utterances with video_id, utt_no,
transcript, score and columns split_standard and split_bclstm; or, where there is no label.csv, the sequences
of the CMU SDK (`CMU_MOSI_Opinion_Labels.csd`, with `CMU_MOSI_TimestampedWords.csd` the words): their segments
are cut from films `{video_id}.mp4` anywhere below the source. Clips are named `{video_id}_{clip_id}`.

Zadeh et al. 2016, https://arxiv.org/abs/1606.06259; Yu et al. 2020, https://doi.org/10.18653/v1/2020.acl-main.343.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Literal

from cluster import storage
from cluster.errors import ConfigError, LabelTableError
from cluster.settings import Place
from fusion.tasks import Task
from jobs.datasets import mmsa
from jobs.interop.arrays import SPLIT_KEYS
from jobs.interop.tables import Faults
from jobs.preparing.about import About
from jobs.preparing.adapter import (
    Collected,
    Label,
    Preparation,
    Row,
    files_below,
    media,
    read_rows,
)
from jobs.preparing.csd import Segment, Transcripts, csd_of, segments_of, standard_folds

TABLES = ("label.csv", "labels.csv")
BOUNDS = {"mosi": (-3.0, 3.0), "mosei": (-3.0, 3.0), "sims": (-1.0, 1.0)}
MODALITY_LABELS = {
    "label_T": "sentiment_text",
    "label_A": "sentiment_audio",
    "label_V": "sentiment_video",
}

EMOTIONS = ("happy", "sad", "anger", "surprise", "disgust", "fear")
"""Columns of MOSEI's labels after the sentiment, as strengths of 0 to 3; one is there where it is above 0."""

FILMS = (".mp4", ".avi", ".mkv")

ABOUT = About(
    name="mosi",
    licence="research use",
    citation="Zadeh et al. 2016, MOSI: Multimodal Corpus of Sentiment Intensity and Subjectivity Analysis in "
    "Online Opinion Videos, https://arxiv.org/abs/1606.06259",
    download="https://github.com/thuiar/MMSA (MOSI: label.csv, Raw, Processed)",
    layout=("MOSI/", "  label.csv", "  Raw/{video_id}/{clip_id}.mp4 ...  (films: optional)"),
    looked_for="label.csv, a Parquet table of utterances or CMU_MOSI_Opinion_Labels.csd",
    groups="videos",
    splits="train, valid, test as published",
    command="affuse prepare mosi --source MOSI --root data/mosi",
)


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """CMU-MOSI, CMU-MOSEI, CH-SIMS: utterances of opinion videos with sentiment scores."""

    source: Place
    """Folder or URI with label.csv (or a Parquet table of utterances, or the SDK's .csd) and the films."""

    corpus: Literal["mosi", "mosei", "sims"] = "mosi"
    """Corpus, which sets the bounds of the scores."""

    protocol: Literal["standard", "bclstm"] = "standard"
    """Split column to use, where the table has both."""

    def collect(self) -> Collected:
        """One clip an utterance; groups and dialogues are videos."""
        if sequences := _sequences(self.source):
            return _of_sequences(sequences, self.corpus, ABOUT.licence)
        files = files_below(self.source)
        table = _table(files, self.source)
        films = {_film_key(uri): uri for uri in files if uri.lower().endswith(FILMS)}
        tasks = {"sentiment": Task(kind="regression", range=BOUNDS[self.corpus])}
        rows: list[Row] = []
        faults: list[str] = []
        for number, cells in enumerate(read_rows(table), 1):
            try:
                rows.append(self._row(cells, films))
            except (KeyError, ValueError, TypeError) as error:
                faults.append(f"{table}, row {number}: {error!r}")
        if faults and not rows:
            raise LabelTableError(f"{table}: {faults[0]}")
        for name in dict.fromkeys(name for row in rows for name in row.labels):
            tasks[name] = Task(kind="regression", range=BOUNDS[self.corpus])
        return Collected(
            name=self.corpus, licence=ABOUT.licence, tasks=tasks, rows=rows, faults=faults
        )

    def _row(self, cells: Mapping[str, Any], films: Mapping[tuple[str, str], str]) -> Row:
        video = str(cells["video_id"]).strip()
        clip = str(cells["clip_id"] if "clip_id" in cells else cells["utt_no"]).strip()
        scores = {"sentiment": cells["label"] if "label" in cells else cells["score"]}
        scores |= {
            task: cells[column] for column, task in MODALITY_LABELS.items() if cells.get(column)
        }
        mode = str(cells.get("mode") or cells.get(f"split_{self.protocol}") or "").strip()
        missing = f"{self.source.rstrip('/')}/Raw/{video}/{clip}.mp4"
        return Row(
            name=f"{video}_{clip}",
            **(media(films.get((video, clip), missing)) if films else {}),
            text=str(cells["text"] if "text" in cells else cells["transcript"]).strip() or None,
            dialogue=video,
            turn=int(clip) if clip.isdigit() else None,
            group=video,
            split=SPLIT_KEYS[mode] if mode else None,
            labels={name: float(score) for name, score in scores.items()},
        )


def of_corpus(source: str, corpus: Literal["mosei", "sims"], about: About) -> Collected:
    """A corpus under its own name: films with label.csv, else the CMU SDK's sequences, else a pickle.

    Raises:
        NotPreparedError: the source holds none of them.
    """
    fs, path = storage.filesystem(storage.absolute(source))
    names = {PurePosixPath(uri).name for uri in files_below(source)} if fs.isdir(path) else set()
    if names & set(TABLES) or _sequences(source):
        collected = Config(root="", source=source, corpus=corpus).collect()
    else:
        file = mmsa.pickle_of(source, about)
        collected = mmsa.Config(
            root="", source=file, range=BOUNDS[corpus], dataset_name=corpus
        ).collect()
    return replace(collected, licence=about.licence)


def _sequences(source: str) -> list[str]:
    """The files of a source that holds a sequence of labels and no label.csv; none of another source."""
    source = storage.absolute(source)
    if source.lower().endswith(".csd"):
        return [source]
    fs, path = storage.filesystem(source)
    files = files_below(source) if fs.isdir(path) else []
    if any(PurePosixPath(uri).name in TABLES for uri in files):
        return []
    return files if csd_of(files, "labels") else []


def _of_sequences(files: list[str], corpus: str, licence: str) -> Collected:
    """One clip a labelled segment; groups and dialogues are videos."""
    faults, notes = Faults(), []
    labels = csd_of(files, "labels") or files[0]
    segments = segments_of(labels, 1 + len(EMOTIONS) if corpus == "mosei" else 1, faults)
    said = csd_of(files, "words")
    words = None if said is None else Transcripts(said, faults)
    splits = standard_folds(files)
    films = {PurePosixPath(uri).stem: uri for uri in files if uri.lower().endswith(FILMS)}
    tasks = {"sentiment": Task(kind="regression", range=BOUNDS[corpus])}
    if corpus == "mosei":
        tasks["emotions"] = Task(kind="multilabel", classes=EMOTIONS)
    low, high = BOUNDS[corpus]
    beyond = sum(s.values[0] < low or s.values[0] > high for s in segments)
    if beyond:
        notes.append(f"{beyond} scores beyond {low:g} to {high:g} were brought to the bound")
    if not splits:
        notes.append(
            "no splits: put the SDK's cmu_mosei_std_folds.py beside, or type --split 70/10/20"
        )
    elif apart := len({segment.video for segment in segments} - set(splits)):
        notes.append(f"{apart} videos stand in no standard fold: their clips have no split")
    rows = [_of_segment(segment, words, splits, films, tasks) for segment in segments]
    return Collected(
        name=corpus, licence=licence, tasks=tasks, rows=rows, faults=faults, notes=notes
    )


def _of_segment(
    segment: Segment,
    words: Transcripts | None,
    splits: Mapping[str, str],
    films: Mapping[str, str],
    tasks: Mapping[str, Task],
) -> Row:
    score, *strengths = segment.values
    bounds = tasks["sentiment"].range
    assert bounds is not None
    labels: dict[str, Label] = {
        "sentiment": None if math.isnan(score) else min(max(score, bounds[0]), bounds[1])
    }
    if "emotions" in tasks:
        there = [math.nan if math.isnan(x) else float(x > 0) for x in strengths]
        labels["emotions"] = None if all(map(math.isnan, there)) else there
    heard = None if words is None else words.inside(segment)
    film = films.get(segment.video)
    return Row(
        name=f"{segment.video}_{segment.number}",
        **({} if film is None else media(film)),
        text=" ".join(word.text for word in heard or ()) or None,
        words=heard or None,
        start_s=segment.start_s,
        end_s=segment.end_s,
        dialogue=segment.video,
        turn=segment.turn,
        group=segment.video,
        split=splits.get(segment.video),
        labels=labels,
    )


def _table(files: list[str], source: str) -> str:
    for wanted in TABLES:
        for uri in files:
            if PurePosixPath(uri).name == wanted:
                return uri
    found = [uri for uri in files if uri.endswith(".parquet")]
    if len(found) > 1:
        raise ConfigError(f"--source {source}: holds several Parquet tables: {', '.join(found)}")
    if not found:
        raise ABOUT.absent(source)
    return found[0]


def _film_key(uri: str) -> tuple[str, str]:
    path = PurePosixPath(uri)
    return path.parent.name, path.stem
