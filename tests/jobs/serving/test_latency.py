"""What `affuse benchmark serve` sends, how it asks, and what it says of the answers."""

import io
import json
import threading
import wave
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import pytest

from cluster.errors import ConfigError, MachineError
from jobs import benchmark
from jobs.serving.asking import Client, started
from jobs.serving.latency import ServeConfig, Waited, latency_table

TOKEN = "a-token-of-24-letters-xx"


class Recorder(BaseHTTPRequestHandler):
    """A server that writes down what it is asked, and tells the first visitor to come later."""

    def do_GET(self):
        facts = {"bundle": "b", "modalities": ["text", "video"], "transcribes": True}
        self.answer(200, facts if self.path == "/emotion/facts" else {"ready": 1})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append((self.headers, body))
        if len(self.server.seen) == 1:
            self.answer(429, {"error": "wait"}, {"Retry-After": "1"})
        else:
            self.answer(200, {"seconds": 0.25})

    def answer(self, status, said, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def recorder():
    with ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        server.seen = []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_running_server_is_asked_each_kind_in_turn_and_gets_the_token(
    recorder, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("espeakng_loader", reason="the extra `demo` brings the voice")
    monkeypatch.setenv("AFFUSE_SERVE_TOKEN", TOKEN)
    out = tmp_path / "figures.json"
    url = f"{recorder.url}/emotion"
    benchmark.main(ServeConfig(url=url, clip_s=2.0, rounds=2, json=str(out)))
    figures = json.loads(out.read_text())
    printed = capsys.readouterr().out
    assert set(figures["kinds"]) == {"voice", "film", "text"}
    for name, kind in figures["kinds"].items():
        assert name in printed
        assert (kind["requests"], kind["worked_p50_s"]) == (2, 0.25)
        assert min(kind["whole_s"]) <= kind["p50_s"] <= kind["p95_s"] <= max(kind["whole_s"])
    assert {headers["authorization"] for headers, _ in recorder.seen} == {f"Bearer {TOKEN}"}
    assert TOKEN not in out.read_text() + printed
    bodies = [body for _, body in recorder.seen[1:]]  # the first was told to come later
    assert bodies == bodies[:3] * 3
    voice, film = (body.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0] for body in bodies[:2])
    with wave.open(io.BytesIO(voice)) as heard:
        assert heard.getnframes() / heard.getframerate() == pytest.approx(2.0)
    with av.open(io.BytesIO(film)) as shown:
        assert shown.duration / av.time_base == pytest.approx(2.0, abs=0.1)
        assert {stream.type for stream in shown.streams} == {"audio", "video"}
    assert set(json.loads(bodies[2])) == {"text"}


def test_the_95th_percentile_is_that_of_all_requests_but_the_first():
    waited = Waited(first_s=9.0, whole_s=[float(n) for n in range(1, 101)], worked_s=[1.0])
    figures = waited.figures()
    assert (figures["p50_s"], figures["p95_s"]) == (50.5, pytest.approx(95.05))


def test_the_table_says_machine_date_and_load():
    figures = {
        "bundle": "demo",
        "server": "started here",
        "clip_s": 5.0,
        "start_s": 9.0,
        "kinds": {"text": {"requests": 3, "p50_s": 0.1, "p95_s": 0.2, "first_s": 0.3}},
        "machine": "a processor, 2 CPUs",
        "load": [0.5, 1.5],
        "begun": "2026-01-02T03:04:05+00:00",
    }
    table = latency_table(figures)
    for each in (
        "p50 0.10 s, p95 0.20 s of 3",
        "2 CPUs; load before and after 0.5 and 1.5",
        "9.0 s",
    ):
        assert each in table
    assert "2026-01-02" in table


@pytest.mark.parametrize(
    "url", ["example.org", "file:///etc/passwd", "http://", "http://x/?token=y", "http://u:p@x"]
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match="--url"):
        Client(url, None)


def test_nobody_there_and_a_refusal_are_said(recorder):
    with pytest.raises(MachineError, match="does not answer"):
        Client("http://127.0.0.1:9", None).ask("GET", "/health")
    recorder.seen.append(None)
    recorder.RequestHandlerClass = type(
        "Refuser", (Recorder,), {"do_GET": lambda self: self.answer(401, {"error": "a token"})}
    )
    with pytest.raises(MachineError, match="401: a token"):
        Client(recorder.url, None).ask("GET", "/facts")


def test_nothing_to_measure_is_refused():
    for wrong in ({"rounds": 0}, {"clip_s": 0.5}, {"clip_s": float("nan")}):
        with pytest.raises(ConfigError, match="--rounds"):
            ServeConfig(**wrong)


@pytest.mark.slow
def test_a_server_that_cannot_start_is_said_at_once(tmp_path):
    with pytest.raises(MachineError, match="stands above"), started(["--bundle", str(tmp_path)]):
        pass
