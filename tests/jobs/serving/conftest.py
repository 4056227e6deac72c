"""A served application with hands of this process."""

import threading
from contextlib import contextmanager

import pytest
from starlette.testclient import TestClient

from jobs.serving.app import guarded
from jobs.serving.desk import Desk
from jobs.serving.facts import facts_of
from jobs.serving.guard import LOOPBACK, Rules
from jobs.serving.judge import open_judge

MINE = "http://127.0.0.1:8700"


class Here:
    """A hand that works in the thread of the desk."""

    def __init__(self, start):
        self.start, self.judge = start, None
        self.gate = threading.Event()
        self.gate.set()

    @property
    def ready(self):
        return self.judge is not None

    def warm(self):
        self.judge = self.judge or self.start()

    def answer(self, order, report):
        self.gate.wait(30)
        return self.judge.answer(order, report)

    def close(self):
        self.gate.set()


@pytest.fixture(scope="module")
def toy_bundle(toys, tmp_path_factory):
    root = tmp_path_factory.mktemp("bundle")
    toys.bundle.write_bundle(root)
    return str(root / "bundles" / "b")


@pytest.fixture(scope="module")
def toy_judge(toy_bundle):
    return open_judge(toy_bundle, "", None, 60.0)


@pytest.fixture
def serve(toy_bundle, toy_judge, tmp_path):
    """Opens a client of an application; its rooms lie under tmp_path."""

    @contextmanager
    def opened(*, queue=64, keep_s=300.0, base=MINE, **rules):
        hand = Here(lambda: toy_judge)  # one: the decoder of a process is for one thread
        desk = Desk([hand], queue=queue, keep_s=keep_s, folder=str(tmp_path))
        rules = Rules(**{"names": LOOPBACK, "per_minute": 10**6, **rules})
        app = guarded(desk, rules, facts_of(toy_bundle, "", 1.0, 60.0, keep_s))
        with TestClient(app, base_url=base, follow_redirects=False) as client:
            client.desk, client.hand = desk, hand
            yield client

    return opened
