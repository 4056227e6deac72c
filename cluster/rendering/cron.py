"""Lines of cron as Kubernetes reads them: five fields, each a list of numbers, names, ranges and steps."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.errors import ConfigError

PART = re.compile(r"(\*|[0-9]{1,2}|[A-Z]{3})(?:-([0-9]{1,2}|[A-Z]{3}))?(?:/([0-9]{1,3}))?")
"""`*`, a number or a name; the end of a range; a step."""

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


def check_cron(line: str) -> None:
    """Refuse what Kubernetes would not take as a schedule.

    Raises:
        ConfigError: there are not five fields, or one is out of its range.
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
