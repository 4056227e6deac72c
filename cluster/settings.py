"""Configs as data: dataclass <-> mapping.

Every job's Config is a frozen keyword-only dataclass of plain fields. This module turns one into the JSON
that stands beside every output and reads it back from YAML or JSON.
"""

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml

from cluster import storage
from cluster.errors import AbsentError, ConfigError, TableError
from cluster.nearest import nearest_of

C = TypeVar("C")

PLACE, NAME_OR_PLACE = "place", "name or place"
Place = Annotated[str, PLACE]
"""The type of a field that is a path or a URI: relative to where the command was typed."""

NameOrPlace = Annotated[str, NAME_OR_PLACE]
"""The same where it has a slash; else a name under the root."""

FORMER_NAMES = {
    "calibration": "autotune", "name": "bundle", "passes": "accumulation_steps", "time_s": "minutes",
}  # fmt: skip
"""Earlier name of a field -> its name now, for who types the earlier one."""

MADE = "made"
"""Beside the fields of a config that was written: the hashes of what was made by it."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-5 is a number, as in JSON; YAML 1.1 wants 1.0e-5 and makes text of it."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def to_mapping(config: Any) -> dict[str, Any]:
    """A config as plain JSON values."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def resolved(config: Any) -> dict[str, Any]:
    """A config as plain JSON values that mean the same from any folder: places are absolute.

    What begins with `~` stays: it means the home of whoever reads it.
    """
    return _placed_fields(type(config), to_mapping(config), lambda _, place: _absolute(place))


def places(config: Any) -> list[tuple[str, str]]:
    """(dotted field, path or URI) of every place that a config names."""
    found: list[tuple[str, str]] = []

    def keep(field: str, place: str) -> str:
        found.append((field, place))
        return place

    _placed_fields(type(config), to_mapping(config), keep)
    return found


def check_values(config: Any, above: str = "") -> None:
    """Refuse what no field means, whatever it is for: a number that is none, a place without a name.

    Comparisons with NaN are false, so that it passes the checks of a config unseen.

    Raises:
        ConfigError: with the flag.
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value, flag = getattr(config, field.name), above + field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            check_values(value, f"{flag}.")
            continue
        for number in _numbers(value):
            if not math.isfinite(number):
                raise ConfigError(f"--{flag} {number}: expected a finite number")
        empty = value == "" != field.default or (isinstance(value, tuple) and "" in value)
        if empty and _has_place(hints[field.name]):
            raise ConfigError(
                f"--{flag} is empty: expected a folder, file or URI; is a variable of the shell unset?"
            )


def _has_place(hint: Any) -> bool:
    return hint == PLACE or any(_has_place(part) for part in get_args(hint))


def _numbers(value: Any) -> Iterator[float]:
    """The floats of a field, also inside lists and mappings."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _numbers(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _numbers(item)


def from_mapping(kind: type[C], values: Mapping[str, Any], *, where: str = "config") -> C:
    """Build a config from plain values.

    Raises:
        ConfigError: an unknown field (naming the nearest known one) or a value of the wrong type.
    """
    arguments = typed_fields(kind, values, where=where)
    required = [
        field.name
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and field.name not in arguments
    ]
    if required:
        raise ConfigError(f"{where}: fields {required} have no default and were not given")
    return kind(**arguments)


def typed_fields(kind: type[Any], values: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """The given fields only, names and types checked; dashes in names are read as underscores."""
    hints = typing.get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]
    arguments = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            raise ConfigError(f"{where}: unknown field {key!r}; {nearest(name, known)}")
        arguments[name] = _typed(hints[name], value, where=f"{where}.{name}")
    return arguments


def read_mapping(path: str, *, flag: str = "--config") -> dict[str, Any]:
    """Read a YAML or JSON file of config fields.

    Args:
        path: the file.
        flag: where it was named, for what the user is told.

    Raises:
        ConfigError: no such file, or not a mapping.
        StorageError: no permission.
    """
    try:
        storage.check_file(path)
        text = Path(path).read_text(encoding="utf-8")
    except AbsentError as error:
        raise ConfigError(f"{flag} {path}: there is no such file") from error
    except (TableError, UnicodeDecodeError) as error:
        raise ConfigError(f"{flag} {path}: expected a YAML or JSON file: {error}") from error
    try:
        values = json.loads(text)  # YAML reads most of JSON, but not its surrogate pairs
    except json.JSONDecodeError:
        try:
            values = yaml.load(text, _Loader)
        except yaml.YAMLError as error:
            raise ConfigError(f"{flag} {path}: not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{flag} {path}: expected `field: value` lines, came {type(values)}")
    values.pop(MADE, None)
    return values


