"""How well the pretrained models read the synthetic corpus: faces found, faces read, words recognised.

`corpus.json` says what was really shown and said. These are rates of the corpus and the models, not of any
net that was trained: they say how much of what the tables allow comes through.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster import storage
from jobs.catalog import layout
from jobs.catalog.features import read_features, read_transcripts, resolve_features
from jobs.catalog.manifest import read_manifest

EXPRESSION_NAMES = ("angry", "disgust", "fear", "happy", "sad", "surprised", "neutral")
"""Order of the face encoder's `expression` column, in the words of the corpus."""

DIGITS = {"1": "one", "2": "two", "3": "three", "10": "ten", "10:00": "ten"}
"""How the recogniser may write what the sentences spell out."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Shares over the clips of the corpus."""

    frames_found: float
    """Frames with a face that the mesh confirmed."""

    clips_found: float
    """Clips with at least one such frame."""

    faces_read: float
    """Clips whose mean expression is the one that was painted, among 7 expressions."""

    word_error_rate: float | None
    """Wrong, missing and added words over the words said; None without transcripts."""

    def lines(self) -> list[str]:
        """As printed."""
        words = "not asked" if self.word_error_rate is None else f"{self.word_error_rate:.1%}"
        return [
            f"face found in {self.frames_found:.1%} of frames, {self.clips_found:.1%} of clips",
            f"expression read as painted in {self.faces_read:.1%} of clips",
            f"word error rate of the recogniser: {words}",
        ]


def corpus_rates(root: str, face: str, transcriber: str | None) -> Rates:
    """Compare features and transcripts with what `corpus.json` says.

    Args:
        root: of a synthetic corpus.
        face: its face features.
        transcriber: its transcripts; None: leave the words out.

    Raises:
        NotPreparedError: something has not been made yet.
    """
    truth = storage.read_json(layout.corpus_uri(root))["clips"]
    table = read_manifest(root, ["clip_id", "name"])
    name_of = dict(zip(table["clip_id"].to_pylist(), table["name"].to_pylist(), strict=True))
    rows = read_features(
        root, resolve_features(root, face), columns=["clip_id", "valid", "expression"]
    ).to_pylist()
    return Rates(
        frames_found=float(np.mean(np.concatenate([row["valid"] or [False] for row in rows]))),
        clips_found=float(np.mean([any(row["valid"] or ()) for row in rows])),
        faces_read=float(
            np.mean([_expression(row) == truth[name_of[row["clip_id"]]]["face"] for row in rows])
        ),
        word_error_rate=None if transcriber is None else _words(root, transcriber, truth, name_of),
    )


def _expression(row: Mapping[str, Any]) -> str:
    """The most probable expression of a clip, the mean over the frames with a face."""
    shown = [
        p for p, valid in zip(row["expression"] or (), row["valid"] or (), strict=True) if valid
    ]
    return EXPRESSION_NAMES[int(np.mean(shown, axis=0).argmax())] if shown else ""


def _words(
    root: str, transcriber: str, truth: Mapping[str, Any], name_of: Mapping[int, str]
) -> float:
    errors, said = 0, 0
    for row in read_transcripts(root, transcriber).to_pylist():
        wanted = words_of(truth[name_of[row["clip_id"]]]["sentence"])
        errors += edits(wanted, words_of(row["text"] or ""))
        said += len(wanted)
    return errors / max(1, said)


def words_of(sentence: str) -> list[str]:
    """Lower-case words without punctuation.

    >>> words_of("Wow, it's the 2nd... at 10!")
    ['wow', "it's", 'the', '2nd', 'at', 'ten']
    """
    found = re.findall(r"[\w:']+", sentence.lower().replace("\u2019", "'"))
    return [DIGITS.get(word, word) for word in found]


def edits(wanted: Sequence[str], heard: Sequence[str]) -> int:
    """Fewest substitutions, deletions and insertions between two sequences of words.

    >>> edits("the cat sat".split(), "a cat sat down".split())
    2
    """
    row = list(range(len(heard) + 1))
    for index, word in enumerate(wanted, 1):
        diagonal, row[0] = row[0], index
        for column, other in enumerate(heard, 1):
            changed = diagonal + (word != other)
            diagonal = row[column]
            row[column] = min(changed, row[column] + 1, row[column - 1] + 1)
    return row[-1]
