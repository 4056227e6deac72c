"""What a cluster may become is read off its autoscaler or said by the user, and asked for during a job."""

import sys
import time
from types import SimpleNamespace

import pytest
import ray
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cluster import growth
from cluster.errors import ConfigError, PlanError
from cluster.nodes import parse_nodes
from cluster.resources import WorkersConfig, plan_stream
from cluster.session import Capacity

SMALL = {"minilm": 0.2, "whisper": 0.5}
AWS = {
    "max_workers": 8,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 4}},
        "cpu": {"resources": {"CPU": 32, "memory": 64e9}, "max_workers": 6},
        "gpu": {"resources": {"CPU": 16, "GPU": 1}, "max_workers": 5},
    },
}


def node(**resources):
    return {"NodeID": f"n{id(resources)}", "Alive": True, "Resources": resources}


@pytest.fixture
def cluster(monkeypatch):
    """Nodes that Ray shows, and what the autoscaler may start."""
    shown = SimpleNamespace(nodes=[node(CPU=0.0)], bounds=[])
    monkeypatch.setattr(ray, "nodes", lambda: shown.nodes)
    monkeypatch.setattr(growth, "autoscaler_bounds", lambda: shown.bounds)
    return shown


class TestWhatItMayBecome:
    def test_a_head_without_cpus_and_no_machine_yet_is_planned_by_its_bounds(self, cluster):
        cluster.bounds = parse_nodes("3x2cpu")
        capacity = growth.planned_capacity(None)
        assert (capacity.cpus, capacity.nodes, capacity.elastic) == (6, 3, True)
        assert [dict(bundle) for bundle in capacity.wanted] == [{"CPU": 2}] * 3
        plan = plan_stream(SMALL, capacity)
        assert (plan.decode.workers, plan.encode.workers, plan.elastic) == (6, 6, True)

    def test_machines_that_are_there_are_among_those_that_may_come(self, cluster):
        cluster.nodes += [node(CPU=2.0, memory=4e9, object_store_memory=1e9)] * 2
        cluster.bounds = parse_nodes("3x2cpu")
        assert growth.planned_capacity(None).cpus == 6

    def test_machines_of_another_kind_come_on_top(self, cluster):
        cluster.nodes += [node(CPU=8.0)]
        cluster.bounds = parse_nodes("2xL4:16cpu")
        capacity = growth.planned_capacity(None)
        assert (capacity.cpus, capacity.gpus, capacity.node_cpus) == (40, 2, 8)

    def test_what_is_all_there_is_asked_of_nobody(self, cluster):
        cluster.nodes += [node(CPU=2.0)] * 3
        capacity = growth.planned_capacity(None)
        assert (capacity.cpus, capacity.elastic, capacity.wanted) == (6, True, ())

    def test_one_machine_is_planned_as_this_machine_would_be(self, cluster):
        cluster.nodes = [node(CPU=2.0, memory=8e9)]
        capacity = growth.planned_capacity(None)
        assert not capacity.elastic
        assert plan_stream(SMALL, capacity).encode.cpus_each == 0

    def test_a_number_means_machines_like_the_largest(self, cluster):
        cluster.nodes += [node(CPU=2.0), node(CPU=16.0, GPU=1.0, **{"accelerator_type:L4": 1.0})]
        capacity = growth.planned_capacity("10")
        assert (capacity.cpus, capacity.gpus, capacity.gpu_memory_gb) == (160, 10, 24)

    def test_a_number_of_unknown_machines_is_refused_with_what_to_type(self, cluster):
        with pytest.raises(ConfigError, match=r"of what shape\? .* --workers.nodes 4x16cpu"):
            growth.planned_capacity("4")

    def test_nothing_at_all_is_refused_with_what_to_type(self, cluster):
        with pytest.raises(PlanError, match=r"there are 0; .*--workers.nodes 8x16cpu"):
            plan_stream(SMALL, growth.planned_capacity(None))

    def test_the_words_are_checked_before_anything_starts(self):
        with pytest.raises(ConfigError, match="does not say its CPUs"):
            WorkersConfig(nodes="8xL4")
        for nodes in ("0", "1000000000"):
            with pytest.raises(ConfigError, match=f"{nodes} machines; expected 1 to 100000"):
                WorkersConfig(nodes=nodes)


