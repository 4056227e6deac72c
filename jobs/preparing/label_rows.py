"""The rows of `folder`: a table of labels read strictly, every fault gathered."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from cluster.errors import ConfigError
from encoders.media import Source
from fusion.tasks import Task
from jobs.interop.cells import (
    Column,
    CommaStyle,
    comma_style,
    holds_objects,
    name_of,
    numbers,
    texts,
    words,
)
from jobs.interop.columns import (
    asked_back,
    meant,
    near_roles,
    spelt_differently,
    unread_note,
)
from jobs.interop.several import several
from jobs.interop.tables import Faults, Table
from jobs.preparing.adapter import is_media, media
from jobs.preparing.files_by_name import File, FilesByName, names_of
from jobs.preparing.label_parts import (
    COLUMNS,
    NUMBERS,
    PEOPLE,
    LabelOptions,
    PartRows,
    given_classes,
)
from jobs.preparing.label_votes import Ballot, ballot_of, columns_of, look_at_choices
from jobs.preparing.row_tables import Shape


class Reading:
    """A table of clips, looked through once for what all rows decide, then read a part at a time."""

    def __init__(
        self, options: LabelOptions, table: Table, source: str, files: Sequence[File]
    ) -> None:
        self.faults = Faults(table.faults)
        self.tasks: dict[str, Task] = {}
        self.notes: list[str] = []
        self.folds: tuple[str, ...] = ()
        self.ballots: list[Ballot] = []
        self.options, self._table, self._source = options, table, source
        self._files = FilesByName(files)
        self._styles: dict[str, CommaStyle] = {}
        self._readable = self._columns_are_there()
        if self._readable:
            self._say_how_clips_are_named()
            self._ask_for_media()
            self._look_through()
        self.notes += filter(None, [table.note])

    def tables(self, faults: Faults) -> Iterator[pa.Table]:
        """The rows, some thousand at a time; those without a name are faults, as all is that is not right."""
        shape = Shape(
            tasks=self.tasks,
            profile=tuple(sorted(self.options.profile)),
            folds=self.folds,
            votes=self.votes,
        )
        columns = [
            *filter(None, map(self.column, COLUMNS)),
            *self.options.tasks,
            *self.options.profile,
            *(column for ballot in self.ballots for column in ballot.columns),
        ]
        start = 0
        for part in self._table.parts(columns) if self._readable else ():
            rows = PartRows(self, part, start, faults)
            start += part.num_rows
            yield rows.table(shape)

    @property
    def votes(self) -> tuple[str, ...]:
        """Tasks of which raters' votes are known."""
        return tuple(ballot.task for ballot in self.ballots)

    # ---- columns

    def column(self, role: str) -> str | None:
        """The column that has a role, if there is one."""
        name = self.options.columns.get(role, role)
        return name if name in self._table.columns else None

    def _columns_are_there(self) -> bool:
        """Whether the rows can be read; absent columns and probable typing errors are listed all at once."""
        options, header = self.options, list(self._table.columns)
        wanted = dict.fromkeys([*options.columns.values(), *options.tasks, *options.profile])
        absent = [name for name in [*wanted, *options.as_is] if name not in header]
        self.faults += [f"no column {name!r}; {options.hint(name, header)}" for name in absent]
        voted, unvoted = columns_of(options.votes, header)
        self.faults += unvoted
        used = {*wanted, *voted, *filter(None, map(self.column, COLUMNS))}
        unread = [name for name in header if name not in used]
        self.notes += filter(None, [unread_note(unread)])
        named = any(self.column(role) for role in ("name", "video", "audio"))
        free = [
            role for role in COLUMNS if self.column(role) is None and role not in options.columns
        ]
        near = near_roles([name for name in unread if name not in options.as_is], free)
        for_name = near.pop("name", [])
        if not named and "name" not in options.columns:
            hint = f"type: --columns name={for_name[0]}" if for_name else meant("name", header)
            self.faults.append(
                f"no column 'name', and no 'video' or 'audio' to name clips by; {hint}"
            )
        self.faults += asked_back(near)
        objects = [name for name in header if name in used and self._holds_objects(name)]
        self.faults += [
            f"{name}: each cell is an object, expected text, a number or a list" for name in objects
        ]
        self._unread = [name for name in unread if name not in options.as_is]
        return named and not absent and not unvoted and not objects

    def _holds_objects(self, name: str) -> bool:
        part = next(self._parts(name), None)
        return isinstance(part, pa.Array | pa.ChunkedArray) and holds_objects(part.type)

    def _ask_for_media(self) -> None:
        """Ask back columns that hold media files, where none has that role and names find no file."""
        named = self.column("video") or self.column("audio")
        if named or not self._lacks_files():
            return
        for column in self._unread:
            kinds = set()
            for part in self._parts(column):
                cells = [cell for cell in texts(part) if cell is not None]
                kinds |= {_kind_of(cell) for cell in cells}
                if None in kinds:
                    break
            if kinds and None not in kinds:
                self.faults += asked_back({"audio" if kinds == {"audio"} else "video": [column]})

    def _lacks_files(self) -> bool:
        """Whether some name finds no file."""
        column = self.column("name")
        assert column is not None, "clips that are not named by a column are named by their files"
        names = (name_of(cell) for part in self._parts(column) for cell in texts(part))
        return any(name is not None and not self._files.named(name) for name in names)

    def _say_how_clips_are_named(self) -> None:
        if not self.column("name"):
            self.notes.append("clips are named by their files, segments also by their start")

    def _parts(self, name: str) -> Iterator[Column]:
        """One column, a part at a time."""
        for part in self._table.parts([name]):
            yield part.columns[name]

    # ---- what all rows decide

    def _look_through(self) -> None:
        """Words that are spelt differently, classes, and what commas mean; a column after another."""
        for role in (*PEOPLE, "split"):
            if column := self.column(role):
                found = self._count_words(column)
                if role in PEOPLE and column not in self.options.as_is:
                    self.faults += spelt_differently(column, found)
        for role in NUMBERS:
            if column := self.column(role):
                self._find_style(column)
        if (column := self.column("fold")) and self._is_known(column):
            self.folds = ("table",)
        for name, kind in self.options.tasks.items():
            self.tasks[name] = self._task(name, kind)
        for name in self.options.profile:
            self._count_words(name)
        self._look_at_votes()

    def _look_at_votes(self) -> None:
        header = list(self._table.columns)
        for task, named in sorted(self.options.votes.items()):
            ballot, faults, notes = ballot_of(task, named, self.tasks[task].classes, header)
            self.faults += faults
            self.notes += notes
            if faults or not ballot.classes:
                continue
            self.ballots.append(ballot)
            for column in ballot.columns if ballot.counted else ():
                self._find_style(column)
            if not ballot.counted:
                given = ballot.classes
                as_is = ballot.columns[0] in self.options.as_is
                self.notes += look_at_choices(
                    ballot, self._count_several(ballot.columns[0], given), self.faults, as_is=as_is
                )

    def _count_words(self, column: str, keep: Sequence[str] = ()) -> Counter[str]:
        """The words of a column; cells such as NaN are none, which is noted."""
        found: Counter[str] = Counter()
        nothing = 0
        for part in self._parts(column):
            cells, none = words(part, keep)
            found.update(cell for cell in cells if cell is not None)
            nothing += none
        self._say_nothing(column, nothing)
        return found

    def _count_several(self, column: str, keep: Sequence[str] = ()) -> Counter[str]:
        """The words of a column whose cells hold several; a cell that only looks like a list is a fault."""
        found: Counter[str] = Counter()
        nothing, odd = 0, Counter[str]()
        for part in self._parts(column):
            cells, none, strange = several(part, keep, as_is=column in self.options.as_is)
            found.update(word for cell in cells for word in cell or ())
            odd.update(strange)
            nothing += none
        if odd:
            self.faults.append(
                f"{column} {next(iter(odd))!r} ({odd.total()} such cells): expected a|b, or a list of words "
                f"in quotes, such as ['a', 'b']; if it is a label: --as-is {column}"
            )
        self._say_nothing(column, nothing)
        return found

    def _say_nothing(self, column: str, nothing: int) -> None:
        if nothing:
            self._table.notes.append(f"{column}: {nothing} cells such as NaN or NA say nothing")

    def style(self, column: str) -> CommaStyle:
        """What commas mean in a column of numbers."""
        return self._styles[column]

    def _find_style(self, column: str) -> None:
        style = comma_style(self._parts(column), commas=self._table.commas)
        if style.fractions:
            self._table.notes.append(f"{column}: decimal commas")
        self._styles[column] = style

    def _is_known(self, column: str) -> bool:
        style = self._styles[column]
        return any(not numbers(part, style=style).missing.all() for part in self._parts(column))

    def _task(self, name: str, kind: str) -> Task:
        options = self.options
        if kind == "regression":
            self._find_style(name)
            bounds = options.ranges.get(name)
            return Task(kind="regression", range=None if bounds is None else _bounds(name, bounds))
        given = given_classes(options, name)
        counted = self._count_several if kind == "multilabel" else self._count_words
        found = counted(name, given)
        if not given and name not in options.as_is:
            self.faults += spelt_differently(name, found)
        classes = given or tuple(sorted(found))
        if kind == "classification":
            return Task(kind="classification", classes=classes)
        return Task(kind="multilabel", classes=classes)

    # ---- media

    @property
    def names_media(self) -> bool:
        """Whether rows have files: by columns, or because there are files that names may find."""
        return bool(self._files or self.column("video") or self.column("audio"))

    def media(
        self, name: str, video: str | None, audio: str | None
    ) -> tuple[dict[str, Source | None], str | None]:
        """The files of a clip, and what is wrong with them."""
        if self.column("video") is None and self.column("audio") is None:
            found = self._files.named(name)
            if not found and not self._files:
                return {}, None  # a folder without media: a corpus of texts
            if len(found) > 1:
                return media(*found[0]), f"several files go by this name: {names_of(found)}"
            if found:
                return media(*found[0]), None
            return media(self._below(name)), self._fault_of(name, "name")
        film = None if video is None else self._source_of(video)
        sound = film if audio is None else self._source_of(audio)  # else the film's own
        faults = (self._fault_of(video, "video"), self._fault_of(audio, "audio"))
        return {"video": film, "audio": sound}, next(filter(None, faults), None)

    def _fault_of(self, name: str | None, role: str) -> str | None:
        """What is wrong with a name or path that finds no file, where one differs in case only."""
        column = self.column(role)
        other = self._files.in_other_letters(name_of(name))
        if other is None or column in self.options.as_is:
            return None
        return (
            f"there is no file {name!r}, but {other!r}, which differs in case only; spell them alike (or "
            f"type: --as-is {column}, if it is another one)"
        )

    def held(self, start: int, count: int) -> dict[str, list[dict[str, Any] | None]] | None:
        """The media of some rows, where the table itself holds them."""
        return None

    def _source_of(self, path: str) -> Source:
        """A file by its path; below the source also where its name is spelt in the other normal form."""
        if "://" in path or path.startswith("/"):
            return Source(path)
        return self._files.at(path) or Source(self._below(path))

    def _below(self, path: str) -> str:
        """A path of the table, which may lead elsewhere as an absolute one may."""
        return f"{self._source.rstrip('/')}/{path.strip('/')}"


def _kind_of(cell: str) -> str | None:
    """Whether a cell names a sound or a film; None: neither."""
    if not is_media(cell):
        return None
    return "video" if "video" in media(cell) else "audio"


def _bounds(task: str, text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--ranges {task}={text}: expected two numbers such as -3,3") from error
    if not -math.inf < low < high < math.inf:
        raise ConfigError(
            f"--ranges {task}={text}: expected the lower and the upper bound, such as -3,3"
        )
    return low, high
