"""IEMOCAP: dialogues of ten actors in five sessions, emotions and valence, arousal, dominance per turn.

Reads the layout of the full release: `Session*/dialog/EmoEvaluation/*.txt` (labels and times),
`dialog/transcriptions/*.txt` (words), `sentences/wav/*/*.wav` (sound of each turn) or, with `--media films`,
the turn's segment of `dialog/avi/**/*.avi`, which shows both speakers. Turns whose label is not among the
chosen classes stay in their dialogue without a label. `--votes` adds what each evaluator chose (lines `C-E`);
one who chose several classes is shared among them, one who chose none of the classes is left out.

Busso et al. 2008, https://doi.org/10.1007/s10579-008-9076-6.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Literal

from cluster import storage
from cluster.settings import Place
from fusion.tasks import Task
from jobs.preparing import adapter
from jobs.preparing.about import About
from jobs.preparing.adapter import Collected, Preparation, Row, decoded, files_below
from jobs.preparing.votes import from_choices

SCHEMES: Mapping[str, Mapping[str, str]] = {
    "four": {
        "ang": "angry", "hap": "happy", "exc": "happy", "neu": "neutral", "sad": "sad",
    },
    "five": {
        "neu": "neutral", "fru": "frustrated", "ang": "angry", "sad": "sad", "exc": "excited",
    },
    "six": {
        "hap": "happy", "sad": "sad", "neu": "neutral", "ang": "angry", "exc": "excited",
        "fru": "frustrated",
    },
}  # fmt: skip
CHOICES = {
    "Anger": "ang", "Excited": "exc", "Frustration": "fru", "Happiness": "hap", "Neutral": "neu",
    "Neutral state": "neu", "Sadness": "sad",
}  # fmt: skip
"""Words of an evaluator's line -> code of the class."""

EVALUATOR = re.compile(r"^C-E\w+:\t(?P<choices>[^()\n]*)", re.MULTILINE)
LABEL = re.compile(
    r"\[(?P<start>[\d.]+) - (?P<end>[\d.]+)\]\t(?P<turn>\S+)\t(?P<emotion>\w+)\t\[(?P<vad>[^\]]+)\]"
)
CODES = frozenset(["ang", "dis", "exc", "fea", "fru", "hap", "neu", "oth", "sad", "sur", "xxx"])
"""All codes of the release; those that a scheme does not have are no label."""
WORDS = re.compile(r"(?P<turn>Ses\w+) \[[\d.]+-[\d.]+\]:\s*(?P<text>.*)")
DIMENSIONS = ("valence", "arousal", "dominance")

