"""Visitors who are slow, silent or gone, and a server that is ended while they wait."""

import asyncio
import json
import os
import shlex
import signal
import socket
import struct
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from cluster.errors import ConfigError
from jobs.serve import listen
from jobs.serving import guard
from jobs.serving.asking import STOPPED, started
from jobs.serving.guard import DoorGuard, Rules

ROOT = Path(__file__).parents[3]

SERVER = """
import sys
from functools import partial
import toy_corpus, toy_judge
from jobs import serve
from jobs.__main__ import main
from jobs.serving.hands import ProcessHand

toy_corpus.register()
bundle = sys.argv[1]
serve.hands_of = lambda config: [ProcessHand(partial(toy_judge.start, bundle), 120.0)]
sys.exit(main(["serve", "--bundle", bundle, "--port", "0"]))
"""

HEAD = (
    "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    "Content-Length: {length}\r\n\r\n"
)


@pytest.fixture
def server(toy_bundle, tmp_path):
    """A running server: its process, its port, its log, its folder of temporary files."""
    folder, log = tmp_path / "tmp", tmp_path / "log"
    folder.mkdir()
    places = [str(ROOT), os.environ["PYTHONPATH"]]
    env = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(places)}
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-W", "default", "-c", SERVER, toy_bundle],
            env=env,
            stdout=out,
            stderr=out,
        )
    deadline = time.monotonic() + 120
    while "open http" not in log.read_text() and time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    port = int(log.read_text().split("127.0.0.1:")[1].split("/")[0])
    yield process, port, log, folder
    process.kill()
    process.wait()


def visitor(port, *, path="/predict", body=b"", length=None):
    """A connection on which a request was sent, or the first part of one."""
    there = socket.create_connection(("127.0.0.1", port), timeout=60)
    head = HEAD.format(path=path, length=len(body) if length is None else length)
    there.sendall(head.encode() + body)
    return there


def told(there):
    """Status and sentence of what comes back."""
    head, _, body = there.recv(65536).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body or there.recv(65536))["error"]


def rooms(folder):
    return list(folder.glob("*/files/*"))


def wait_for(claim):
    deadline = time.monotonic() + 60
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.timeout(300)
def test_whoever_waits_when_the_server_is_ended_is_told_so(server, ending):
    process, port, log, folder = server
    silent = visitor(port, body=b'{"text": ', length=1000)
    working = visitor(port, body=b'{"text": "sleep"}')
    wait_for(lambda: len(rooms(folder)) == 2)
    waiting = visitor(port, body=b'{"text": "well"}')
    gone = visitor(port, body=b'{"text": ', length=1000)
    wait_for(lambda: len(rooms(folder)) == 4)
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone.close()
    wait_for(lambda: len(rooms(folder)) == 3)
    process.send_signal(ending)
    for each in (silent, working, waiting):
        assert told(each) == (503, "the server is being ended")
    assert process.wait(60) == 128 + ending
    time.sleep(0.5)  # what a worker has to say of its end comes after it
    assert "Traceback" not in log.read_text()
    assert log.read_text().endswith(f"\n{STOPPED}\n")  # of a server nothing goes on
    assert list(folder.iterdir()) == []


def test_a_server_that_a_benchmark_started_and_ended_says_nothing_of_that(
    toy_bundle, tmp_path, monkeypatch, capfd
):
    python = tmp_path / "python"
    words = [sys.executable, "-c", SERVER, toy_bundle]
    python.write_text(f"#!/bin/sh\necho something else >&2\nexec {shlex.join(words)}\n")
    python.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]]))
    monkeypatch.setattr(sys, "executable", str(python))
    with started([]) as (client, _):
        assert client.ask("GET", "/health")["ready"] == 1
    assert capfd.readouterr().err == "something else\n"


def test_no_worker_is_started_for_an_order_whose_worker_the_end_took(toy_bundle, monkeypatch):
    from jobs.serving.hands import ProcessHand
    from jobs.serving.judge import Order
    from jobs.serving.refusal import RefusalError

    hand = ProcessHand(partial(print), 60.0)
    started = []

    def load():
        started.append(True)
        here, there = socket.socketpair()

        class Pipe:
            def send(self, order):
                hand.close()  # of another thread, while the order is on its way
                raise OSError

            def close(self):
                here.close()
                there.close()

        class Process:
            def kill(self):
                pass

            join = kill

        hand._running = Process(), Pipe()

    monkeypatch.setattr(hand, "_load", load)
    with pytest.raises(RefusalError, match="being ended"):
        hand.answer(Order(text="well"), print)
    assert started == [True]


class TestABody:
    """Driven by hand: what a server hands on of a body, message by message, with pauses [s]."""

    def asked(self, monkeypatch, pauses, *, patience_s=0.2, rate=1000, size=10):
        monkeypatch.setattr(guard, "PATIENCE_S", patience_s)
        monkeypatch.setattr(guard, "SLOWEST_RATE", rate)
        said, messages = [], iter(pauses)

        async def app(scope, receive, send):
            while (await receive()).get("more_body"):
                pass
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def receive():
            pause = next(messages)
            if pause is None:
                return {"type": "http.disconnect"}
            await asyncio.sleep(pause)
            more = len(said) == 0 and messages.__length_hint__() > 0
            return {"type": "http.request", "body": b"x" * size, "more_body": more}

        async def send(message):
            said.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/predict",
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 1),
        }
        asyncio.run(DoorGuard(app, Rules())(scope, receive, send))
        return said[0]["status"]

    @pytest.mark.parametrize(
        ("pauses", "status"),
        [
            ([0, 0, 0], 200),
            ([0, 0.1, 0.1], 200),
            ([0, 60], 408),
            ([60], 408),
            ([0.05] * 20, 408),  # never silent, and slower than the slowest
            ([0, None], 499),
            ([None], 499),
        ],
    )
    def test_that_is_silent_too_slow_or_broken_off_is_not_waited_for(
        self, monkeypatch, pauses, status
    ):
        begun = time.monotonic()
        assert self.asked(monkeypatch, pauses) == status
        assert time.monotonic() - begun < 30

    def test_of_a_slow_line_may_take_long_where_it_goes_on(self, monkeypatch):
        assert self.asked(monkeypatch, [0.05] * 20, rate=100) == 200


def test_two_servers_that_begin_at_once_do_not_get_one_port():
    with listen("127.0.0.1", 0) as first:
        with pytest.raises(ConfigError, match="--port"):
            listen("127.0.0.1", first.getsockname()[1])
