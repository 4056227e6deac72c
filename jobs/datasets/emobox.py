"""EmoBox: one layout for 32 public corpora of emotional speech, with label maps and fixed folds.

Reads `data/{corpus}/fold_{k}/{corpus}_{train,valid,test}_fold_{k}.jsonl` (key, wav, emo, of segments
start_time and end_time), `label_map.json` and the sounds at the paths that the lines name, below
`downloads`. The class of a clip is what the map makes of its `emo`. Several folds become the folds `emobox`:
a clip belongs to the fold that tests it. One fold alone is the split of its clips.

Lines name no speakers. Those of some corpora are known by their keys (`--speakers` gives a pattern for
others), but published folds may test people who are also trained on: groups are then clips, as the protocol
has it, and a note says so. `--by-speaker` groups by speaker and leaves the published folds out.

Ma et al. 2024, https://arxiv.org/abs/2406.07162.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from cluster import storage
from cluster.errors import ConfigError, LabelTableError
from cluster.settings import Place, nearest
from encoders.media import Source
from fusion.tasks import Task
from jobs.preparing.about import About
from jobs.preparing.adapter import Collected, Preparation, Row, decoded, files_below

MANIFEST = re.compile(r"(?P<corpus>\w+?)_(?P<part>train|valid|test)_fold_?(?P<fold>\d+)\.jsonl")
MAPS = ("label_map.json", "label_dict.json")
SPEAKERS = {
    "cremad": r"(\d{4})_",
    "emodb": r"(\d\d)[ab]\d\d",
    "iemocap": r"(Ses\d\d)",
    "ravdess": r"-(\d\d)$",
}
"""Corpus -> pattern whose bracket is the speaker (of IEMOCAP the session: both actors hear each other)."""

ABOUT = About(
    name="emobox",
    licence="MIT (lists and folds); the sounds by the licence of each corpus",
    citation="Ma et al. 2024, EmoBox: Multilingual Multi-corpus Speech Emotion Recognition Toolkit and "
    "Benchmark, Interspeech, https://arxiv.org/abs/2406.07162; and the paper of the corpus",
    download="https://github.com/emo-box/EmoBox (data), and each corpus from where its README says",
    layout=(
        "EmoBox/",
        "  data/emodb/label_map.json",
        "  data/emodb/fold_1/emodb_train_fold_1.jsonl  emodb_test_fold_1.jsonl ...",
        "  downloads/emodb/wav/03a01Fa.wav ...",
    ),
    looked_for="data/{corpus}/fold_1/{corpus}_test_fold_1.jsonl",
    groups="speakers where they are known and the folds keep them apart, else clips",
    splits="folds emobox, or the split train, valid, test of a corpus with one fold",
    command="affuse prepare emobox --source EmoBox --corpus emodb --root data/emodb",
)


@dataclass
class _Clip:
    """What the lines of all folds say of one clip."""

    wav: str
    emo: str
    start_s: float | None = None
    end_s: float | None = None
    parts: dict[int, str] = field(default_factory=dict)
    """Fold -> train, valid or test."""


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """EmoBox: 32 corpora of emotional speech by one layout, with its fixed folds."""

    source: Place
    """Folder or URI with `data` and `downloads`."""

    corpus: str
    """Name of the corpus as EmoBox spells it, such as emodb."""

    speakers: str = ""
    """Pattern whose first bracket in a clip's key is its speaker, such as `^(spk[0-9]+)_`."""

    by_speaker: bool = False
    """Group by speaker, and leave the published folds and splits out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            brackets = re.compile(self.speakers).groups
        except re.error as error:
            raise ConfigError(f"--speakers {self.speakers}: not a pattern: {error}") from error
        if self.speakers and not brackets:
            raise ConfigError(f"--speakers {self.speakers}: expected a bracket round the speaker")
        if self.by_speaker and not self._pattern:
            raise ConfigError(
                f"--by-speaker: speakers of {self.corpus} are unknown; add --speakers"
            )

    @property
    def _pattern(self) -> str:
        return self.speakers or SPEAKERS.get(self.corpus, "")

    def collect(self) -> Collected:
        """One clip a key of the lists."""
        files = files_below(self.source)
        inside = f"/data/{self.corpus}/"
        lists = [
            uri for uri in files if inside in uri and MANIFEST.fullmatch(uri.rsplit("/", 1)[-1])
        ]
        if not lists:
            raise _about(self.corpus).absent(self.source, why=self._known(files))
        clips, faults = _read_lists(lists)
        words = self._label_map(files, inside)
        rows = [self._row(key, clip, words) for key, clip in clips.items()]
        folds, notes = _folds(clips), []
        if self.by_speaker:
            folds, rows = {}, [_without_split(row) for row in rows]
        elif shared := _shared_speakers(rows, clips):
            notes.append(
                f"{shared} speakers or recordings stand on both sides of the published folds of "
                f"{self.corpus}: its figures are not of unseen people; --by-speaker groups by speaker instead"
            )
            rows = [_alone(row) for row in rows]
        return Collected(
            name=self.corpus,
            licence=ABOUT.licence,
            tasks={
                "emotion": Task(kind="classification", classes=tuple(sorted(set(words.values()))))
            },
            rows=rows,
            folds=folds,
            faults=faults,
            notes=notes,
        )

    def _known(self, files: list[str]) -> str:
        """What to type in place of a corpus that is not there."""
        found = {m["corpus"] for uri in files if (m := MANIFEST.fullmatch(uri.rsplit("/", 1)[-1]))}
        if not found:
            return ""
        return f"found none of --corpus {self.corpus} ({nearest(self.corpus, sorted(found))})"

    def _label_map(self, files: list[str], inside: str) -> dict[str, str]:
        for uri in files:
            if inside in uri and uri.rsplit("/", 1)[-1] in MAPS:
                try:
                    found = json.loads(decoded(storage.read_bytes(uri)))
                    return {str(k): str(v) for k, v in found.items()}
                except (AttributeError, ValueError) as error:
                    raise LabelTableError(f"{uri}: not a map of labels: {error}") from error
        why = f"found no {inside.lstrip('/')}{MAPS[0]}"
        raise _about(self.corpus).absent(self.source, why=why)

    def _row(self, key: str, clip: _Clip, words: Mapping[str, str]) -> Row:
        found = (
            re.search(self._pattern, key.removeprefix(f"{self.corpus}-")) if self._pattern else None
        )
        single = next(iter(clip.parts.values())) if set(clip.parts) == {1} else None
        lower = {word.lower(): name for word, name in words.items()}  # emodb: neutral and Neutral
        return Row(
            name=key,
            audio=Source(storage.join(storage.absolute(self.source), clip.wav)),
            speaker=None if found is None else found[1],
            split=single,
            start_s=clip.start_s,
            end_s=clip.end_s,
            labels={"emotion": words.get(clip.emo) or lower.get(clip.emo.lower(), clip.emo)},
        )


def _read_lists(lists: list[str]) -> tuple[dict[str, _Clip], list[str]]:
    """The clips of all lists by their keys, and the faults of single lines."""
    clips: dict[str, _Clip] = {}
    faults: list[str] = []
    read: set[tuple[int, str]] = set()
    # Where a list is there under two spellings, that without the second underscore is an older form.
    for uri in sorted(lists, key=lambda uri: ("_fold_" not in uri.rsplit("/", 1)[-1], uri)):
        name = MANIFEST.fullmatch(uri.rsplit("/", 1)[-1])
        assert name is not None
        fold, part = int(name["fold"]), name["part"]
        if (fold, part) in read:
            continue
        read.add((fold, part))
        for number, line in enumerate(decoded(storage.read_bytes(uri)).splitlines(), 1):
            try:
                if line.strip():
                    _add_line(clips, json.loads(line), fold, part)
            except (KeyError, TypeError, ValueError) as error:
                faults.append(f"{uri}, line {number}: {error!r}")
    if not clips:
        raise LabelTableError(f"{lists[0]}: {faults[0] if faults else 'holds no lines'}")
    return clips, faults


def _add_line(clips: dict[str, _Clip], line: Mapping[str, Any], fold: int, part: str) -> None:
    key, wav, emo = str(line["key"]), str(line["wav"]), str(line["emo"])
    if PurePosixPath(wav).is_absolute() or ".." in PurePosixPath(wav).parts or "://" in wav:
        raise ValueError(f"wav {wav!r} does not lie below the source")
    start_s, end_s = (
        float(line[name]) if name in line else None for name in ("start_time", "end_time")
    )
    clip = clips.setdefault(key, _Clip(wav, emo, start_s, end_s))
    if (clip.wav, clip.emo) != (wav, emo):
        raise ValueError(f"{key} is {emo} of {wav} here, {clip.emo} of {clip.wav} elsewhere")
    if fold in clip.parts:
        raise ValueError(f"{key} stands twice in fold {fold}: {clip.parts[fold]} and {part}")
    clip.parts[fold] = part


def _about(corpus: str) -> About:
    """What is looked for of one corpus."""
    return replace(ABOUT, looked_for=ABOUT.looked_for.replace("{corpus}", corpus))


def _folds(clips: Mapping[str, _Clip]) -> dict[str, dict[str, int]]:
    """The fold that tests each clip; none where there is one fold alone."""
    if {fold for clip in clips.values() for fold in clip.parts} == {1}:
        return {}
    tested = {
        key: min(fold for fold, part in clip.parts.items() if part == "test") - 1
        for key, clip in clips.items()
        if "test" in clip.parts.values()
    }
    return {"emobox": tested}


def _shared_speakers(rows: list[Row], clips: Mapping[str, _Clip]) -> int:
    """Speakers, or recordings cut into clips, with clips in several parts of one fold."""
    parts: dict[tuple[str, int], set[str]] = defaultdict(set)
    for row in rows:
        clip = clips[row.name]
        together = row.speaker or (clip.wav if clip.start_s is not None else row.name)
        for fold, part in clip.parts.items():
            parts[together, fold].add(part)
    return len({speaker for (speaker, _), found in parts.items() if len(found) > 1})


def _alone(row: Row) -> Row:
    return replace(row, group=row.name)


def _without_split(row: Row) -> Row:
    return replace(row, split=None)