ABOUT = About(
    name="iemocap",
    licence="research use, by agreement with USC",
    citation="Busso et al. 2008, IEMOCAP: interactive emotional dyadic motion capture database, Language "
    "Resources and Evaluation 42, https://doi.org/10.1007/s10579-008-9076-6",
    download="https://sail.usc.edu/iemocap/iemocap_release.htm (a signed form)",
    layout=(
        "IEMOCAP_full_release/",
        "  Session1/dialog/EmoEvaluation/Ses01F_impro01.txt",
        "  Session1/dialog/transcriptions/Ses01F_impro01.txt",
        "  Session1/dialog/avi/DivX/Ses01F_impro01.avi",
        "  Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav",
        "  ...",
    ),
    looked_for="Session*/dialog/EmoEvaluation/*.txt with labelled turns",
    groups="sessions (two actors each)",
    splits="folds session: one session left out, five folds",
    command="affuse prepare iemocap --source IEMOCAP_full_release --root data/iemocap --scheme four",
)


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """IEMOCAP: about 10,000 turns of ten actors in five sessions."""

    source: Place
    """Folder or URI of the full release (it holds Session1 to Session5)."""

    scheme: Literal["four", "five", "six"] = "six"
    """Classes: four (excited counts as happy), five (without happy), six."""

    media: Literal["sentences", "films", "none"] = "sentences"
    """Media of a turn. sentences: its sound. films: pictures and sound, cut from the film of the dialogue."""

    votes: bool = False
    """Add what each evaluator chose."""

    def collect(self) -> Collected:
        """One clip a turn; groups are sessions, and folds leave one session out."""
        files = files_below(self.source)
        texts = _transcripts(uri for uri in files if "/transcriptions/" in uri)
        wanted = {"sentences": "/sentences/wav/", "films": "/avi/", "none": "\0"}[self.media]
        found = {PurePosixPath(uri).stem: uri for uri in files if wanted in uri}
        rows: list[Row] = []
        faults: list[str] = []
        for uri in files:
            if "/EmoEvaluation/" in uri and PurePosixPath(uri).parent.name == "EmoEvaluation":
                said = decoded(storage.read_bytes(uri))
                turns = list(LABEL.finditer(said))
                ends = [*(match.start() for match in turns[1:]), len(said)]
                votes = {
                    match["turn"]: self._votes(said[match.end() : end])
                    for match, end in zip(turns, ends, strict=False)
                }
                ordered = sorted(turns, key=lambda match: float(match["start"]))
                for number, match in enumerate(ordered):
                    if match["emotion"] not in CODES:
                        faults.append(f"{uri}: {match['turn']}: unknown code {match['emotion']!r}")
                    row = self._row(match, number, texts, found)
                    rows.append(replace(row, votes=votes[row.name]))
        if not rows:
            raise ABOUT.absent(self.source)
        classes = tuple(dict.fromkeys(SCHEMES[self.scheme].values()))
        tasks = {"emotion": Task(kind="classification", classes=classes)}
        tasks |= {name: Task(kind="regression", range=(0.0, 5.5)) for name in DIMENSIONS}
        return Collected(
            name="iemocap",
            licence=ABOUT.licence,
            tasks=tasks,
            rows=rows,
            faults=faults,
            folds={"session": {row.name: int(row.name[3:5]) - 1 for row in rows}},
        )

    def _votes(self, lines: str) -> dict[str, list[list[float]]]:
        """What the evaluators whose lines stand below a turn chose."""
        if not self.votes:
            return {}
        scheme = SCHEMES[self.scheme]
        meaning = {word: scheme[code] for word, code in CHOICES.items() if code in scheme}
        classes = tuple(dict.fromkeys(scheme.values()))
        chosen = (
            [word.strip() for word in re.split("[;,]", match["choices"]) if word.strip()]
            for match in EVALUATOR.finditer(lines.replace("\r", ""))
        )
        votes = [from_choices(words, meaning, classes) for words in chosen]
        kept = [vote for vote in votes if vote is not None]
        return {"emotion": kept} if kept else {}

    def _row(
        self, match: re.Match[str], number: int, texts: Mapping[str, str], found: Mapping[str, str]
    ) -> Row:
        name = match["turn"]
        dialogue, _, who = name.rpartition("_")
        segment: dict[str, Any] = {}
        sources: dict[str, Any] = {}
        if self.media == "films":
            segment = {"start_s": float(match["start"]), "end_s": float(match["end"])}
            sources = adapter.media(
                found.get(dialogue, f"{self.source.rstrip('/')}/{dialogue}.avi")
            )
        elif self.media == "sentences":
            sources = adapter.media(found.get(name, f"{self.source.rstrip('/')}/{name}.wav"))
        values = [float(part) for part in match["vad"].split(",")]
        scores = dict(zip(DIMENSIONS, values, strict=True))
        return Row(
            name=name,
            **sources,
            **segment,
            text=texts.get(name),
            dialogue=dialogue,
            turn=number,
            speaker=f"{name[:5]}{who[0]}",
            group=name[:5],
            labels={"emotion": SCHEMES[self.scheme].get(match["emotion"]), **scores},
            profile={"gender": {"F": "female", "M": "male"}.get(who[0])},
        )


def _transcripts(uris: Iterable[str]) -> dict[str, str]:
    texts: dict[str, str] = defaultdict(str)
    for uri in uris:
        for match in WORDS.finditer(decoded(storage.read_bytes(uri))):
            texts[match["turn"]] = match["text"].strip()
    return dict(texts)
