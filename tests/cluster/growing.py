"""A head without CPUs whose autoscaler may start three machines: encode and score, then nothing is left.

Run by test_autoscaling on a host of its own: prints the output of the commands, the most machines that were
there, and on how many of them units were encoded.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

os.environ |= {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_FAKE_CLUSTER": "1",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_prestart_worker_first_driver": "0",  # on every machine, and all of them are this one
    "TOY_SLEEP_S": "0.1",
    # Sources are not sent: machines that share one disk would share, and clear away, one copy of them.
    "RAY_JOB_CONFIG_JSON_ENV_VAR": "{}",
}

import ray
import toy_bundle
import toy_corpus

from cluster.health import health_now

COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
ADDRESS = "127.0.0.1:7441"
MOST = 3


def autoscaler() -> dict:
    return {
        "cluster_name": "fake",
        "max_workers": 8,
        "upscaling_speed": 100.0,
        "idle_timeout_minutes": 0.3,  # less, and a busy machine lets go of what it has just started
        "auth": {},
        "head_node_type": "head",
        "provider": {
            "type": "fake_multinode",
            "gcs_address": ADDRESS,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "use_node_id_as_ip": True,
            "launch_multiple": True,
        },
        "available_node_types": {
            "head": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": {"CPU": 2, "object_store_memory": 100_000_000},
                "node_config": {},
                "min_workers": 0,
                "max_workers": MOST,
            },
        },
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        **{name: [] for name in COMMANDS},
    }


def start_head(folder: Path) -> subprocess.Popen:
    file = folder / "autoscaler.json"
    file.write_text(json.dumps(autoscaler()))
    host, port = ADDRESS.split(":")
    words = ["--head", "--block", f"--port={port}", f"--node-ip-address={host}", "--num-cpus=0"]
    words += ["--num-gpus=0", f"--autoscaling-config={file}", "--temp-dir=/tmp/ray"]
    words += ["--object-store-memory=150000000", "--include-dashboard=false"]
    log = (folder / "head.log").open("w")
    ray_command = [sys.executable, "-m", "ray.scripts.scripts", "start", *words]
    process = subprocess.Popen(ray_command, stdout=log, stderr=subprocess.STDOUT)
    while socket.socket().connect_ex((host, int(port))):
        assert process.poll() is None, (folder / "head.log").read_text()
        time.sleep(0.2)
    return process


def machines() -> int:
    return sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes())


def run(*words: str) -> int:
    """Run a command to its end; the most machines that were there meanwhile."""
    command = [sys.executable, toy_corpus.__file__, *words]
    process = subprocess.Popen(command, env=os.environ | {"RAY_ADDRESS": ADDRESS})
    most = 0
    while process.poll() is None:
        most = max(most, machines())
        time.sleep(0.3)
    assert process.returncode == 0, words
    return most


def main(folder: Path, clips: int) -> None:
    root = toy_corpus.write_corpus(folder / "root", clips)
    toy_corpus.register()
    toy_bundle.write_bundle(root)
    head = start_head(folder)
    ray.init(address=ADDRESS, log_to_driver=False)
    assert machines() == 0
    encode = ["encode", "--root", str(root), "--encoders", "toy_text", "toy_audio"]
    print("encode grew to", run(*encode, "--no-tracking"), flush=True)
    score = ["score", "--root", str(root), "--bundle", "b", "--source", "clips"]
    print("score grew to", run(*score), flush=True)
    deadline = time.monotonic() + 300
    while machines():
        assert time.monotonic() < deadline, "machines stay"
        time.sleep(0.5)
    print("ends with", machines(), "and", health_now().complaints)
    head.kill()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
