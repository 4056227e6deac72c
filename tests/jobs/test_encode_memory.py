"""Workers that Ray's memory monitor ends: what they had in hand is done again, and every clip has its row."""

import sys
from pathlib import Path

import pytest

from cluster.health import watched
from cluster.session import SessionConfig, memory_available_gb, ray_session
from jobs.__main__ import run
from jobs.catalog.features import read_features, resolve_features

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/meminfo"),
]

RAY_GB, CLIP_GB, UNIT = 2.5, 1.2, 8
"""What Ray and its workers may take, what a clip takes while its batch lasts, clips of a unit.
There is room for Ray and half a unit: a clip fits where others take some GB meanwhile, and a unit does not
where they give some back."""


@pytest.fixture
def corpus(toys, monkeypatch):
    """A Ray that ends workers as soon as what is free now falls by `RAY_GB` and half a unit."""
    free_gb, total_gb = memory_available_gb(), _total_gb()
    if free_gb < RAY_GB + UNIT * CLIP_GB:
        pytest.skip(f"{free_gb:.1f} GB of memory are free; expected {RAY_GB + UNIT * CLIP_GB:.1f}")
    most_gb = total_gb - free_gb + RAY_GB + UNIT / 2 * CLIP_GB
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{most_gb / total_gb:.4f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "1000")
    with ray_session(SessionConfig(num_cpus=2, num_gpus=0, object_store_gb=0.2)):
        yield toys.corpus


def test_workers_that_ray_ends_for_memory_cost_no_clip(corpus, tmp_path):
    texts = [f"HOARD {CLIP_GB}" if UNIT <= k < 2 * UNIT else f"clip {k}" for k in range(4 * UNIT)]
    corpus.write_corpus(tmp_path, len(texts), texts=texts, unit_size=UNIT)
    words = ["encode", "--root", str(tmp_path), "--encoders", "toy_text", "--no-tracking"]
    words += ["--session.num-cpus", "2", "--session.num-gpus", "0", "--workers.actors", "1"]
    with watched() as watch:
        assert run([*words, "--workers.gpus-per-actor", "0"]) == 0
    assert watch.health.evicted > 0
    table = read_features(str(tmp_path), resolve_features(str(tmp_path), "toy_text"))
    found = dict(zip(table["clip_id"].to_pylist(), table["status"].to_pylist(), strict=True))
    assert found == dict.fromkeys(range(len(texts)), "ok")
    assert table.num_rows == len(texts)


def _total_gb():
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemTotal")) * 1024 / 1e9
