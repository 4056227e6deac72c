"""The device of a process: a worker of Ray leaves the cards alone that it was not lent."""

import sys
from types import SimpleNamespace

import pytest
import torch

from cluster.devices import worker_device
from cluster.session import SessionConfig, ray_session


@pytest.fixture
def card(monkeypatch):
    """A card that torch sees."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def ray_of(mode: str, *, lent: list[int], initialised: bool = True):
    worker = SimpleNamespace(mode=mode)
    return SimpleNamespace(
        WORKER_MODE="worker",
        is_initialized=lambda: initialised,
        get_runtime_context=lambda: SimpleNamespace(worker=worker),
        get_gpu_ids=lambda: lent,
    )


@pytest.mark.parametrize(
    ("ray", "device"),
    [
        (None, "cuda"),
        (ray_of("driver", lent=[]), "cuda"),
        (ray_of("worker", lent=[], initialised=False), "cuda"),
        (ray_of("worker", lent=[3]), "cuda"),
        (ray_of("worker", lent=[]), "cpu"),
    ],
    ids=["no Ray", "driver", "no session", "lent one", "lent none"],
)
def test_a_worker_uses_the_card_that_it_was_lent_and_others_what_they_see(
    monkeypatch, card, ray, device
):
    if ray is None:
        monkeypatch.delitem(sys.modules, "ray", raising=False)
    else:
        monkeypatch.setitem(sys.modules, "ray", ray)
    assert worker_device() == device


def test_a_card_that_does_not_work_is_left_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "ray", ray_of("worker", lent=[0]))
    assert worker_device() == "cpu"


@pytest.mark.slow
def test_a_real_worker_that_was_lent_nothing_stays_on_the_cpu():
    def device() -> str:
        import torch

        torch.cuda.is_available = lambda: True
        return worker_device()

    with ray_session(SessionConfig(num_cpus=2, num_gpus=1)):
        import ray

        without, lent = (ray.remote(num_cpus=1, num_gpus=count)(device) for count in (0, 1))
        assert ray.get([without.remote(), lent.remote()], timeout=300) == ["cpu", "cuda"]
