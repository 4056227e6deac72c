"""What was measured sizes the stages; what the user fixed stays, and every change has its reason."""

import dataclasses

import pytest

from cluster.resources import WorkersConfig, plan_stream
from cluster.session import Capacity
from cluster.sizing import Measured, size_stream

LAPTOP = Capacity(cpus=2, gpus=0, memory_gb=16, object_store_gb=4)
ONE_CORE = Capacity(cpus=1, gpus=0, memory_gb=8, object_store_gb=2)
SERVER = Capacity(cpus=64, gpus=0, memory_gb=512, object_store_gb=150)
GPU_SERVER = Capacity(cpus=64, gpus=8, memory_gb=512, object_store_gb=150)
ONE_GPU = Capacity(cpus=16, gpus=1, memory_gb=128, object_store_gb=38)


def measured(decode_s, encode_s, **other):
    facts = {"actor_gb": 1.0, "decoder_gb": 0.3, "unit_gb": 0.02, "clips_per_unit": 16.0}
    return Measured(decode_s=decode_s, encode_s={"voice": encode_s}, **{**facts, **other})


def sized(capacity, facts, overrides=None, models_gb=0.5):
    overrides = overrides or WorkersConfig()
    plan = plan_stream({"voice": models_gb}, capacity, overrides)
    return size_stream(plan, facts, capacity, overrides)


# capacity, decode [s], encode [s] -> decode tasks, actors, clips/s, what limits
TABLE = {
    "laptop, models": (LAPTOP, 0.1, 0.3, 2, 2, 0.9 * 2 / 0.4, "voice limits: 75% of the cores"),
    "laptop, decode": (LAPTOP, 0.9, 0.1, 2, 2, 0.9 * 2 / 1.0, "decoding limits: 90% of the cores"),
    "one core": (ONE_CORE, 0.2, 0.3, 1, 1, 0.9 / 0.5, "voice limits: 60% of the cores"),
    "64 cores, models": (SERVER, 0.1, 0.9, 64, 64, 0.9 * 64 / 1.0, "voice limits: 90%"),
    "64 cores, decode": (SERVER, 0.9, 0.1, 64, 10, 0.9 * 64 / 1.0, "decoding limits: 90%"),
    "GPU, models": (ONE_GPU, 0.1, 0.05, 4, 1, 0.9 * 20.0, "voice limits: 100% of the GPUs"),
    "GPU, decode": (ONE_GPU, 1.0, 0.01, 15, 1, 0.9 * 15.0, "decoding limits: the GPUs need 100"),
    "8 GPUs, models": (GPU_SERVER, 0.1, 0.2, 8, 8, 0.9 * 40.0, "voice limits: 100% of the GPUs"),
    "8 GPUs, decode": (GPU_SERVER, 1.0, 0.02, 62, 2, 0.9 * 62.0, "decoding limits: the GPUs need"),
}


@pytest.mark.parametrize("name", TABLE)
def test_each_case_has_its_stages_its_rate_and_its_limit(name):
    capacity, decode_s, encode_s, decoders, actors, rate, limit = TABLE[name]
    sizing = sized(capacity, measured(decode_s, encode_s))
    assert (sizing.plan.decode.workers, sizing.plan.encode.workers) == (decoders, actors)
    assert sizing.rate == pytest.approx(rate)
    assert sizing.limit.startswith(limit)


class TestOnCores:
    def test_two_cores_keep_the_rule_whatever_is_measured(self):
        for share in (0.001, 0.3, 0.999):
            sizing = sized(LAPTOP, measured(1 - share, share))
            plan = sizing.plan
            assert (plan.decode.workers, plan.encode.workers, plan.encode.threads_each) == (2, 2, 1)
            assert sizing.notes == ()

    def test_an_actor_larger_than_declared_means_fewer_with_more_threads(self):
        sizing = sized(LAPTOP, measured(0.1, 0.3, actor_gb=6.0))
        assert (sizing.plan.encode.workers, sizing.plan.encode.threads_each) == (1, 2)
        assert sizing.notes == ("encode 1 x instead of 2: memory holds 1 of 7.5 GB",)

    def test_an_actor_smaller_than_declared_lets_more_work(self):
        scarce = Capacity(cpus=8, gpus=0, memory_gb=16, object_store_gb=2)
        plan = plan_stream({"voice": 4.0}, scarce)
        assert (plan.encode.workers, plan.encode.threads_each) == (2, 4)
        sizing = sized(scarce, measured(0.1, 0.1, actor_gb=1.0), models_gb=4.0)
        assert (sizing.plan.encode.workers, sizing.plan.encode.threads_each) == (8, 1)
        assert sizing.notes[0].startswith("encode 8 x instead of 2: memory holds 8")

    def test_cheap_models_on_many_cores_get_few_actors_with_some_to_spare(self):
        sizing = sized(SERVER, measured(0.9, 0.1))
        assert sizing.notes == ("encode 10 x instead of 64: models take 10% of the cores",)
        actors_busy = sizing.rate / 0.9 * 0.1
        assert sizing.plan.encode.workers >= 1.5 * actors_busy

    def test_units_too_large_for_the_object_store_mean_fewer_decode_tasks(self):
        sizing = sized(SERVER, measured(0.5, 0.5, unit_gb=1.0))
        assert sizing.plan.decode.workers == 11  # half of 150 GB, less one for each of 64 actors
        assert sizing.notes == (
            "decode 11 x instead of 64: the object store holds units of no more",
        )
        assert sizing.limit == "decode has too few workers"


