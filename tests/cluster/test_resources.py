"""The plan of a stream fits, or is refused in one line that says what would."""

from dataclasses import replace

import pytest

from cluster.errors import PlanError
from cluster.resources import WorkersConfig, plan_stream
from cluster.session import Capacity, SessionConfig, local_capacity

LAPTOP = Capacity(cpus=2, gpus=0, memory_gb=8, object_store_gb=2)
SERVER = Capacity(cpus=16, gpus=2, memory_gb=128, object_store_gb=30)
SMALL = {"minilm": 0.2, "whisper": 0.5}


class TestCpuMachine:
    def test_one_actor_per_cpu_reserves_none_and_decoding_may_use_all(self):
        plan = plan_stream(SMALL, LAPTOP)
        assert (plan.encode.workers, plan.encode.cpus_each, plan.encode.threads_each) == (2, 0, 1)
        assert (plan.decode.workers, plan.decode.cpus_each) == (2, 1)
        assert plan.passes == (("minilm", "whisper"),)

    def test_fewer_actors_get_more_threads(self):
        large = Capacity(cpus=8, gpus=0, memory_gb=64, object_store_gb=2)
        assert plan_stream(SMALL, large, WorkersConfig(actors=2)).encode.threads_each == 4

    def test_more_actors_than_cpus_are_refused_with_what_to_type(self):
        with pytest.raises(PlanError, match=r"8 encoder actors .* 8 CPUs; there are 2; .*actors 2"):
            plan_stream(SMALL, LAPTOP, WorkersConfig(actors=8))

    def test_fewer_decode_tasks_are_taken_as_asked_and_more_than_cpus_refused(self):
        plan = plan_stream(SMALL, LAPTOP, WorkersConfig(decoders=1))
        assert (plan.decode.workers, plan.decode.reason) == (1, "as asked")
        with pytest.raises(PlanError, match=r"5 decode tasks .* 2 are free .*decoders 2"):
            plan_stream(SMALL, LAPTOP, WorkersConfig(decoders=5))

    def test_threads_count_against_the_cpus(self):
        with pytest.raises(PlanError, match=r"2 threads need 4 CPUs; there are 2; .*actors 1"):
            plan_stream(SMALL, LAPTOP, WorkersConfig(actors=2, threads=2))

    def test_scarce_memory_means_fewer_actors_and_says_why(self):
        many = Capacity(cpus=8, gpus=0, memory_gb=12, object_store_gb=2)
        plan = plan_stream({"a": 1.0, "b": 0.5}, many)
        assert 1 <= plan.encode.workers < 8
        assert "GB hold" in plan.encode.reason

    def test_encoders_that_do_not_fit_together_go_in_passes_said_aloud(self):
        plan = plan_stream({"a": 3.0, "b": 2.5, "c": 1.0}, LAPTOP)
        assert plan.passes == (("a", "c"), ("b",))
        assert any("2 passes" in line for line in plan.lines())

    def test_a_model_that_fits_nowhere_is_refused_by_name(self):
        with pytest.raises(PlanError, match=r"huge takes 40\.0 GB of memory"):
            plan_stream({"huge": 40.0}, LAPTOP)


class TestGpuMachine:
    def test_each_actor_holds_a_gpu_and_a_cpu_and_the_rest_decodes(self):
        plan = plan_stream(SMALL, SERVER)
        assert plan.on_gpu
        assert (plan.encode.workers, plan.encode.gpus_each, plan.encode.cpus_each) == (2, 1, 1)
        assert plan.decode.workers == 14
        assert plan.calls_per_actor == 4

    def test_decode_tasks_find_the_cpus_that_no_actor_holds(self):
        assert plan_stream(SMALL, SERVER, WorkersConfig(decoders=6)).decode.workers == 6
        with pytest.raises(PlanError, match=r"15 decode tasks .* 14 are free"):
            plan_stream(SMALL, SERVER, WorkersConfig(decoders=15))

    def test_a_share_of_a_gpu_packs_several_actors(self):
        plan = plan_stream(SMALL, SERVER, WorkersConfig(gpus_per_actor=0.25))
        assert plan.encode.workers == 8

    def test_too_few_cpus_to_decode_are_refused(self):
        one = Capacity(cpus=1, gpus=1, memory_gb=8, object_store_gb=2)
        with pytest.raises(PlanError, match=r"1 GPU actors need 1 GPUs and 2 CPUs"):
            plan_stream(SMALL, one)

    @pytest.mark.parametrize("local", [True, False])
    @pytest.mark.parametrize("actors", [None, 1, 2])
    @pytest.mark.parametrize("share", [None, 0.5, 1.0])
    def test_one_cpu_is_told_to_leave_the_gpu_alone_or_to_be_counted_twice(
        self, local, actors, share
    ):
        one = Capacity(
            cpus=1, gpus=1, memory_gb=8, object_store_gb=2, node_cpus=None if local else 1.0
        )
        asked = WorkersConfig(actors=actors, gpus_per_actor=share)
        with pytest.raises(PlanError) as refused:
            plan_stream(SMALL, one, asked)
        assert "--workers.gpus-per-actor 0" in str(refused.value)
        assert ("--session.num-cpus 2" in str(refused.value)) == local
        assert ("ray start --num-cpus=2" in str(refused.value)) != local
        assert not plan_stream(SMALL, one, WorkersConfig(gpus_per_actor=0)).on_gpu
        assert plan_stream(SMALL, replace(one, cpus=2), WorkersConfig(gpus_per_actor=share)).on_gpu

    @pytest.mark.parametrize("cpus", [2, 3, 8])
    @pytest.mark.parametrize("gpus", [1, 2, 4])
    def test_the_number_of_actors_that_a_refusal_names_fits(self, cpus, gpus):
        has = Capacity(cpus=cpus, gpus=gpus, memory_gb=64, object_store_gb=2)
        with pytest.raises(PlanError) as refused:
            plan_stream(SMALL, has, WorkersConfig(actors=9))
        named = int(str(refused.value).rpartition("--workers.actors ")[2])
        assert plan_stream(SMALL, has, WorkersConfig(actors=named)).encode.workers == named

    def test_more_actors_than_gpus_are_refused(self):
        with pytest.raises(PlanError, match=r"3 GPU actors .*there are 2 and 16"):
            plan_stream(SMALL, SERVER, WorkersConfig(actors=3))

    def test_gpus_can_be_left_alone(self):
        assert not plan_stream(SMALL, SERVER, WorkersConfig(gpus_per_actor=0)).on_gpu

    def test_gpu_memory_decides_on_passes(self):
        assert plan_stream({"a": 10.0, "b": 8.0}, SERVER).passes == (("a",), ("b",))


def test_every_number_is_printed_with_its_reason():
    decode, encode = plan_stream(SMALL, LAPTOP).lines()
    assert decode.startswith("plan: decode 2 x (1 CPU")
    assert "one per CPU; they reserve none" in encode


def test_a_local_session_is_known_before_it_starts(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    capacity = local_capacity(SessionConfig(num_cpus=3, num_gpus=1))
    assert capacity is not None
    assert (capacity.cpus, capacity.gpus) == (3, 1)
    assert local_capacity(SessionConfig(address="10.0.0.1:6379")) is None


@pytest.mark.parametrize(
    "wrong", [{"actors": 0}, {"gpus_per_actor": 1.5}, {"threads": -1}, {"decoders": 0}]
)
def test_impossible_wishes_are_refused_where_they_are_written(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        WorkersConfig(**wrong)
