"""CMU-MOSI, CMU-MOSEI and CH-SIMS: opinion videos cut into utterances with a sentiment score.

Reads `label.csv` with the columns video_id, clip_id, text, label, mode (and label_T, label_A, label_V for
SIMS) and films `Raw/{video_id}/{clip_id}.mp4`; or a Parquet table of utterances with video_id, utt_no,
transcript, score and columns split_standard and split_bclstm. Clips are named `{video_id}_{clip_id}`.

Zadeh et al. 2016, https://arxiv.org/abs/1606.06259; Yu et al. 2020, https://doi.org/10.18653/v1/2020.acl-main.343.
"""

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
from jobs.preparing.about import About
from jobs.preparing.adapter import Collected, Preparation, Row, files_below, media, read_rows

TABLES = ("label.csv", "labels.csv")
BOUNDS = {"mosi": (-3.0, 3.0), "mosei": (-3.0, 3.0), "sims": (-1.0, 1.0)}
MODALITY_LABELS = {
    "label_T": "sentiment_text",
    "label_A": "sentiment_audio",
    "label_V": "sentiment_video",
}

ABOUT = About(
    name="mosi",
    licence="research use",
    citation="Zadeh et al. 2016, MOSI: Multimodal Corpus of Sentiment Intensity and Subjectivity Analysis in "
    "Online Opinion Videos, https://arxiv.org/abs/1606.06259",
    download="https://github.com/thuiar/MMSA (MOSI: label.csv, Raw, Processed)",
    layout=("MOSI/", "  label.csv", "  Raw/{video_id}/{clip_id}.mp4 ...  (films: optional)"),
    looked_for="label.csv or a Parquet table of utterances",
    groups="videos",
    splits="train, valid, test as published",
    command="affuse prepare mosi --source MOSI --root data/mosi",
)


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """CMU-MOSI, CMU-MOSEI, CH-SIMS: utterances of opinion videos with sentiment scores."""

    source: Place
    """Folder or URI with label.csv (or a Parquet table of utterances) and the films."""

    corpus: Literal["mosi", "mosei", "sims"] = "mosi"
    """Corpus, which sets the bounds of the scores."""

    protocol: Literal["standard", "bclstm"] = "standard"
    """Split column to use, where the table has both."""

    def collect(self) -> Collected:
        """One clip an utterance; groups and dialogues are videos."""
        files = files_below(self.source)
        table = _table(files, self.source)
        films = {
            _film_key(uri): uri for uri in files if uri.lower().endswith((".mp4", ".avi", ".mkv"))
        }
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
    """A corpus under its own name: films with label.csv, else a pickle of the MMSA family.

    Raises:
        NotPreparedError: the source holds neither.
    """
    fs, path = storage.filesystem(storage.absolute(source))
    names = {PurePosixPath(uri).name for uri in files_below(source)} if fs.isdir(path) else set()
    if names & set(TABLES):
        collected = Config(root="", source=source, corpus=corpus).collect()
    else:
        file = mmsa.pickle_of(source, about)
        collected = mmsa.Config(
            root="", source=file, range=BOUNDS[corpus], dataset_name=corpus
        ).collect()
    return replace(collected, licence=about.licence)


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
