"""Lines of cron as Kubernetes reads them: five fields, each a list of numbers, names, ranges and steps."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.errors import ConfigError

PART = re.compile(r"(\*|[0-9]{1,2}|[A-Z]{3})(?:-([0-9]{1,2}|[A-Z]{3}))?(?:/([0-9]{1,3}))?")
"""`*`, a number or a name; the end of a range; a step."""

EVERY = re.compile(r"\*(/0*1)?")
"""What stands for all days, where it is in a list."""

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


@dataclass(frozen=True)
class Field:
    """What one of the five may hold."""

    name: str
    first: int
    last: int
    names: Mapping[str, int] = field(default_factory=dict)

    @property
    def expected(self) -> str:
        """In words."""
        named = f" or {next(iter(self.names))} to {list(self.names)[-1]}" if self.names else ""
        return f"{self.first} to {self.last}{named}"

    def takes(self, text: str) -> bool:
        """Whether a list holds nothing else, and no range runs backwards."""
        return text.isascii() and all(self._takes_part(part) for part in text.upper().split(","))

    def numbers(self, text: str) -> frozenset[int]:
        """The numbers that a list names; it was taken before."""
        return frozenset(n for part in text.upper().split(",") for n in self._numbers(part))

    def _numbers(self, part: str) -> range:
        found = PART.fullmatch(part)
        assert found is not None
        begin, end, step = found.groups()
        low = self.first if begin == "*" else self._number(begin)
        # A step from one number on goes to the last one.
        alone = begin != "*" and end is None and step is None
        high = low if alone else self._number(end) if end else self.last
        return range(low, high + 1, int(step or 1))

    def _takes_part(self, part: str) -> bool:
        found = PART.fullmatch(part)
        if found is None:
            return False
        begin, end, step = found.groups()
        if step is not None and int(step) == 0:
            return False
        if begin == "*":
            return end is None
        low, high = self._number(begin), self._number(end or begin)
        return self.first <= low <= high <= self.last

    def _number(self, text: str) -> int:
        return int(text) if text.isdigit() else self.names.get(text, -1)


FIELDS = (
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day", 1, 31),
    Field("month", 1, 12, {name: number for number, name in enumerate(MONTHS, start=1)}),
    Field("weekday", 0, 6, {name: number for number, name in enumerate(DAYS)}),
)

LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
"""Days of each month, of February in a leap year."""


def check_cron(line: str) -> None:
    """Refuse what Kubernetes would not take as a schedule, and a day that never comes.

    Raises:
        ConfigError: there are not five fields, one is out of its range, or no month has the days.
    """
    parts = line.split(" ")
    if len(parts) != len(FIELDS) or not all(parts):
        raise ConfigError(
            f"--schedule {line!r}: expected minute, hour, day, month and weekday, as in '0 3 * * *'"
        )
    for one, text in zip(FIELDS, parts, strict=True):
        if not one.takes(text):
            raise ConfigError(
                f"--schedule {line!r}: {one.name} {text!r}: expected {one.expected}, *, or lists, ranges and "
                "steps of them, as in 1,3-5 or */2"
            )
    _check_comes(line, parts)


def _check_comes(line: str, parts: list[str]) -> None:
    """Refuse days that none of the months has; days of the week come in each of them.

    A day of the month and one of the week are either of them enough. Where one of the two is every day (*,
    not */2), the other decides; only of those of a month there may be none.
    """
    _, _, day, month, weekday = parts
    days, months = FIELDS[2].numbers(day), FIELDS[3].numbers(month)
    is_every = any(EVERY.fullmatch(part) for part in weekday.split(","))
    if not is_every or any(min(days) <= LENGTHS[number - 1] for number in months):
        return
    longest = max(LENGTHS[number - 1] for number in months)
    raise ConfigError(
        f"--schedule {line!r}: day {day!r} of month {month!r} never comes; expected a day up to {longest}, "
        "or another month"
    )
