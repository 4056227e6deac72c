"""The house stands as design says: registries equal files, floors hold, imports are light."""

import ast
import collections
import graphlib
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from encoders import ENCODERS, TRANSCRIBERS
from fusion.late import LATE
from fusion.losses import LOSSES
from fusion.nets import NETS
from jobs import JOBS
from jobs.datasets import DATASETS

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("jobs", "encoders", "fusion", "cluster")
SHARED_FILES = {"calibration", "conformal", "members", "presence"}  # of fusion.late: not rules


def files(folder: str) -> list[str]:
    return sorted(p.stem for p in (ROOT / folder).glob("*.py") if not p.stem.startswith("_"))


@pytest.mark.parametrize(
    ("registry", "folder"),
    [
        (JOBS, "jobs"),
        (DATASETS, "jobs/datasets"),
        (NETS, "fusion/nets"),
        (LATE, "fusion/late"),
        (LOSSES, "fusion/losses"),
    ],
    ids=["jobs", "datasets", "nets", "late", "losses"],
)
def test_registry_keys_are_the_file_names_in_alphabetical_order(registry, folder):
    assert list(registry) == [name for name in files(folder) if name not in SHARED_FILES]


def test_every_encoder_key_is_the_name_of_its_file():
    for name, module in {**ENCODERS, **TRANSCRIBERS}.items():
        assert module.rsplit(".", 1)[-1] == name
        assert importlib.import_module(module).SPEC.name == name
    assert list(ENCODERS) == sorted(ENCODERS)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_generic_package_names_resolve_to_this_checkout(package):
    module = importlib.import_module(package)
    assert Path(module.__file__).resolve().is_relative_to(ROOT)


