"""`affuse submit --render` writes a finished file, of a command that was parsed, and submits nothing."""

import shlex

import pytest
import yaml

from cluster import jobs_api
from cluster.rendering import Deployment, render
from jobs.__main__ import run

JOB = ["encode", "--root", "s3://b/my data", "--encoders", "minilm"]
KUBERAY = ["submit", "--render", "kuberay"]


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    """Whoever connects fails."""
    monkeypatch.setattr(jobs_api, "connect", None)


def status_of(words):
    try:
        return run(words)
    except SystemExit as stop:
        return stop.code


@pytest.mark.parametrize("target", ["slurm", "kuberay", "aws"])
def test_without_more_it_prints_the_file_that_lies_in_cluster_configs(target, capsys):
    assert run(["submit", "--render", target]) == 0
    assert capsys.readouterr().out == render(target, Deployment())


def test_the_command_the_machines_and_the_schedule_arrive(capsys):
    words = [
        *KUBERAY,
        "--schedule",
        "0 3 * * *",
        "--cluster.nodes",
        "3",
        "--env",
        "A=1",
        "--",
        *JOB,
    ]
    assert run(words) == 0
    spec = next(yaml.safe_load_all(capsys.readouterr().out))["spec"]
    job = spec["jobTemplate"]
    assert spec["schedule"] == "0 3 * * *"
    assert shlex.split(job["entrypoint"]) == ["affuse", *JOB]
    assert job["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplicas"] == 3


def test_the_machines_may_stand_in_a_file(tmp_path, capsys):
    file = tmp_path / "machines.yaml"
    file.write_text("render: slurm\ncluster: {nodes: 2, partition: gpu}\n")
    assert run(["submit", "--config", str(file), "--cluster.nodes", "3"]) == 0
    text = capsys.readouterr().out
    assert "#SBATCH --nodes=3" in text
    assert "#SBATCH --partition=gpu" in text


def test_a_file_is_replaced_where_an_earlier_run_wrote_it_and_nobody_changed_it(tmp_path, capsys):
    out = tmp_path / "job.yaml"
    words = [*KUBERAY, "--out", str(out), "--", *JOB]
    assert run(words) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert run([*KUBERAY, "--cluster.nodes", "2", "--out", str(out)]) == 0
    assert "maxReplicas: 2" in out.read_text()
    out.write_text("mine")
    assert run(words) == 2
    assert out.read_text() == "mine"
    assert "--overwrite" in capsys.readouterr().err
    assert run([*words[: -len(JOB) - 1], "--overwrite", "--", *JOB]) == 0


class TestRefused:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ([*KUBERAY, "--no-pip"], "--pip has no meaning with --render"),
            ([*KUBERAY, "--attach", "x"], "--attach has no meaning with --render"),
            ([*KUBERAY, "--token-path", "x"], "--token-path has no meaning with --render"),
            (["submit", "--cluster.nodes", "2", "--", *JOB], "--cluster is for --render KIND"),
            (["submit", "--out", "x", "--", *JOB], "--out is for --render KIND"),
            (["submit", "--schedule", "0 3 * * *", "--", *JOB], "--schedule is for --render KIND"),
            ([*KUBERAY, "--", "encod"], "there is no job 'encod'; did you mean 'encode'"),
            ([*KUBERAY, "--", "demo"], "demo runs on your own machine"),
            (
                [*KUBERAY, "--", "encode", "--root", "data", "--encoders", "minilm"],
                "--root data is a path",
            ),
            (
                ["submit", "--render", "slurm", "--schedule", "0 3 * * *"],
                "--schedule is for kuberay",
            ),
        ],
        ids=lambda words: " ".join(words)[:50] if isinstance(words, list) else "",
    )
    def test_what_the_file_could_not_mean(self, words, said, capsys):
        assert status_of(words) == 2
        shown = capsys.readouterr()
        assert said in " ".join(shown.err.replace("│", " ").split())
        assert shown.out == ""

    @pytest.mark.parametrize("target", ["slurm", "kuberay", "aws"])
    def test_a_secret_in_the_command_or_the_environment(self, target, capsys):
        words = ["submit", "--render", target]
        for more in (["--env", "X_TOKEN=hunter2"], ["--", "encode", "--root", "s3://k:hunter2@b"]):
            assert (
                status_of([*words, *more, *(["--encoders", "minilm"] if "--" in more else [])]) == 2
            )
            shown = capsys.readouterr()
            assert "holds a secret" in shown.err
            assert "hunter2" not in shown.err + shown.out

    def test_folders_of_this_machine_are_those_of_slurms_nodes(self, capsys):
        assert (
            run(
                [
                    "submit",
                    "--render",
                    "slurm",
                    "--",
                    "encode",
                    "--root",
                    "d",
                    "--encoders",
                    "minilm",
                ]
            )
            == 0
        )
        assert "set -- encode --root d" in capsys.readouterr().out


def test_what_is_left_to_do_is_said_beside_the_file_and_not_in_it(capsys):
    assert run([*KUBERAY, "--", *JOB]) == 0
    shown = capsys.readouterr()
    assert "affuse submit: fill in REGISTRY\n" in shown.err
    assert "is named by a tag" in shown.err
    assert "affuse submit:" not in shown.out
