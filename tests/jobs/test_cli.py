"""The command line answers: help names every field, a typo its nearest, exit codes mean one thing."""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import time
import typing
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

import jobs
from cluster import settings
from cluster.errors import ConfigError, LabelTableError, PlanError
from cluster.settings import Place
from jobs import JOBS, _cli
from jobs.__main__ import overview, run
from jobs.datasets import DATASETS

ROOT = Path(__file__).resolve().parents[2]


def commands() -> list[tuple[str, ...]]:
    """Every command line that takes flags: one a job, more where a job has commands of its own."""
    found = []
    for name in JOBS:
        module = importlib.import_module(f"jobs.{name}")
        inside = DATASETS if name == "prepare" else getattr(module, "COMMANDS", ())
        found += [(name, command) for command in inside] or [(name,)]
    return found


def config_of(command: tuple[str, ...]) -> type:
    if command[0] == "prepare":
        return importlib.import_module(f"jobs.datasets.{command[1]}").Config
    module = importlib.import_module(f"jobs.{command[0]}")
    return module.COMMANDS[command[1]] if len(command) > 1 else module.Config


WITHOUT_TORCH = ("annotate", "benchmark", "encode", "features", "models", "prepare", "submit")
"""Jobs that read no net and no run: their help and lists come at once."""


def loaded_by(words: list[list[str]]) -> set[str]:
    """The modules that some command lines leave behind, one after the other in a fresh process."""
    code = (
        "import json, sys\nfrom jobs.__main__ import run\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    try:\n        assert run(words) == 0\n"
        "    except SystemExit as stop:\n        assert not stop.code\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, json.dumps(words)], capture_output=True, text=True, cwd=ROOT
    )
    assert out.returncode == 0, out.stderr
    return set(json.loads(out.stdout.splitlines()[-1]))


def flags_of(kind: type, prefix: str = "") -> list[tuple[type, str, str]]:
    """(class, field, flag) of every field; a nested config's are written `--outer.inner`."""
    found = []
    for field in dataclasses.fields(kind):
        flag = f"{prefix}{field.name.replace('_', '-')}"
        hint = typing.get_type_hints(kind)[field.name]
        if dataclasses.is_dataclass(hint):
            found += flags_of(hint, f"{flag}.")
        else:
            found.append((kind, field.name, flag))
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy:
    """Fields of every kind that jobs use."""

    root: Place
    """Folder or URI."""

    out: Place | None = None
    cache: Place = ""
    clips: tuple[Place, ...] = ()
    minutes: float | None = None
    sides: tuple[float, ...] = ()
    encoders: tuple[str, ...] = ()
    options: Mapping[str, int | float | str | bool] = dataclasses.field(default_factory=dict)
    share: float = 0.5
    """A share [0..1]."""

    resume: bool = True
    cap: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is 0 to 1; came {self.share}")


@pytest.fixture
def toy(monkeypatch):
    """A job named `toy` whose `main` raises what the test puts into `fault`, else keeps the config."""
    module = ModuleType("jobs.toy", "Do nothing.\n\nReads:  nothing\nWrites: nothing\n")
    module.Config = Toy
    module.fault = None
    module.seen = None

    def main(config):
        module.seen = config
        if module.fault is not None:
            raise module.fault

    module.main = main
    monkeypatch.setitem(sys.modules, "jobs.toy", module)
    monkeypatch.setitem(JOBS, "toy", "Do nothing.")
    return module


def exit_of(argv: list[str]) -> int:
    """The exit status, whether returned or raised by the parser."""
    try:
        return run(argv)
    except SystemExit as stop:
        return int(stop.code or 0)