class TestBounds:
    def test_a_variable_of_the_head_says_them_where_ray_does_not_know(self, monkeypatch):
        monkeypatch.setenv(growth.NODES_VARIABLE, "8x2xL4:14cpu:56gb")
        (nodes,) = growth.autoscaler_bounds()
        assert (nodes.count, nodes.gpus, nodes.cpus) == (8, 2, 14)

    def test_they_are_read_from_the_file_of_the_cluster_launcher(self, tmp_path):
        file = tmp_path / "cluster.yaml"
        file.write_text(yaml.safe_dump(AWS))
        assert growth.shapes_of_file(file) == [
            ({"CPU": 16, "GPU": 1}, 5),
            ({"CPU": 32, "memory": 64e9}, 3),  # 8 in all
        ]

    @pytest.mark.parametrize(
        "text", ["", "[]", "{", "max_workers: many", "available_node_types: 3"]
    )
    def test_a_file_that_says_nothing_bounds_nothing(self, tmp_path, text):
        file = tmp_path / "cluster.yaml"
        file.write_text(text)
        assert growth.shapes_of_file(file) == []
        assert growth.shapes_of_file(tmp_path / "absent.yaml") == []


@given(
    nodes=st.integers(1, 200),
    cpus=st.integers(1, 256),
    gpus=st.integers(0, 8),
    asked=st.builds(WorkersConfig, actors=st.none() | st.integers(1, 5), threads=st.none()),
)
def test_workers_of_an_elastic_plan_fit_the_machines_in_any_proportion(nodes, cpus, gpus, asked):
    shape = f"{nodes}x{cpus}cpu" + (f":{gpus}xL4" if gpus else "")
    try:
        plan = plan_stream(SMALL, growth.capacity_of(parse_nodes(shape)), asked)
    except PlanError:  # GPUs without a CPU each
        assert gpus >= cpus or nodes * cpus < 6
        return
    assert plan.elastic
    held = sum(stage.workers * stage.cpus_each for stage in (plan.decode, plan.encode))
    assert held <= nodes * cpus + 1e-9
    assert plan.encode.threads_each <= cpus
    if not plan.on_gpu:
        assert plan.encode.cpus_each != plan.decode.cpus_each
        # A core holds one of each, on a machine of any size.
        assert plan.encode.cpus_each + plan.decode.cpus_each == pytest.approx(1)


class TestAskingForMachines:
    @pytest.fixture
    def asked(self, monkeypatch):
        requests = []
        sdk = SimpleNamespace(request_resources=lambda bundles: requests.append(bundles))
        monkeypatch.setitem(sys.modules, "ray.autoscaler.sdk", sdk)
        monkeypatch.setattr(growth, "RENEW_S", 0.01)
        return requests

    def test_they_are_asked_for_again_and_again_and_let_go_of_in_the_end(self, asked):
        wanted = growth.capacity_of(parse_nodes("2x16cpu:T4"))
        with growth.requested(wanted):
            while len(asked) < 3:
                time.sleep(0.01)
        assert asked[0] == asked[2] == [{"CPU": 16, "GPU": 1}] * 2
        assert asked[-1] == []

    def test_they_are_let_go_of_when_the_job_fails(self, asked):
        with (
            pytest.raises(ZeroDivisionError),
            growth.requested(growth.capacity_of(parse_nodes("1x16cpu"))),
        ):
            raise ZeroDivisionError
        assert asked[-1] == []

    def test_a_machine_that_is_all_there_is_asks_for_nothing(self, asked):
        with growth.requested(Capacity(cpus=2, gpus=0, memory_gb=8, object_store_gb=2)):
            pass
        assert asked == []

    def test_a_head_that_is_away_does_not_end_the_job(self, asked, monkeypatch):
        def away(bundles):
            asked.append(bundles)
            raise ray.exceptions.RpcError("away", 14)

        monkeypatch.setattr(sys.modules["ray.autoscaler.sdk"], "request_resources", away)
        with growth.requested(growth.capacity_of(parse_nodes("1x16cpu"))):
            while len(asked) < 2:
                time.sleep(0.01)
