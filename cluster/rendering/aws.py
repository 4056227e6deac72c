"""AWS, by Ray's cluster launcher: a small head, workers that come and go with the work."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.errors import ConfigError
from cluster.health import HEALTH_CHECK
from cluster.rendering.deployment import RAY, Deployment
from cluster.rendering.documents import Inline, Note, document

KIND = "L4"
INSTANCES: Mapping[tuple[str, int], tuple[str, int]] = {
    ("", 0): ("m7i.4xlarge", 16),
    ("A10G", 1): ("g5.4xlarge", 16),
    ("A10G", 4): ("g5.12xlarge", 48),
    ("A10G", 8): ("g5.48xlarge", 192),
    ("A100", 8): ("p4d.24xlarge", 96),
    ("H100", 1): ("p5.4xlarge", 16),
    ("H100", 8): ("p5.48xlarge", 192),
    ("L4", 1): ("g6.4xlarge", 16),
    ("L4", 4): ("g6.12xlarge", 48),
    ("L4", 8): ("g6.48xlarge", 192),
    ("L40S", 1): ("g6e.4xlarge", 16),
    ("L40S", 4): ("g6e.12xlarge", 48),
    ("L40S", 8): ("g6e.48xlarge", 192),
}
"""GPUs of a machine (kind, number) -> the type that has them, and its vCPUs: decoding wants many to a GPU."""

IMAGE = f"rayproject/ray:{RAY}-py311-gpu"
PROFILE = "arn:aws:iam::ACCOUNT:instance-profile/affuse"

HEAD = """A Ray cluster on AWS: a small head, workers that come and go with the work.

  ray get-auth-token --generate            # once; writes ~/.ray/auth_token, which file_mounts copies
  ray up FILE
  ray dashboard FILE                       # keeps 127.0.0.1:8265 forwarded over SSH
  affuse submit {flags}-- {command}
  ray down FILE

The instance profile has to exist, with read and write on the bucket. This file is what
`affuse submit --render aws` writes; its flags `--cluster.NAME` change what stands below."""


def render(deployment: Deployment, command: Sequence[str], env: Mapping[str, str]) -> str:
    """The launcher's configuration; the command that is submitted to the cluster stands in its head."""
    flags = "".join(f"--env {shlex.quote(f'{name}={value}')} " for name, value in env.items())
    head = HEAD.format(flags=flags, command=shlex.join(command))
    return document(head, _content(deployment))


def _content(deployment: Deployment) -> Mapping[str, Any]:
    return {
        "cluster_name": deployment.name,
        "max_workers": deployment.nodes,
        "upscaling_speed": Note(
            "At once: work waits in Ray, not in a queue that fills slowly.", 100
        ),
        "idle_timeout_minutes": 10,
        "provider": {
            "type": "aws",
            "region": deployment.region,
            "cache_stopped_nodes": Note(
                "Stopped machines keep their disk; terminated ones cost nothing and keep no token.",
                False,
            ),
        },
        "auth": {"ssh_user": "ubuntu"},
        "docker": _docker(deployment),
        "file_mounts": Note(
            "The head hands the token on to the workers it starts.",
            {"/home/ray/.ray/auth_token": "~/.ray/auth_token"},
        ),
        "head_node_type": "head",
        "available_node_types": {"head": _head(deployment), "worker": _worker(deployment)},
        "setup_commands": ["chmod 600 /home/ray/.ray/auth_token"],
        "head_start_ray_commands": [
            "ray stop",
            Note(
                "Loopback: the dashboard is reached through SSH alone.",
                "ray start --head --port=6379 --num-cpus=0 --dashboard-host=127.0.0.1 "
                "--autoscaling-config=~/ray_bootstrap_config.yaml --disable-usage-stats",
            ),
        ],
        "worker_start_ray_commands": [
            "ray stop",
            "ray start --address=$RAY_HEAD_IP:6379 --disable-usage-stats",
        ],
    }


def _docker(deployment: Deployment) -> Mapping[str, Any]:
    return {
        "image": Note(
            "Of a release that the project was tested with; driver and workers are the same image.",
            deployment.image or IMAGE,
        ),
        "container_name": "affuse",
        "pull_before_run": True,
        "run_options": [
            Note(
                "Without a token everybody who reaches the port runs code here.",
                "--env RAY_AUTH_MODE=token",
            ),
            Note(
                "An orphaned decoder would stay a zombie under a shell that is process 1.", "--init"
            ),
            "--ulimit nofile=65536:65536",
        ],
        "head_run_options": Note(
            "A machine that is gone counts as gone after seconds (cluster/health.py).",
            [f"--env {name}={value}" for name, value in HEALTH_CHECK.items()],
        ),
    }


def _head(deployment: Deployment) -> Mapping[str, Any]:
    return {
        "resources": Note(
            "0 CPUs: nothing is scheduled here, so that no encoder starves the cluster's own services.",
            Inline({"CPU": 0}),
        ),
        "node_config": {"InstanceType": "m6i.xlarge", **_machine(deployment)},
    }


def _worker(deployment: Deployment) -> Mapping[str, Any]:
    instance, cpus = _instance(deployment)
    gpus = {"GPU": deployment.gpus} if deployment.gpus else {}
    spot = {
        "InstanceMarketOptions": Note(
            "A machine that is taken away costs the unit it worked on, no more.",
            Inline({"MarketType": "spot"}),
        )
    }
    return {
        "resources": Inline({"CPU": cpus, **gpus}),
        "min_workers": deployment.min_nodes,
        "max_workers": deployment.nodes,
        "node_config": {
            "InstanceType": instance,
            **(spot if deployment.spot else {}),
            **_machine(deployment),
        },
    }


def _instance(deployment: Deployment) -> tuple[str, int]:
    """Type of the workers, and their CPUs for Ray."""
    kind = (deployment.gpu_kind or KIND) if deployment.gpus else ""
    if deployment.instance_type is not None:
        if deployment.cpus is None:
            raise ConfigError(
                f"--cluster.instance-type {deployment.instance_type}: how many CPUs has it? "
                "type: --cluster.cpus N"
            )
        return deployment.instance_type, deployment.cpus
    if (kind, deployment.gpus) not in INSTANCES:
        known = ", ".join(f"{number} {name}" for name, number in INSTANCES if number)
        raise ConfigError(
            f"--cluster.gpus {deployment.gpus} --cluster.gpu-kind {kind}: expected one of {known}, or "
            "--cluster.instance-type TYPE --cluster.cpus N"
        )
    instance, cpus = INSTANCES[kind, deployment.gpus]
    if deployment.cpus is not None and deployment.cpus > cpus:
        raise ConfigError(f"--cluster.cpus {deployment.cpus}: {instance} has {cpus}")
    return instance, deployment.cpus or cpus


def _machine(deployment: Deployment) -> Mapping[str, Any]:
    return {
        "IamInstanceProfile": {"Arn": deployment.identity or PROFILE},
        "BlockDeviceMappings": [
            {
                "DeviceName": "/dev/sda1",
                "Ebs": Inline({"VolumeSize": 150, "VolumeType": "gp3", "Encrypted": True}),
            }
        ],
        "MetadataOptions": Note(
            "Two hops: the container asks for the instance's credentials through the bridge.",
            Inline({"HttpTokens": "required", "HttpPutResponseHopLimit": 2}),
        ),
    }
