"""The sentence under a field of a job's config is what `affuse JOB --help` prints beside its flag.

It says what the field is, in the field's own terms: "Seed of the bootstrap.", not "Of the bootstrap."
"""

import ast
import dataclasses
import importlib
import re
import typing
from pathlib import Path

import pytest
import tyro._docstrings as docstrings

from jobs import JOBS
from jobs.datasets import DATASETS

METAPHORS = re.compile(
    r"\b(ears?|hears?|heard|says?|said|told|speaks?|eats?|wish(es)?|judged?|doubts?|rivals?|arena|"
    r"looked at|mends?|held people|apart|nobody|somebody)\b",
    re.IGNORECASE,
)
"""What a table, a net or a flag does not do; the glossary of `jobs` has the terms."""

OPENINGS = ("Of ", "By ", "At most", "How many ", "And ", "With ", "The ", "...")
"""A text that begins so leaves the reader to find out what the field is."""


def fields_of(kind: type, where: str) -> list[tuple[str, str | None]]:
    """(dotted field, its text) of a config and of the configs in it."""
    found = []
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        name = f"{where}.{field.name}"
        found.append((name, docstrings.get_field_docstring(kind, field.name, ())))
        if dataclasses.is_dataclass(hints[field.name]):
            found += fields_of(hints[field.name], name)
    return found


def configs() -> list[tuple[str, type]]:
    """Every config that a command line fills."""
    found = []
    for job in JOBS:
        module = importlib.import_module(f"jobs.{job}")
        kinds = dict(getattr(module, "COMMANDS", {}))
        if job == "prepare":
            kinds = {
                name: importlib.import_module(f"jobs.datasets.{name}").Config for name in DATASETS
            }
        found += [(f"{job} {name}", kind) for name, kind in kinds.items()]
        if not kinds:
            found.append((job, module.Config))
    return found


CONFIGS = configs()


def test_every_job_has_configs_here():
    assert {name.split()[0] for name, _ in CONFIGS} == set(JOBS)


@pytest.mark.parametrize(("job", "kind"), CONFIGS, ids=[name for name, _ in CONFIGS])
class TestTexts:
    def test_every_field_has_a_sentence(self, job, kind):
        for name, text in fields_of(kind, job):
            assert text, name
            assert re.match(r"[A-Z]\w", text), f"{name} begins with no capital letter: {text}"
            assert text.rstrip().endswith("."), f"{name} ends with no full stop: {text}"

    def test_a_sentence_says_what_the_field_is(self, job, kind):
        for name, text in fields_of(kind, job):
            assert not (text or "").startswith(OPENINGS), f"{name}: {text}"

    def test_no_field_is_described_by_a_metaphor(self, job, kind):
        for name, text in [*fields_of(kind, job), (job, kind.__doc__)]:
            found = METAPHORS.search(text or "")
            assert found is None, f"{name}: {found and found[0]!r} in {text}"


FORMER_METAPHORS = re.compile(r"\b(ears?|hears?|heard|eats?|wishes|arena|rivals?)\b", re.IGNORECASE)
ROOT = Path(__file__).resolve().parents[3]


def test_no_docstring_speaks_in_metaphors():
    """What a transcriber heard is a transcript, what a net eats its input; see the glossary of `jobs`."""
    found = []
    for package in ("jobs", "encoders", "fusion", "cluster"):
        for file in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    text = ast.get_docstring(node) or ""
                    if match := FORMER_METAPHORS.search(text):
                        found.append(f"{file.relative_to(ROOT)}: {match[0]!r} in {text[:80]!r}")
    assert not found, "\n".join(found)
