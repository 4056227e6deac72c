"""A Slurm script: Ray starts on every node, the job runs on the first, all of it stops at the end."""

import shlex
from collections.abc import Mapping, Sequence

from cluster.health import HEALTH_CHECK
from cluster.rendering.deployment import Deployment

CPUS, HOURS = 16, 24.0


def render(deployment: Deployment, command: Sequence[str], env: Mapping[str, str]) -> str:
    """The script; a job that was named runs where sbatch is given none."""
    parts = [
        _head(command),
        _asked(deployment),
        "set -euo pipefail\n",
        _job(command),
        _exports(deployment, env),
        TOKEN,
        _health(),
        RUN,
    ]
    return "\n".join(part for part in parts if part)


def _head(command: Sequence[str]) -> str:
    usage = "sbatch FILE" if command else "sbatch cluster/configs/slurm.sh JOB [flags]"
    shown = "" if command else " encode --root /scratch/mine --encoders hubert_base clip_vit"
    typed = usage if command else usage.replace(" JOB [flags]", shown)
    return f"""#!/bin/bash
# Any job on a Slurm cluster: Ray starts on every node, the job runs on the first, all of it stops at the end.
#
#   {typed}
#
# The root lies on a file system that all nodes share, or in a bucket. This file is what
# `affuse submit --render slurm` writes; its flags `--cluster.NAME` change the lines below."""


def _asked(deployment: Deployment) -> str:
    some = 0 < deployment.min_nodes < deployment.nodes
    nodes = f"{deployment.min_nodes}-{deployment.nodes}" if some else f"{deployment.nodes}"
    kind = f"{deployment.gpu_kind}:" if deployment.gpu_kind else ""
    memory = "0" if deployment.memory_gb is None else f"{deployment.memory_gb}G"
    lines = [
        f"#SBATCH --job-name={deployment.name}",
        *([f"#SBATCH --partition={deployment.partition}"] if deployment.partition else []),
        *([f"#SBATCH --account={deployment.account}"] if deployment.account else []),
        f"#SBATCH --nodes={nodes}",
        "#SBATCH --ntasks-per-node=1",
        f"#SBATCH --cpus-per-task={deployment.cpus or CPUS}",
        *([f"#SBATCH --gpus-per-node={kind}{deployment.gpus}"] if deployment.gpus else []),
        f"#SBATCH --mem={memory}",
        "# Ray's ports belong to one user a node.",
        "#SBATCH --exclusive",
        f"#SBATCH --time={_clock(deployment.time_limit_h or HOURS)}",
        "# The same command goes on where it was stopped, so that a lost node may start the job again.",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
    ]
    return "\n".join(lines) + "\n"


def _clock(hours: float) -> str:
    minutes = max(1, round(hours * 60))
    return f"{minutes // 60:02d}:{minutes % 60:02d}:00"


def _job(command: Sequence[str]) -> str:
    if command:
        return f"""if [ "$#" -eq 0 ]; then
    set -- {shlex.join(command)}
fi
"""
    return """if [ "$#" -eq 0 ]; then
    echo "usage: sbatch $0 JOB [flags]; affuse --help lists the jobs" >&2
    exit 2
fi
"""


def _exports(deployment: Deployment, env: Mapping[str, str]) -> str:
    lines = []
    if deployment.secrets:
        lines += [
            "# Secrets stay in the environment of sbatch, which hands them on; here are their names alone.",
            f"for name in {' '.join(deployment.secrets)}; do",
            '    if [ -z "${!name:-}" ]; then',
            '        echo "$name is not set; set it in the environment of sbatch" >&2',
            "        exit 2",
            "    fi",
            "done",
            "",
        ]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in env.items()]
    return "\n".join([*lines, ""]) if lines else ""


TOKEN = """\
# Other users reach these nodes: without a token they could run code as you. The file is readable by you
# alone, lies where every node sees it, and goes with the job.
token="$(mktemp "$HOME/.affuse-token-XXXXXXXX")"
trap 'rm -f "$token" "$token.status"' EXIT
python -c 'import secrets; print(secrets.token_hex(32))' > "$token"
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="$token"
"""


def _health() -> str:
    exports = "\n".join(f"export {name}={value}" for name, value in HEALTH_CHECK.items())
    return f"# A node that is gone counts as gone after seconds (cluster/health.py).\n{exports}\n"


RUN = """\
# Nodes of a large job start minutes apart; 30 s is the default.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600

hosts="$(scontrol show hostnames "$SLURM_JOB_NODELIST")"
head="${hosts%%$'\\n'*}"

# The address is said: the job would otherwise start a Ray of its own beside the cluster. CPUs and GPUs are
# said: Ray would otherwise take the whole node, whatever Slurm gave.
# symmetric-run ends with status 1 whatever the job did, because it is still connected to the Ray that it has
# stopped. That ends the tasks of the other nodes; the job's own status is kept beside the token.
status=0
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --kill-on-bad-exit=1 \\
    ray symmetric-run \\
    --address "$head:6379" \\
    --min-nodes "$SLURM_JOB_NUM_NODES" \\
    --num-cpus="$SLURM_CPUS_PER_TASK" \\
    --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \\
    --dashboard-host=127.0.0.1 \\
    --disable-usage-stats \\
    -- env RAY_ADDRESS="$head:6379" \\
    bash -c 'affuse "$@"; echo "$?" > "$RAY_AUTH_TOKEN_PATH.status"' affuse "$@" || status="$?"
if [ -s "$token.status" ]; then
    status="$(cat "$token.status")"
fi
exit "$status"
"""