class TestEveryJob:
    @pytest.mark.parametrize("command", commands(), ids=" ".join)
    def test_help_names_every_field_with_a_sentence(self, command, capsys):
        assert exit_of([*command, "--help"]) == 0
        shown = capsys.readouterr().out
        words = " ".join(shown.replace("│", " ").split())
        for _, name, flag in flags_of(config_of(command)):
            named = f"--{flag}" in words or name.upper() in words
            assert named, f"{flag} is not in the help of {command}"

    @pytest.mark.parametrize("command", commands(), ids=" ".join)
    def test_every_field_is_documented(self, command):
        import tyro._docstrings as docstrings

        bare = [
            flag
            for kind, name, flag in flags_of(config_of(command))
            if not docstrings.get_field_docstring(kind, name, ())
        ]
        assert not bare, f"{command}: fields without a sentence: {bare}"

    @pytest.mark.parametrize("command", commands(), ids=" ".join)
    def test_an_unknown_flag_exits_with_2(self, command, capsys):
        assert exit_of([*command, "--no-such-flag-at-all", "1"]) == 2
        assert capsys.readouterr().err

    @pytest.mark.parametrize("command", commands(), ids=" ".join)
    def test_a_typo_in_a_file_names_the_nearest_field(self, command, tmp_path, capsys):
        name = dataclasses.fields(config_of(command))[0].name
        file = tmp_path / "c.yaml"
        file.write_text(f"{name}x: 1\n")
        assert exit_of([*command, "--config", str(file)]) == 2
        said = capsys.readouterr().err
        assert f"unknown field '{name}x'" in said
        assert "did you mean" in said

    @pytest.mark.timeout(60)
    @pytest.mark.parametrize("words", [["--help"], ["--roto", "x"]], ids=" ".join)
    @pytest.mark.parametrize("columns", ["1", "5", "20"])
    def test_a_narrow_screen_gets_the_text_of_one_of_40_columns(
        self, words, columns, monkeypatch, capsys
    ):
        texts = []
        for width in ("40", columns):
            monkeypatch.setenv("COLUMNS", width)
            status = exit_of(["verify", *words])
            texts.append((status, capsys.readouterr()))
            assert os.environ["COLUMNS"] == width
        assert texts[0] == texts[1]

    @pytest.mark.parametrize("flag", ["--root", "--folds"])
    def test_a_value_that_begins_with_a_dash_is_told_how_it_is_typed(self, flag, capsys):
        assert exit_of(["train", flag, "-dash"]) == 2
        said = capsys.readouterr().err
        assert f"a value that begins with a dash is typed {flag}=-dash" in said

    def test_a_number_below_zero_is_a_value(self, capsys):
        assert (
            exit_of(["train", "--root", "r", "--inputs", "a", "--lr", "-0.5", "--patiense", "-1"])
            == 2
        )
        assert "begins with a dash" not in capsys.readouterr().err

    def test_the_registry_is_all_that_was_tested(self):
        assert {command[0] for command in commands()} == set(JOBS)


def test_help_loads_no_database_whose_package_writes_to_the_screen_at_its_end():
    assert "duckdb" not in loaded_by([["score", "--help"], ["prepare", "folder", "--help"]])


