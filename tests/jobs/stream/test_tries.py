"""A unit that kills its worker each time is begun no more; who dies with a machine was not killed by it."""

import json
import pickle

import pytest
import ray
from ray.experimental import internal_kv

from jobs.stream.tries import MOST_DEATHS, Tries


@pytest.fixture
def store(monkeypatch):
    """A stand-in for the cluster's key-value store, and the machines that are alive."""
    kept, alive = {}, {"here", "there"}
    monkeypatch.setattr(internal_kv, "_internal_kv_get", kept.get)
    monkeypatch.setattr(internal_kv, "_internal_kv_put", kept.__setitem__)
    monkeypatch.setattr(internal_kv, "_internal_kv_del", lambda key: kept.pop(key, None))
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": node, "Alive": True} for node in alive])
    context = type("Context", (), {"get_node_id": lambda self: "here"})
    monkeypatch.setattr(ray, "get_runtime_context", context)
    return kept, alive


def died(tries, count, unit="u1"):
    """Workers that begin a unit, and never come to its end."""
    return [tries.begin("encoding", unit) for _ in range(count)]


def test_a_unit_is_begun_again_until_it_has_killed_too_many(store):
    *begun, last = died(Tries(), MOST_DEATHS + 1)
    assert begun == [None] * MOST_DEATHS
    assert last is not None
    assert str(last) == "encoding killed its process 3 times"


def test_whoever_came_to_the_end_did_not_die_of_it(store):
    tries = Tries()
    for _ in range(3 * MOST_DEATHS):
        assert died(tries, MOST_DEATHS - 1) == [None] * (MOST_DEATHS - 1)
        tries.end("encoding", "u1")
    assert not store[0]


def test_deaths_of_machines_are_not_those_of_the_unit(store):
    _, alive = store
    tries = Tries()
    for _ in range(10):
        died(tries, MOST_DEATHS)
        alive.clear()
        alive.add("there")
        assert tries.begin("encoding", "u1") is None
        alive.add("here")


def test_stages_units_and_streams_are_told_apart(store):
    tries, other = Tries(), Tries()
    died(tries, MOST_DEATHS)
    assert tries.begin("decoding", "u1") is None
    assert tries.begin("encoding", "u2") is None
    assert other.begin("encoding", "u1") is None
    assert pickle.loads(pickle.dumps(tries)).begin("encoding", "u1") is not None


def test_a_line_in_the_store_is_small_and_names_only_machines(store):
    died(Tries(), 2)
    (line,) = store[0].values()
    assert json.loads(line) == ["here", "here"]


def test_a_store_that_does_not_answer_holds_nothing_up(store, monkeypatch):
    def away(*_, **__):
        raise ray.exceptions.RpcError("away", 14)

    for name in ("get", "put", "del"):
        monkeypatch.setattr(internal_kv, f"_internal_kv_{name}", away)
    tries = Tries()
    assert died(tries, 2 * MOST_DEATHS) == [None] * (2 * MOST_DEATHS)
    tries.end("encoding", "u1")
    tries.forget()
