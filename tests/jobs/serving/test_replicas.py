"""Actors of a Ray cluster do what processes of this machine do, behind the same door."""

import importlib
import tempfile
import time
from functools import partial
from pathlib import Path

import pytest
import ray
from starlette.testclient import TestClient

from cluster.errors import PlanError
from cluster.scratch import PREFIX
from cluster.session import SessionConfig, ray_session
from jobs.serving.app import guarded
from jobs.serving.desk import Desk
from jobs.serving.facts import facts_of
from jobs.serving.guard import Rules
from jobs.serving.judge import Order

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def hands(toys, toy_bundle):
    """Two actors; their temporary files lie where those of all processes do."""
    with ray_session(SessionConfig(num_cpus=2, num_gpus=0)):
        replicas = importlib.import_module("jobs.serving.replicas")
        with pytest.raises(PlanError, match="--replicas 3: each takes 1 CPU, the cluster has 2"):
            replicas.check_room(3)
        start = partial(importlib.import_module("toy_judge").start, toy_bundle)
        yield [replicas.ActorHand(start, 300.0) for _ in range(2)]


def ended(client, order):
    deadline = time.monotonic() + 400
    while order["state"] not in ("done", "refused"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
        order = client.get(f"/orders/{order['id']}").json()
    return order


def test_two_replicas_answer_as_one_process_and_one_that_dies_is_replaced(
    hands, toy_bundle, toy_judge, serve, tmp_path
):
    importlib.import_module("toy_films").write_film(tmp_path / "a.mp4", size=(320, 240))
    content = (tmp_path / "a.mp4").read_bytes()
    before = set(Path(tempfile.gettempdir()).glob(f"{PREFIX}*/*/*/*"))
    with serve() as client:
        texts = [f"no {number}" for number in range(6)]
        expected = [client.post("/predict", json={"text": text}).json() for text in texts]
        film = client.post("/predict", files={"file": ("a.mp4", content)}).json()
    desk = Desk(hands, queue=64, keep_s=300.0, folder=str(tmp_path))
    app = guarded(desk, Rules(per_minute=10**6), facts_of(toy_bundle, "", 1.0, 60.0, 300.0))
    with TestClient(app, base_url="http://127.0.0.1:8700") as client:
        asked = [client.post("/orders", json={"text": text}).json() for text in texts]
        said = [ended(client, each)["answer"] for each in asked]
        for one, other in zip(said, expected, strict=True):
            assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-6)
        assert client.get("/health").json()["ready"] == 2
        first = ended(client, client.post("/orders", files={"file": ("a.mp4", content)}).json())
        again = first["answer"]["probabilities"]
        assert again == pytest.approx(film["probabilities"], abs=1e-6)
        second = ended(client, client.post(f"/orders/{first['id']}/film").json())
        captioned = client.get(f"/orders/{second['id']}/film.mp4").content
        assert captioned[4:8] == b"ftyp"
        broken = client.post("/predict", files={"file": ("b.wav", b"RIFF1234WAVEbroken")})
        assert (broken.status_code, "b.wav" in broken.json()["error"]) == (422, True)
        died = client.post("/predict", json={"text": "die"})
        assert (died.status_code, "ended 2 workers" in died.json()["error"]) == (503, True)
        assert client.post("/predict", json={"text": "no 0"}).status_code == 200
        assert set(Path(tempfile.gettempdir()).glob(f"{PREFIX}*/*/*/*")) <= before
    assert list(tmp_path.glob(f"{PREFIX}*")) == []


def test_a_replica_that_dies_while_its_models_load_costs_no_order_and_one_that_dies_idle_is_missed(
    hands, toys, tmp_path, capfd
):
    replicas = importlib.import_module("jobs.serving.replicas")
    start = partial(importlib.import_module("toy_dying").start, str(tmp_path), 1)
    hand = replicas.ActorHand(start, 120.0)
    assert hand.answer(Order(text="well"), print) == {"text": "well"}
    assert hand.ready
    ray.kill(hand._actor)
    deadline = time.monotonic() + 60
    while hand.ready:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    hand.warm()
    assert hand.ready
    hand.close()
    assert not hand.ready
    assert len(list(tmp_path.iterdir())) == 3
    said = capfd.readouterr().err
    assert "a replica was lost while it loaded its models: " in said
    assert "a replica was lost while it had nothing to do: " in said
