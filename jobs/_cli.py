"""From command line and `--config FILE` to a job's Config.

A flag exists because a field exists; tyro writes the help. `--config FILE` gives the same fields in YAML
or JSON (the resolved config that stands beside every output is accepted back); flags win over the file.
A mapping is written `--net-options rank=8 dropout=0.3`.
"""

import contextlib
import dataclasses
import importlib
import io
import itertools
import os
import re
import shutil
import sys
import textwrap
import traceback
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Union

import tyro

from cluster import settings
from cluster.errors import ConfigError
from cluster.home import expanded
from jobs import JOBS

SCALARS = (bool, int, float, str)
"""Tried in this order: ``true`` is a bool, ``8`` an int, ``0.3`` a float, all else text."""

LEAST_WIDTH = 40
"""Characters of a line to which help is fitted at least; a screen breaks what is wider."""

CONFIG_HELP = " --config FILE: the same fields as YAML or JSON; flags win over the file."


def parse(job: str, module: ModuleType, argv: list[str]) -> Any:
    """Parse the config of one job.

    A module has a ``Config``, or ``COMMANDS`` (name -> config class) where the job has commands of its
    own, or ``configure(argv)`` where the command line is not flags alone.

    Raises:
        ConfigError: an unknown command or field, or a bad value in the file.
        SystemExit: help was asked for (0) or the command line was not understood (2).
    """
    description = module.__doc__ or ""
    if hasattr(module, "configure"):
        return module.configure(argv)
    if hasattr(module, "COMMANDS"):
        return _parse_command(f"affuse {job}", module.COMMANDS, argv, description=description)
    return parse_config(f"affuse {job}", module.Config, argv, description=description)


def parse_config(
    prog: str,
    kind: type[Any],
    argv: list[str],
    *,
    description: str,
    given: Mapping[str, Any] | None = None,
) -> Any:
    """Parse flags and `--config FILE` into one dataclass.

    Args:
        prog: the command as it is typed.
        kind: the config class.
        argv: flags.
        description: docstring to show above the flags.
        given: fields that were read elsewhere; they win over the file.

    Raises:
        ConfigError: an unknown field or a bad value in the file, values that the config refuses, or a
            value that the parser would take for a flag.
        SystemExit: help was asked for (0) or the command line was not understood (2).
    """
    path, argv = take_config_flag(argv)
    _refuse_former_flags(kind, argv)
    _refuse_dashes(argv)
    values = {**({} if path is None else settings.read_mapping(path)), **(given or {})}
    default = settings.partial(kind, values, absent=tyro.MISSING, where=path or "config")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), _wide_enough():
            config = tyro.cli(
                kind,
                args=argv,
                prog=prog,
                description=_manual(description),
                default=default,
                registry=_registry(),
            )
    except SystemExit as stop:
        if (refusal := _refusal(stop)) is not None:
            raise ConfigError(refusal) from None
        print(said.getvalue(), end="", file=sys.stderr)
        raise
    settings.check_values(config)
    return config


