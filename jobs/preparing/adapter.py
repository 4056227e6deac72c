"""Rows that an adapter gives to `prepare`, and the settings that all adapters share.

An adapter is a file with one class `Config(Preparation)`: its fields are the command line of
`affuse prepare NAME`, its method `collect` reads the source's own layout into `Row`s.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from cluster import storage
from cluster.errors import ConfigError, LabelTableError, NotPreparedError
from cluster.settings import Place, nearest
from cluster.tables import SPLITS
from encoders.media import Source
from encoders.spec import Word
from fusion.tasks import Task
from jobs.interop.encoding import decode_text
from jobs.interop.tables import Faults, raise_faults, read_table

_SOUNDS = (
    "3ga aac ac3 adts aif aifc aiff amr ape au awb caf dff dsf dts eac3 flac gsm m4a m4b m4r mka "
    "mlp mp2 mp3 mpa mpc oga ogg opus ra rf64 snd spx tak thd tta voc w64 wav weba wma wv"
)
_FILMS = (
    "264 265 3g2 3gp amv asf avi divx dv f4v flv gif h264 hevc ivf m1v m2t m2ts m2v m4v mj2 mjpeg "
    "mjpg mkv mov mp4 mpeg mpg mpv mts mxf nut ogm ogv qt rm rmvb tod ts vob webm wmv wtv y4m"
)
AUDIO_SUFFIXES = frozenset("." + name for name in _SOUNDS.split())
VIDEO_SUFFIXES = frozenset("." + name for name in _FILMS.split())
"""What FFmpeg opens and people record; other files are counted by `passed_over`, pictures among them."""

Label = str | float | Sequence[float] | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One clip as its source describes it; what is not known is None."""

    name: str
    """The dataset's own key; the clip's id is made of it."""

    video: Source | None = None
    audio: Source | None = None
    """May be the same file as `video`; dropped again where probing finds no such track."""

    text: str | None = None
    words: Sequence[Word] | None = None
    start_s: float | None = None
    end_s: float | None = None
    dialogue: str | None = None
    turn: int | None = None
    speaker: str | None = None
    group: str | None = None
    """Clips of one group never straddle splits. By default the speaker, else the dialogue, else the file that
    segments share, else the clip."""

    split: str | None = None
    labels: Mapping[str, Label] = field(default_factory=dict)
    """Task -> class, number, or a number per label; None where unlabelled."""

    profile: Mapping[str, str | None] = field(default_factory=dict)

    votes: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    """Classification task -> what each rater chose: shares of the classes that sum to one."""