class TestBesideGpus:
    def test_twice_the_decode_tasks_that_would_do_on_average(self):
        sizing = sized(GPU_SERVER, measured(0.3, 0.1))
        assert sizing.plan.decode.workers == 48  # 24 keep 8 GPUs busy
        assert sizing.notes == ()

    def test_gpus_that_the_cpus_cannot_feed_are_left_and_their_cpus_decode(self):
        before = plan_stream({"voice": 0.5}, GPU_SERVER)
        sizing = sized(GPU_SERVER, measured(1.0, 0.02))
        assert sizing.notes == ("encode 2 x instead of 8: the CPUs decode for no more",)
        assert sizing.rate > 0.9 * before.decode.workers / 1.0

    @pytest.mark.parametrize("nodes", [1, 2, 16, 100, 128])
    def test_where_decoding_keeps_up_every_gpu_works_and_limits(self, nodes):
        many = Capacity(
            cpus=16 * nodes, gpus=nodes, memory_gb=128 * nodes, object_store_gb=38 * nodes
        )
        sizing = sized(many, measured(0.056, 0.058))
        assert sizing.plan.encode.workers == nodes
        assert sizing.limit == "voice limits: 100% of the GPUs' time"
        assert not any("decode for no more" in note for note in sizing.notes)

    def test_small_units_are_held_in_larger_numbers_to_fill_device_batches(self):
        assert sized(ONE_GPU, measured(0.1, 0.1, clips_per_unit=64)).plan.calls_per_actor == 4
        assert sized(ONE_GPU, measured(0.1, 0.1, clips_per_unit=8)).plan.calls_per_actor == 9
        assert sized(ONE_GPU, measured(0.1, 0.1, clips_per_unit=1)).plan.calls_per_actor == 16

    def test_large_units_are_held_in_smaller_numbers(self):
        sizing = sized(ONE_GPU, measured(0.3, 0.1, unit_gb=2.0))
        assert sizing.plan.calls_per_actor == 3  # 19 GB: 6 decode tasks and 3 units in hand
        assert sizing.plan.decode.workers == 6

    def test_scarce_memory_is_named_as_the_limit(self):
        small = dataclasses.replace(ONE_GPU, memory_gb=40)
        sizing = sized(small, measured(1.0, 0.05, decoder_gb=3.0))
        assert sizing.plan.decode.workers == 4
        assert sizing.limit.startswith("memory for decoding limits: the GPUs need 20 tasks")


class TestWhatTheUserFixed:
    def test_actors_stay_and_what_speaks_against_them_is_said(self):
        overrides = WorkersConfig(actors=2)
        sizing = sized(LAPTOP, measured(0.1, 0.3, actor_gb=6.0), overrides)
        assert sizing.plan.encode.workers == 2
        assert sizing.notes[0] == "encode 2 x as asked, though memory holds 1"
        assert sized(SERVER, measured(0.9, 0.1), overrides).plan.encode.workers == 2

    def test_gpu_actors_decode_tasks_and_units_in_hand_stay(self):
        overrides = WorkersConfig(actors=8, decoders=5, calls_per_actor=2)
        plan = sized(GPU_SERVER, measured(1.0, 0.02, clips_per_unit=4), overrides).plan
        assert (plan.encode.workers, plan.decode.workers, plan.calls_per_actor) == (8, 5, 2)

    def test_decode_tasks_stay_though_memory_is_short(self):
        small = dataclasses.replace(ONE_GPU, memory_gb=40)
        sizing = sized(small, measured(1.0, 0.05, decoder_gb=3.0), WorkersConfig(decoders=15))
        assert sizing.plan.decode.workers == 15
        assert sizing.notes == ("decode 15 x as asked, though memory holds 4",)

    def test_threads_stay(self):
        overrides = WorkersConfig(threads=1)
        sizing = sized(LAPTOP, measured(0.1, 0.3, actor_gb=6.0), overrides)
        assert (sizing.plan.encode.workers, sizing.plan.encode.threads_each) == (1, 1)


def test_models_and_decoding_that_take_no_time_divide_by_nothing():
    for capacity in (LAPTOP, GPU_SERVER):
        assert sized(capacity, measured(0.0, 0.01)).rate > 0
        assert sized(capacity, measured(0.01, 0.0)).rate > 0
        sized(capacity, measured(0.0, 0.0))
