"""A job's command line travels to a cluster checked, and comes back with its log and its status."""

import dataclasses
import shlex
import sys
from types import ModuleType, SimpleNamespace

import pytest

from cluster import jobs_api, submission
from cluster.errors import ConfigError
from cluster.settings import Place
from jobs import JOBS, submit
from jobs.__main__ import run

REMOTE = "http://10.1.2.3:8265"
LOCAL = "http://127.0.0.1:8265"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy:
    root: Place
    """Where."""

    rate: float = 1.0
    """How fast."""


@pytest.fixture
def toy(monkeypatch):
    module = ModuleType("jobs.toy", "Do nothing.")
    module.Config = Toy
    monkeypatch.setitem(sys.modules, "jobs.toy", module)
    monkeypatch.setitem(JOBS, "toy", "Do nothing.")
    return module


class TestCommandLine:
    def test_what_follows_two_dashes_is_the_other_jobs(self):
        config = submit.configure(["--no-pip", "--", "encode", "--root", "s3://b"])
        assert config.command == ("encode", "--root", "s3://b")
        assert config.pip is False

    def test_later_dashes_belong_to_the_job(self):
        config = submit.configure(["--", "encode", "--", "x"])
        assert config.command == ("encode", "--", "x")

    def test_the_resolved_config_is_accepted_back(self, tmp_path):
        file = tmp_path / "c.yaml"
        file.write_text("command: [encode, --root, s3://b]\nenv: {A: 'x'}\n")
        config = submit.configure(["--config", str(file)])
        assert config.command == ("encode", "--root", "s3://b")
        assert config.env == {"A": "x"}

    @pytest.mark.parametrize(
        "argv", [[], ["--stop", "a", "--attach", "b"], ["--stop", "a", "--", "encode"]]
    )
    def test_exactly_one_thing_is_done(self, argv):
        with pytest.raises(ConfigError, match="expected one of: a job after --"):
            submit.configure(argv)

    def test_negative_resources_are_refused(self):
        with pytest.raises(ConfigError, match="zero or more"):
            submit.Config(command=("encode",), num_cpus=-1)


