"""Three nodes encode; one is killed with all its processes, and another comes.

Run by test_node_loss on a host of its own: prints what became of the job, and whether every row is that of an
undisturbed one.
"""

import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

from cluster.health import HEALTH_CHECK

os.environ |= HEALTH_CHECK | {"RAY_AUTH_MODE": "token"}
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

import toy_corpus
from ray.cluster_utils import Cluster

from jobs.catalog.features import feature_folders, read_features
from jobs.catalog.layout import features_uri

STORE = 150_000_000


def started(root: Path, address: str, sleep_s: float) -> subprocess.Popen:
    words = ["encode", "--root", str(root), "--encoders", "toy_text", "toy_audio", "--no-tracking"]
    return subprocess.Popen(
        [sys.executable, toy_corpus.__file__, *words],
        env=os.environ | {"RAY_ADDRESS": address, "TOY_SLEEP_S": str(sleep_s)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=700)
    assert process.returncode == 0, output
    return output


def wait_for_units(root: Path, count: int, process: subprocess.Popen) -> None:
    while len(list(Path(features_uri(str(root))).glob("*/u*.parquet"))) < count:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)


def rows(root: Path) -> dict[str, list[dict]]:
    tables = {
        facts["name"]: read_features(str(root), folder).to_pylist()
        for folder, facts in feature_folders(str(root)).items()
    }
    return {name: sorted(each, key=lambda row: row["clip_id"]) for name, each in tables.items()}


def main(folder: Path, clips: int) -> None:
    for name in ("calm", "stormy"):
        toy_corpus.write_corpus(folder / name, clips)
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=2, object_store_memory=STORE) for _ in range(2)]
    print(ended(started(folder / "calm", cluster.address, 0.0)))
    process = started(folder / "stormy", cluster.address, 0.1)
    wait_for_units(folder / "stormy", clips // 8, process)
    cluster.remove_node(nodes[1], allow_graceful=False)
    print("killed")
    cluster.add_node(num_cpus=2, object_store_memory=STORE)
    print(ended(process))
    assert len(rows(folder / "calm")["toy_audio"]) == clips
    print("equal" if rows(folder / "calm") == rows(folder / "stormy") else "different")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
