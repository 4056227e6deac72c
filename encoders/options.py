"""Reading the text of an encoder's options."""

import difflib
from collections.abc import Mapping

from cluster.errors import ConfigError

Option = str | int | float | bool


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


def hint(name: str, known: Mapping[str, object], noun: str) -> str:
    """That there is no such name, and the nearest one."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    known_names = ", ".join(sorted(known))
    return f"there is no {noun} {name!r}; " + (
        f"did you mean {close[0]!r}?" if close else f"known: {known_names}"
    )


def cast(value: str, like: Option, where: str) -> Option:
    """A value of the type of the option's default.

    Raises:
        ConfigError: it cannot be read so.
    """
    try:
        if isinstance(like, bool):
            return {"true": True, "false": False}[value.lower()]
        return type(like)(value)
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{where}: expected {type(like).__name__}, came {value!r}") from error
