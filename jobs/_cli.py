"""From command line and `--config FILE` to a job's Config.

A flag exists because a field exists; tyro writes the help. `--config FILE` gives the same fields in YAML
or JSON (the resolved config that stands beside every output is accepted back); flags win over the file.
"""

import dataclasses
from types import ModuleType
from typing import Any

import tyro

from cluster import settings


def parse(job: str, module: ModuleType, argv: list[str]) -> Any:
    """The config of one job.

    A module may offer its own ``configure(argv)`` where one flat dataclass is not enough.

    Raises:
        ConfigError: an unknown field or a bad value in the file.
        SystemExit: help was asked for (0) or the command line was not understood (2).
    """
    if hasattr(module, "configure"):
        return module.configure(argv)
    return parse_config(f"affuse {job}", module.Config, argv, description=module.__doc__ or "")


def parse_config(prog: str, kind: type[Any], argv: list[str], *, description: str) -> Any:
    """Parse flags and `--config FILE` into one dataclass."""
    path, argv = _take_config_flag(argv)
    if path is None:
        return tyro.cli(kind, args=argv, prog=prog, description=description)
    values = settings.read_mapping(path)
    default = _partial(kind, values, where=path)
    return tyro.cli(kind, args=argv, prog=prog, description=description, default=default)


def _take_config_flag(argv: list[str]) -> tuple[str | None, list[str]]:
    for index, word in enumerate(argv):
        if word == "--config" and index + 1 < len(argv):
            return argv[index + 1], argv[:index] + argv[index + 2 :]
        if word.startswith("--config="):
            return word.removeprefix("--config="), argv[:index] + argv[index + 1 :]
    return None, argv


def _partial(kind: type[Any], values: dict[str, Any], *, where: str) -> Any:
    """A config from the file, with tyro's MISSING where a required field is left to the flags."""
    required = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    absent = required - {key.replace("-", "_") for key in values}
    if not absent:
        return settings.from_mapping(kind, values, where=where)
    checked = settings.typed_fields(kind, values, where=where)
    instance = object.__new__(kind)
    for field in dataclasses.fields(kind):
        if field.name in checked:
            value = checked[field.name]
        elif field.name in absent:
            value = tyro.MISSING
        elif field.default is not dataclasses.MISSING:
            value = field.default
        else:
            assert field.default_factory is not dataclasses.MISSING
            value = field.default_factory()
        object.__setattr__(instance, field.name, value)
    return instance