def partial(kind: type[C], values: Mapping[str, Any], *, absent: object, where: str) -> C:
    """An instance with the given fields, the defaults, and `absent` for a required field not given.

    It stands for what a file says before the flags are read; its validation has not run.

    Raises:
        ConfigError: an unknown field or a value of the wrong type.
    """
    checked = typed_fields(kind, values, where=where)
    instance = object.__new__(kind)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name in checked:
            value = checked[field.name]
        elif field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            value = absent
        object.__setattr__(instance, field.name, value)
    return instance


def nearest(name: str, known: list[str]) -> str:
    """Hint for an unknown name: the nearest known one, or all of them."""
    if FORMER_NAMES.get(name) in known:
        return f"did you mean {FORMER_NAMES[name]!r}?"
    close = nearest_of(name, known)
    return f"known: {', '.join(sorted(known))}" if close is None else f"did you mean {close!r}?"


def _placed_fields(
    kind: type[Any], values: Mapping[str, Any], act: Callable[[str, str], str], above: str = ""
) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name: _placed(hints[name], value, act, above + name) for name, value in values.items()}


def _placed(hint: Any, value: Any, act: Callable[[str, str], str], field: str) -> Any:
    """A plain value in which `act` has replaced the places, by the type of its field."""
    if isinstance(value, list):
        return [_placed(hint, item, act, field) for item in value]
    if isinstance(value, dict) and dataclasses.is_dataclass(hint):
        return _placed_fields(hint, value, act, f"{field}.")  # type: ignore[arg-type]
    for part in get_args(hint) if isinstance(value, str) else ():
        if value and (part == PLACE or (part == NAME_OR_PLACE and is_place(value))):
            return act(field, value)
        value = _placed(part, value, act, field)
    return value


REGISTERED = "models:/"
"""How the name of a model in MLflow's registry begins; it is a name, and no place."""


def is_place(text: str) -> bool:
    """Whether a name or place is a place.

    >>> [is_place(each) for each in ("best", "data/best", "models:/best@champion")]
    [False, True, False]
    """
    return "/" in text and not text.startswith(REGISTERED)


def _absolute(place: str) -> str:
    return place if place.startswith("~") else storage.absolute(place)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_mapping(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list | frozenset | set):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def _typed(hint: Any, value: Any, *, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is typing.Annotated:
        return _typed(arguments[0], value, where=where)
    if origin in (Union, types.UnionType):
        return _first_that_fits(arguments, value, where=where)
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigError(f"{where}: {value!r}; {nearest(str(value), [*map(str, arguments)])}")
        return value
    if hint is Path and isinstance(value, str):
        return Path(value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected fields of {hint.__name__}, came {value!r}")
        return from_mapping(hint, value, where=where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: expected a list, came {value!r}")
        inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(inner) != len(value):
            raise ConfigError(f"{where}: expected {len(inner)} values, came {value!r}")
        return tuple(
            _typed(kind, item, where=where) for kind, item in zip(inner, value, strict=True)
        )
    if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected `key: value` pairs, came {value!r}")
        return {
            _typed(arguments[0], key, where=where): _typed(arguments[1], item, where=where)
            for key, item in value.items()
        }
    if hint is Any or hint is object:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint):
        if hint is int and isinstance(value, bool):
            raise ConfigError(f"{where}: expected int, came {value!r}")
        return value
    raise ConfigError(f"{where}: expected {getattr(hint, '__name__', hint)}, came {value!r}")


def _first_that_fits(kinds: tuple[Any, ...], value: Any, *, where: str) -> Any:
    if value is None:
        if type(None) in kinds:
            return None
        raise ConfigError(f"{where}: expected {kinds}, came null")
    problems = []
    # An exact type first, so that 3 stays an int where `int | float` is allowed.
    for kind in sorted(kinds, key=lambda kind: type(value) is not kind):
        if kind is type(None):
            continue
        try:
            return _typed(kind, value, where=where)
        except ConfigError as error:
            problems.append(str(error))
    raise ConfigError("; ".join(problems))
