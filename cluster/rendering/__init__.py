"""Cluster files from one description: a Slurm script, a KubeRay job, a file of Ray's cluster launcher.

`render` is called by `affuse submit --render`; `cluster/configs/` holds what it gives for the defaults.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from cluster.rendering import aws, kuberay, slurm
from cluster.rendering.deployment import (
    Deployment,
    Target,
    check_command,
    check_environment,
    check_schedule,
    is_secret,
)

__all__ = ["EXAMPLE", "Deployment", "Target", "is_secret", "remarks", "render"]

EXAMPLE = ("encode", "--root", "s3://BUCKET/mine", "--encoders", "hubert_base", "clip_vit")
"""Job of a file for which none was named, with a place to fill in."""


def render(
    target: Target,
    deployment: Deployment,
    command: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    *,
    schedule: str | None = None,
) -> str:
    """The finished file for one kind of cluster.

    Args:
        target: kind of cluster.
        deployment: its machines.
        command: job with its flags; by default an example, and in a Slurm script none.
        env: further environment of the job, without secrets.
        schedule: a line of cron (UTC), for a KubeRay job that runs again and again.

    Raises:
        ConfigError: a field that the target does not have, a name that it would not take, or a secret.
    """
    deployment.check(target)
    if schedule is not None:
        check_schedule(schedule, target, deployment.name)
    env = dict(env or {})
    check_environment(env)
    check_command(command)
    if target == "slurm":
        return slurm.render(deployment, command, env)
    if target == "kuberay":
        return kuberay.render(deployment, command or EXAMPLE, env, schedule)
    return aws.render(deployment, command or EXAMPLE, env)


def remarks(text: str) -> Iterator[str]:
    """What is left to do in a finished file: places to fill in, images that a tag may move."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    left = sorted(set(re.findall(r"\b(?:ACCOUNT|BUCKET|REGISTRY)\b", "\n".join(lines))))
    if left:
        yield f"fill in {', '.join(left)}"
    images = (re.search(r"^\s*(?:- )?image: (\S+)$", line) for line in lines)
    for image in sorted({found[1] for found in images if found and "@sha256:" not in found[1]}):
        yield (
            f"image {image} is named by a tag, which may mean another image tomorrow; type: "
            "--cluster.image NAME@sha256:DIGEST"
        )