class TestOverview:
    def test_every_job_is_listed_with_its_sentence(self):
        text = overview()
        assert all(name in text and sentence in text for name, sentence in JOBS.items())

    def test_an_empty_registry_does_not_break_it(self, monkeypatch):
        monkeypatch.setattr("jobs.__main__.JOBS", {})
        assert overview().endswith("jobs:")

    def test_help_exits_0_and_no_job_exits_2(self):
        assert run(["--help"]) == 0
        assert run([]) == 2

    def test_help_takes_under_half_a_second_and_imports_nothing_heavy(self):
        code = (
            "import sys; sys.argv = ['affuse', '--help']\n"
            "try:\n    from jobs.__main__ import main; main()\nexcept SystemExit: pass\n"
            "heavy = ('torch', 'ray', 'transformers', 'mlflow', 'numpy', 'pyarrow', 'tyro')\n"
            "print([name for name in heavy if name in sys.modules])"
        )
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            out = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
            )
            seconds.append(time.perf_counter() - start)
            assert out.stdout.splitlines()[-1] == "[]", out.stderr
        assert min(seconds) < 0.5

    @pytest.mark.parametrize(
        ("names", "heavy"),
        [
            (tuple(JOBS), ("ray", "transformers", "mlflow")),
            (WITHOUT_TORCH, ("torch", "ray", "transformers", "mlflow", "pandas")),
        ],
        ids=["every job", "jobs without nets"],
    )
    def test_help_of_jobs_loads_no_library_that_only_their_work_needs(self, names, heavy):
        words = [[name, "--help"] for name in names]
        if "torch" in heavy:
            words += [["encode", "--list"], ["prepare", "ravdess", "--help"]]
        assert loaded_by(words) & set(heavy) == set()

    def test_a_typo_in_a_job_names_the_nearest(self, toy, capsys):
        assert run(["toyy"]) == 2
        assert "there is no job 'toyy'; did you mean 'toy'?" in capsys.readouterr().err

    def test_a_name_like_no_job_points_to_help(self, capsys):
        assert run(["zzzzzz"]) == 2
        assert "type: affuse --help" in capsys.readouterr().err

    def test_a_reader_that_goes_away_is_no_error_of_ours(self):
        code = "import os, sys\nfrom jobs.__main__ import main\nmain(['encode', '--help'])"
        reading, writing = os.pipe()
        os.close(reading)
        out = subprocess.run(
            [sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, cwd=ROOT
        )
        os.close(writing)
        assert b"Traceback" not in out.stderr

    @pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
    def test_a_standard_stream_that_is_closed_is_never_a_file_of_a_job(self, closed):
        code = (
            "import os, sys\nfrom jobs.__main__ import main\n"
            "try: main(['--version'])\nexcept SystemExit: pass\n"
            "print('said', file=sys.stderr)\n"
            "os._exit(40 + os.open(os.devnull, os.O_RDONLY))"
        )
        script = f'exec "$0" -c "$1" {closed}'
        words = ["sh", "-c", script, sys.executable, code]
        assert subprocess.run(words, cwd=ROOT, check=False).returncode > 42

    def test_the_version_is_printed(self, capsys):
        assert run(["--version"]) == 0
        assert capsys.readouterr().out.startswith("affuse ")


class TestFlags:
    @pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
    @pytest.mark.parametrize("flag", ["--minutes", "--sides", "--options"])
    def test_a_number_that_is_none_is_refused_wherever_it_stands(self, toy, capsys, flag, value):
        words = f"a={value}" if flag == "--options" else value
        assert exit_of(["toy", "--root", "r", f"{flag}={words}"]) == 2
        assert f"{flag} {value}: expected a finite number" in capsys.readouterr().err
        assert toy.seen is None

    @pytest.mark.parametrize(
        "flags", [["--root", ""], ["--root", "r", "--out", ""], ["--root", "r", "--clips", "a", ""]]
    )
    def test_a_place_without_a_name_is_refused_before_anything_is_written(self, toy, capsys, flags):
        assert exit_of(["toy", *flags]) == 2
        assert "is empty: expected a folder, file or URI" in capsys.readouterr().err
        assert toy.seen is None

    def test_a_place_that_is_empty_by_default_may_be_named_so(self, toy):
        assert run(["toy", "--root", "r", "--cache", ""]) == 0

    def test_a_mapping_is_written_name_equals_value(self, toy):
        argv = ["toy", "--root", "r", "--options", "rank=8", "p=0.3", "on=true", "kind=gated"]
        assert run(argv) == 0
        assert toy.seen.options == {"rank": 8, "p": 0.3, "on": True, "kind": "gated"}

    def test_a_mapping_word_without_equals_is_refused(self, toy, capsys):
        assert exit_of(["toy", "--root", "r", "--options", "rank"]) == 2
        assert "expected NAME=VALUE, came 'rank'" in capsys.readouterr().err

    def test_tuples_and_booleans_read_as_they_look(self, toy):
        assert run(["toy", "--root", "r", "--encoders", "a", "b", "--no-resume"]) == 0
        assert toy.seen.encoders == ("a", "b")
        assert toy.seen.resume is False

    def test_a_typo_in_a_flag_names_the_nearest(self, toy, capsys):
        assert exit_of(["toy", "--root", "r", "--encodrs", "a"]) == 2
        assert "--encoders" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("words", "former", "now"),
        [
            (("encode", "--calibration", "never"), "--calibration", "--autotune"),
            (("score", "--calibration=never"), "--calibration", "--autotune"),
            (("train", "--passes", "2"), "--passes", "--accumulation-steps"),
            (("tune", "--passes", "2"), "--passes", "--accumulation-steps"),
            (("ensemble", "--runs", "a", "--name", "b"), "--name", "--bundle"),
        ],
    )
    def test_a_flag_by_its_former_name_names_the_one_it_has_now(self, words, former, now, capsys):
        assert exit_of([words[0], "--root", "r", *words[1:]]) == 2
        assert f"there is no flag {former}; did you mean {now}?" in capsys.readouterr().err

    def test_a_field_of_a_file_by_its_former_name_names_the_one_it_has_now(self, tmp_path, capsys):
        file = tmp_path / "config.json"
        file.write_text(json.dumps({"root": "r", "inputs": ["a"], "passes": 2}))
        assert run(["train", "--config", str(file)]) == 2
        said = capsys.readouterr().err
        assert "unknown field 'passes'; did you mean 'accumulation_steps'?" in said

    def test_a_name_that_another_job_has_given_up_is_still_a_flag(self):
        config = _cli.parse(
            "ensemble",
            importlib.import_module("jobs.ensemble"),
            ["--root", "r", "--runs", "a", "--calibration", "none"],
        )
        assert config.calibration == "none"

    def test_a_value_the_config_refuses_is_said_in_its_words(self, toy, capsys):
        assert exit_of(["toy", "--root", "r", "--share", "3"]) == 2
        assert capsys.readouterr().err == "affuse toy: share is 0 to 1; came 3.0\n"

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ("train --inputs a --share 3", "affuse train: --share 3.0: expected above 0"),
            ("train --inputs a --lr 0", "affuse train: expected lr > 0"),
            (
                "train --inputs a --loss crossentropy",
                "affuse train: there is no loss 'crossentropy'",
            ),
            ("tune --inputs a --trials 0", "affuse tune: --trials 0 --keep 8: expected 1 or more"),
            ("encode", "affuse encode: which encoders? type: --encoders NAME"),
            (
                "encode --encoders a --workers.actors -1",
                "affuse encode: workers.actors: expected 1",
            ),
            ("prepare folder --source s --folds 1", "affuse prepare: --folds 1: expected 0 (none)"),
            ("report", "affuse report: nothing to report on: name --runs"),
        ],
    )
    def test_what_a_config_refuses_is_one_line_of_the_job_that_was_typed(self, words, said, capsys):
        assert exit_of([*words.split(), "--root", "r"]) == 2
        found = capsys.readouterr().err
        assert found.startswith(said)
        assert found.count("\n") == 1

    def test_a_word_that_is_no_value_is_answered_with_the_flags_own_help(self, toy, capsys):
        assert exit_of(["toy", "--root", "r", "--share", "much"]) == 2
        assert "A share [0..1]." in capsys.readouterr().err

    def test_prose_with_a_colon_is_no_list(self, toy, capsys):
        toy.__doc__ = (
            "Do.\n\nA thing done is not done again: it goes on.\nSo it is.\n\nReads:  a\n        b"
        )
        assert exit_of(["toy", "--help"]) == 0
        shown = capsys.readouterr().out
        assert "\nA thing done is not done again: it goes on. So it is.\n" in shown
        assert "\n  Reads:  a\n          b\n" in shown

    def test_the_manual_keeps_its_lines(self, toy, capsys):
        assert exit_of(["toy", "--help"]) == 0
        shown = capsys.readouterr().out
        assert "\n  Reads:  nothing\n  Writes: nothing\n" in shown
        assert "--config FILE" in shown