@contextlib.contextmanager
def _wide_enough() -> Iterator[None]:
    """Have tyro fit its text to `LEAST_WIDTH` where a screen is narrower: on 5 columns it never ends."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(max(LEAST_WIDTH, shutil.get_terminal_size().columns))
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def _refusal(stop: SystemExit) -> str | None:
    """The message of a config that refused its values; tyro says it as an error of a class called Config."""
    error = stop.__context__
    while error is not None:
        frames = traceback.walk_tb(error.__traceback__)
        if any(frame.f_code.co_name == "__post_init__" for frame, _ in frames):
            return str(error)
        error = error.__context__
    return None


def _parse_command(
    prog: str, commands: Mapping[str, type[Any]], argv: list[str], *, description: str
) -> Any:
    if argv and argv[0] in commands:
        kind = commands[argv[0]]
        return parse_config(
            f"{prog} {argv[0]}", kind, argv[1:], description=f"{kind.__doc__}\n\n{description}"
        )
    names = " | ".join(commands)
    if argv and argv[0] in ("-h", "--help"):
        print(f"usage: {prog} {{{names}}} [options]\n\n{_manual(description)}\n")
        for name, kind in commands.items():
            print(f"  {name:<{max(map(len, commands))}}  {(kind.__doc__ or '').splitlines()[0]}")
        sys.exit(0)
    if not argv:
        raise ConfigError(f"expected one of {names}; type: {prog} --help")
    hint = settings.nearest(argv[0], list(commands))
    raise ConfigError(f"there is no command {argv[0]!r}; {hint}")


def take_config_flag(argv: list[str]) -> tuple[str | None, list[str]]:
    """Split the command line into the value of `--config` and the rest."""
    for index, word in enumerate(argv):
        if word == "--config":
            if index + 1 == len(argv):
                raise ConfigError("--config wants the name of a YAML or JSON file")
            return argv[index + 1], argv[:index] + argv[index + 2 :]
        if word.startswith("--config="):
            return word.removeprefix("--config="), argv[:index] + argv[index + 1 :]
    return None, argv


def _refuse_former_flags(kind: type[Any], argv: list[str]) -> None:
    """A flag by its earlier name is too unlike its name now for the parser's own suggestions."""
    known = [field.name for field in dataclasses.fields(kind)]
    for word in argv:
        name = word.partition("=")[0].removeprefix("--").replace("-", "_")
        now = settings.FORMER_NAMES.get(name)
        if word.startswith("--") and name not in known and now in known:
            flags = (f"--{each.replace('_', '-')}" for each in (name, now))
            raise ConfigError("there is no flag {}; did you mean {}?".format(*flags))


def _refuse_dashes(argv: list[str]) -> None:
    """A value that begins with a dash is a flag to the parser, which then finds none behind its own."""
    for flag, value in itertools.pairwise(argv):
        if (
            flag.startswith("--")
            and "=" not in flag
            and re.match(r"-[^-\d.]", value)
            and value != "-h"
        ):
            raise ConfigError(
                f"{flag} {value}: a value that begins with a dash is typed {flag}={value}"
            )


def _manual(docstring: str) -> str:
    """The module docstring with its paragraphs of `Reads:` and `Laptop:` lines kept as they are.

    tyro joins lines that begin with a letter into one paragraph, and sets off those that do not.
    """
    paragraphs = [*re.split(r"\n\s*\n", docstring.strip()), CONFIG_HELP]
    text = ""
    for paragraph in filter(None, paragraphs):
        verbatim = re.match(r"[A-Z]\w*(?: \w+)?:\s|\s", paragraph) and text
        lines = textwrap.indent(textwrap.dedent(paragraph), "  ") if verbatim else paragraph
        text += ("\n" if verbatim else "\n\n") + lines
    return text.strip()


def _registry() -> tyro.constructors.ConstructorRegistry:
    """Mappings of scalars as `name=value` words, whether or not they have a default."""
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_mapping_rule)
    return registry


def _mapping_rule(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    origin, arguments = typing.get_origin(info.type), typing.get_args(info.type)
    if not (isinstance(origin, type) and issubclass(origin, Mapping)):
        return None
    allowed = _members(arguments[1])
    if arguments[0] is not str or not set(allowed) <= set(SCALARS):
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="[NAME=VALUE ...]",
        instance_from_str=lambda words: dict(_pair(word, allowed) for word in words),
        is_instance=lambda value: isinstance(value, Mapping),
        str_from_instance=lambda value: [f"{key}={item}" for key, item in value.items()],
    )


