"""One description becomes a file for each kind of cluster; what it says arrives, and nothing else does."""

import dataclasses
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ConfigError
from cluster.nodes import parse_nodes
from cluster.rendering import EXAMPLE, Deployment, remarks, render
from cluster.rendering.aws import INSTANCES
from cluster.rendering.deployment import ONLY
from cluster.rendering.documents import Inline, Note, document

TARGETS = ("slurm", "kuberay", "aws")
DIGEST = f"registry.example.com:5000/team/affuse@sha256:{'0a' * 32}"
GIVEN = {
    "name": "nightly",
    "nodes": 5,
    "min_nodes": 2,
    "cpus": 12,
    "gpus": 4,
    "gpu_kind": "L40S",
    "memory_gb": 120,
    "image": DIGEST,
    "identity": {
        "kuberay": "robot",
        "aws": "arn:aws:iam::123456789012:instance-profile/team/robot",
    },
    "secrets": ("keys",),
    "time_limit_h": 7.5,
    "partition": "gpu-long",
    "account": "lab42",
    "instance_type": "g6e.8xlarge",
    "region": "eu-central-1",
    "spot": False,
}
WORDS = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=1, max_size=20
).filter(str.isprintable)
COMMANDS = st.lists(WORDS, min_size=1, max_size=5)


def value_of(field, target):
    value = GIVEN[field]
    return value[target] if isinstance(value, dict) else value


def entrypoint(text):
    return next(yaml.safe_load_all(text))["spec"]["entrypoint"]


class TestFields:
    def test_all_are_tried_here(self):
        assert set(GIVEN) == {field.name for field in dataclasses.fields(Deployment)}

    @pytest.mark.parametrize("target", TARGETS)
    @pytest.mark.parametrize("field", GIVEN)
    def test_a_field_changes_the_file_or_is_refused_by_name(self, target, field):
        if target not in ONLY.get(field, TARGETS):
            deployment = Deployment(**{field: value_of(field, ONLY[field][0])})
            with pytest.raises(ConfigError, match=f"--cluster.{field.replace('_', '-')} is for"):
                render(target, deployment)
            return
        base = {"gpus": 4, "cpus": 8} if field in ("gpu_kind", "instance_type") else {}
        plain = render(target, Deployment(**base))
        assert render(target, Deployment(**{**base, field: value_of(field, target)})) != plain

    @pytest.mark.parametrize("target", TARGETS)
    def test_the_same_description_gives_the_same_file(self, target):
        assert render(target, Deployment()) == render(target, Deployment())

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"nodes": 0}, "--cluster.nodes 0"),
            ({"nodes": 2, "min_nodes": 3}, "--cluster.min-nodes 3"),
            ({"cpus": 0}, "--cluster.cpus 0"),
            ({"memory_gb": -1}, "--cluster.memory-gb -1"),
            ({"gpus": -1}, "--cluster.gpus -1"),
            ({"gpus": 0, "gpu_kind": "L4"}, "the machines have no GPU"),
            ({"time_limit_h": 0}, "--cluster.time-limit-h 0"),
            ({"time_limit_h": float("nan")}, "--cluster.time-limit-h nan"),
            ({"time_limit_h": float("inf")}, "--cluster.time-limit-h inf"),
            ({"nodes": 10**9}, "--cluster.nodes 1000000000"),
        ],
    )
    def test_numbers_that_make_no_sense_are_refused(self, fields, expected):
        with pytest.raises(ConfigError, match=re.escape(expected)):
            Deployment(**fields)

    @pytest.mark.parametrize("target", TARGETS)
    @pytest.mark.parametrize(
        "field",
        ["name", "gpu_kind", "image", "identity", "secrets", "partition", "account", "region"],
    )
    @pytest.mark.parametrize(
        "bad", ["a b", "a\nb", "$(id)", "a;b", "-a", "a'b", "a: b", "", "\u0430"]
    )
    def test_a_name_that_a_file_could_misread_is_refused(self, target, field, bad):
        if target not in ONLY.get(field, TARGETS):
            return
        value = (bad,) if field == "secrets" else bad
        with pytest.raises(ConfigError, match=f"--cluster.{field.replace('_', '-')}"):
            render(target, Deployment(**{field: value}))

    def test_a_kuberay_name_leaves_room_for_what_the_operator_appends(self):
        render("kuberay", Deployment(name="a" * 47))
        render("kuberay", Deployment(name="a" * 36), schedule="0 3 * * *")
        with pytest.raises(ConfigError, match="at most 47"):
            render("kuberay", Deployment(name="a" * 48))
        with pytest.raises(ConfigError, match="at most 36 characters with --schedule"):
            render("kuberay", Deployment(name="a" * 37), schedule="0 3 * * *")


