"""A machine that is gone is noticed soon, and what goes wrong in Ray is counted."""

import http.server
import os
import signal
import threading
from pathlib import Path

import pytest
import ray

from cluster.health import HEALTH_CHECK, Health, health_now, watched
from cluster.session import SessionConfig, ray_session

METRICS = """\
# TYPE ray_unintentional_worker_failures_total counter
ray_unintentional_worker_failures_total{Component="gcs_server",Version="2.60.0"} 2.0
ray_object_store_memory{Location="MMAP_SHM",ObjectState="SEALED"} 3e+08
ray_object_store_memory{Location="MMAP_SHM",ObjectState="UNSEALED"} 1e+08
ray_object_store_memory{Location="SPILLED",ObjectState=""} 2.5e+07
ray_object_store_memory{Location="WORKER_HEAP",ObjectState=""} 9e+09
ray_memory_manager_worker_eviction_total{Type="MemoryManager.TaskEviction.Total"} 5.0
ray_memory_manager_worker_eviction_total_created{Type="x"} 1.7e+09
"""


def test_a_machine_whose_packets_vanish_is_given_up_within_ten_seconds():
    period, limit = (
        int(HEALTH_CHECK[f"RAY_health_check_{name}_ms"]) for name in ("period", "timeout")
    )
    failures = int(HEALTH_CHECK["RAY_health_check_failure_threshold"])
    assert failures * (period + limit) <= 10_000
    assert limit >= 2000  # a busy machine answers late


@pytest.mark.parametrize("name", HEALTH_CHECK)
def test_ray_knows_the_setting(name):
    from ray import _raylet

    known = Path(_raylet.__file__).read_bytes()
    assert name.removeprefix("RAY_").encode() in known


@pytest.fixture
def agent():
    """The port of an agent that offers METRICS."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(METRICS.encode())

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_counters_are_summed_over_machines_and_one_that_is_silent_counts_nothing(
    agent, monkeypatch
):
    def node(port, alive=True, reason=0):
        where = {"NodeManagerAddress": "127.0.0.1", "MetricsExportPort": port}
        return {"Alive": alive, "DeathReason": reason, **where}

    nodes = [node(agent), node(agent), node(1), node(1, False, 2), node(1, False, 4)]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    health = health_now()
    expected = Health(evicted=10, died=4, dead_machines=1, store_peak_gb=0.8, spilled_gb=0.05)
    assert health == expected
    assert len(health.complaints) == 4
    assert health.since(health).complaints == ["0.05 GB of objects went to disk"]


def test_what_is_gone_with_its_machine_is_not_counted_against_it():
    before = Health(evicted=3, died=2)
    assert Health(died=1).since(before) == Health()


@pytest.mark.ray
@pytest.mark.slow
def test_a_worker_that_dies_is_counted_and_one_that_is_ended_is_not(monkeypatch):
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "500")
    with ray_session(SessionConfig(num_cpus=1, num_gpus=0)):

        @ray.remote
        class Worker:
            def die(self):
                os.kill(os.getpid(), signal.SIGKILL)

            def live(self):
                return True

        with watched() as calm:
            worker = Worker.remote()
            assert ray.get(worker.live.remote())
            ray.kill(worker)
        assert calm.health.complaints == []
        with watched() as watch:
            with pytest.raises(ray.exceptions.RayActorError):
                ray.get(Worker.remote().die.remote())
        assert watch.health.complaints == ["1 workers died by themselves"]