@dataclass(frozen=True, kw_only=True)
class Collected:
    """A whole source."""

    name: str
    licence: str
    tasks: Mapping[str, Task]
    rows: Sequence[Row] = ()

    tables: Callable[[Faults], Iterator[pa.Table]] | None = None
    """In place of `rows` where they are too many to be objects of Python: gives them as Arrow tables of some
    thousand (`jobs.preparing.row_tables.Shape`), and adds the faults that are in them."""

    profile: Sequence[str] = ()
    """Names of the facts about speakers in `tables`; those in `rows` are found."""

    votes: Sequence[str] = ()
    """Tasks with raters' votes in `tables`, sorted; those in `rows` are found."""

    folds: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Folds that the dataset brings itself: name -> (clip's name -> fold); of `tables` the names count."""

    faults: Sequence[str] = ()
    """Faults of the label table that the adapter saw; `prepare` adds its own and lists all."""

    notes: Sequence[str] = ()
    """Notes on how the table was read, and which columns were not; `prepare` prints them."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Settings of `prepare` that do not depend on the dataset."""

    root: Place
    """Folder or URI that receives the manifest and everything made of it."""

    split: str = ""
    """Shares of train/valid/test such as 60/20/20, cut by group; empty: the source's own splits."""

    part: str = ""
    """Split of the source (train, valid, test) to keep alone, e.g. to cut folds inside it."""

    folds: int = 0
    """Number of folds to cut by group from the rows outside test, as folds/groupK; 0: none."""

    seed: int = 0
    """Seed of the splits and folds."""

    unit_clips: int = 64
    """Largest number of clips in a unit of work."""

    unit_s: float = 64.0
    """Approximate length of the media in a unit of work [s]; units are cut once and never changed."""

    max_clip_s: float | None = None
    """Length of the pieces that longer clips are cut into [s]; a piece is named NAME@seconds."""

    pack: bool = False
    """Copy loose media files into tar shards below the root; the manifest then points into them."""

    shard_mb: float = 256.0
    """Size at which a shard is closed [MB]."""

    workers: int = 4
    """Number of files probed at the same time."""

    def __post_init__(self) -> None:
        if self.part and self.part not in SPLITS:
            raise ConfigError(f"--part {self.part}; {nearest(self.part, list(SPLITS))}")
        if self.folds == 1 or self.folds < 0:
            raise ConfigError(f"--folds {self.folds}: expected 0 (none), or 2 and more")
        if self.unit_clips < 1 or self.unit_s <= 0 or self.workers < 1:
            raise ConfigError("--unit-clips, --unit-s and --workers are at least 1")
        if self.shard_mb <= 0:
            raise ConfigError(f"--shard-mb {self.shard_mb}: expected a size in megabytes")
        if self.max_clip_s is not None and self.max_clip_s <= 0:
            raise ConfigError(f"--max-clip-s {self.max_clip_s}: expected a length in seconds")
        _ = self.shares

    @property
    def shares(self) -> tuple[float, ...]:
        """`split` as shares of train, valid and test; empty where none was asked for."""
        if not self.split:
            return ()
        try:
            parts = [float(part) for part in self.split.split("/")]
        except ValueError as error:
            raise ConfigError(f"--split {self.split}: expected shares such as 60/20/20") from error
        if len(parts) != 3 or not 0 < sum(parts) < math.inf or min(parts) < 0:
            raise ConfigError(f"--split {self.split}: expected three shares such as 60/20/20")
        return tuple(part / sum(parts) for part in parts)

    def collect(self) -> Collected:
        """Read the source.

        Raises:
            NotPreparedError: the source is not there, or not laid out as expected.
            LabelTableError: its label table cannot be read at all.
        """
        raise NotImplementedError


def clip_id(name: str) -> int:
    """A stable positive 63-bit id of a dataset's own key."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def media(name: str, source: Source | None = None) -> dict[str, Any]:
    """The fields `video` and `audio` of a row for one file, by its suffix; probing corrects them."""
    source = source or Source(name)
    return {"audio": source} if is_sound(name) else {"video": source, "audio": source}


def is_sound(name: str) -> bool:
    """Whether a name has the suffix of a sound."""
    return "." + name.rsplit(".", 1)[-1].lower() in AUDIO_SUFFIXES


def is_media(name: str) -> bool:
    """Whether a name has the suffix of a sound or film."""
    return "." in name and "." + name.rsplit(".", 1)[-1].lower() in AUDIO_SUFFIXES | VIDEO_SUFFIXES


def passed_over(names: Sequence[str]) -> list[str]:
    """One line that counts files which are not taken for media, by suffix; none where all are.

    >>> passed_over(["a/notes.txt", "b/x.JPG", "b/y.jpg", "b/LICENSE"])
    ['passed over, not taken for sound or film: 2 .jpg, 1 .txt, 1 without a suffix']
    """
    paths = [PurePosixPath(name) for name in names]
    counts = Counter(path.suffix.lower() or "without a suffix" for path in paths)
    if not counts:
        return []
    said = ", ".join(f"{count:,} {suffix}" for suffix, count in counts.most_common())
    return [f"passed over, not taken for sound or film: {said}"]


def files_below(folder: str) -> list[str]:
    """Absolute paths or URIs of all files below a folder, sorted.

    Raises:
        NotPreparedError: there is no such folder.
    """
    folder = storage.absolute(folder)
    fs, path = storage.filesystem(folder)
    if not fs.isdir(path):
        said = "expected a folder, came a file" if fs.exists(path) else "there is no such folder"
        raise NotPreparedError(f"--source {folder}: {said}")
    found = sorted(fs.find(path))
    return found if storage.is_local(folder) else [fs.unstrip_protocol(file) for file in found]


def read_rows(uri: str) -> list[dict[str, Any]]:
    """The rows of a table of an official layout, cells as they stand.

    Raises:
        LabelTableError: not a table of that kind, or one with faults, all listed.
        NotPreparedError: no such file.
    """
    table = read_table(storage.absolute(uri))
    raise_faults(table.faults, uri, LabelTableError)
    columns = {name: table.cells(name) for name in table.columns}
    return [{name: cells[k] for name, cells in columns.items()} for k in range(table.num_rows)]


def decoded(content: bytes) -> str:
    """Text of a label file: UTF-8 where it is that, else Windows-1252; stray control quotes are mended."""
    return decode_text(content, where="a label file")[0]