@pytest.mark.parametrize("target", TARGETS)
class TestSecrets:
    @pytest.mark.parametrize(
        "name",
        [
            "AWS_SECRET_ACCESS_KEY",
            "AWS_ACCESS_KEY_ID",
            "HF_TOKEN",
            "MLFLOW_TRACKING_PASSWORD",
            "api_key",
        ],
    )
    def test_a_variable_that_is_named_like_one_does_not_get_into_a_file(self, target, name):
        with pytest.raises(ConfigError, match=f"--env {name} holds a secret"):
            render(target, Deployment(), env={name: "hunter2"})

    @pytest.mark.parametrize(
        "name", ["RAY_AUTH_MODE", "RAY_ENABLE_K8S_TOKEN_AUTH", "RAY_ADDRESS", "head"]
    )
    def test_what_the_file_sets_itself_cannot_be_switched_off(self, target, name):
        with pytest.raises(ConfigError, match=f"--env {name} is set by the file itself"):
            render(target, Deployment(), env={name: "disabled"})

    def test_nor_does_one_inside_a_uri(self, target):
        with pytest.raises(ConfigError, match="--env URI holds a secret") as refused:
            render(target, Deployment(), env={"URI": "postgres://ann:hunter2@h/db"})
        assert "hunter2" not in str(refused.value)

    @pytest.mark.parametrize(
        ("name", "value"), [("A-B", "x"), ("1A", "x"), ("A", "x\ny"), ("", "x")]
    )
    def test_a_variable_is_a_name_and_one_line(self, target, name, value):
        with pytest.raises(ConfigError, match="expected NAME=VALUE"):
            render(target, Deployment(), env={name: value})

    def test_a_command_is_one_line(self, target):
        with pytest.raises(ConfigError, match="one line of text"):
            render(target, Deployment(), ["encode", "--root", "x\nrm -rf /"])


