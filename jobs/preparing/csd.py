"""Computational sequences of the CMU SDK (`.csd`, HDF5): labels of segments, words with times, folds.

A sequence holds `{name}/data/{video}/features` [step width] and `intervals` [step 2] in seconds. A segment is
called `{video}_{k}`, k being its row, as the SDK counts (`video[k]`).
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from cluster import storage
from cluster.errors import LabelTableError
from encoders.spec import Word
from jobs.interop.arrays import as_text, open_arrays
from jobs.interop.tables import Faults
from jobs.preparing.adapter import decoded

PAUSE = "sp"
"""What the SDK writes of silence between words."""

FOLDS = {
    "standard_train_fold": "train",
    "standard_valid_fold": "valid",
    "standard_test_fold": "test",
}
"""Variables of the SDK's `cmu_mosei_std_folds.py`."""


@dataclass(frozen=True)
class Segment:
    """A labelled piece of a video."""

    video: str
    number: int
    """Its row in the sequence."""

    turn: int
    """Its place in time among those of the video."""

    start_s: float
    end_s: float
    values: tuple[float, ...]
    """NaN where nothing is said."""


def csd_of(uris: Sequence[str], word: str) -> str | None:
    """The sequence whose name holds a word, such as `CMU_MOSEI_Labels.csd`; None without any.

    Raises:
        LabelTableError: several do.
    """
    found = [
        uri
        for uri in uris
        if uri.lower().endswith(".csd") and word in PurePosixPath(uri).name.lower()
    ]
    if len(found) > 1:
        raise LabelTableError(f"several sequences of {word}; keep one: {', '.join(found)}")
    return found[0] if found else None


def segments_of(uri: str, width: int, faults: Faults) -> list[Segment]:
    """Every segment of a sequence of labels, videos in their order.

    Args:
        uri: the file.
        width: numbers that a segment has.
        faults: gets segments without an end after their start, and rows that are shifted.
    """
    found: list[Segment] = []
    with open_arrays(uri) as content:
        for video, key in _videos(content, uri):
            values, times = _steps(content, key, uri)
            if values.ndim != 2 or values.shape[1] != width or values.dtype.kind not in "fiu":
                faults.append(
                    f"{uri}: {video} has labels of {values.dtype} {values.shape}, expected [segment {width}]"
                )
                continue
            if times.shape != (len(values), 2):
                faults.append(f"{uri}: {video} has {len(values)} labels and times of {times.shape}")
                continue
            turns = np.argsort(np.argsort(times[:, 0], kind="stable"))
            for k, (row, (start_s, end_s)) in enumerate(zip(values, times.tolist(), strict=True)):
                if not 0 <= start_s < end_s < np.inf:
                    faults.append(
                        f"{uri}: {video}, segment {k}: lies at {start_s:g} to {end_s:g} s"
                    )
                    continue
                numbers = tuple(float(x) for x in row)
                found.append(Segment(video, k, int(turns[k]), start_s, end_s, numbers))
    return found


class Transcripts:
    """The words of all videos."""

    def __init__(self, uri: str, faults: Faults) -> None:
        self._words: dict[str, tuple[list[str], np.ndarray]] = {}
        with open_arrays(uri) as content:
            for video, key in _videos(content, uri):
                values, times = _steps(content, key, uri)
                if times.shape != (len(values), 2):
                    faults.append(
                        f"{uri}: {video} has {len(values)} words and times of {times.shape}"
                    )
                    continue
                self._words[video] = ([as_text(word) for word in values.reshape(-1)], times)

    def inside(self, segment: Segment) -> list[Word] | None:
        """The words whose middle lies in a segment, in time from its start; None of an unknown video."""
        if segment.video not in self._words:
            return None
        words, times = self._words[segment.video]
        middle = times.mean(1)
        rows = np.flatnonzero((segment.start_s <= middle) & (middle < segment.end_s))
        rows = rows[np.argsort(times[rows, 0], kind="stable")]
        return [
            Word(
                text=words[k],
                start_s=max(0.0, float(times[k, 0]) - segment.start_s),
                end_s=float(min(times[k, 1], segment.end_s)) - segment.start_s,
            )
            for k in rows.tolist()
            if words[k] not in (PAUSE, "")
        ]


def standard_folds(uris: Sequence[str]) -> dict[str, str]:
    """Video -> split, by the SDK's file of standard folds; empty where it is not there. Nothing is executed.

    Raises:
        LabelTableError: the file holds no such lists, or a video twice.
    """
    uri = next((u for u in uris if PurePosixPath(u).name.endswith("std_folds.py")), None)
    if uri is None:
        return {}
    splits: dict[str, str] = {}
    try:
        tree = ast.parse(decoded(storage.read_bytes(uri)))
        for node in tree.body:
            name = node.targets[0] if isinstance(node, ast.Assign) else None
            if isinstance(node, ast.Assign) and isinstance(name, ast.Name) and name.id in FOLDS:
                for video in ast.literal_eval(node.value):
                    if splits.setdefault(str(video), FOLDS[name.id]) != FOLDS[name.id]:
                        raise LabelTableError(f"{uri}: video {video!r} stands in two folds")
    except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError) as error:
        raise LabelTableError(f"{uri}: not lists of videos: {error}") from error
    if not splits:
        raise LabelTableError(f"{uri}: holds none of {', '.join(FOLDS)}")
    return splits


def _videos(content: Mapping[str, Any], uri: str) -> Iterator[tuple[str, str]]:
    """(video, key of its group) of every video.

    Raises:
        LabelTableError: the file is no computational sequence.
    """
    found = False
    for key in content:
        group, _, leaf = key.rpartition("/")
        if leaf == "features" and "/data/" in f"/{group}":
            found = True
            yield group.rpartition("/")[2], group
    if not found:
        raise LabelTableError(
            f"{uri}: holds no NAME/data/VIDEO/features, as computational sequences do"
        )


def _steps(content: Mapping[str, Any], key: str, uri: str) -> tuple[np.ndarray, np.ndarray]:
    if f"{key}/intervals" not in content:
        raise LabelTableError(f"{uri}: {key} has no intervals")
    times = np.asarray(content[f"{key}/intervals"])
    if times.dtype.kind not in "fiu":
        raise LabelTableError(f"{uri}: {key}/intervals are {times.dtype}, expected seconds")
    return np.asarray(content[f"{key}/features"]), times.astype(np.float64)
