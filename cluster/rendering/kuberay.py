"""KubeRay (1.7): one job with a cluster of its own, once or on a schedule, and a network policy beside it."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.growth import NODES_VARIABLE
from cluster.health import HEALTH_CHECK
from cluster.rendering.deployment import RAY, Deployment
from cluster.rendering.documents import Inline, Note, document

CPUS, MEMORY_GB, HOURS = 14, 56, 48.0
HEAD_CPUS, HEAD_MEMORY_GB = 4, 16
IMAGE = "REGISTRY/affuse:0.1.0"
IDENTITY = "affuse"
GPU = "nvidia.com/gpu"

SHARED_MEMORY = 0.3
"""Share of a machine's memory that Ray's object store takes."""

KEPT_S = 600
"""How long a cluster whose job failed stays, for its logs."""

WEEK_S = 604800

HEAD = """One job on Kubernetes: KubeRay (1.7 or newer) makes a cluster, runs the job, takes the cluster down.

  docker build --file cluster/configs/Dockerfile --tag REGISTRY/affuse:0.1.0 . && docker push ...
  kubectl apply --filename FILE
  kubectl logs --follow job/{name}

The service account has to exist, with read and write on the bucket. This file is what
`affuse submit --render kuberay` writes; its flags `--cluster.NAME` change what stands below."""

ON_SCHEDULE = """A job on Kubernetes, again and again: KubeRay (1.7 or newer) makes a cluster for each run.

  kubectl apply --filename FILE
  kubectl get raycronjob {name}