class TestKubeRay:
    @given(command=COMMANDS, value=WORDS)
    def test_words_and_values_arrive_as_they_were_typed(self, command, value):
        text = render("kuberay", Deployment(), command, {"PLAIN": value})
        spec = next(yaml.safe_load_all(text))["spec"]
        assert shlex.split(spec["entrypoint"]) == ["affuse", *command]
        worker = spec["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
        assert worker["env"] == [{"name": "PLAIN", "value": value}]

    def test_a_number_in_a_label_or_variable_stays_text(self):
        text = render("kuberay", Deployment(gpu_kind="100"), env={"A": "1", "B": "yes", "C": "~"})
        spec = next(yaml.safe_load_all(text))["spec"]["rayClusterSpec"]
        pod = spec["workerGroupSpecs"][0]["template"]["spec"]
        assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "100"}
        assert [each["value"] for each in pod["containers"][0]["env"]] == ["1", "yes", "~"]

    def test_secrets_are_references_on_every_machine(self):
        text = render("kuberay", Deployment(secrets=("s3-keys", "hub.token")))
        cluster = next(yaml.safe_load_all(text))["spec"]["rayClusterSpec"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            assert group["template"]["spec"]["containers"][0]["envFrom"] == [
                {"secretRef": {"name": "s3-keys"}},
                {"secretRef": {"name": "hub.token"}},
            ]

    @given(
        nodes=st.integers(1, 999),
        cpus=st.none() | st.integers(1, 256),
        gpus=st.integers(0, 16),
        kind=st.sampled_from([None, "NVIDIA-L4", "NVIDIA-A100-SXM4-80GB", "Tesla.T4", "100"]),
    )
    def test_the_head_knows_for_the_plan_what_may_be_started(self, nodes, cpus, gpus, kind):
        deployment = Deployment(nodes=nodes, cpus=cpus, gpus=gpus, gpu_kind=kind if gpus else None)
        cluster = next(yaml.safe_load_all(render("kuberay", deployment)))["spec"]["rayClusterSpec"]
        head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
        told = {each["name"]: each["value"] for each in head["env"]}["AFFUSE_NODES"]
        (machines,) = parse_nodes(told)
        assert (machines.count, machines.gpus) == (nodes, gpus)
        assert cpus in (None, machines.cpus)

    def test_machines_without_gpus_ask_for_none(self):
        text = render("kuberay", Deployment(gpus=0))
        assert "nvidia" not in text

    def test_a_schedule_makes_a_job_that_comes_again_and_clears_up_after_itself(self):
        once = next(yaml.safe_load_all(render("kuberay", Deployment())))["spec"]
        cron = next(yaml.safe_load_all(render("kuberay", Deployment(), schedule="0 3 * * *")))
        assert cron["kind"] == "RayCronJob"
        assert cron["spec"]["schedule"] == "0 3 * * *"
        assert cron["spec"]["timeZone"] == "Etc/UTC"
        again = cron["spec"]["jobTemplate"]
        gone = [rule["policy"] for rule in again["deletionStrategy"]["deletionRules"]]
        assert gone.count("DeleteSelf") == 3
        assert {**again, "deletionStrategy": None} == {**once, "deletionStrategy": None}

    @pytest.mark.parametrize(
        "bad", ["", "0 3 * *", "0 3 * * * *", "@daily", "0  3 * *", "0 3 * *  *", "0 3 * *\n*"]
    )
    def test_a_schedule_has_five_fields(self, bad):
        with pytest.raises(ConfigError, match="expected minute, hour, day, month and weekday"):
            render("kuberay", Deployment(), schedule=bad)

    @pytest.mark.parametrize("target", ["slurm", "aws"])
    def test_others_have_no_schedule(self, target):
        with pytest.raises(ConfigError, match="--schedule is for kuberay"):
            render(target, Deployment(), schedule="0 3 * * *")


class TestAws:
    @pytest.mark.parametrize(("kind", "number"), INSTANCES)
    def test_every_machine_that_is_known_gives_a_file_that_ray_takes(
        self, kind, number, ray_schema
    ):
        text = render("aws", Deployment(gpus=number, gpu_kind=kind or None))
        content = yaml.safe_load(text)
        jsonschema.validate(content, ray_schema)
        worker = content["available_node_types"]["worker"]
        instance, cpus = INSTANCES[kind, number]
        assert worker["node_config"]["InstanceType"] == instance
        assert worker["resources"] == ({"CPU": cpus, "GPU": number} if number else {"CPU": cpus})

    def test_an_unknown_machine_is_refused_with_those_that_are_known(self):
        with pytest.raises(
            ConfigError, match=r"expected one of 1 A10G, .* --cluster.instance-type"
        ):
            render("aws", Deployment(gpus=3))
        with pytest.raises(ConfigError, match=r"g6\.4xlarge has 16"):
            render("aws", Deployment(cpus=17))
        with pytest.raises(ConfigError, match=r"type: --cluster\.cpus N"):
            render("aws", Deployment(instance_type="g6.8xlarge"))

    def test_what_is_typed_next_stands_in_its_head(self):
        text = render("aws", Deployment(), ["score", "--root", "s3://b/my calls"], {"A": "x y"})
        line = next(line for line in text.splitlines() if "affuse submit --env" in line)
        words = shlex.split(line.removeprefix("#"))
        assert words == [
            "affuse",
            "submit",
            "--env",
            "A=x y",
            "--",
            "score",
            "--root",
            "s3://b/my calls",
        ]

    @pytest.fixture(scope="class")
    def ray_schema(self):
        import json

        import ray

        return json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text())


