"""What raters chose, in a table of labels: a column of counts for each class, or a column of choices."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.interop.columns import meant, spelt_differently
from jobs.interop.tables import Faults
from jobs.preparing.votes import from_choices, from_counts

MOST_RATERS = 1000
"""Of one clip and class; more is another number than that of raters."""


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """The columns in which the votes of one task stand."""

    task: str
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    """A column of counts for each class, or one of choices."""

    counted: bool

    def of_counts(self, counts: Sequence[float | None]) -> list[list[float]] | None:
        """The votes on a clip; None: nobody chose one of the classes.

        Raises:
            ValueError: what stands there is no number of raters.
        """
        given = [int(count or 0) for count in counts]
        if max(given) > MOST_RATERS:
            raise ValueError(
                f"votes of {self.task}: {max(given)} raters of one class; expected at most {MOST_RATERS}"
            )
        return from_counts(given) or None

    def of_choices(self, choices: Sequence[str] | None) -> list[list[float]] | None:
        """The votes on a clip, from a cell that names a class for each rater."""
        same = dict(zip(self.classes, self.classes, strict=True))
        votes = [from_choices((choice,), same, self.classes) for choice in choices or ()]
        return [vote for vote in votes if vote is not None] or None


def columns_of(votes: Mapping[str, str], header: Sequence[str]) -> tuple[list[str], list[str]]:
    """The columns that may hold votes, and a fault where there are none.

    Args:
        votes: task -> a column of choices, or columns of counts by a name with `*` for the class.
        header: names of all columns.
    """
    used, faults = [], []
    for task, named in votes.items():
        found = [name for name in header if _pattern(named).fullmatch(name)]
        used += found
        if not found:
            faults.append(f"--votes {task}={named}: no such column; {meant(named, list(header))}")
    return used, faults


def ballot_of(
    task: str, named: str, classes: tuple[str, ...], header: Sequence[str]
) -> tuple[Ballot, list[str], list[str]]:
    """The columns of the votes of a task, faults and notes."""
    if "*" not in named:
        return Ballot(task=task, classes=classes, columns=(named,), counted=False), [], []
    wanted = {named.replace("*", label): label for label in classes}
    faults = [
        f"--votes {task}={named}: no column {column!r} for the class {label!r}"
        for column, label in wanted.items()
        if column not in header
    ]
    others = [n for n in header if _pattern(named).fullmatch(n) and n not in wanted]
    notes = [f"votes of {task}: left out, not for a class: {', '.join(others)}"] if others else []
    return Ballot(task=task, classes=classes, columns=tuple(wanted), counted=True), faults, notes


def look_at_choices(
    ballot: Ballot, found: Counter[str], faults: Faults, *, as_is: bool
) -> list[str]:
    """A note on choices that are no class; those that are one but for their spelling are faults."""
    others = {choice: count for choice, count in found.items() if choice not in ballot.classes}
    known = Counter({name: found[name] + 1 for name in ballot.classes})
    if not as_is:
        faults += spelt_differently(ballot.columns[0], known + Counter(others))
    listed = ", ".join(f"{count} for {choice!r}" for choice, count in sorted(others.items())[:9])
    return [f"votes of {ballot.task}: left out, not for a class: {listed}"] if others else []


def _pattern(named: str) -> re.Pattern[str]:
    """A name in which `*` stands for a class."""
    return re.compile(".+".join(map(re.escape, named.split("*", 1))), re.DOTALL)
