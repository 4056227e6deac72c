"""What the options of an encoder may be, and how they are read and written as text.

An option is declared with its default and its bounds (`OneOf`, `Number`, `Switch`, `Words`), so that
`encoders.registry.describe` refuses what no wrapper reads before anything is loaded or started.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.errors import ConfigError
from cluster.nearest import nearest_of

Option = str | int | float | bool


@dataclass(frozen=True)
class OneOf:
    """One of some names."""

    default: str
    known: tuple[str, ...]

    def read(self, value: str, name: str, where: str) -> Option:
        """The value that was typed.

        Raises:
            ConfigError: it is none of the names; the nearest one is offered.
        """
        if value in self.known:
            return value
        close = nearest_of(value, self.known)
        raise ConfigError(
            f"{where}: {name} is one of {', '.join(self.known)}; came {value!r}"
            + ("" if close is None else f"; did you mean {close!r}?")
        )


@dataclass(frozen=True)
class Number:
    """A number, whole where its default is."""

    default: int | float
    least: int | float
    most: int | float

    def read(self, value: str, name: str, where: str) -> Option:
        """The value that was typed.

        Raises:
            ConfigError: it is no such number, or out of bounds.
        """
        try:
            number = type(self.default)(value)
        except ValueError:
            number = None
        # What is not a number lies within no bounds either.
        if number is None or not self.least <= number <= self.most:
            kind = "whole number" if isinstance(self.default, int) else "number"
            raise ConfigError(
                f"{where}: {name}={value}; expected a {kind} from {self.least} to {self.most}, "
                f"by default {self.default}"
            )
        return number


@dataclass(frozen=True)
class Switch:
    """Yes or no."""

    default: bool

    def read(self, value: str, name: str, where: str) -> Option:
        """The value that was typed.

        Raises:
            ConfigError: it is neither ``true`` nor ``false``.
        """
        said = {"true": True, "false": False}.get(value.lower())
        if said is None:
            raise ConfigError(f"{where}: {name} is true or false; came {value!r}")
        return said


@dataclass(frozen=True)
class Words:
    """Any text, or one that is checked elsewhere."""

    default: str

    def read(self, value: str, name: str, where: str) -> Option:
        """The value that was typed."""
        return value


Declared = OneOf | Number | Switch | Words


def defaults_of(declared: Mapping[str, Declared]) -> dict[str, Option]:
    """Names of options and their defaults."""
    return {name: each.default for name, each in declared.items()}


POOLS = ("none", "mean", "mean_std", "cls", "words")

GENERAL: Mapping[str, Declared] = {
    "layers": Words("last"),
    "pool": OneOf("none", POOLS),
    "weights": Words(""),
}
"""Of every encoder. layers: ``last``, one index, ``all`` or ``i+j+k`` stacked. pool: ``none``, ``mean``,
``mean_std``, ``cls`` (first step), ``words`` (one step for each of the clip's timed words). weights: URI of a
model folder or file of the same architecture that takes the place of the pinned one, e.g.
``bert_base:weights=file:///models/my-bert``."""

GENERAL_OPTIONS: Mapping[str, Option] = defaults_of(GENERAL)
"""Defaults of the options of every encoder."""

WIDTH = Number(0, 0, 65_536)

HUB_OPTIONS: Mapping[str, Declared] = {"dim": WIDTH, "depth": Number(0, 0, 1000)}
"""Of encoders whose weights may be those of another model of the same kind. dim: its width. depth: its
blocks. 0 means as pinned."""


def parse_layers(text: str, num_layers: int, name: str) -> tuple[int, ...]:
    """``last``, ``all``, one index or ``i+j``; negative indices count from the end.

    Raises:
        ConfigError: an index the encoder does not have.
    """
    if text == "last":
        return (num_layers - 1,)
    if text == "all":
        return tuple(range(num_layers))
    try:
        indices = tuple(int(item) for item in text.split("+"))
    except ValueError as error:
        raise ConfigError(
            f"{name}: layers={text!r}; expected last, all, an index or i+j"
        ) from error
    if any(not -num_layers <= index < num_layers for index in indices):
        raise ConfigError(f"{name}: layers={text}; it has {num_layers}, 0 to {num_layers - 1}")
    return tuple(index % num_layers for index in indices)


def typed(name: str, options: Mapping[str, object], default: Mapping[str, object]) -> str:
    """An encoder with its options as it is typed into a shell, those that are as by default left out."""
    chosen = [f"{key}={value}" for key, value in options.items() if default.get(key) != value]
    return shlex.quote(":".join([name, ",".join(chosen)]) if chosen else name)


def hint(name: str, known: Mapping[str, object], noun: str) -> str:
    """That there is no such name, and the nearest one."""
    close = nearest_of(name, known)
    said = f"known: {', '.join(sorted(known))}" if close is None else f"did you mean {close!r}?"
    return f"there is no {noun} {name!r}; {said}"