class TestResolving:
    def test_the_config_travels_whole(self, toy):
        job = submit.resolve(["toy", "--root", "s3://b", "--rate", "2"], REMOTE)
        assert job.words == ("toy",)
        assert job.values == {"root": "s3://b", "rate": 2.0}
        assert job.places == ("s3://b",)

    def test_a_job_with_commands_keeps_its_command(self, toy):
        toy.COMMANDS = {"import": Toy}
        job = submit.resolve(["toy", "import", "--root", "s3://b"], REMOTE)
        assert job.words == ("toy", "import")

    def test_a_relative_root_is_made_absolute_for_a_cluster_on_this_machine(
        self, toy, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        job = submit.resolve(["toy", "--root", "data"], LOCAL)
        assert job.values["root"] == str(tmp_path / "data")

    def test_a_path_of_this_machine_is_refused_for_a_cluster_elsewhere(self, toy):
        with pytest.raises(ConfigError, match=r"--root /d is a path of this machine.*file:///d"):
            submit.resolve(["toy", "--root", "/d"], REMOTE)

    def test_every_kind_of_local_file_is_refused_for_a_cluster_elsewhere(self):
        words = ["features", "import", "--root", "s3://b", "--name", "n", "--modality", "text"]
        with pytest.raises(ConfigError, match=r"--file here\.npz is a path of this machine"):
            submit.resolve([*words, "--file", "here.npz"], REMOTE)
        job = submit.resolve([*words, "--file", "s3://b/f.npz"], REMOTE)
        assert job.words == ("features", "import")
        assert job.places == ("s3://b", "s3://b/f.npz")

    def test_a_mounted_folder_is_named_as_a_file_uri(self, toy):
        assert submit.resolve(["toy", "--root", "file:///mnt/d"], REMOTE).values["root"] == (
            "file:///mnt/d"
        )

    def test_a_typo_in_the_job_or_its_flags_never_reaches_the_cluster(self, toy, capsys):
        with pytest.raises(ConfigError, match="there is no job 'toyy'; did you mean 'toy'"):
            submit.resolve(["toyy"], LOCAL)
        with pytest.raises(SystemExit, match="2"):
            submit.resolve(["toy", "--rot", "x"], LOCAL)
        assert "affuse toy --help" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "words",
        [
            "tune --root s3://b --inputs x --space x.yaml",
            "score --root s3://b --bundle bundles/x",
            "score --root s3://b --store weights",
            "score clips/*.mp4 --bundle s3://b/bundles/x",
            "score s3://b/clips ./more --bundle s3://b/bundles/x",
            "ensemble --root s3://b --runs a --task t --imported x.csv",
            "train --root s3://b --inputs x --cache /scratch",
            "train --root ~/r --inputs x",
            "benchmark encode --root s3://b --encoders minilm --json x.json",
            "annotate s3://b/a.mp4 --scores s3://b/s.csv --font x.ttf",
            "encode --root s3://b --encoders minilm --session.temp-dir here",
        ],
    )
    def test_no_place_of_this_machine_is_sent_to_a_cluster_elsewhere(self, words, capsys):
        status = run(["submit", "--address", REMOTE, "--", *words.split()])
        assert status == 2
        assert "is a path of this machine, which the cluster at" in capsys.readouterr().err

    def test_places_that_nobody_typed_are_each_machines_own(self):
        words = ["train", "--root", "s3://b", "--inputs", "x"]
        assert submit.resolve(words, REMOTE).values["cache"] == "~/.cache/affuse/feeding"
        words = ["score", "--root", "s3://b", "--bundle", "plain"]
        assert submit.resolve(words, REMOTE).values["bundle"] == "plain"

    def test_every_place_is_absolute_for_a_cluster_on_this_machine(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        words = ["ensemble", "--root", "r", "--runs", "a", "--task", "t", "--imported", "x", "y"]
        values = submit.resolve(words, LOCAL).values
        assert values["imported"] == [str(tmp_path / "x"), str(tmp_path / "y")]
        values = submit.resolve(
            ["tune", "--root", "r", "--inputs", "x", "--space", "s.yaml"], LOCAL
        ).values
        assert values["space"] == str(tmp_path / "s.yaml")

    @pytest.mark.parametrize(
        "words",
        [
            "encode --root s3://key:hunter2@bucket --encoders minilm",
            "encode --root s3://b --encoders minilm --store https://h/w?password=hunter2",
            "score https://ann:hunter2@h/a.mp4 --bundle s3://b/x",
            "prepare folder --source s3://b --root s3://r --columns name=https://h/?token=hunter2",
        ],
    )
    @pytest.mark.parametrize("address", [LOCAL, REMOTE])
    def test_a_secret_in_the_command_is_refused_and_not_repeated(self, words, address, capsys):
        status = run(["submit", "--address", address, "--", *words.split()])
        said = capsys.readouterr()
        assert status == 2
        assert "holds a secret" in said.err
        assert "in the environment" in said.err
        assert said.err.count("\n") == 1
        assert "hunter2" not in said.out + said.err

    @pytest.mark.parametrize(
        "variable",
        [
            "RAY_AUTH_TOKEN=hunter2",
            "HF_TOKEN=hunter2",
            "AWS_SECRET_ACCESS_KEY=hunter2",
            "OPENAI_API_KEY=hunter2",
            "PGPASSWORD=hunter2",
            "MLFLOW_TRACKING_URI=http://ann:hunter2@mlflow:5000",
        ],
    )
    @pytest.mark.parametrize("address", [LOCAL, REMOTE])
    def test_a_secret_among_the_variables_is_refused_and_not_repeated(
        self, variable, address, monkeypatch, capsys
    ):
        monkeypatch.setattr(jobs_api, "connect", lambda *_: pytest.fail("it was sent"))
        words = ["--env", variable, "--", "encode", "--list"]
        assert run(["submit", "--address", address, *words]) == 2
        said = capsys.readouterr()
        assert f"--env {variable.partition('=')[0]} holds a secret" in said.err
        assert said.err.count("\n") == 1
        assert "hunter2" not in said.out + said.err

    @pytest.mark.parametrize(
        "variable", ["TOKENIZERS_PARALLELISM=false", "MLFLOW_TRACKING_URI=http://mlflow:5000"]
    )
    def test_other_variables_are_none(self, variable):
        submit.check_variables(dict([variable.split("=")]))

    def test_every_job_that_stays_here_exists(self):
        assert set(submit.STAY_HERE) <= set(JOBS)

    def test_submit_itself_is_not_submitted(self):
        with pytest.raises(ConfigError, match="submit runs on your own machine"):
            submit.resolve(["submit", "--", "submit"], LOCAL)


class TestMain:
    @pytest.fixture
    def cluster(self, monkeypatch, toy):
        """A cluster that accepts everything and whose job ends as the test says."""
        cluster = SimpleNamespace(details=None, sent=None, log="hello\n", running=None)

        def accept(client, words, config, **arguments):
            cluster.sent = (words, config, arguments)
            return arguments["submission_id"]

        def follow(client, name, again, *, write):
            cluster.again = again
            write(cluster.log)
            if isinstance(cluster.details, BaseException):
                raise cluster.details
            return cluster.details

        monkeypatch.setattr(jobs_api, "connect", lambda *arguments: object())
        monkeypatch.setattr(jobs_api, "read_token", lambda *arguments: "t")
        monkeypatch.setattr(submission, "submit", accept)
        monkeypatch.setattr(
            submission, "known", lambda *command: submission.Known(cluster.running, "toy-1")
        )
        monkeypatch.setattr(submission, "follow", follow)
        monkeypatch.setattr(submission, "stop", lambda client, name: "STOPPED")
        return cluster

    def exit_of(self, argv):
        try:
            return run(["submit", *argv])
        except SystemExit as stop:
            return stop.code

    def ended(self, status, message="", code=None):
        return SimpleNamespace(status=status, message=message, driver_exit_code=code)

    def test_a_job_that_succeeds_exits_with_0_and_its_log_is_shown(self, cluster, capsys):
        cluster.details = self.ended("SUCCEEDED")
        assert self.exit_of(["--submission-id", "n", "--", "toy", "--root", "/d"]) == 0
        assert "hello\nn: SUCCEEDED\n" in capsys.readouterr().out

    def test_a_job_that_fails_passes_its_status_on_with_one_line(self, cluster, capsys):
        cluster.details = self.ended(
            "FAILED", "failed with exit code 3, last available logs:\nx", 3
        )
        assert self.exit_of(["--submission-id", "n", "--", "toy", "--root", "/d"]) == 3
        assert capsys.readouterr().err == "affuse submit: n: failed with exit code 3\n"

    def test_a_job_that_was_stopped_exits_as_one_that_sigterm_ended(self, cluster, capsys):
        cluster.details = self.ended("STOPPED", "Job was intentionally stopped.")
        assert self.exit_of(["--attach", "n"]) == 143
        said = capsys.readouterr()
        assert said.out.endswith("n: STOPPED\n")
        assert said.err == "affuse submit: n: Job was intentionally stopped.\n"

    def test_a_job_that_never_started_exits_with_1(self, cluster):
        cluster.details = self.ended("FAILED", "runtime environment failed")
        assert self.exit_of(["--", "toy", "--root", "/d"]) == 1

    def test_the_same_command_follows_the_job_that_runs_and_sends_nothing(self, cluster, capsys):
        cluster.running, cluster.details = "first", self.ended("SUCCEEDED")
        assert self.exit_of(["--", "toy", "--root", "/d"]) == 0
        said = capsys.readouterr().out
        assert "first is this command and has not ended: no second one is started" in said
        assert said.endswith("first: SUCCEEDED\n")
        assert cluster.sent is None

    def test_a_second_one_is_started_where_it_is_given_a_name(self, cluster):
        cluster.running = "first"
        assert (
            self.exit_of(["--no-follow", "--submission-id", "n", "--", "toy", "--root", "/d"]) == 0
        )
        assert cluster.sent[2]["submission_id"] == "n"

    def test_the_keyboard_leaves_the_job_running_and_says_how_to_return(self, cluster, capsys):
        cluster.details = KeyboardInterrupt()
        assert self.exit_of(["--attach", "n"]) == 130
        assert "--attach n follows it, --stop n ends it" in capsys.readouterr().out

    def test_not_following_returns_at_once(self, cluster, capsys):
        assert (
            self.exit_of(["--no-follow", "--submission-id", "n", "--", "toy", "--root", "/d"]) == 0
        )
        assert "--attach n" in capsys.readouterr().out

    @pytest.mark.parametrize("token", [None, "token", "my tokens/token"])
    def test_what_is_to_be_typed_next_asks_the_same_cluster_with_the_same_token(
        self, cluster, capsys, token
    ):
        flags = ["--address", LOCAL, *(() if token is None else ("--token-path", token))]
        expected = [*flags, "--attach", "n"]
        given = [*flags, "--submission-id", "n"]
        self.exit_of([*given, "--no-follow", "--", "toy", "--root", "/d"])
        cluster.details = KeyboardInterrupt()
        self.exit_of([*given, "--", "toy", "--root", "/d"])
        said = capsys.readouterr().out
        parted = said.replace("; type: ", "; ").split("goes on; affuse submit ")[1:]
        typed = [shlex.split(part.partition("\n")[0])[: len(expected)] for part in parted]
        assert typed == [expected, expected]
        assert shlex.split(cluster.again) == ["affuse", "submit", *flags]

    def test_stopping_prints_the_last_status(self, cluster, capsys):
        assert self.exit_of(["--stop", "n"]) == 0
        assert capsys.readouterr().out == "n: STOPPED\n"

    def test_requirements_follow_the_roots_scheme_and_can_be_left_out(self, cluster):
        self.exit_of(["--no-follow", "--", "toy", "--root", "s3://b"])
        assert any(line.startswith("s3fs") for line in cluster.sent[2]["packages"])
        self.exit_of(["--no-follow", "--no-pip", "--", "toy", "--root", "s3://b"])
        assert cluster.sent[2]["packages"] == []

    def test_a_token_over_plain_http_to_another_machine_is_warned_of(self, cluster, capsys):
        self.exit_of(["--address", REMOTE, "--no-follow", "--", "toy", "--root", "s3://b"])
        assert "warning: http to another machine shows the token" in capsys.readouterr().out