def test_listing_encoders_imports_no_heavy_library():
    code = (
        "import sys, encoders.registry as s, encoders as e;"
        "[s.find(n) for n in {**e.ENCODERS, **e.TRANSCRIBERS}];"
        "print([m for m in ('torch', 'transformers', 'ray', 'pandas') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert out.stdout.strip() == "[]", out.stderr


@pytest.mark.parametrize("module", ["jobs.stream.decode", "jobs.stream.sink", "jobs.scoring.sink"])
def test_what_travels_to_decode_tasks_loads_no_torch(module):
    code = f"import sys, {module}; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert out.stdout.strip() == "False", out.stderr


def sources() -> dict[str, Path]:
    """Module name -> its file, of all packages."""
    found = {}
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(tree: ast.AST, modules) -> set[str]:
    """The modules that a file imports anywhere: at its top, inside functions, for type checkers only."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            inside = names & set(modules)
            # `from package import module` reads the package's own file only where it takes more.
            found |= inside | ({node.module} if inside < names else set())
    return found & set(modules)


def circle(graph) -> list[str]:
    """The files of one circle; empty where there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_no_files_import_each_other_in_a_circle():
    modules = sources()
    graph = {
        name: imported(ast.parse(path.read_text()), modules) - {name}
        for name, path in modules.items()
    }
    assert sum(map(len, graph.values())) > len(graph), "too few imports were found"
    assert circle(graph) == []


@pytest.mark.parametrize(
    "back",
    [
        "import jobs.a",
        "from jobs import a",
        "from jobs.a import run",
        "def late():\n    from jobs.a import run",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from jobs.a import Config",
    ],
)
def test_a_circle_is_found_however_the_import_is_written(back):
    modules = {"jobs": "", "jobs.a": "from jobs.b import work", "jobs.b": back}
    graph = {name: imported(ast.parse(text), modules) for name, text in modules.items()}
    assert set(circle(graph)) == {"jobs.a", "jobs.b"}


def test_jobs_have_no_private_files_but_the_command_line():
    private = {path.name for path in (ROOT / "jobs").glob("_*.py") if path.stem[:2] != "__"}
    assert private == {"_cli.py"}


COMMAND_LINE = {
    "bare_roots",
    "cli",
    "completion",
    "documented_commands",
    "interrupt",
    "read_only_roots",
    "strange_names",
    "strange_places",
}
"""What tests of the command line as a whole, and of every job alike, are about."""


def test_tests_of_jobs_are_named_by_a_job_or_lie_in_the_room_that_they_test():
    jobs = re.compile(rf"test_({'|'.join(JOBS)})(_\w+)?")
    tests = ROOT / "tests" / "jobs"
    flat = [path.stem for path in tests.glob("test_*.py")]
    assert len(flat) > len(JOBS)
    assert {name.removeprefix("test_") for name in flat if not jobs.fullmatch(name)} == COMMAND_LINE
    rooms = {path.parent.name for path in tests.glob("*/test_*.py")}
    assert rooms <= {path.parent.name for path in (ROOT / "jobs").glob("*/__init__.py")}


MEANT_ALIKE = {"Config", "Rule"}
"""What every job, net, encoder or rule has one of."""

TWO_MEANINGS = {"Clips", "Fault", "Measured", "Output", "Table", "UnitTable"}
"""Class names to be cut: none may join them."""


def test_a_name_of_a_class_means_one_thing_in_the_whole_project():
    found = collections.Counter(
        node.name
        for path in sources().values()
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    twice = {name for name, count in found.items() if count > 1}
    assert len(found) > 200
    assert twice - MEANT_ALIKE <= TWO_MEANINGS
    assert twice >= TWO_MEANINGS, "it means one thing now: take it off TWO_MEANINGS"


MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS = 350, 60, 7
"""Lines of a file, lines of a function, parameters of a function besides `self`."""

OVER_THE_LIMITS = {
    # One block of a backward pass: every tensor that it reads, and every one that it fills.
    "fusion/nets/kernels/lstm.py _steps_back_compiled: parameters",
}


def slow_to_ask(tree: ast.AST) -> list[str]:
    """Classes that read what they hold to say whether they hold it, as `Mapping.__contains__` does."""
    return [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any("Mapping[" in ast.unparse(base) for base in node.bases)
        and "__contains__"
        not in [part.name for part in node.body if isinstance(part, ast.FunctionDef)]
    ]


def test_mappings_say_what_they_hold_without_reading_it():
    found = [
        name for file in sources().values() for name in slow_to_ask(ast.parse(file.read_text()))
    ]
    assert found == []


def test_a_mapping_that_reads_to_say_what_it_holds_is_found():
    text = "class A(Mapping[str, int]):\n    def __getitem__(self, name): ...\n"
    assert slow_to_ask(ast.parse(text)) == ["A"]
    assert slow_to_ask(ast.parse(text + "    def __contains__(self, name): ...\n")) == []


def over_limits(path: str, text: str) -> dict[str, int]:
    """What of a file is more than a reader can hold: the file, its functions, their parameters."""
    counts = [(f"{path}: lines", len(text.splitlines()), MAX_FILE)]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            counts.append((f"{path} {node.name}: lines", length, MAX_FUNCTION))
            given = node.args
            names = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            count = sum(each is not None and each.arg not in ("self", "cls") for each in names)
            counts.append((f"{path} {node.name}: parameters", count, MAX_PARAMETERS))
    return {what: count for what, count, most in counts if count > most}


def test_files_functions_and_parameter_lists_stay_short():
    found = {}
    for path in sources().values():
        found |= over_limits(path.relative_to(ROOT).as_posix(), path.read_text())
    more = found.keys() - OVER_THE_LIMITS
    assert not more, f"split it: {found}"
    assert not OVER_THE_LIMITS - found.keys(), "it is short now: take it off OVER_THE_LIMITS"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def f(a, b, c, d, e, f, g): ...", {}),
        ("def f(a, b, c, d, e, f, g, h): ...", {"x f: parameters": 8}),
        ("def f(a, /, b, c, *d, e, f, g, **h): ...", {"x f: parameters": 8}),
        ("class A:\n    def f(self, b, c, d, e, f, g, h): ...", {}),
        ("async def f():\n" + "    a = 1\n" * 60, {"x f: lines": 61}),
        ("a = 1\n" * 351, {"x: lines": 351}),
    ],
)
def test_what_is_too_long_is_found(text, expected):
    assert over_limits("x", text) == expected


@pytest.mark.parametrize("name", ["encode", "train", "score"])
def test_one_clip_goes_through_few_files(name):
    command = [sys.executable, "tests/flows.py", name]
    out = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert out.returncode == 0, out.stderr
    found, _, limit = re.search(r"^(\d+) files(; the limit is )(\d+)$", out.stdout, re.M).groups()
    assert int(found) <= int(limit), out.stdout