class TestConfigFile:
    def test_the_resolved_config_is_accepted_back(self, toy, tmp_path):
        config = Toy(root="r", encoders=("a",), options={"lr": 1e-5, "rank": 8}, share=1e-3, cap=3)
        file = tmp_path / "config.json"
        file.write_text(json.dumps(settings.to_mapping(config)))
        assert run(["toy", "--config", str(file)]) == 0
        assert toy.seen == config

    def test_flags_win_over_the_file_and_mend_what_it_lacks(self, toy, tmp_path):
        file = tmp_path / "c.yaml"
        file.write_text("share: 0.25\noptions: {rank: 8}\n")
        assert run(["toy", f"--config={file}", "--root", "r", "--share", "0.75"]) == 0
        assert toy.seen == Toy(root="r", share=0.75, options={"rank": 8})

    def test_a_flag_mends_a_value_of_the_file_that_would_be_refused(self, toy, tmp_path):
        file = tmp_path / "c.yaml"
        file.write_text("root: r\nshare: 3.0\n")
        assert exit_of(["toy", "--config", str(file)]) == 2
        assert run(["toy", "--config", str(file), "--share", "0.5"]) == 0

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("encoderz: [a]", "unknown field 'encoderz'; did you mean 'encoders'?"),
            ("share: much", "share: expected float, came 'much'"),
            ("- a", "expected `field: value` lines"),
            ("a: [", "not YAML"),
        ],
    )
    def test_a_bad_file_exits_with_2_and_says_what_is_wrong(
        self, toy, tmp_path, capsys, content, said
    ):
        file = tmp_path / "c.yaml"
        file.write_text(content)
        assert run(["toy", "--root", "r", "--config", str(file)]) == 2
        assert said in capsys.readouterr().err

    def test_a_missing_file_and_a_missing_name_exit_with_2(self, toy, capsys):
        assert run(["toy", "--config", "nowhere.yaml"]) == 2
        assert "there is no such file" in capsys.readouterr().err
        assert run(["toy", "--config"]) == 2
        assert "wants the name of a YAML or JSON file" in capsys.readouterr().err