def _members(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) in (Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _pair(word: str, allowed: tuple[Any, ...]) -> tuple[str, Any]:
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ValueError(f"expected NAME=VALUE, came {word!r}")
    for kind in SCALARS:
        if kind not in allowed:
            continue
        if kind is bool:
            if text.lower() in ("true", "false"):
                return key, text.lower() == "true"
            continue
        try:
            return key, kind(text)
        except ValueError:
            continue
    expected = " or ".join(kind.__name__ for kind in allowed)
    raise ValueError(f"{key}: expected {expected}, came {text!r}")


COMPLETION_HEAD = "# Completion of affuse in bash, written by: affuse --install-completion"

COMPLETION = """\
_affuse_words() {
    case "$1" in
%s
    esac
}

_affuse() {
    local word="${COMP_WORDS[COMP_CWORD]}" key="" flag="" each found
    for each in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "$each" in
            --) key="" flag="" ;;  # a command line of its own: affuse submit -- JOB
            -*) flag="$each" ;;
            *) [[ -z $flag && -n $(_affuse_words "${key:+$key }$each -") ]] && key="${key:+$key }$each" ;;
        esac
    done
    if [[ $word == -* ]]; then
        found="$(_affuse_words "$key -")"
    elif [[ -n $flag ]]; then
        found="$(_affuse_words "$key $flag")"
    else
        found="$(_affuse_words "$key")"
    fi
    COMPREPLY=($(compgen -W "$found" -- "$word"))
}

complete -o default -F _affuse affuse
"""
"""Words that may follow come from one `case`; where it has none, bash offers the names of files."""


def install_completion() -> str:
    """Write the completion of all jobs, commands and flags to where bash looks for it; returns the file.

    Raises:
        ConfigError: another file is there.
    """
    data = os.environ.get("XDG_DATA_HOME") or expanded("~/.local/share")
    place = Path(data) / "bash-completion" / "completions" / "affuse"
    if place.exists() and not place.read_text(errors="replace").startswith(COMPLETION_HEAD):
        raise ConfigError(f"{place} is there and was not written by affuse; remove it first")
    cases = [f'        "{key}") echo "{" ".join(words)}" ;;' for key, words in completions()]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"{COMPLETION_HEAD}\n{COMPLETION % chr(10).join(cases)}")
    return str(place)


def completions() -> Iterator[tuple[str, list[str]]]:
    """(typed so far, words that may follow): jobs, commands, flags (`JOB -`), values (`JOB --flag`)."""
    yield "", list(JOBS)
    yield " -", ["--help", "--version", "--install-completion"]
    for job in JOBS:
        configs = _configs_of(job)
        if "" not in configs:
            yield job, list(configs)
            yield f"{job} -", ["--help"]
        for command, kind in configs.items():
            key = f"{job} {command}".rstrip()
            flags = list(_flags_of(kind))
            facts = ["--how", "--cite"] if job == "prepare" else []
            yield f"{key} -", ["--help", "--config", *facts, *(flag for flag, _ in flags)]
            yield from ((f"{key} {flag}", values) for flag, values in flags if values)


def _configs_of(job: str) -> Mapping[str, type[Any]]:
    """Command -> config; the command is empty for a job without commands."""
    module = importlib.import_module(f"jobs.{job}")
    if job == "prepare":
        names = importlib.import_module("jobs.datasets").DATASETS
        return {name: importlib.import_module(f"jobs.datasets.{name}").Config for name in names}
    return getattr(module, "COMMANDS", None) or {"": module.Config}


def _flags_of(kind: type[Any], above: str = "") -> Iterator[tuple[str, list[str]]]:
    """Every flag of a config, as tyro spells it, with its values where they are a closed list."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint, name = hints[field.name], above + field.name.replace("_", "-")
        if tyro.conf.Positional in getattr(hint, "__metadata__", ()):
            continue
        if dataclasses.is_dataclass(hint):
            yield from _flags_of(typing.cast(type, hint), f"{name}.")
            continue
        literal = typing.get_origin(hint) is typing.Literal
        yield f"--{name}", [str(value) for value in typing.get_args(hint)] if literal else []
        if hint is bool:
            yield f"--{above}no-{field.name.replace('_', '-')}", []
