"""Clips as Python gives them (paths, or a frame with a row a clip) as what decodes and scores them.

Columns of a frame, all optional but one of the first two:

    clip                        path or URI of a media file
    text                        what was said; without it the bundle's transcriber listens
    start_s, end_s              the segment of the file that is meant [s]
    name                        by default that of the file
    dialogue, turn, speaker     for bundles that read across the clips of a dialogue or a speaker
    <input of the bundle>       features of an input that was imported: numbers [feature] or [step feature]
"""

import math
import numbers
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from cluster import storage
from cluster.errors import ConfigError
from cluster.nearest import nearest_of
from encoders.media import ClipSource, Decoder
from jobs.scoring.files import found_files, names_of
from jobs.scoring.in_process import clip_of
from jobs.stream.decode import with_context

ClipsGiven: TypeAlias = Any
"""str | PathLike | a sequence of these | pandas.DataFrame | a mapping of columns | a sequence of mappings."""

COLUMNS = ("clip", "text", "start_s", "end_s", "name", "dialogue", "turn", "speaker")


@dataclass(frozen=True, kw_only=True)
class ClipRow:
    """One clip of a call."""

    clip_id: int
    """Its place in the call."""

    name: str
    file: str | None
    text: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    dialogue: str | None = None
    turn: int | None = None
    speaker: str | None = None
    given: Mapping[str, Any]
    """Values of the columns that are inputs of the bundle."""

    @property
    def facts(self) -> dict[str, Any]:
        """Columns of the manifest that nets read beside features."""
        names = ("clip_id", "name", "dialogue", "turn", "speaker")
        return {name: getattr(self, name) for name in names}

    def source(self, decoder: Decoder) -> ClipSource:
        """The decoder's view of it; the headers of its file are read here."""
        if self.file is None:
            return ClipSource(clip_id=self.clip_id, text=self.text)
        found = clip_of(self.file, self.name, decoder)
        length_s = found.duration_s
        if self.start_s is not None or self.end_s is not None:
            end_s = length_s if self.end_s is None else self.end_s
            length_s = None if end_s is None else max(end_s - (self.start_s or 0.0), 0.0)
        return replace(
            found,
            clip_id=self.clip_id,
            text=self.text,
            start_s=self.start_s,
            end_s=self.end_s,
            duration_s=length_s,
        )


def clip_rows(clips: ClipsGiven, inputs: Collection[str] = ()) -> list[ClipRow]:
    """The clips of a call, in its order.

    Args:
        clips: paths or a frame.
        inputs: further columns that a frame may have.

    Raises:
        ConfigError: a column, a value or a kind of clips that is not known.
        NotPreparedError: a path that holds nothing.
    """
    if isinstance(clips, str | os.PathLike):
        return _of_files(found_files([os.fspath(clips)]))
    columns = _columns_of(clips)
    if columns is None:
        return _of_files(found_files([os.fspath(each) for each in clips]))
    return _of_columns(columns, inputs)


def contexts(rows: Sequence[ClipRow]) -> dict[int, tuple[Sequence[str], Sequence[str]]]:
    """The texts around each clip in its dialogue, by its id."""
    facts = [{**row.facts, "text": row.text} for row in rows]
    return {row["clip_id"]: row["context"] for row in with_context(facts)}


def _columns_of(clips: Any) -> dict[str, list[Any]] | None:
    """Column -> values of a frame; None for a sequence of paths."""
    if isinstance(clips, Mapping):
        return {str(name): list(values) for name, values in clips.items()}
    if hasattr(clips, "to_dict") and hasattr(clips, "columns"):
        return {str(name): list(clips[name]) for name in clips.columns}
    if not isinstance(clips, Iterable):
        raise ConfigError(
            f"clips: expected a path, several paths or a frame, came {type(clips).__name__}"
        )
    if not isinstance(clips, Sequence):
        raise ConfigError(f"clips: expected a list, came {type(clips).__name__}; type: list(...)")
    kinds = {isinstance(each, Mapping) for each in clips}
    if kinds == {True}:
        names = list(dict.fromkeys(str(name) for each in clips for name in each))
        return {name: [each.get(name) for each in clips] for name in names}
    strange = [each for each in clips if not isinstance(each, str | os.PathLike)]
    if strange:
        raise ConfigError(
            f"clips: expected paths or rows, came {type(strange[0]).__name__} among them"
        )
    return None


def _of_files(files: Sequence[str]) -> list[ClipRow]:
    names = names_of(files)
    return [
        ClipRow(clip_id=place, name=names[file], file=file, given={})
        for place, file in enumerate(files)
    ]


def _of_columns(columns: Mapping[str, list[Any]], inputs: Collection[str]) -> list[ClipRow]:
    known = [*COLUMNS, *inputs]
    for name in columns:
        if name not in known:
            near = nearest_of(name, known)
            hint = f"did you mean {near!r}?" if near else f"columns are {', '.join(known)}"
            raise ConfigError(f"clips: no column is called {name!r}; {hint}")
    if not {"clip", "text", *inputs} & columns.keys():
        raise ConfigError(f"clips: expected a column of {', '.join(('clip', 'text', *inputs))}")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ConfigError(f"clips: columns are of different lengths: {lengths}")
    count = next(iter(lengths.values()))
    cells = [{name: _cell(values[at]) for name, values in columns.items()} for at in range(count)]
    files = [_file(each.get("clip"), at) for at, each in enumerate(cells)]
    names = names_of(list(dict.fromkeys(file for file in files if file is not None)))
    for at, each in enumerate(cells):
        _check_segment(each, at)
    return [
        ClipRow(
            clip_id=at,
            name=str(each.get("name") or (f"row {at}" if file is None else names[file])),
            file=file,
            text=_typed(each, "text", str, at),
            start_s=_seconds(each, "start_s", at),
            end_s=_seconds(each, "end_s", at),
            dialogue=None if each.get("dialogue") is None else str(each["dialogue"]),
            turn=_typed(each, "turn", int, at),
            speaker=None if each.get("speaker") is None else str(each["speaker"]),
            given={name: each[name] for name in inputs if each.get(name) is not None},
        )
        for at, (each, file) in enumerate(zip(cells, files, strict=True))
    ]


def _cell(value: Any) -> Any:
    """A value; the NaN, NaT and NA by which frames say that there is none is None."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    return None if isinstance(value, float) and math.isnan(value) else value


def _file(value: Any, row: int) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ConfigError(f"clips, row {row}: clip: expected a path, came {value!r}")
    return storage.absolute(os.fspath(value))


def _typed(cells: Mapping[str, Any], name: str, kind: type, row: int) -> Any:
    value = cells.get(name)
    if value is None:
        return None
    if kind is int and isinstance(value, numbers.Real) and float(value).is_integer():
        return int(float(value))
    if not isinstance(value, kind):
        raise ConfigError(f"clips, row {row}: {name}: expected {kind.__name__}, came {value!r}")
    return value


def _seconds(cells: Mapping[str, Any], name: str, row: int) -> float | None:
    value = cells.get(name)
    if value is None:
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ConfigError(f"clips, row {row}: {name}: expected seconds from 0 on, came {value!r}")
    return seconds


def _check_segment(cells: Mapping[str, Any], row: int) -> None:
    start_s, end_s = (_seconds(cells, name, row) for name in ("start_s", "end_s"))
    if end_s is not None and end_s <= (start_s or 0.0):
        raise ConfigError(
            f"clips, row {row}: end_s {end_s:g}: expected after start_s {start_s or 0:g}"
        )
