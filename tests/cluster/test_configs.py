"""The cluster files are what is rendered, valid, name a Ray we support, and leave no door open."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml
from packaging.requirements import Requirement

from cluster.health import HEALTH_CHECK
from cluster.rendering import Deployment, render

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "cluster" / "configs"
FILES = sorted(CONFIGS.iterdir())
RENDERED = {"slurm": "slurm.sh", "kuberay": "kuberay.yaml", "aws": "aws.yaml"}

# Fields of ray.io/v1 that the files may use; a misspelt one would be dropped in silence by an operator
# that does not validate.
RULE = {"jobStatus": str, "jobDeploymentStatus": str, "ttlSeconds": int}
RAY_JOB = {
    "entrypoint": str,
    "submissionMode": str,
    "backoffLimit": int,
    "submitterConfig": {"backoffLimit": int},
    "activeDeadlineSeconds": int,
    "preRunningDeadlineSeconds": int,
    "deletionStrategy": {"deletionRules": [{"policy": str, "condition": RULE}]},
    "rayClusterSpec": {
        "rayVersion": str,
        "authOptions": {"mode": str},
        "enableInTreeAutoscaling": bool,
        "autoscalerOptions": {"idleTimeoutSeconds": int},
        "headGroupSpec": {"serviceType": str, "rayStartParams": "text", "template": "pod"},
        "workerGroupSpecs": [
            {
                "groupName": str,
                "replicas": int,
                "minReplicas": int,
                "maxReplicas": int,
                "rayStartParams": "text",
                "template": "pod",
            }
        ],
    },
}
POD = {
    "serviceAccountName": str,
    "nodeSelector": "text",
    "securityContext": {"runAsNonRoot": bool, "runAsUser": int},
    "terminationGracePeriodSeconds": int,
    "containers": [
        {
            "name": str,
            "image": str,
            "securityContext": {
                "allowPrivilegeEscalation": bool,
                "capabilities": {"drop": [str]},
            },
            "env": [{"name": str, "value": str}],
            "envFrom": [{"secretRef": {"name": str}}],
            "ports": [{"containerPort": int, "name": str}],
            "resources": {"requests": "text", "limits": "text"},
            "volumeMounts": [{"name": str, "mountPath": str}],
        }
    ],
    "volumes": [{"name": str, "emptyDir": {"medium": str, "sizeLimit": str}}],
}


def check_fields(value, shape, where):
    """Every field is known and has its type."""
    if shape == "pod":
        check_fields(value["spec"], POD, f"{where}.spec")
    elif shape == "text":
        assert all(isinstance(item, str) for item in value.values()), where
    elif isinstance(shape, list):
        for index, item in enumerate(value):
            check_fields(item, shape[0], f"{where}[{index}]")
    elif isinstance(shape, dict):
        assert set(value) <= set(shape), f"{where}: unknown fields {set(value) - set(shape)}"
        for key, item in value.items():
            check_fields(item, shape[key], f"{where}.{key}")
    else:
        assert type(value) is shape, f"{where}: {value!r} is not {shape.__name__}"


@pytest.fixture(scope="module")
def aws():
    return yaml.safe_load((CONFIGS / "aws.yaml").read_text())


@pytest.fixture(scope="module")
def kuberay():
    return list(yaml.safe_load_all((CONFIGS / "kuberay.yaml").read_text()))


@pytest.fixture(scope="module")
def slurm():
    return (CONFIGS / "slurm.sh").read_text()


@pytest.mark.parametrize("target", RENDERED)
def test_a_file_is_what_is_rendered_with_the_defaults(target):
    """Type `affuse submit --render KIND > cluster/configs/FILE` after a change."""
    assert (CONFIGS / RENDERED[target]).read_text() == render(target, Deployment())


@pytest.mark.parametrize("target", RENDERED)
def test_a_machine_that_is_gone_counts_as_gone_after_seconds_everywhere(target):
    text = (CONFIGS / RENDERED[target]).read_text()
    for name, value in HEALTH_CHECK.items():
        assert re.search(rf"{name}\W+(value: )?'?{value}", text)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
class TestEveryFile:
    def test_nothing_listens_on_all_interfaces(self, file):
        assert "0.0.0.0" not in file.read_text()

    def test_no_secret_stands_in_it(self, file):
        assert not re.search(r"AKIA|BEGIN .*KEY|RAY_AUTH_TOKEN[ =:]", file.read_text())

    def test_each_image_is_a_ray_that_the_project_supports(self, file):
        dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
            "dependencies"
        ]
        wanted = next(r for r in map(Requirement, dependencies) if r.name == "ray")
        text = file.read_text()
        for version in re.findall(r"rayproject/ray:([\d.]+)-|rayVersion: ([\d.]+)", text):
            assert wanted.specifier.contains("".join(version))


class TestAws:
    def test_it_satisfies_rays_own_schema(self, aws):
        schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
        jsonschema.validate(aws, json.loads(schema.read_text()))

    def test_token_authentication_is_on_and_the_token_is_carried(self, aws):
        assert "--env RAY_AUTH_MODE=token" in aws["docker"]["run_options"]
        assert aws["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}

    def test_the_dashboard_is_reached_through_ssh_alone(self, aws):
        start = aws["head_start_ray_commands"][-1]
        assert "--dashboard-host=127.0.0.1" in start

    def test_the_head_runs_no_work_and_its_type_exists(self, aws):
        assert aws["available_node_types"][aws["head_node_type"]]["resources"] == {"CPU": 0}

    def test_workers_start_from_nothing_and_are_bounded(self, aws):
        worker = aws["available_node_types"]["worker"]
        assert worker["min_workers"] == 0
        assert worker["max_workers"] <= aws["max_workers"]


class TestKubeRay:
    def test_every_field_is_one_that_the_operator_knows(self, kuberay):
        job = kuberay[0]
        assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
        check_fields(job["spec"], RAY_JOB, "spec")

    def test_an_unknown_field_would_be_found(self):
        with pytest.raises(AssertionError, match=r"unknown fields .'entrypont'."):
            check_fields({"entrypont": "x"}, RAY_JOB, "spec")

    def test_token_authentication_is_on(self, kuberay):
        assert kuberay[0]["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}

    def test_head_and_workers_run_one_image_of_one_ray(self, kuberay):
        cluster = kuberay[0]["spec"]["rayClusterSpec"]
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        images = {g["template"]["spec"]["containers"][0]["image"] for g in groups}
        assert len(images) == 1
        dockerfile = (CONFIGS / "Dockerfile").read_text()
        assert f"rayproject/ray:{cluster['rayVersion']}-" in dockerfile
        assert f"ray=={cluster['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()

    def test_no_pod_runs_as_root(self, kuberay):
        cluster = kuberay[0]["spec"]["rayClusterSpec"]
        for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
            pod = group["template"]["spec"]
            assert pod["securityContext"]["runAsNonRoot"]
            assert not pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"]

    def test_a_cluster_goes_when_its_job_has_ended_and_stays_for_the_logs_of_a_failure(
        self, kuberay
    ):
        rules = kuberay[0]["spec"]["deletionStrategy"]["deletionRules"]
        found = {
            condition.get("jobStatus") or condition["jobDeploymentStatus"]: condition["ttlSeconds"]
            for condition in (rule["condition"] for rule in rules)
        }
        assert found == {"SUCCEEDED": 0, "FAILED": 600, "Failed": 600}
        # The operator refuses both ways at once.
        assert "shutdownAfterJobFinishes" not in kuberay[0]["spec"]

    def test_head_and_workers_have_room_for_the_object_store(self, kuberay):
        cluster = kuberay[0]["spec"]["rayClusterSpec"]
        for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
            pod = group["template"]["spec"]
            mounts = pod["containers"][0]["volumeMounts"]
            assert {"name": "shm", "mountPath": "/dev/shm"} in mounts
            assert pod["volumes"][0]["emptyDir"]["medium"] == "Memory"

    def test_the_network_is_closed_to_other_namespaces(self, kuberay):
        policy = kuberay[1]
        assert policy["kind"] == "NetworkPolicy"
        assert policy["spec"]["podSelector"]["matchLabels"] == {"ray.io/is-ray-node": "yes"}
        assert policy["spec"]["policyTypes"] == ["Ingress"]
        assert all("ipBlock" not in source for source in policy["spec"]["ingress"][0]["from"])

    def test_the_service_is_not_published(self, kuberay):
        assert kuberay[0]["spec"]["rayClusterSpec"]["headGroupSpec"]["serviceType"] == "ClusterIP"


class TestSlurm:
    def test_the_shell_can_read_it(self):
        subprocess.run(["bash", "-n", str(CONFIGS / "slurm.sh")], check=True)

    def test_without_a_job_it_says_how_it_is_used(self):
        out = subprocess.run(
            ["bash", str(CONFIGS / "slurm.sh")], capture_output=True, text=True, check=False
        )
        assert out.returncode == 2
        assert "usage: sbatch" in out.stderr

    def test_every_job_has_a_token_of_its_own_that_goes_with_it(self, slurm):
        assert "export RAY_AUTH_MODE=token" in slurm
        assert "mktemp" in slurm
        assert 'trap \'rm -f "$token" "$token.status"\' EXIT' in slurm

    def test_the_job_is_told_the_cluster_and_starts_no_ray_of_its_own(self, slurm):
        assert '-- env RAY_ADDRESS="$head:6379"' in slurm

    def test_ray_takes_what_slurm_gave_and_no_more(self, slurm):
        assert '--num-cpus="$SLURM_CPUS_PER_TASK"' in slurm
        assert "--num-gpus=" in slurm
        assert "--dashboard-host=127.0.0.1" in slurm

    def test_it_waits_longer_than_rays_default_for_its_nodes(self, slurm):
        found = re.search(r"RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=(\d+)", slurm)
        assert found is not None
        assert int(found[1]) > 30

    def test_ray_is_called_with_options_that_it_has(self, slurm):
        from ray.scripts.scripts import start

        known = {option for parameter in start.params for option in parameter.opts}
        own = {"--address", "--min-nodes"}
        call = slurm.split("ray symmetric-run")[1].split("-- env")[0]
        assert set(re.findall(r"--[a-z-]+", call)) <= known | own