RayCronJob is an alpha kind: the operator runs with --feature-gates=RayCronJob=true. A run does what is
missing; one that meets the run before it does no harm. The service account has to exist, with read and write
on the bucket."""


def render(
    deployment: Deployment,
    command: Sequence[str],
    env: Mapping[str, str],
    schedule: str | None = None,
) -> str:
    """The RayJob, or the RayCronJob where a schedule is given, and the NetworkPolicy."""
    spec = _job(deployment, command, env, scheduled=schedule is not None)
    head, kind = HEAD, "RayJob"
    if schedule is not None:
        head, kind = ON_SCHEDULE, "RayCronJob"
        spec = {"schedule": schedule, "timeZone": "Etc/UTC", "jobTemplate": spec}
    job = {
        "apiVersion": "ray.io/v1",
        "kind": kind,
        "metadata": {"name": deployment.name},
        "spec": spec,
    }
    policy = document(
        "The token stops who does not have it; this stops who should not even ask.", POLICY
    )
    return document(head.format(name=deployment.name), job) + "---\n" + policy


def _job(
    deployment: Deployment, command: Sequence[str], env: Mapping[str, str], *, scheduled: bool
) -> Mapping[str, Any]:
    hours = deployment.time_limit_h or HOURS
    return {
        "entrypoint": shlex.join(["affuse", *command]),
        "submissionMode": "K8sJobMode",
        "backoffLimit": Note(
            "Each retry is a new cluster. What was made lies under the root, so it goes on from there.",
            3,
        ),
        "submitterConfig": {"backoffLimit": 2},
        "activeDeadlineSeconds": max(1, round(hours * 3600)),
        "preRunningDeadlineSeconds": Note("An image that cannot be pulled ends here.", 1800),
        "deletionStrategy": {"deletionRules": _deletion(scheduled=scheduled)},
        "rayClusterSpec": _cluster(deployment, env),
    }


def _deletion(*, scheduled: bool) -> list[Any]:
    """When the cluster goes; runs of a schedule would otherwise pile up."""

    def rule(policy: str, ttl_s: int, **status: str) -> dict[str, Any]:
        return {"policy": policy, "condition": Inline({**status, "ttlSeconds": ttl_s})}

    ends = ({"jobStatus": "FAILED"}, {"jobDeploymentStatus": "Failed"})
    rules: list[Any] = [
        rule("DeleteCluster", 0, jobStatus="SUCCEEDED"),
        Note(
            "Long enough to read the logs of a failure.",
            rule("DeleteCluster", KEPT_S, **ends[0]),
        ),
        rule("DeleteCluster", KEPT_S, **ends[1]),
    ]
    if scheduled:
        every = ({"jobStatus": "SUCCEEDED"}, *ends)
        rules += [rule("DeleteSelf", WEEK_S, **status) for status in every]
    return rules


def _cluster(deployment: Deployment, env: Mapping[str, str]) -> Mapping[str, Any]:
    return {
        "rayVersion": RAY,
        "authOptions": Note(
            "The operator makes the token, keeps it in a Secret and gives it to every container.",
            {"mode": "token"},
        ),
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {"idleTimeoutSeconds": 300},
        "headGroupSpec": {
            "serviceType": Note(
                "A ClusterIP is reachable from inside alone; there is no Ingress on purpose.",
                "ClusterIP",
            ),
            "rayStartParams": {"num-cpus": Note("Nothing is scheduled on the head.", "0")},
            "template": {"spec": _head(deployment, env)},
        },
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": max(1, deployment.min_nodes),
                "minReplicas": deployment.min_nodes,
                "maxReplicas": deployment.nodes,
                "rayStartParams": {},
                "template": {"spec": _worker(deployment, env)},
            }
        ],
    }


def _head(deployment: Deployment, env: Mapping[str, str]) -> Mapping[str, Any]:
    memory = f"{HEAD_MEMORY_GB}Gi"
    container = {
        **_container("ray-head", deployment),
        **_environment(deployment, {**HEALTH_CHECK, NODES_VARIABLE: _machines(deployment), **env}),
        "ports": [
            Inline({"containerPort": 6379, "name": "gcs-server"}),
            Inline({"containerPort": 8265, "name": "dashboard"}),
        ],
        "resources": {
            "requests": Inline({"cpu": f"{HEAD_CPUS}", "memory": memory}),
            "limits": Inline({"memory": memory}),
        },
        **_mounts(),
    }
    return {**_pod(deployment), "containers": [container], **_volumes(HEAD_MEMORY_GB)}


def _machines(deployment: Deployment) -> str:
    """What the autoscaler may start, for the plan of a stream: Ray itself is not told by KubeRay."""
    kind = (deployment.gpu_kind or "").upper().removeprefix("NVIDIA-").partition("-")[0]
    named = kind.isalnum() and kind[0].isalpha()
    gpus = [f"{deployment.gpus}{'x' + kind if named else 'gpu'}"]
    size = [f"{deployment.cpus or CPUS}cpu", f"{deployment.memory_gb or MEMORY_GB}gb"]
    return f"{deployment.nodes}x{':'.join([*(gpus if deployment.gpus else []), *size])}"


def _worker(deployment: Deployment, env: Mapping[str, str]) -> Mapping[str, Any]:
    memory = f"{deployment.memory_gb or MEMORY_GB}Gi"
    gpus = {GPU: f"{deployment.gpus}"} if deployment.gpus else {}
    container = {
        **_container("ray-worker", deployment),
        **_environment(deployment, env),
        "resources": Note(
            "CPU without a limit: decoding is throttled to a crawl by one.",
            {
                "requests": Inline({"cpu": f"{deployment.cpus or CPUS}", "memory": memory, **gpus}),
                "limits": Inline({"memory": memory, **gpus}),
            },
        ),
        **_mounts(),
    }
    selector = {f"{GPU}.product": deployment.gpu_kind} if deployment.gpu_kind else {}
    return {
        **_pod(deployment),
        **({"nodeSelector": Inline(selector)} if selector else {}),
        "terminationGracePeriodSeconds": Note(
            "A unit in hand is finished and published before the machine goes.", 120
        ),
        "containers": [container],
        **_volumes(deployment.memory_gb or MEMORY_GB),
    }


def _pod(deployment: Deployment) -> Mapping[str, Any]:
    return {
        "serviceAccountName": deployment.identity or IDENTITY,
        "securityContext": Inline({"runAsNonRoot": True, "runAsUser": 1000}),
    }


def _container(name: str, deployment: Deployment) -> Mapping[str, Any]:
    return {
        "name": name,
        "image": deployment.image or IMAGE,
        "securityContext": Inline(
            {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        ),
    }


def _environment(deployment: Deployment, env: Mapping[str, str]) -> Mapping[str, Any]:
    """Variables, and Secrets whose keys become variables."""
    found: dict[str, Any] = {}
    if env:
        found["env"] = [Inline({"name": name, "value": value}) for name, value in env.items()]
    if deployment.secrets:
        found["envFrom"] = [Inline({"secretRef": {"name": name}}) for name in deployment.secrets]
    return found


def _mounts() -> Mapping[str, Any]:
    mount = Inline({"name": "shm", "mountPath": "/dev/shm"})
    return {
        "volumeMounts": [
            Note("Ray's object store; the default of 64 MiB would push frames to disk.", mount)
        ]
    }


def _volumes(memory_gb: int) -> Mapping[str, Any]:
    size = f"{max(1, int(SHARED_MEMORY * memory_gb))}Gi"
    return {
        "volumes": [{"name": "shm", "emptyDir": Inline({"medium": "Memory", "sizeLimit": size})}]
    }


POLICY: Mapping[str, Any] = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "affuse-ray"},
    "spec": {
        "podSelector": {"matchLabels": Inline({"ray.io/is-ray-node": "yes"})},
        "policyTypes": Inline(["Ingress"]),
        "ingress": [
            {
                "from": [
                    Note(
                        "Pods of this namespace (the cluster and its submitter) and the operator.",
                        {"podSelector": {}},
                    ),
                    {
                        "namespaceSelector": {},
                        "podSelector": {
                            "matchLabels": Inline({"app.kubernetes.io/name": "kuberay-operator"})
                        },
                    },
                ]
            }
        ],
    },
}