class TestExitStatus:
    @pytest.mark.parametrize(
        ("fault", "status"),
        [
            (None, 0),
            (PlanError("needs 9 CPUs, has 2"), 1),
            (LabelTableError("row 3: unknown class"), 1),
            (ConfigError("no such net"), 2),
            (KeyboardInterrupt(), 130),
        ],
        ids=["done", "ours", "labels", "config", "keyboard"],
    )
    def test_each_kind_of_end_has_its_status_and_one_line(self, toy, capsys, fault, status):
        toy.fault = fault
        assert run(["toy", "--root", "r"]) == status
        said = capsys.readouterr().err
        assert said.count("\n") == (fault is not None)
        if fault is not None and str(fault):
            assert said == f"affuse toy: {fault}\n"

    @pytest.mark.parametrize(
        ("job", "said"),
        [
            ("toy", "stopped; the same command goes on from here"),
            ("benchmark", "stopped; the same command begins anew"),
            ("serve", "stopped"),
        ],
    )
    def test_a_job_that_is_stopped_promises_no_more_than_it_keeps(
        self, toy, monkeypatch, capsys, job, said
    ):
        toy.fault = KeyboardInterrupt()
        monkeypatch.setitem(sys.modules, f"jobs.{job}", toy)
        assert run([job, "--root", "r"]) == 130
        assert capsys.readouterr().err == f"affuse {job}: {said}\n"

    def test_any_other_error_is_a_bug_and_keeps_its_traceback(self, toy):
        toy.fault = ValueError("not ours")
        with pytest.raises(ValueError, match="not ours"):
            run(["toy", "--root", "r"])

    def test_an_error_that_crossed_ray_is_told_without_the_workers_traceback(self, toy, capsys):
        class FromWorkerError(PlanError):
            def __init__(self, cause):
                super().__init__(f"Traceback of a worker ... {cause}")
                self.cause = cause

        toy.fault = FromWorkerError(PlanError("too big"))
        assert run(["toy", "--root", "r"]) == 1
        assert capsys.readouterr().err == "affuse toy: too big\n"


class TestJobsWithCommands:
    @pytest.fixture
    def twofold(self, toy):
        toy.COMMANDS = {"export": Toy, "import": Toy}
        return toy

    def test_the_command_chooses_the_config(self, twofold):
        assert run(["toy", "import", "--root", "r"]) == 0
        assert twofold.seen == Toy(root="r")

    def test_help_lists_the_commands(self, twofold, capsys):
        assert exit_of(["toy", "--help"]) == 0
        assert "{export | import}" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("argv", "said"),
        [
            ([], "expected one of export | import; type: affuse toy --help"),
            (["imprt"], "there is no command 'imprt'; did you mean 'import'?"),
            (["zzz"], "known: export, import"),
        ],
    )
    def test_a_wrong_command_is_answered(self, twofold, capsys, argv, said):
        assert run(["toy", *argv]) == 2
        assert said in capsys.readouterr().err


def test_a_job_with_a_grammar_of_its_own_reads_its_own_words(toy):
    toy.configure = lambda argv: Toy(root=" ".join(argv))
    assert _cli.parse("toy", toy, ["a", "b"]) == Toy(root="a b")


def test_the_jobs_package_imports_nothing():
    assert [name for name in vars(jobs) if name.isupper()] == ["JOBS"]
