"""Reading and writing the text of an encoder's options."""

import shlex
from collections.abc import Mapping

from cluster.errors import ConfigError
from cluster.nearest import nearest_of

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


def typed(name: str, options: Mapping[str, object], default: Mapping[str, object]) -> str:
    """An encoder with its options as it is typed into a shell, those that are as by default left out."""
    chosen = [f"{key}={value}" for key, value in options.items() if default.get(key) != value]
    return shlex.quote(":".join([name, ",".join(chosen)]) if chosen else name)


def hint(name: str, known: Mapping[str, object], noun: str) -> str:
    """That there is no such name, and the nearest one."""
    close = nearest_of(name, known)
    said = f"known: {', '.join(sorted(known))}" if close is None else f"did you mean {close!r}?"
    return f"there is no {noun} {name!r}; {said}"


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
