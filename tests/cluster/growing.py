"""A head without CPUs whose autoscaler may start three machines: encode or score, then nothing is left.

The machines are those of the rendered AWS file, the commands the entry points of rendered KubeRay jobs. They
have no GPU, or one that is only counted: then the plan is that of a GPU cluster and every actor holds one,
while the toys run on the CPU.
Run by test_autoscaling on a host of its own: prints the output of the commands, the most machines that were
there, and whether all of them left.
"""

import json
import os
import secrets
import shlex
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
import yaml

from cluster.health import health_now
from cluster.rendering import Deployment, render

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


def autoscaler(gpus: int) -> dict:
    """The file of the AWS cluster with small machines, which another provider starts here."""
    file = yaml.safe_load(render("aws", Deployment(nodes=MOST, gpus=gpus, cpus=2)))
    types = {
        name: {**kind, "node_config": {}} for name, kind in file["available_node_types"].items()
    }
    types["worker"]["resources"]["object_store_memory"] = 100_000_000
    types["head"]["max_workers"] = 0
    kept = ("cluster_name", "upscaling_speed", "head_node_type")
    return {
        **{name: file[name] for name in kept},
        "available_node_types": types,
        "max_workers": MOST,
        "idle_timeout_minutes": 0.3,  # less, and a busy machine lets go of what it has just started
        "auth": {},
        "provider": {
            "type": "fake_multinode",
            "gcs_address": ADDRESS,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "use_node_id_as_ip": True,
            "launch_multiple": True,
        },
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        **{name: [] for name in COMMANDS},
    }


def start_head(folder: Path, gpus: int) -> subprocess.Popen:
    file = folder / "autoscaler.json"
    file.write_text(json.dumps(autoscaler(gpus)))
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


def entrypoint(*words: str) -> list[str]:
    """The words that KubeRay gives to a shell on the head, as the shell reads them."""
    job = next(yaml.safe_load_all(render("kuberay", Deployment(), words)))
    affuse, *read = shlex.split(job["spec"]["entrypoint"])
    assert affuse == "affuse"
    return read


def machines() -> int:
    return sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes())


def gpus_taken() -> int:
    """GPUs that actors hold."""
    there = ray.cluster_resources().get("GPU", 0)
    return round(there - ray.available_resources().get("GPU", 0))


def run(*words: str) -> str:
    """Run a command to its end; the most machines that were there meanwhile, and GPUs held at once."""
    command = [sys.executable, toy_corpus.__file__, *words]
    process = subprocess.Popen(command, env=os.environ | {"RAY_ADDRESS": ADDRESS})
    most = taken = 0
    while process.poll() is None:
        most, taken = max(most, machines()), max(taken, gpus_taken())
        time.sleep(0.3)
    assert process.returncode == 0, words
    return f"{most}, {taken} GPUs held"


def main(folder: Path, clips: int, gpus: int, job: str) -> None:
    root = toy_corpus.write_corpus(folder / "root", clips)
    toy_corpus.register()
    toy_bundle.write_bundle(root)
    head = start_head(folder, gpus)
    ray.init(address=ADDRESS, log_to_driver=False)
    assert machines() == 0
    words = {
        "encode": ["--encoders", "toy_text", "toy_audio", "--no-tracking"],
        "score": ["--bundle", "b", "--source", "clips"],
    }
    print(job, "grew to", run(*entrypoint(job, "--root", str(root), *words[job])), flush=True)
    deadline = time.monotonic() + 300
    while machines():
        assert time.monotonic() < deadline, "machines stay"
        time.sleep(0.5)
    print("ends with", machines(), "and", health_now().complaints)
    head.kill()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