class TestSlurm:
    @pytest.fixture(scope="class")
    def run(self, tmp_path_factory):
        """Runs a script with a Slurm of two nodes that only writes down what it is asked; returns that."""
        folder = tmp_path_factory.mktemp("slurm")
        home, bin_ = folder / "home", folder / "bin"
        for each in (home, bin_):
            each.mkdir()
        shims = {
            # More than a pipe holds: a script that stops reading would end it, and itself, by SIGPIPE.
            "scontrol": "seq --format=n%g 20000",
            "srun": 'printf "%s\\0" "$@" > "$OUT"; ls -l "$RAY_AUTH_TOKEN_PATH" >> "$OUT.token"\n'
            'env -0 > "$OUT.env"\n'
            # Only the job, as the first node runs it; then whatever symmetric-run ends with.
            'while [ "$1" != -- ]; do shift; done; shift; [ -z "${LOST:-}" ] && "$@"\n'
            'exit "${STATUS:-1}"',
            "affuse": 'exit "${JOB:-0}"',
        }
        for name, body in shims.items():
            (bin_ / name).write_text(f"#!/bin/bash\n{body}\n")
            (bin_ / name).chmod(0o755)

        def run(text, *words, **env):
            script = folder / "job.sh"
            script.write_text(text)
            out = folder / "asked"
            for old in folder.glob("asked*"):
                old.unlink()
            done = subprocess.run(
                ["bash", str(script), *words],
                env={
                    "PATH": f"{bin_}:{Path(sys.executable).parent}:/usr/bin:/bin",
                    "HOME": str(home),
                    "OUT": str(out),
                    "SLURM_JOB_NODELIST": "n[1-2]",
                    "SLURM_JOB_NUM_NODES": "2",
                    "SLURM_CPUS_PER_TASK": "16",
                    "SLURM_GPUS_ON_NODE": "4",
                    **env,
                },
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            asked = out.read_text().split("\0")[:-1] if out.exists() else None
            pairs = (out.parent / "asked.env").read_text().split("\0")[:-1] if asked else []
            return done, asked, dict(pair.split("=", 1) for pair in pairs), list(home.iterdir())

        return run

    @given(command=COMMANDS, value=WORDS)
    def test_words_and_values_arrive_as_they_were_typed(self, run, command, value):
        text = render("slurm", Deployment(), command, {"PLAIN": value})
        done, asked, env, _ = run(text)
        assert done.returncode == 0, done.stderr
        assert asked[asked.index("affuse") + 1 :] == command
        assert env["PLAIN"] == value

    def test_words_of_sbatch_win_over_those_of_the_file(self, run):
        _, asked, _, _ = run(render("slurm", Deployment(), ["encode"]), "score", "--root", "a b")
        assert asked[asked.index("affuse") + 1 :] == ["score", "--root", "a b"]

    def test_the_job_joins_the_cluster_that_was_started_for_it(self, run):
        _, asked, env, _ = run(render("slurm", Deployment()), "encode")
        job = asked.index("env")
        assert asked[job - 1 : job + 3] == ["--", "env", "RAY_ADDRESS=n1:6379", "bash"]
        assert asked[asked.index("--address") + 1] == "n1:6379"
        assert {"--num-cpus=16", "--num-gpus=4"} <= set(asked)
        assert env["RAY_AUTH_MODE"] == "token"

    @pytest.mark.parametrize("job", [0, 3, 130])
    @pytest.mark.parametrize("starter", [0, 1])
    def test_the_token_goes_with_the_job_and_the_jobs_status_is_passed_on(self, run, job, starter):
        """Ray's symmetric-run ends with 1 whatever the job did."""
        text = render("slurm", Deployment())
        done, _, env, left = run(text, "encode", JOB=str(job), STATUS=str(starter))
        assert done.returncode == job
        assert env["RAY_AUTH_TOKEN_PATH"].rsplit("/", 1)[-1].startswith(".affuse-token-")
        assert left == []

    def test_a_cluster_that_never_came_up_fails(self, run):
        done, _, _, left = run(render("slurm", Deployment()), "encode", LOST="1", STATUS="5")
        assert done.returncode == 5
        assert left == []

    def test_secrets_have_to_stand_in_the_environment_of_sbatch_and_nowhere_else(self, run):
        text = render("slurm", Deployment(secrets=("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")))
        done, asked, _, _ = run(text, "encode", AWS_ACCESS_KEY_ID="k")
        assert (done.returncode, asked) == (2, None)
        assert done.stderr == (
            "AWS_SECRET_ACCESS_KEY is not set; set it in the environment of sbatch\n"
        )
        done, _, env, _ = run(text, "encode", AWS_ACCESS_KEY_ID="k", AWS_SECRET_ACCESS_KEY="s")
        assert done.returncode == 0
        assert env["AWS_SECRET_ACCESS_KEY"] == "s"

    @pytest.mark.parametrize(
        ("fields", "line"),
        [
            ({"nodes": 4, "min_nodes": 2}, "#SBATCH --nodes=2-4"),
            ({"nodes": 4}, "#SBATCH --nodes=4"),
            ({"nodes": 4, "min_nodes": 4}, "#SBATCH --nodes=4"),
            ({"gpus": 2, "gpu_kind": "a100"}, "#SBATCH --gpus-per-node=a100:2"),
            ({"memory_gb": 200}, "#SBATCH --mem=200G"),
            ({"time_limit_h": 0.5}, "#SBATCH --time=00:30:00"),
            ({"time_limit_h": 100}, "#SBATCH --time=100:00:00"),
            ({"partition": "gpu,long"}, "#SBATCH --partition=gpu,long"),
        ],
    )
    def test_what_is_asked_of_slurm(self, fields, line):
        assert line in render("slurm", Deployment(**fields)).splitlines()

    def test_without_gpus_none_are_asked_for(self):
        assert "gpus-per-node" not in render("slurm", Deployment(gpus=0))


class TestRemarks:
    def test_places_to_fill_in_and_moving_tags_are_named(self):
        left = list(remarks(render("kuberay", Deployment())))
        assert left[0] == "fill in BUCKET, REGISTRY"
        assert "image REGISTRY/affuse:0.1.0 is named by a tag" in left[1]
        assert "fill in ACCOUNT" in remarks(render("aws", Deployment()))

    def test_a_finished_file_has_none(self):
        done = render("kuberay", Deployment(image=DIGEST), ["encode", "--root", "s3://b/mine"])
        assert list(remarks(done)) == []
        assert list(remarks(render("slurm", Deployment()))) == []

    def test_the_example_is_a_job(self):
        assert shlex.split(entrypoint(render("kuberay", Deployment()))) == ["affuse", *EXAMPLE]


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=12,
)


def noted(value):
    """The same value with a comment on everything."""
    if isinstance(value, dict):
        return {key: Note("why", noted(item)) for key, item in value.items()}
    return [Note("why", noted(item)) for item in value] if isinstance(value, list) else value


class TestDocuments:
    @given(st.dictionaries(st.text(max_size=8), VALUES, min_size=1, max_size=4))
    def test_yaml_reads_back_what_was_written_with_and_without_comments(self, content):
        assert yaml.safe_load(document("head", content)) == content
        assert yaml.safe_load(document("head", noted(content))) == content

    def test_a_comment_stands_above_its_line(self):
        text = document("head", {"a": Note("one\ntwo", [Note("three", {"b": Inline([1, "2"])})])})
        assert text == "# head\n\n# one\n# two\na:\n  # three\n  - b: [1, '2']\n"
