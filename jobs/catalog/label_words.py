"""Names that mean one emotion, so that a model's own classes can be joined to the labels of a dataset."""

from collections.abc import Sequence

SAME: tuple[tuple[str, ...], ...] = (
    ("anger", "angry", "ang"),
    ("contempt", "contemptuous"),
    ("disgust", "disgusted", "dis"),
    ("fear", "fearful", "fea", "afraid", "scared"),
    ("happiness", "happy", "hap", "joy", "joyful", "glad"),
    ("neutral", "neutrality", "neu", "calm", "no emotion"),
    ("sadness", "sad", "sorrow", "unhappy"),
    ("surprise", "surprised", "sur", "astonished"),
)
"""Names of one emotion, the noun first."""

SENTIMENT: dict[str, tuple[str, ...]] = {
    "positive": ("happiness",),
    "negative": ("anger", "contempt", "disgust", "fear", "sadness"),
}
"""Sentiment -> the emotions that it holds; surprise is of neither."""

_NOUN = {name: names[0] for names in SAME for name in names}
_SENTIMENT = {"pos": "positive", "neg": "negative"} | {name: name for name in SENTIMENT}


def joined(classes: Sequence[str], labels: Sequence[str]) -> list[list[float]]:
    """How a model's classes count for the labels of a task [label class].

    A class that several labels mean (a dataset has both `joy` and `happy`) is divided between them evenly; a
    row of zeros is a label that no class means, a column of zeros a class that no label means.

    >>> joined(("happy", "sad", "other"), ("joy", "boredom", "sadness"))
    [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    meant = [[_means(label, name) for name in classes] for label in labels]
    often = [sum(column) for column in zip(*meant, strict=True)]
    return [
        [float(one) / max(count, 1) for one, count in zip(row, often, strict=True)] for row in meant
    ]


def _means(label: str, name: str) -> bool:
    """Whether a class counts for a label."""
    ours, theirs = _plain(label), _plain(name)
    held = SENTIMENT.get(_SENTIMENT.get(ours, ""), ())
    return _noun(ours) == _noun(theirs) or _noun(theirs) in held


def _noun(name: str) -> str:
    return _NOUN.get(name, _SENTIMENT.get(name, name))


def _plain(name: str) -> str:
    """A name whatever the case of its letters and how its words are joined."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
