"""YAML with comments, from nested mappings.

A value with a comment is `Note(comment, value)`; its lines stand above the key. Text goes through YAML's own
writer, so that no value can be read as another type, or as more than one value.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True)
class Note:
    """A value and the comment above it."""

    comment: str
    value: Any


@dataclass(frozen=True)
class Inline:
    """A mapping or list on one line."""

    value: Any


def document(comment: str, content: Mapping[str, Any]) -> str:
    """A YAML document under a comment of several lines."""
    head = "".join(f"# {line}".rstrip() + "\n" for line in comment.strip().splitlines())
    return head + "\n" + "\n".join(_mapping(content, "")) + "\n"


def _mapping(content: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, noted in content.items():
        yield from _entry(f"{_scalar(key)}:", noted, indent, indent + "  ")


def _items(content: Sequence[Any], indent: str) -> Iterator[str]:
    for noted in content:
        value = noted.value if isinstance(noted, Note) else noted
        if isinstance(value, Mapping) and value:
            lines = list(_mapping(value, indent + "  "))
            # The dash takes the place of the indent of the first line that is no comment.
            first = next(at for at, line in enumerate(lines) if not line.lstrip().startswith("#"))
            above = [indent + line.lstrip() for line in lines[:first]]
            yield from (*_comment(noted, indent), *above)
            yield f"{indent}- {lines[first].lstrip()}"
            yield from lines[first + 1 :]
        else:
            yield from _entry("-", noted, indent, indent + "  ")


def _entry(label: str, noted: Any, indent: str, deeper: str) -> Iterator[str]:
    yield from _comment(noted, indent)
    value = noted.value if isinstance(noted, Note) else noted
    if isinstance(value, Mapping) and value:
        yield f"{indent}{label}"
        yield from _mapping(value, deeper)
    elif isinstance(value, list | tuple) and value:
        yield f"{indent}{label}"
        yield from _items(value, deeper)
    else:
        yield f"{indent}{label} {_scalar(value)}"


def _comment(noted: Any, indent: str) -> Iterator[str]:
    if isinstance(noted, Note):
        yield from (f"{indent}# {line}" for line in noted.comment.splitlines())


def _scalar(value: Any) -> str:
    content = value.value if isinstance(value, Inline) else value
    text = yaml.safe_dump(
        content, default_flow_style=True, sort_keys=False, width=float("inf"), allow_unicode=False
    )
    return text.removesuffix("...\n").strip()
