"""Every command that the project shows to a reader parses: in docstrings, cluster files and documents."""

import importlib
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from encoders import ENCODERS
from encoders.registry import describe
from jobs import JOBS, _cli, submit
from jobs.datasets import DATASETS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "AGENTS.md", *sorted((ROOT / "docs").glob("*.md"))]
PRINTING = {"--help", "--how", "--cite", "--list"}
"""Flags that print something and leave."""
PLACEHOLDERS = {"URL": "http://127.0.0.1:8265"}


def sources():
    """(where, text) of everything that shows commands."""
    for name in JOBS:
        yield f"jobs/{name}.py", importlib.import_module(f"jobs.{name}").__doc__ or ""
    for name in DATASETS:
        module = importlib.import_module(f"jobs.datasets.{name}")
        yield f"jobs/datasets/{name}.py", module.__doc__ or ""
    for file in [*PAGES, *sorted((ROOT / "cluster" / "configs").iterdir())]:
        yield str(file.relative_to(ROOT)), file.read_text()


def commands():
    """(where, words) of every shown command, without its comment; `...` stands for the rest."""
    pattern = re.compile(r"(?:^|[\s`$])(?:affuse|python -m jobs) ([a-z]+ [^`\n]*)", re.MULTILINE)
    for where, text in sources():
        for found in pattern.findall(re.sub(r"\\\n\s*", " ", text)):
            shown = re.split(r"\s+#|  +\(|\s+\|\s|[;,]\s|\.$| && ", found)[0].strip()
            words = shlex.split(shown.replace("'", "").replace("...", ""))
            has_flags = any(word.startswith("--") for word in words)
            if words[0] in JOBS and has_flags and not PRINTING & set(words):
                yield where, [PLACEHOLDERS.get(word, word) for word in words]


SHOWN = sorted({(where, tuple(words)) for where, words in commands()})


@cache
def parsed(words):
    """The config of a command line."""
    return _cli.parse(words[0], importlib.import_module(f"jobs.{words[0]}"), list(words[1:]))


@pytest.mark.parametrize(("where", "words"), SHOWN, ids=lambda part: str(part)[:60])
def test_a_shown_command_parses(where, words, capsys):
    try:
        config = parsed(words)
    except SystemExit:
        pytest.fail(f"{where}: affuse {' '.join(words)}\n{capsys.readouterr().err}")
    if words[0] == "submit" and config.command:
        try:
            submit.resolve(config.command, config.address)
        except SystemExit:
            pytest.fail(f"{where}: {' '.join(config.command)}\n{capsys.readouterr().err}")


def blocks():
    """(page, the `affuse` commands) of every block that encodes and then trains."""
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(), flags=re.DOTALL):
            lines = re.findall(r"^\$ affuse ((?:encode|train|tune) .*)$", block, re.MULTILINE)
            found = [tuple(shlex.split(line, comments=True)) for line in lines]
            if {"encode"} < {words[0] for words in found}:
                yield page.name, found


@pytest.mark.parametrize(("page", "block"), blocks(), ids=lambda part: str(part)[:40])
def test_tables_that_a_block_trains_on_are_those_that_it_encodes(page, block):
    made = {
        (config.root, *facts_of(name))
        for words in block
        if words[0] == "encode"
        for config in [parsed(words)]
        for name in config.encoders
    }
    for words in block:
        if words[0] != "encode":
            config = parsed(words)
            read = {
                (config.root, *facts_of(name))
                for name in config.inputs
                if name.partition(":")[0] in ENCODERS
            }
            assert read <= made, f"{page}: affuse {' '.join(words)}"


def facts_of(encoder):
    return encoder.partition(":")[0], describe(encoder).fingerprint


def test_the_model_that_python_opens_in_the_readme_is_the_one_that_was_promoted():
    page = (ROOT / "README.md").read_text()
    (promoted,) = re.findall(r"bundle promote --root (\S+) --bundle \S+ --model (\S+)", page)
    loaded = re.findall(r'load_bundle\("models:/(\S+)@champion", root="(\S+)"\)', page)
    assert loaded == [promoted[::-1]]


def test_every_job_shows_at_least_one_command():
    shown = {words[0] for _, words in SHOWN}
    assert shown == set(JOBS)


@pytest.mark.parametrize("page", ["README.md", "docs/data.md", "docs/nets.md", "docs/results.md"])
def test_pages_that_show_commands_are_read(page):
    assert page in {where for where, _ in SHOWN}


@pytest.fixture(scope="module")
def flags():
    """Every flag of every job, as typed."""
    return {word for _, words in _cli.completions() for word in words if word.startswith("--")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_flag_that_a_page_names_in_a_sentence_exists(page, flags):
    """`--flag`, or `JOB --flag` without the rest of the command, which would be parsed."""
    sentences = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    spans = re.findall(r"`([^`\s][^`]*)`", sentences)
    ours = [span for span in spans if span.startswith("--") or span.split()[0] in {"affuse", *JOBS}]
    named = {flag for span in ours for flag in re.findall(r"(?<!\S)--[a-z][\w.-]*", span)}
    assert named <= flags
