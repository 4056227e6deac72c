"""Options of a net as they were typed, held against the fields that its Config declares."""

import difflib
import math
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

MAY_BE_ZERO = {
    "encoders",
    "freeze",
    "fuse_from",
    "lora",
    "moments",
    "seed",
    "speakers",
    "steps",
    "tokens",
}
"""Fields of whole numbers of which 0 says none, the first or no bound; of layers too, save NEED_A_LAYER."""

NAMING = {"anchor", "pooled", "recurrent", "timeline"}
"""Fields of words that are names of inputs, comma-separated."""

NEED_A_LAYER = {"bottleneck", "dialogue_profile", "ef_lstm", "lstm"}
"""Nets whose layers are an LSTM's or a GRU's, or where fusion takes place: there is one at the least."""


def checked(value: Any, hint: Any, name: str) -> Any:
    """A plain value as a field takes it: lists become tuples, and whole numbers fractions where it is one.

    Args:
        value: as a command line, a YAML file or a card gives it.
        hint: type of the field.
        name: of the net and field, for the message.

    Raises:
        ValueError: another type, an unknown choice, or a number that no option of a net can be.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        chosen = _alternative(value, parts, name)
        # Of several plain types it is an option of another net, which knows what it means.
        return value if {int, float} <= set(parts) else checked(value, chosen, name)
    if origin is Literal:
        if value not in parts:
            known = ", ".join(map(str, parts))
            raise ValueError(f"{name}: expected one of {known}; came {value!r}{near(value, parts)}")
        return value
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return _several(value, parts, name)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            entry = f"{name.partition(' ')[2]}.NAME=VALUE"
            raise ValueError(f"{name}: expected {entry}; came {value!r}")
        return {str(key): checked(item, parts[1], f"{name}.{key}") for key, item in value.items()}
    return _plain(value, hint, name)


def names_typed(option: str, value: Any) -> list[str]:
    """Names of inputs that an option was typed with.

    Args:
        option: field of a net's Config, or one entry of it (`hidden.text`).
        value: as a command line, a YAML file or a space gives it.

    >>> names_typed("recurrent", "text, audio"), names_typed("hidden.text", 64), names_typed("rank", 4)
    (['text', 'audio'], ['text'], [])
    """
    field, _, entry = option.partition(".")
    if field.endswith("_options"):  # of a net inside this one
        entries = {entry: value} if entry else value
        inner = entries.items() if isinstance(entries, Mapping) else ()
        return [name for key, item in inner for name in names_typed(str(key), item)]
    if field in NAMING and isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    if field == "profile":  # facts about the people, not inputs
        return []
    names = [entry] if entry else list(value) if isinstance(value, Mapping) else []
    return [str(name) for name in names if name != "*"]


def near(word: object, known: Iterable[object]) -> str:
    """Hint at the known word that is most like another; empty where none is."""
    found = difflib.get_close_matches(str(word), [str(each) for each in known], n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _alternative(value: Any, kinds: tuple[Any, ...], name: str) -> Any:
    """The one of several types that a value is of."""
    for kind in kinds:
        plain = get_origin(kind) or kind
        alike = Mapping if isinstance(plain, type) and issubclass(plain, Mapping) else plain
        if type(value) is alike or (alike is Mapping and isinstance(value, Mapping)):
            return kind
        if alike is tuple and isinstance(value, list | tuple):
            return kind
    raise ValueError(f"{name}: expected {' or '.join(map(_word, kinds))}; came {value!r}")


def _several(value: Any, kinds: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name}: expected several values; came {value!r}")
    if kinds[1:] in ((), (...,)):  # as many as there are
        kinds = kinds[:1] * len(value)
    if len(value) != len(kinds):
        raise ValueError(f"{name}: expected {len(kinds)} values; came {value!r}")
    return tuple(checked(item, kind, name) for item, kind in zip(value, kinds, strict=True))


def _plain(value: Any, kind: type, name: str) -> Any:
    """A number, a word, yes or no."""
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        several = "; it is one for all inputs" if isinstance(value, Mapping) else ""
        raise ValueError(f"{name}: expected {_word(kind)}; came {value!r}{several}")
    number: Any = value  # where its type is that of a number
    if kind is float and not math.isfinite(number):
        raise ValueError(f"{name}: expected a finite number; came {value}")
    if kind is int and number < (least := _least(name)):
        raise ValueError(f"{name}: expected {least} or more; came {value}")
    if kind is float and name.endswith("dropout") and not 0 <= number < 1:
        raise ValueError(f"{name}: expected a share from 0 to below 1; came {value}")
    return value


def _least(name: str) -> int:
    """The smallest whole number of an option; a net of width 0 would read nothing and say so nowhere."""
    net, _, option = name.rpartition(" ")
    field = option.partition(".")[0]
    some_layers = field.endswith("layers") and net not in NEED_A_LAYER
    return 0 if field in MAY_BE_ZERO or some_layers else 1


def _word(kind: Any) -> str:
    words: Mapping[Any, str] = {
        bool: "true or false",
        float: "a number",
        int: "a whole number",
        str: "a word",
        types.NoneType: "nothing",
    }
    other = "several values" if get_origin(kind) is tuple else "NAME=VALUE pairs"
    return words.get(kind, other)
