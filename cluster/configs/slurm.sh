#!/bin/bash
# Any job on a Slurm cluster: Ray starts on every node, the job runs on the first, all of it stops at the end.
#
#   sbatch cluster/configs/slurm.sh encode --root /scratch/mine --encoders hubert_base clip_vit
#
# The root lies on a file system that all nodes share, or in a bucket. This file is what
# `affuse submit --render slurm` writes; its flags `--cluster.NAME` change the lines below.
#SBATCH --job-name=affuse
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --mem=0
# Ray's ports belong to one user a node.
#SBATCH --exclusive
#SBATCH --time=24:00:00
# The same command goes on where it was stopped, so that a lost node may start the job again.
#SBATCH --requeue
#SBATCH --open-mode=append

set -euo pipefail

if [ "$#" -eq 0 ]; then
    echo "usage: sbatch $0 JOB [flags]; affuse --help lists the jobs" >&2
    exit 2
fi

# Other users reach these nodes: without a token they could run code as you. The file is readable by you
# alone, lies where every node sees it, and goes with the job.
token="$(mktemp "$HOME/.affuse-token-XXXXXXXX")"
trap 'rm -f "$token" "$token.status"' EXIT
python -c 'import secrets; print(secrets.token_hex(32))' > "$token"
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="$token"

# A node that is gone counts as gone after seconds (cluster/health.py).
export RAY_health_check_initial_delay_ms=5000
export RAY_health_check_period_ms=1000
export RAY_health_check_timeout_ms=2000
export RAY_health_check_failure_threshold=3

# Nodes of a large job start minutes apart; 30 s is the default.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600

hosts="$(scontrol show hostnames "$SLURM_JOB_NODELIST")"
head="${hosts%%$'\n'*}"

# The address is said: the job would otherwise start a Ray of its own beside the cluster. CPUs and GPUs are
# said: Ray would otherwise take the whole node, whatever Slurm gave.
# symmetric-run ends with status 1 whatever the job did, because it is still connected to the Ray that it has
# stopped. That ends the tasks of the other nodes; the job's own status is kept beside the token.
status=0
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --kill-on-bad-exit=1 \
    ray symmetric-run \
    --address "$head:6379" \
    --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus="$SLURM_CPUS_PER_TASK" \
    --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
    --dashboard-host=127.0.0.1 \
    --disable-usage-stats \
    -- env RAY_ADDRESS="$head:6379" \
    bash -c 'affuse "$@"; echo "$?" > "$RAY_AUTH_TOKEN_PATH.status"' affuse "$@" || status="$?"
if [ -s "$token.status" ]; then
    status="$(cat "$token.status")"
fi
exit "$status"
